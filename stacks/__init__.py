"""Stacks as the Pulumi CLI knows them: configuration, outputs and state, read and never changed.

`cli.py` has the CLI and its environment, `stack.py` what it says about a stack.
"""
