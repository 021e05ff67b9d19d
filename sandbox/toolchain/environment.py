"""`python3 -m sandbox.toolchain.environment`: the checkout's virtual environment with everything pinned.

Runs under the user's own Python, before there is any package: standard library only.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

from sandbox.toolchain.progress import elapsed, say

_CHECKOUT = Path(__file__).parents[2]
_ENVIRONMENT = _CHECKOUT / ".venv"
_REQUIREMENTS = ("requirements-dev.txt", "constraints.txt")


def main() -> int:
    """Makes or updates `.venv`; the exit status is pip's, which has told what is wrong."""
    requirements, constraints = (str(_CHECKOUT / name) for name in _REQUIREMENTS)
    install = ["install", "--quiet", "--disable-pip-version-check", "-r", requirements, "-c", constraints]
    with elapsed(say, "installing the Python packages into .venv"):
        venv.create(_ENVIRONMENT, with_pip=True, symlinks=True)
        return subprocess.run(
            [_ENVIRONMENT / "bin" / "python", "-m", "pip", *install], check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
