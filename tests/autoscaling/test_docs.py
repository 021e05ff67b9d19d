"""The answers that the documentation gives are those that a rehearsal gives today."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from autoscaling import report_terminal
from autoscaling.__main__ import PLAIN_WIDTH
from autoscaling.stack import CHECKOUT, read
from autoscaling.traffic import parse
from tests.autoscaling.rehearsals import report
from tests.prove import rehearsals

PAGE = (CHECKOUT / "docs" / "autoscaling.md").read_text(encoding="utf-8")
PROOF = rehearsals.RESULT.read_text(encoding="utf-8")


def blocks(text: str) -> list[str]:
    return re.findall(r"^```text\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


# The steps take longer than the two others together.
@pytest.mark.parametrize("name", ["article", "steady"])
def test_the_proof_says_what_a_rehearsal_says_today(name: str) -> None:
    traffic = rehearsals.TRAFFIC[name]
    (proof,) = [block for block in blocks(PROOF) if block.startswith("$ ") and f"={traffic}\n" in block]
    out = io.StringIO()
    report_terminal.show(report(traffic, plan=read(rehearsals.STACK)), Console(file=out, width=PLAIN_WIDTH))
    said = [line.rstrip() for line in out.getvalue().rstrip().splitlines()]
    assert proof.splitlines()[1 : len(said) + 1] == said, f"run `{rehearsals.COMMAND}`"


def test_what_the_page_shows_is_in_the_proof() -> None:
    shown = [line for block in blocks(PAGE) for line in block.splitlines()]
    assert len(shown) > 10
    assert [line for line in shown if line not in PROOF.splitlines()] == []


def test_every_traffic_that_the_page_names_is_understood() -> None:
    named = re.findall(r"^\| `((?!csv)[a-z]+(?::[^`]+)?)` \|", PAGE, flags=re.MULTILINE)
    named += re.findall(r"TRAFFIC=([^\s`]+)", PAGE)
    assert len(named) > 8
    for text in named:
        parse(text)
