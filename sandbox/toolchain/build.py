"""Building a tool from its Go modules, as pinned by the go.mod and go.sum in `go/<name>/`."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from sandbox.toolchain.progress import Progress, UnavailableError, elapsed
from sandbox.toolchain.tools import Tool

_MODULES = Path(__file__).with_name("go")
_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false")
_LANGUAGE_HOST = Path(__file__).with_name("language_host.py")

# As the official host does: the interpreter is PULUMI_PYTHON_CMD or the first python3 on PATH, so that one
# copy serves the virtual environments of all checkouts. -P keeps the current folder out of the module path.
_LANGUAGE_HOST_SCRIPT = """\
#!/bin/sh
exec "${PULUMI_PYTHON_CMD:-python3}" -P -u "$(dirname "$0")/pulumi-language-python.py" "$@"
"""


def fingerprint(tool: Tool) -> str:
    """Names a build after what goes into it: 8 hex digits."""
    digest = hashlib.sha256(repr((_FLAGS, tool.version, tool.go)).encode())
    files = [_MODULES / tool.name / "go.mod", _MODULES / tool.name / "go.sum"]
    if tool.go.language_host:
        digest.update(_LANGUAGE_HOST_SCRIPT.encode())
        files.append(_LANGUAGE_HOST)
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


def build(tool: Tool, directory: Path, progress: Progress) -> None:
    """Puts the binaries of the tool into `directory`; UnavailableError tells what Go says."""
    module = _MODULES / tool.name
    stamp = f"-X {tool.go.version_variable}={tool.go.version_prefix}{tool.version}"
    with elapsed(progress, f"building {tool.name} {tool.version} from its Go modules"):
        output = f"{directory}{os.sep}"
        _go(module, "build", *_FLAGS, "-ldflags", f"-s -w {stamp}", "-o", output, *tool.go.packages)
    for name, (source, path) in tool.go.files.items():
        folder = _go(module, "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", source).strip()
        # Modules are kept read-only: the content is copied, not the mode.
        shutil.copyfile(Path(folder, path), directory / name)
        (directory / name).chmod(0o755)
    if tool.go.language_host:
        shutil.copyfile(_LANGUAGE_HOST, directory / "pulumi-language-python.py")
        script = directory / "pulumi-language-python"
        script.write_text(_LANGUAGE_HOST_SCRIPT)
        script.chmod(0o755)


def _go(module: Path, *arguments: str) -> str:
    """Runs Go in the folder of the module; returns what it printed."""
    # A go.work of the user's is about other modules; without cgo no C compiler is needed.
    environ = {**os.environ, "GOWORK": "off", "CGO_ENABLED": "0"}
    try:
        result = subprocess.run(
            ["go", *arguments],
            cwd=module,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError as error:
        raise UnavailableError("Go is not installed") from error
    if result.returncode != 0:
        said = "\n".join(result.stderr.strip().splitlines()[-10:])
        raise UnavailableError(f"`go {arguments[0]}` in {module} failed:\n{said}")
    return result.stdout
