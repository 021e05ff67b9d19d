"""Every command that the documentation shows for the sandbox is run there, as in a shell of yours.

Blocks that begin with `# real cloud` are for an account of OVHcloud. Of all others each command is run as it
is written, but for those that the two tables below name, each with its reason.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox.project import CHECKOUT
from sandbox.toolchain import Toolchain
from tests.engine.conftest import CANARY, Deployment

PAGES = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]
REAL_CLOUD = "# real cloud"

TARGETS = "run by test_targets.py, with assertions on what it says and changes"
TOKENS = "run by test_tokens.py, under traffic"
FAILURES = "run by test_failures.py, with assertions on what is there after each"
NOT_RUN = {
    "make sandbox": "its steps are those of the fixture `deployment` and of test_deployment.py",
    "make test": "runs this test",
    "make prove": "takes longer than all tests",
    "make lint types": "a part of `make test`",
    ".venv/bin/python -m pytest tests/components": "a part of `make test`",
    "pulumi config set tokenGeneration 2 -s sandbox": TOKENS,
    "pulumi up -s sandbox": TOKENS,
    "pulumi up -s dev --yes --continue-on-error": FAILURES,
    "pulumi up -s dev --yes": FAILURES,
    "pulumi destroy -s dev --yes": FAILURES,
    "pulumi preview -s dev": "run by test_policies.py",
    "pulumi preview -s prod": "run by test_policies.py",
    "make preview STACK=sandbox COMMENT=.sandbox/preview.md PLAN=.sandbox/plan.json": TARGETS,
    "make deploy STACK=sandbox PLAN=.sandbox/plan.json": TARGETS,
    "make drift STACK=sandbox COMMENT=.sandbox/drift.md": TARGETS,
    "LOADTEST_TOKEN=… make loadtest URL=https://host/v1 MODEL=…": "names an endpoint of the reader",
    "make loadtest STACK=prod TRAFFIC=poisson:rate=10,for=10m": "tests what is paid for",
    "make loadtest STACK=prod TRAFFIC=ramp:from=0.2,to=10,for=20m OUTPUT=replica": "tests what is paid for",
    "make calibrate RESULT=replica.json > calibration.json": "reads the result of such a test",
    "make rehearse STACK=prod CALIBRATION=calibration.json": "reads what was calibrated",
    "make verify-chart CHART=oci://ghcr.io/prometheus-community/charts/kube-prometheus-stack": "needs helm "
    "and a registry",
}
"""Commands that are not run here, and why."""
SHORTER = {
    # 12,500 requests.
    "make loadtest": "make loadtest TRAFFIC=constant:rate=4,for=1s,output=8 OUTPUT=loadtest-docs",
    # The search for better settings is some hundred rehearsals.
    "make rehearse STACK=prod": "make rehearse STACK=prod TRAFFIC=poisson:rate=12,for=1h SEED=2 SWEEP=no",
}
"""What is run instead of a command that takes minutes."""


@dataclass(frozen=True)
class Block:
    """A block of commands of a page."""

    page: Path
    number: int
    text: str

    @property
    def real_cloud(self) -> bool:
        """Whether it is about an account of OVHcloud."""
        return self.text.startswith(REAL_CLOUD)

    @property
    def needs_docker(self) -> bool:
        """Whether it starts a container, from an image of the internet."""
        return re.search(r"^docker ", self.text, flags=re.MULTILINE) is not None

    def commands(self) -> list[str]:
        """Its commands, without comments; one may have several lines."""
        found: list[str] = []
        begun = ""
        for line in self.text.splitlines():
            begun += re.sub(r"(^|\s+)#\s.*$", "", line)
            if begun.endswith("\\") or not _closed(begun):
                begun += "\n"
            elif begun:
                found.append(begun)
                begun = ""
        assert not begun, f"{begun} has no end"
        return found

    def __str__(self) -> str:
        return f"{self.page.relative_to(CHECKOUT)}-{self.number}"


def _closed(text: str) -> bool:
    try:
        shlex.split(text)
    except ValueError:
        return False
    return True


def _blocks(page: Path) -> list[Block]:
    texts = re.findall(r"^```bash\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [Block(page, number, text) for number, text in enumerate(texts, 1)]


BLOCKS = [block for page in PAGES for block in _blocks(page)]
SANDBOX = [block for block in BLOCKS if not block.real_cloud]


def _scripts() -> Iterator[tuple[Block, str]]:
    """What is run of each block. A make target that an earlier block has run just so is not run again."""
    made: set[str] = set()
    for block in SANDBOX:
        if block.needs_docker:
            continue
        chosen = [SHORTER.get(command, command) for command in block.commands() if command not in NOT_RUN]
        kept = list(dict.fromkeys(command for command in chosen if command not in made))
        made |= {command for command in kept if command.startswith("make ")}
        if kept and kept != [". .sandbox/env"]:
            yield block, "\n".join(kept)


RUN = [pytest.param(script, id=str(block)) for block, script in _scripts()]


@dataclass(frozen=True)
class Shell:
    """A checkout whose sandbox is the deployment, and what is not to be shown."""

    checkout: Path
    environment: dict[str, str]
    secrets: tuple[str, ...]

    def run(self, script: str) -> tuple[int, str]:
        """Status and output of a script, run by a shell that stops at the first command that fails."""
        text = f"set -eo pipefail; shopt -s inherit_errexit; . .sandbox/env\n{script}\n"
        result = subprocess.run(
            ["bash", "-c", text],
            cwd=self.checkout,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        said = result.stdout + result.stderr
        for secret in self.secrets:
            said = said.replace(secret, "[secret]")
        return result.returncode, said


@pytest.fixture(scope="module")
def shell(
    deployment: Deployment, toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shell]:
    """A shell in a copy of the checkout, for the sandbox there may be that of the user."""
    checkout = tmp_path_factory.mktemp("docs") / "checkout"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        if not name.startswith("tests/") and (CHECKOUT / name).exists():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, checkout / name)
    (checkout / ".venv").symlink_to(CHECKOUT / ".venv")
    (checkout / ".sandbox").symlink_to(deployment.sandbox.folder.root)
    # As at the end of `make sandbox`: Prometheus has an address now.
    deployment.sandbox.write_environment(toolchain)
    curl = checkout.with_name("curl")
    curl.mkdir()
    (curl / ".curlrc").write_text("fail-with-body\n")
    environment = os.environ | {
        "HF_TOKEN": CANARY,
        # An answer that is an error fails the command.
        "CURL_HOME": str(curl),
        # The doctor's question to Hugging Face.
        "HF_ENDPOINT": "http://127.0.0.1:9",
    }
    outputs = deployment.engine.outputs("sandbox")
    names = ("client_token", "grafana_admin_password", "kubeconfig")
    yield Shell(checkout, environment, (CANARY, *(outputs[name] for name in names)))
    for name in ("kubeconfig", "dashboards.html"):
        (deployment.sandbox.folder.root / name).unlink(missing_ok=True)


@pytest.mark.parametrize("script", RUN)
def test_commands_of_a_page_work_on_the_sandbox(shell: Shell, script: str) -> None:
    if "kubectl" in script and shutil.which("kubectl") is None:
        pytest.skip("there is no kubectl")
    status, said = shell.run(script)
    assert status == 0, f"{script}\n{said}"


def test_a_command_that_fails_is_seen(shell: Shell) -> None:
    assert shell.run("false\ntrue")[0] != 0
    assert shell.run('X=$(curl -s "$SANDBOX_API_URL/1.0/me")')[0] != 0
    assert shell.run('curl -s "$SANDBOX_API_URL/1.0/me" | cat')[0] != 0


def test_what_is_not_run_is_still_there() -> None:
    shown = {command for block in SANDBOX for command in block.commands()}
    assert {*NOT_RUN, *SHORTER} - shown == set()


def test_every_block_names_its_language() -> None:
    for page in PAGES:
        fences = re.findall(r"^```(.*)$", page.read_text(), flags=re.MULTILINE)
        opened = fences[::2]
        shells = {"sh", "shell", "console", "zsh"} & set(opened)
        assert not shells, f"{page}: ```bash is the word for commands"
