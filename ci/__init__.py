"""What the workflows run: previews, updates and drift checks of a stack, and what they say on GitHub.

Every step is a make target that works in a shell of one's own, too, where there is also the way back after an
update that was killed. `report.py` is pure: what an engine did, in, Markdown, out; `pulumi.py` runs the
engine, `github.py` talks to GitHub.
"""
