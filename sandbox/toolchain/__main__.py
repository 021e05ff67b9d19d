"""`python -m sandbox.toolchain`: makes sure that the tools are there and says where each came from."""

from __future__ import annotations

import sys

from sandbox.toolchain import ToolchainError, ensure
from sandbox.toolchain.progress import say


def main() -> int:
    """Prints one line a tool: name, version, source, path. The exit status is 1 when a tool cannot be had."""
    try:
        toolchain = ensure(say)
    except ToolchainError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for found in toolchain.found:
        for name, path in found.binaries.items():
            say(f"{name} {found.version} ({found.source}): {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
