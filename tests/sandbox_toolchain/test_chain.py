"""Where a tool is taken from, and what is never run."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.toolchain import ToolchainError, build, cache, ensure, progress, release
from sandbox.toolchain.chain import Found, installed
from sandbox.toolchain.progress import UnavailableError
from sandbox.toolchain.release import MIRROR, ReleaseServer
from sandbox.toolchain.tools import ALERTMANAGER, PROMETHEUS, PULUMI, Tool, find_version
from tests.sandbox_toolchain.conftest import Machine, archive, executable, script

_ALERTMANAGER = {"alertmanager": script("alertmanager, version 0.28.1 (branch: x)")}


def get(machine: Machine, tool: Tool) -> Found:
    return ensure(machine.lines.append, [tool], machine.environ).found[0]


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("v3.258.0\n", (3, 258, 0)),
        ("v3.300.0-alpha.1+dirty", (3, 300, 0)),
        ("prometheus, version 3.9.1 (branch: HEAD, revision: 1)\n  go version: go1.26.8", (3, 9, 1)),
        ("alertmanager, version 0.28.1 (branch: , revision: unknown)", (0, 28, 1)),
        ("json_exporter, version 0.7.0 (branch: , revision: unknown)", (0, 7, 0)),
        ("\n", None),
    ],
)
def test_version_is_read_from_what_the_program_prints(said: str, version: tuple[int, int, int]) -> None:
    assert find_version(said) == version


class TestOnPath:
    def test_new_enough_is_used_without_asking_anyone(self, machine: Machine) -> None:
        machine.install("alertmanager", "alertmanager, version 0.27.0")
        found = get(machine, ALERTMANAGER)
        assert (found.source, found.version, found.on_path) == ("on PATH", "0.27.0", True)
        assert found.binaries == {"alertmanager": machine.bin / "alertmanager"}
        assert machine.asked == []
        assert machine.lines == []

    @pytest.mark.parametrize(
        ("tool", "said", "reason"),
        [
            (ALERTMANAGER, "version 0.26.9", "is 0.26.9, needed is 0.27.0 or newer of major version 0"),
            (PROMETHEUS, "version 2.55.1", "is 2.55.1, needed is 3.0.0"),
            (PULUMI, "v3.257.9", "is 3.257.9, needed is 3.258.0"),
            (PULUMI, "v4.0.0", "is 4.0.0"),
            (PULUMI, "", "does not tell its version"),
        ],
    )
    def test_another_version_is_passed_over(
        self, machine: Machine, tool: Tool, said: str, reason: str
    ) -> None:
        for name in (*tool.binaries, *tool.companions):
            machine.install(name, said)
        with pytest.raises(UnavailableError, match=reason):
            installed(tool, machine.environ)

    def test_prometheus_without_promtool_is_passed_over(self, machine: Machine) -> None:
        machine.install("prometheus", "prometheus, version 3.1.0")
        with pytest.raises(UnavailableError, match="no promtool"):
            installed(PROMETHEUS, machine.environ)

    def test_pulumi_without_its_python_language_host_is_passed_over(self, machine: Machine) -> None:
        machine.install("pulumi", "v3.300.0")
        machine.install("pulumi-resource-pulumi-python", "")
        with pytest.raises(UnavailableError, match="comes without pulumi-language-python"):
            installed(PULUMI, machine.environ)

    def test_language_host_lies_beside_the_real_file_of_a_linked_pulumi(self, machine: Machine) -> None:
        home = machine.directory / "opt"
        executable(home / "pulumi", script("v3.300.0"))
        for name in PULUMI.companions:
            executable(home / name, script(""))
        machine.bin.mkdir()
        (machine.bin / "pulumi").symlink_to(home / "pulumi")
        assert installed(PULUMI, machine.environ).on_path

    @pytest.mark.parametrize("place", ["{cache}/alertmanager-0.28.0-go-0a", "{checkout}/.sandbox/bin"])
    def test_what_a_sourced_shell_has_of_ours_does_not_count(self, machine: Machine, place: str) -> None:
        directory = Path(place.format(cache=machine.cache, checkout=machine.directory))
        executable(directory / "alertmanager", script("version 0.28.0"))
        environ = machine.environ | {"PATH": f"{directory}:/bin:/usr/bin"}
        with pytest.raises(UnavailableError, match="on PATH: no alertmanager"):
            installed(ALERTMANAGER, environ)


class TestRelease:
    def test_release_is_unpacked_and_cached(self, machine: Machine) -> None:
        files = {name: script("version 3.9.1") for name in PROMETHEUS.binaries}
        machine.release(PROMETHEUS, files | {"LICENSE": b"text", "consoles/index.html": b"page"})
        found = get(machine, PROMETHEUS)
        assert found.source == "official release"
        assert found.directory == machine.cache / "prometheus-3.9.1-release"
        assert {file.name for file in found.directory.iterdir()} == {"prometheus", "promtool"}
        assert subprocess.check_output([found.binaries["promtool"]], text=True) == "version 3.9.1\n"
        # A user of the same machine may read it, nobody but the owner may change it.
        assert stat.S_IMODE(found.directory.stat().st_mode) == 0o755

        machine.asked.clear()
        again = get(machine, PROMETHEUS)
        assert (again.source, again.directory) == ("official release, cached", found.directory)
        assert machine.asked == []

    def test_pulumi_comes_with_everything_for_python(self, machine: Machine) -> None:
        wanted = ["pulumi", "pulumi-language-python", "pulumi-language-python-exec"]
        wanted += ["pulumi-resource-pulumi-python", "pulumi-analyzer-policy-python"]
        files = {name: script("v3.258.0") for name in [*wanted, "pulumi-language-nodejs"]}
        machine.release(PULUMI, files)
        toolchain = ensure(machine.lines.append, [PULUMI], machine.environ)
        (directory,) = toolchain.directories
        assert {file.name for file in directory.iterdir()} == set(wanted)
        assert toolchain.pulumi == directory / "pulumi"

    def test_wrong_checksum_is_an_error_and_nothing_is_unpacked_or_built(self, machine: Machine) -> None:
        machine.install_go("version 0.28.1")
        url = machine.release(ALERTMANAGER, _ALERTMANAGER, checksum="ab" * 32)
        with pytest.raises(ToolchainError) as caught:
            get(machine, ALERTMANAGER)
        assert f"{machine.server}{url}" in str(caught.value)
        assert "ab" * 32 in str(caught.value)
        assert "its SHA-256 is " in str(caught.value)
        assert [file.name for file in machine.cache.iterdir()] == ["alertmanager.lock"]
        assert not (machine.directory / "go.log").exists()

    @pytest.mark.parametrize("name", ["../../../escaped", "{tmp}/escaped", "pulumi/../../escaped"])
    def test_path_that_leads_out_of_the_archive_is_an_error(self, machine: Machine, name: str) -> None:
        machine.install_go("version 0.28.1")
        name = name.format(tmp=machine.directory)
        machine.publish(ALERTMANAGER, archive({name: b"evil"}))
        with pytest.raises(ToolchainError, match="leads out of it") as caught:
            get(machine, ALERTMANAGER)
        assert repr(name) in str(caught.value)
        assert not list(machine.directory.rglob("escaped"))
        assert [file.name for file in machine.cache.iterdir()] == ["alertmanager.lock"]


class TestNextSource:
    """What is no forgery, but cannot be used, costs one line and the next source is taken."""

    @pytest.fixture(autouse=True)
    def go(self, machine: Machine) -> None:
        machine.install_go("version 0.28.1")

    def test_server_that_is_down(self, machine: Machine) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))  # not listening: connections are refused
            machine.server = f"http://127.0.0.1:{unused.getsockname()[1]}"
            found = get(machine, ALERTMANAGER)
        assert found.source == "built from Go modules"
        assert "Connection refused" in machine.lines[0]
        assert machine.lines[1:] == ["building alertmanager 0.28.1 from its Go modules"]

    def test_server_that_is_down_is_asked_once_for_all_tools(self, machine: Machine) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            machine.server = f"http://127.0.0.1:{silent.getsockname()[1]}"
            machine.install("prometheus", "version 3.0.0")
            server = ReleaseServer(machine.environ)
            with pytest.raises(UnavailableError, match="refused"):
                server.fetch(ALERTMANAGER, machine.directory, machine.lines.append)
            silent.listen()
            with pytest.raises(UnavailableError, match="refused"):
                server.fetch(PROMETHEUS, machine.directory, machine.lines.append)

    def test_server_that_never_answers(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(release, "_PATIENCE_S", 0.2)
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()  # accepts, and says nothing
            machine.server = f"http://127.0.0.1:{silent.getsockname()[1]}"
            assert get(machine, ALERTMANAGER).source == "built from Go modules"
        assert "cannot reach" in machine.lines[0]

    def test_release_that_is_not_there(self, machine: Machine) -> None:
        assert get(machine, ALERTMANAGER).source == "built from Go modules"
        assert "sha256sums.txt answers 404" in machine.lines[0]

    def test_download_that_breaks_off(self, machine: Machine) -> None:
        machine.cut.add(machine.release(ALERTMANAGER, _ALERTMANAGER))
        assert get(machine, ALERTMANAGER).source == "built from Go modules"
        assert "broke off" in machine.lines[1]

    def test_checksums_of_other_files_only(self, machine: Machine) -> None:
        url = machine.release(ALERTMANAGER, _ALERTMANAGER)
        sums = f"{url.rpartition('/')[0]}/sha256sums.txt"
        machine.files[sums] = b"<html>Please log in to the network of this hotel</html>"
        assert get(machine, ALERTMANAGER).source == "built from Go modules"
        assert "holds no checksum" in machine.lines[0]
        assert machine.asked == [sums]

    def test_archive_that_was_released_truncated(self, machine: Machine) -> None:
        content = archive({"alertmanager-0.28.1/alertmanager": b"x" * 100_000})
        machine.publish(ALERTMANAGER, content[: len(content) // 2])
        assert get(machine, ALERTMANAGER).source == "built from Go modules"
        assert "cannot be unpacked" in machine.lines[1]

    def test_archive_without_the_binary(self, machine: Machine) -> None:
        machine.release(ALERTMANAGER, {"README": b""})
        assert get(machine, ALERTMANAGER).source == "built from Go modules"
        assert "/alertmanager" in machine.lines[1]

    @pytest.mark.parametrize("content", [b"\x7fELF for another machine", script("version 0.28.0")])
    def test_binary_that_does_not_run_here_or_is_another_one(self, machine: Machine, content: bytes) -> None:
        machine.release(ALERTMANAGER, {"alertmanager": content})
        found = get(machine, ALERTMANAGER)
        assert found.source == "built from Go modules"
        assert "-go-" in found.directory.name

    def test_machine_that_no_release_is_made_for(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("platform.machine", lambda: "riscv64")
        assert get(machine, ALERTMANAGER).source == "built from Go modules"
        assert "there is none for riscv64" in machine.lines[0]
        assert machine.asked == []


class TestBuild:
    def test_modules_are_pinned_and_the_version_is_stamped(self, machine: Machine) -> None:
        machine.install_go("v3.258.0")
        found = get(machine, PULUMI)
        command = (machine.directory / "go.log").read_text().splitlines()[0]
        assert "-mod=readonly -trimpath" in command
        assert "-X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v3.258.0" in command
        assert command.endswith("github.com/pulumi/pulumi/pkg/v3/cmd/pulumi")
        assert {file.name for file in found.directory.iterdir()} == {
            "pulumi",
            "pulumi-language-python",
            "pulumi-language-python.py",
            "pulumi-resource-pulumi-python",
        }

    def test_what_is_cached_knows_no_checkout(self, machine: Machine) -> None:
        machine.install_go("v3.258.0")
        found = get(machine, PULUMI)
        checkout = str(Path(__file__).parents[2]).encode()
        assert not [file for file in found.directory.iterdir() if checkout in file.read_bytes()]

    def test_other_pinned_modules_are_another_build(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = build.fingerprint(ALERTMANAGER)
        modules = machine.directory / "go/alertmanager"
        shutil.copytree(Path(build.__file__).parent / "go/alertmanager", modules)
        monkeypatch.setattr(build, "_MODULES", modules.parent)
        assert build.fingerprint(ALERTMANAGER) == before
        with (modules / "go.sum").open("a") as file:
            file.write("x")
        assert build.fingerprint(ALERTMANAGER) != before

    def test_failed_build_shows_what_go_says_and_all_that_was_tried(self, machine: Machine) -> None:
        executable(machine.bin / "go", b"#!/bin/sh\necho go: no space left >&2\nexit 1\n")
        with pytest.raises(ToolchainError) as caught:
            get(machine, ALERTMANAGER)
        for part in (
            "on PATH: no alertmanager",
            "answers 404",
            "go: no space left",
            "prometheus.io/download",
        ):
            assert part in str(caught.value)
        assert [file.name for file in machine.cache.iterdir()] == ["alertmanager.lock"]

    def test_without_go_the_error_says_what_to_install(self, machine: Machine) -> None:
        with pytest.raises(ToolchainError, match="Go is not installed") as caught:
            get(machine, ALERTMANAGER)
        assert "Install alertmanager 0.27.0 or newer" in str(caught.value)
        assert "https://go.dev/dl/" in str(caught.value)

    def test_long_build_shows_that_it_lives(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(progress, "INTERVAL_S", 0.01)
        machine.install_go("version 0.28.1")
        pipe = machine.slow_down_go()
        signs: list[str] = []

        def report(line: str) -> None:
            if line.endswith(" s"):
                if not signs:
                    pipe.write(b"go on\n")
                signs.append(line)

        ensure(report, [ALERTMANAGER], machine.environ)
        assert signs[0] == "building alertmanager 0.28.1 from its Go modules: 0 s"


class TestTwoAtOnce:
    _PROGRAM = """
import sys
from sandbox.toolchain import ensure
from sandbox.toolchain.tools import ALERTMANAGER
toolchain = ensure(lambda line: print(line, flush=True), [ALERTMANAGER])
print(toolchain.found[0].source, flush=True)
"""

    def start(self, machine: Machine) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", self._PROGRAM],
            cwd=Path(__file__).parents[2],
            env={**os.environ, **machine.environ},
            stdout=subprocess.PIPE,
            text=True,
        )

    def lines_until(self, process: subprocess.Popen[str], text: str) -> None:
        assert process.stdout is not None
        assert any(text in line for line in process.stdout)

    def test_second_waits_says_so_and_takes_what_the_first_has_made(self, machine: Machine) -> None:
        machine.install_go("version 0.28.1")
        pipe = machine.slow_down_go()
        with self.start(machine) as first:
            self.lines_until(first, "building")
            with self.start(machine) as second:
                self.lines_until(second, "waiting for another process that prepares alertmanager")
                pipe.write(b"go on\n")
                assert first.communicate()[0].endswith("built from Go modules\n")
                assert second.communicate()[0] == "built from Go modules, cached\n"
        assert (machine.directory / "go.log").read_text().count("build ") == 1

    def test_what_a_killed_one_leaves_does_not_stop_the_next(self, machine: Machine) -> None:
        machine.install_go("version 0.28.1")
        pipe = machine.slow_down_go()
        with self.start(machine) as first:
            self.lines_until(first, "building")
            first.kill()
        # One for the orphaned Go, if it came to that.
        pipe.write(b"go on\ngo on\n")
        with self.start(machine) as second:
            assert second.communicate()[0].endswith("built from Go modules\n")
        assert len(list(machine.cache.glob("*alertmanager-*"))) == 1


def test_mirror_must_be_a_url(machine: Machine) -> None:
    machine.server = "file:///etc"
    with pytest.raises(ToolchainError, match=MIRROR):
        get(machine, ALERTMANAGER)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    where = tmp_path / "file" / "cache"
    with (
        pytest.raises(ToolchainError, match=f"{where} cannot be written .*XDG_CACHE_HOME"),
        cache.locked(where, "pulumi", lambda line: None),
    ):
        pass
