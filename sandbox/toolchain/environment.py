"""`python3 -m sandbox.toolchain.environment`: the checkout's virtual environment with everything pinned.

Runs under the user's own Python, before there is any package: standard library only.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path

from sandbox.toolchain.progress import elapsed, say

_CHECKOUT = Path(__file__).parents[2]
_ENVIRONMENT = _CHECKOUT / ".venv"
_UNFINISHED = _ENVIRONMENT / ".unfinished"
"""There while packages are installed. One that a stopped run left makes the next run begin anew: pip takes a
package for installed once its metadata are there, be it without its commands."""
_REQUIREMENTS = ("requirements-dev.txt", "constraints.txt")

# pip tells of Ctrl-C in a line, but while it still loads its modules by a traceback.
_PIP = """\
import runpy, sys
try:
    runpy.run_module("pip", run_name="__main__", alter_sys=True)
except KeyboardInterrupt:
    sys.exit(130)
"""


def main() -> int:
    """Makes or updates `.venv`; the exit status is pip's, which has told what is wrong, 130 after Ctrl-C."""
    try:
        return _install()
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted: run the command again to go on\n")
        return 128 + signal.SIGINT


def _install() -> int:
    requirements, constraints = (str(_CHECKOUT / name) for name in _REQUIREMENTS)
    install = ["install", "--quiet", "--disable-pip-version-check", "-r", requirements, "-c", constraints]
    with elapsed(say, "installing the Python packages into .venv"):
        if _UNFINISHED.exists():
            _clear()
        _ENVIRONMENT.mkdir(exist_ok=True)
        _UNFINISHED.touch()
        venv.create(_ENVIRONMENT, with_pip=True, symlinks=True)
        status = subprocess.run([_ENVIRONMENT / "bin" / "python", "-c", _PIP, *install]).returncode
    if status >= 0:  # not killed: what it could not install, pip has taken back
        _UNFINISHED.unlink()
    return status


def _clear() -> None:
    """Removes what is in the environment, but for the sign that it is not finished."""
    for path in _ENVIRONMENT.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path != _UNFINISHED:
            path.unlink()


if __name__ == "__main__":
    sys.exit(main())
