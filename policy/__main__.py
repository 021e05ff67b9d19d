"""What the engine runs for `pulumi preview --policy-pack policy`."""

from __future__ import annotations

import sys
from pathlib import Path

# Python puts this folder first, from which `components` and `policy` itself cannot be found.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from policy import pack  # noqa: E402

pack.serve()
