"""The stand-in provider plugins, put where the Pulumi engine looks for plugins."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

_CHECKOUT = Path(__file__).parents[2]

_SCRIPT = """\
#!/bin/sh
PYTHONPATH={checkout}
export PYTHONPATH
exec {python} -P -m sandbox.plugins.{name} "$@"
"""


def install_plugins(
    pulumi_home: Path,
    versions: Mapping[str, str],
    python: Path = Path(sys.executable),
    checkout: Path = _CHECKOUT,
) -> None:
    """Makes `pulumi_home` hold one plugin per provider; `versions` maps names (`ovh`) to versions (2.22.0).

    Each is a script that runs `sandbox.plugins.<name>` of the checkout under `python`, whatever folder it is
    started in. Other versions of the same provider are removed, since the engine takes the newest that fits.
    What is right already is left alone.
    """
    for name, version in versions.items():
        wanted = pulumi_home / "plugins" / f"resource-{name}-v{version}" / f"pulumi-resource-{name}"
        for other in (pulumi_home / "plugins").glob(f"resource-{name}-v*"):
            # The engine notes beside each folder when it was used last, in a file.
            if other != wanted.parent and other.is_dir():
                shutil.rmtree(other)
        # Not resolved: the interpreter knows its virtual environment by the path it is called with.
        text = _SCRIPT.format(checkout=shlex.quote(str(checkout)), python=shlex.quote(str(python)), name=name)
        if wanted.exists() and wanted.read_text() == text:
            continue
        wanted.parent.mkdir(parents=True, exist_ok=True)
        # Renamed into place: an engine that starts it meanwhile reads the old script or the new one.
        new = wanted.with_suffix(".new")
        new.write_text(text)
        new.chmod(0o755)
        new.replace(wanted)
