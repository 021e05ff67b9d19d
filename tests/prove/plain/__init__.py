"""A program of plain resources, to weigh the project's against; `tests.prove.preview_weight` deploys it."""
