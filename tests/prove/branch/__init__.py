"""One branch of the project's program, to measure it alone; `tests.prove.preview_weight` deploys it."""
