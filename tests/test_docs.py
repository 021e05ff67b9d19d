"""README and the pages of `docs/` say what is so: commands, links, keys, outputs, rights, prices."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from components.bill import bill
from components.prices import flavor_eur_per_hour
from components.settings import KEYS
from docs import configuration
from doctor.rights import CALLS, OWN_ACTIONS
from sandbox import settings
from sandbox.cloud.settings import CloudSettings, Credentials
from tests.components import mocks

ROOT = configuration.ROOT
README = ROOT / "README.md"
GOING_LIVE = ROOT / "docs" / "going-live.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def _names(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(params=PAGES, ids=_names)
def page(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def _anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_leads_with_the_two_commands() -> None:
    assert _blocks(README.read_text(), "bash")[0].splitlines() == ["make sandbox", "make test"]


def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        destination = (page.parent / file).resolve() if file else page
        assert destination.exists(), f"{target} does not exist"
        assert not anchor or anchor in _anchors(destination), f"{target} names no heading"


def test_every_file_that_is_named_exists(page: Path) -> None:
    for name in re.findall(
        r"`((?:autoscaling|ci|components|dashboards|docs|doctor|loadtest|policy|sandbox|stacks|tests)/[\w./]+)`",
        page.read_text(),
    ):
        assert (ROOT / name).exists(), name


def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    code = "\n".join([*re.findall(r"`([^`\n]+)`", page.read_text()), *_blocks(page.read_text(), "bash")])
    assert set(re.findall(r"\bmake ([a-z-]+)", code)) <= targets


def test_every_configuration_key_that_is_named_exists(page: Path) -> None:
    text = page.read_text()
    named = set(re.findall(r"ovh-vllm:(\w+)", text))
    named |= set(re.findall(r"pulumi config set (?:--\w+ )*'?([a-z]\w*)", text))
    if page == README:
        # What is in camel case there is a key.
        named |= set(re.findall(r"`([a-z]+(?:[A-Z]\w*)+)`", text))
    assert named <= KEYS


def test_the_configuration_page_is_what_the_project_file_says() -> None:
    assert configuration.PAGE.read_text() == configuration.render(), "run `python -m docs.configuration`"


def test_the_configuration_page_has_every_key() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", configuration.render(), flags=re.MULTILINE)) == KEYS


def test_a_pipe_in_a_description_does_not_break_the_table() -> None:
    rows = [line for line in configuration.render().splitlines() if line.startswith("| `")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {6}


def test_the_readme_names_the_stack_outputs() -> None:
    _, _, table = README.read_text().partition("| Stack output |")
    first_cells = re.findall(r"^\| (.+?) \|", table.partition("\n\n")[0], flags=re.MULTILINE)
    named = re.findall(r"`(\w+)`", " ".join(first_cells))
    exported = re.findall(r'pulumi\.export\("(\w+)"', (ROOT / "__main__.py").read_text())
    assert sorted(named) == sorted(exported)


def test_the_rights_that_are_listed_are_those_of_the_calls() -> None:
    rows = re.findall(r"^\| ([\w ]+) \| (`get`.*|`\w+/.+) \|$", GOING_LIVE.read_text(), flags=re.MULTILINE)
    listed = {purpose: re.findall(r"`([\w/]+)`", actions) for purpose, actions in rows}
    needed = {purpose: list(dict.fromkeys(call.action for call in calls)) for purpose, calls in CALLS.items()}
    assert listed == {**needed, "Doctor": list(OWN_ACTIONS)}
    sources = "".join(path.read_text() for path in (ROOT / "sandbox" / "cloud").glob("*.py"))
    actions = [action for actions in listed.values() for action in actions]
    assert [action for action in actions if f'"{action}"' not in sources] == []


def test_the_settings_of_the_sandbox_page_are_read(tmp_path: Path) -> None:
    (example,) = _blocks((ROOT / "docs" / "sandbox.md").read_text(), "toml")
    file = tmp_path / "settings.toml"
    file.write_text(example)
    defaults = settings.SandboxSettings(CloudSettings(Credentials("key", "secret", "consumer"), "0" * 32))
    read = settings.read(file, defaults)
    assert read.cloud.gpu_quota == tomllib.loads(example)["cloud"]["gpu_quota"]


def test_every_endpoint_of_the_sandbox_that_is_named_is_served(page: Path) -> None:
    served = "".join(
        path.read_text() for path in [ROOT / "sandbox" / "cloud" / "cloud.py", ROOT / "sandbox" / "server.py"]
    )
    for path in re.findall(r"(?<![\w.])(?:\$SANDBOX_API_URL)?(/sandbox/\w+)", page.read_text()):
        assert f'"{path}"' in served, path


def _costs() -> str:
    _, _, section = GOING_LIVE.read_text().partition("## What it costs\n")
    return section.partition("\n#")[0]


@pytest.mark.parametrize(
    ("stack", "most", "column"), [("dev", True, 1), ("prod", False, 2), ("prod", True, 3)], ids=str
)
def test_the_costs_are_those_of_the_stack_files(stack: str, most: bool, column: int) -> None:
    gpus, _cluster, nodes, volumes, *network = bill(mocks.settings(stack)).items
    parts = [
        sum(item.eur_per_hour[most] for item in items if item.eur_per_hour is not None)
        for items in ([gpus], [nodes], [volumes], network)
    ]
    rows = [line.split("|") for line in _costs().splitlines() if line.startswith("| ")]
    shown = [cells[column + 1].split()[0] for cells in rows[1:]]
    assert shown == [f"{part:.2f}" if part else "none" for part in [*parts, sum(parts)]]


def test_the_bill_that_is_shown_is_the_one_that_is_printed() -> None:
    (example,) = _blocks(_costs(), "text")
    before, after = bill(mocks.settings("prod")), bill(mocks.settings("prod", maxReplicas="2"))
    printed = [f"    {line}" for line in after.text().splitlines()]
    shown = [line for line in example.splitlines() if line.startswith("    ") and line.strip() != "..."]
    assert [line for line in printed if line in shown] == shown
    assert f"cost_eur_per_hour_max   : {before.ceiling} => {after.ceiling}" in example
    assert before.floor == after.floor


def test_prices_in_stack_files_are_those_of_the_price_list() -> None:
    for stack, flavor in (("dev", "l4-1-gpu"), ("prod", "h100-1-gpu")):
        first, *_ = (ROOT / f"Pulumi.{stack}.yaml").read_text().splitlines()
        assert re.findall(r"(\d+\.\d+) €", first) == [f"{flavor_eur_per_hour(flavor):.2f}"]
