"""All that belongs to a sandbox ends, nothing else does."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from sandbox.processes import Daemon, Process, ProcessError, belongs_to_sandbox, find, mark, terminate
from tests.waiting import gone, until


class Launcher:
    """Starts processes that print `ready`, and ends them with the test."""

    def __init__(self, directory: Path, cleanup: ExitStack) -> None:
        self._directory = directory
        self._cleanup = cleanup

    def __call__(
        self, script: str, code: str, environ: Mapping[str, str], *arguments: str
    ) -> subprocess.Popen[str]:
        """Runs Python `code` as a script of the given name; returns when it has printed its first line."""
        path = self._directory / script
        path.write_text("import os, signal, subprocess, sys, time\n" + textwrap.dedent(code))
        process = subprocess.Popen(
            [sys.executable, path, *arguments],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environ},
            stdout=subprocess.PIPE,
            text=True,
        )
        self._cleanup.callback(process.communicate)
        self._cleanup.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process


def started(sandbox: Path, script: Path) -> list[Process]:
    """Processes that run a script; one that has only been forked still looks like its parent."""
    return [process for process in find(sandbox) if process.command[1:] == (str(script),)]


WAIT = "print('ready', flush=True); signal.pause()"


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launcher]:
    with ExitStack() as cleanup:
        yield Launcher(tmp_path, cleanup)


@pytest.fixture
def sandbox(tmp_path: Path) -> Path:
    return tmp_path / "checkout" / ".sandbox"


@pytest.mark.parametrize(
    "command",
    [
        ["pulumi", "up"],
        ["/cache/pulumi-3.258.0-go-0a/pulumi", "preview"],
        ["/opt/pulumi/pulumi-language-python", "127.0.0.1:1"],
        ["python3", "-P", "-u", "/cache/pulumi-language-python.py", "127.0.0.1:1"],
        ["/v/bin/python", "-u", "/opt/pulumi-language-python-exec", "--monitor", "127.0.0.1:1"],
        ["/bin/sh", "/cache/pulumi-resource-pulumi-python", "127.0.0.1:1"],
        ["/bin/sh", "/checkout/.sandbox/bin/pulumi", "up"],
        ["python3.11", "-u", "-m", "pulumi.dynamic", "127.0.0.1:1"],
        ["/v/bin/python", "-P", "-m", "sandbox.plugins.ovh", "127.0.0.1:1"],
        ["/v/bin/python", "-m", "sandbox"],
        ["/cache/prometheus", "--config.file=x"],
        ["alertmanager"],
    ],
)
def test_part_of_a_sandbox(command: list[str]) -> None:
    assert belongs_to_sandbox(command)


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["-bash"],
        ["bash", "-c", "sandbox"],
        ["vim", "pulumi"],
        ["grep", "-r", "pulumi-resource-ovh"],
        ["python", "-m", "pytest", "sandbox"],
        ["python", "-m", "sandboxes"],
        ["python", "-c", "import sandbox"],
        ["python", "pulumi.py"],
        ["python"],
        ["make", "sandbox"],
    ],
)
def test_tool_of_the_user(command: list[str]) -> None:
    assert not belongs_to_sandbox(command)


def test_policy_pack_is_known_by_its_folder(tmp_path: Path) -> None:
    assert not belongs_to_sandbox(["python", "-u", str(tmp_path), "127.0.0.1:1"])
    (tmp_path / "PulumiPolicy.yaml").touch()
    assert belongs_to_sandbox(["python", "-u", str(tmp_path), "127.0.0.1:1"])


class TestTerminate:
    def test_processes_of_this_sandbox_only(self, launch: Launcher, sandbox: Path, tmp_path: Path) -> None:
        ours = launch("pulumi-resource-ours", WAIT, mark(sandbox))
        others = launch("pulumi-resource-other", WAIT, mark(tmp_path / "other" / ".sandbox"))
        unmarked = launch("pulumi-resource-unmarked", WAIT, {})
        assert [process.id for process in find(sandbox)] == [ours.pid]
        assert [process.id for process in terminate(sandbox)] == [ours.pid]
        assert ours.wait(60) == -signal.SIGTERM
        assert others.poll() is None
        assert unmarked.poll() is None

    def test_marked_tool_of_the_user_survives(self, launch: Launcher, sandbox: Path) -> None:
        editor = launch("editor", WAIT, mark(sandbox))
        assert terminate(sandbox) == []
        assert editor.poll() is None

    def test_what_is_not_chosen_survives(self, launch: Launcher, sandbox: Path) -> None:
        kept = launch("pulumi-resource-kept", WAIT, mark(sandbox))
        chosen = launch("pulumi-resource-chosen", WAIT, mark(sandbox))
        ended = terminate(sandbox, choice=lambda process: process.id == chosen.pid)
        assert [process.id for process in ended] == [chosen.pid]
        assert kept.poll() is None

    def test_sandbox_reached_by_a_link_is_the_same(
        self, launch: Launcher, sandbox: Path, tmp_path: Path
    ) -> None:
        sandbox.mkdir(parents=True)
        (tmp_path / "link").symlink_to(sandbox.parent)
        ours = launch("pulumi-resource-ours", WAIT, {"OVH_VLLM_SANDBOX": str(tmp_path / "link" / ".sandbox")})
        assert [process.id for process in terminate(sandbox)] == [ours.pid]

    def test_orphan_of_a_killed_parent(self, launch: Launcher, sandbox: Path, tmp_path: Path) -> None:
        (tmp_path / "pulumi-resource-orphan").write_text("import signal\nsignal.pause()\n")
        parent = launch(
            "pulumi-language-python",
            """
            subprocess.Popen([sys.executable, sys.argv[1]], stdout=subprocess.DEVNULL)
            print("ready", flush=True)
            signal.pause()
            """,
            mark(sandbox),
            str(tmp_path / "pulumi-resource-orphan"),
        )
        (orphan,) = until(lambda: started(sandbox, tmp_path / "pulumi-resource-orphan"), "the orphan")
        parent.kill()
        parent.wait(60)
        assert find(sandbox) == [orphan]
        assert terminate(sandbox) == [orphan]
        assert gone(orphan.id)

    def test_one_that_ignores_the_request_is_killed(self, launch: Launcher, sandbox: Path) -> None:
        deaf = launch(
            "pulumi-resource-deaf", f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{WAIT}", mark(sandbox)
        )
        assert len(terminate(sandbox, patience_s=0.2)) == 1
        assert deaf.wait(60) == -signal.SIGKILL

    def test_one_that_is_started_while_another_ends(
        self, launch: Launcher, sandbox: Path, tmp_path: Path
    ) -> None:
        late = tmp_path / "pulumi-resource-late"
        late.write_text("import signal\nsignal.pause()\n")
        launch(
            "pulumi-resource-first",
            """
            def end(*_):
                subprocess.Popen([sys.executable, sys.argv[1]], stdout=subprocess.DEVNULL)
                time.sleep(0.3)
                sys.exit()
            signal.signal(signal.SIGTERM, end)
            print("ready", flush=True)
            while True:
                signal.pause()
            """,
            mark(sandbox),
            str(late),
        )
        ended = terminate(sandbox)
        assert any(str(late) in process.command for process in ended)
        assert find(sandbox) == []

    def test_caller_and_its_ancestors_survive(self, launch: Launcher, sandbox: Path, tmp_path: Path) -> None:
        other = launch("pulumi-resource-other", WAIT, mark(sandbox))
        caller = tmp_path / "pulumi-resource-caller"
        caller.write_text(
            "import sys\nfrom pathlib import Path\nfrom sandbox.processes import terminate\n"
            "print(*[process.id for process in terminate(Path(sys.argv[1]))])\n"
        )
        ancestor = launch(
            "pulumi-language-ancestor",
            """
            print("ready", flush=True)
            print(subprocess.check_output([sys.executable, *sys.argv[1:]], text=True).strip())
            """,
            mark(sandbox),
            str(caller),
            str(sandbox),
        )
        assert ancestor.stdout is not None
        assert ancestor.stdout.readline() == f"{other.pid}\n"
        assert ancestor.wait(60) == 0


class TestDaemon:
    @pytest.fixture
    def daemon(self, tmp_path: Path) -> Daemon:
        return Daemon("the demo", tmp_path / "run" / "lock", tmp_path / "run" / "log")

    @pytest.fixture
    def start(self, daemon: Daemon, tmp_path: Path, sandbox: Path) -> Iterator[Callable[[str], int]]:
        with ExitStack() as cleanup:

            def start(code: str) -> int:
                script = tmp_path / "pulumi-resource-daemon"
                script.write_text("import os, signal, subprocess, sys\n" + code)
                environ = {**os.environ, **mark(sandbox)}
                process = daemon.start([sys.executable, str(script)], environ, tmp_path)
                cleanup.callback(process.wait)
                cleanup.callback(process.kill)
                return process.pid

            yield start
            terminate(sandbox)

    def test_runs_until_it_is_killed(self, daemon: Daemon, start: Callable[[str], int]) -> None:
        assert not daemon.running()
        process = start("signal.pause()")
        assert daemon.running()
        with pytest.raises(ProcessError, match="the demo runs already"):
            start("signal.pause()")
        os.kill(process, signal.SIGKILL)
        until(lambda: not daemon.running(), "the daemon ends")
        start("signal.pause()")

    def test_process_that_it_started_does_not_look_like_it(
        self, daemon: Daemon, start: Callable[[str], int], sandbox: Path, tmp_path: Path
    ) -> None:
        child = tmp_path / "pulumi-resource-child"
        child.write_text("import signal\nsignal.pause()\n")
        process = start(f"subprocess.Popen([sys.executable, {str(child)!r}])\nsignal.pause()")
        until(lambda: started(sandbox, child), "the child")
        os.kill(process, signal.SIGKILL)
        until(lambda: not daemon.running(), "the daemon ends")
        assert find(sandbox) == started(sandbox, child) != []

    def test_has_a_session_of_its_own_and_a_log_that_others_cannot_read(
        self, daemon: Daemon, start: Callable[[str], int]
    ) -> None:
        daemon.log.parent.mkdir()
        daemon.log.write_text("of an earlier one\n")
        daemon.log.chmod(0o644)
        start("print(os.getsid(0) == os.getpid(), flush=True)\nsys.stderr.write('error\\n')\nsignal.pause()")
        daemon.wait_until(lambda: "error" in daemon.log.read_text(), 60)
        assert daemon.log.read_text() == "of an earlier one\nTrue\nerror\n"
        assert stat.S_IMODE(daemon.log.stat().st_mode) == 0o600

    def test_one_that_ends_before_it_is_ready_is_reported_with_its_last_words(
        self, daemon: Daemon, start: Callable[[str], int]
    ) -> None:
        start("sys.exit('port is taken')")
        with pytest.raises(ProcessError, match=r"the demo has ended before it was ready(.|\n)*port is taken"):
            daemon.wait_until(lambda: False, 60)

    def test_one_that_is_never_ready_is_reported(self, daemon: Daemon, start: Callable[[str], int]) -> None:
        start("signal.pause()")
        with pytest.raises(ProcessError, match="the demo is not ready after 0 s"):
            daemon.wait_until(lambda: False, 0.1)
