"""The stand-in provider plugins, put where the Pulumi engine looks for plugins."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from sandbox.files import write_if_different
from sandbox.project import CHECKOUT

_SCRIPT = """\
#!/bin/sh
PYTHONPATH={checkout}
export PYTHONPATH
exec {python} -P -m sandbox.plugins.{name} "$@"
"""


def install_plugins(pulumi_home: Path, versions: Mapping[str, str]) -> None:
    """Makes `pulumi_home` hold one plugin per provider; `versions` maps names (`ovh`) to versions (2.22.0).

    Each is a script that runs `sandbox.plugins.<name>` of this checkout under this interpreter, whatever
    folder it is started in. Other versions of the same provider are removed, since the engine takes the
    newest that fits. What is right already is left alone.
    """
    # Not resolved: the interpreter knows its virtual environment by the path it is called with.
    checkout, python = shlex.quote(str(CHECKOUT)), shlex.quote(sys.executable)
    for name, version in versions.items():
        wanted = pulumi_home / "plugins" / f"resource-{name}-v{version}" / f"pulumi-resource-{name}"
        for other in (pulumi_home / "plugins").glob(f"resource-{name}-v*"):
            # The engine notes beside each folder when it was used last, in a file.
            if other != wanted.parent and other.is_dir():
                shutil.rmtree(other)
        # An engine that starts it meanwhile reads the old script or the new one.
        write_if_different(wanted, _SCRIPT.format(checkout=checkout, python=python, name=name), mode=0o700)
