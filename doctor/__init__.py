"""`make doctor STACK=…`: looks for what would stop a stack, before anything is bought.

Nothing is changed. `gather.py` asks, `checks.py` judges the answers (pure), `rights.py` lists what the
program's calls need, `finding.py` is what the user is told.
"""
