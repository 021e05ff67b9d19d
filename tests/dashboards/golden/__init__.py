"""The dashboards of one endpoint as they should be: a change shows as a diff of these files.

`python -m tests.dashboards.golden` writes them anew.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.dashboards.targets import PROD

FOLDER = Path(__file__).parent

TARGET = replace(PROD, runbooks="https://example.com/runbooks")
