"""Writes the golden files anew."""

from dashboards import bundle
from tests.dashboards.golden import FOLDER, TARGET

for name, text in bundle.dashboards(TARGET).items():
    (FOLDER / name).write_text(f"{text}\n")
