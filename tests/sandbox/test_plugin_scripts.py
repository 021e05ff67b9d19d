"""The stand-in plugins are where the engine looks, and start whatever folder it is in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sandbox import plugin_scripts
from sandbox.plugin_scripts import install_plugins
from sandbox.project import CHECKOUT


def checkout(directory: Path) -> Path:
    """A checkout whose plugin `demo` prints which file it is and how it was called."""
    package = directory / "sandbox" / "plugins"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").touch()
    (package / "demo.py").write_text("import sys\nprint(__file__, *sys.argv[1:])\n")
    return directory


def test_plugin_runs_from_its_checkout_whatever_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "a home"
    ours = checkout(tmp_path / "it's ours")
    other = checkout(tmp_path / "other")
    monkeypatch.setattr(plugin_scripts, "CHECKOUT", ours)
    install_plugins(home, {"demo": "1.2.3"})
    plugin = home / "plugins" / "resource-demo-v1.2.3" / "pulumi-resource-demo"
    # The engine's current folder is the program's, which may hold a package `sandbox` as well.
    said = subprocess.check_output([plugin, "127.0.0.1:1", "a b"], cwd=other, text=True)
    assert said == f"{ours / 'sandbox/plugins/demo.py'} 127.0.0.1:1 a b\n"


def test_plugin_runs_under_the_interpreter_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "$PYTHONPATH" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    install_plugins(tmp_path, {"demo": "1.2.3"})
    plugin = tmp_path / "plugins" / "resource-demo-v1.2.3" / "pulumi-resource-demo"
    assert subprocess.check_output([plugin], text=True) == f"{CHECKOUT} -P -m sandbox.plugins.demo\n"


def test_current_plugin_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def inode() -> int:
        return (tmp_path / "plugins/resource-demo-v1.2.3/pulumi-resource-demo").stat().st_ino

    install_plugins(tmp_path, {"demo": "1.2.3"})
    before = inode()
    install_plugins(tmp_path, {"demo": "1.2.3"})
    assert inode() == before
    monkeypatch.setattr(sys, "executable", str(Path(sys.base_prefix) / "bin" / "python3"))
    install_plugins(tmp_path, {"demo": "1.2.3"})
    assert inode() != before


def test_other_version_of_a_provider_is_removed(tmp_path: Path) -> None:
    install_plugins(tmp_path, {"demo": "2.0.0", "demo-more": "1.0.0"})
    install_plugins(tmp_path, {"demo": "1.2.3"})
    assert {folder.name for folder in (tmp_path / "plugins").iterdir()} == {
        "resource-demo-v1.2.3",
        "resource-demo-more-v1.0.0",
    }
