"""Tests of the sandbox's own commands and files."""
