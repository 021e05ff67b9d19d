"""`make doctor STACK=…`: looks for what would stop a stack, before anything is bought.

Nothing is changed. `gather.py` asks, `answers.py` has the shapes of what comes back, `checks.py` judges it
(pure), `rights.py` lists what the program's calls need, `finding.py` is what the user is told.
"""
