"""Rehearses the reference architecture under three kinds of traffic: `python -m tests.prove.rehearsals`.

Writes `docs/proof/rehearsals.md`, what the terminal says, and `docs/images/rehearsal-*.png`, what the pages
show: the answers of `docs/autoscaling.md`. Takes minutes, since each one tries other settings too.
"""

from __future__ import annotations

import datetime
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.browser import find
from tests.prove.commit import commit

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "docs" / "proof" / "rehearsals.md"
IMAGES = ROOT / "docs" / "images"
COMMAND = "python -m tests.prove.rehearsals"

STACK = "prod"
TRAFFIC = {
    "article": "article",
    "steady": "poisson:rate=12,for=1h",
    "steps": "steps:rates=2/6/12/18/12/6/2,each=20m",
}
"""By the name of its picture."""

_INTRODUCTION = f"""# Rehearsals of the reference architecture

`Pulumi.{STACK}.yaml` on virtual time: what the terminal says under three kinds of traffic. What it means is
told in [autoscaling.md](../autoscaling.md).
"""
_WIDTH, _HEIGHT = 1300, 800  # of a picture: the four charts
CODE = ("autoscaling", f"Pulumi.{STACK}.yaml")
"""What the result depends on."""


def main() -> int:
    """Rehearses, writes pictures and page; the exit status."""
    lines = [
        _INTRODUCTION,
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, commit {commit(*CODE)}, `{COMMAND}`, "
        f"Python {platform.python_version()}.",
    ]
    with tempfile.TemporaryDirectory() as folder:
        browser = find(Path(folder) / "profile")
        for name, traffic in TRAFFIC.items():
            page = Path(folder) / f"{name}.html"
            text = _rehearse(traffic, page)
            browser.screenshot(page, IMAGES / f"rehearsal-{name}.png", width=_WIDTH, height=_HEIGHT)
            lines += [f"\n## {traffic}\n", f"![{traffic}](../images/rehearsal-{name}.png)\n"]
            lines += ["```text", f"$ make rehearse STACK={STACK} TRAFFIC={traffic}", *text, "```"]
            sys.stdout.write(f"{traffic}: done\n")
            sys.stdout.flush()
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


def _rehearse(traffic: str, page: Path) -> list[str]:
    """What the terminal says, without the last line, which names files."""
    command = [sys.executable, "-m", "autoscaling", "--stack", STACK, "--traffic", traffic]
    files = ["--output", str(page), "--json", str(page.with_suffix(".json"))]
    done = subprocess.run([*command, *files], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return [line.rstrip() for line in done.stdout.rstrip().splitlines()[:-2]]


if __name__ == "__main__":
    sys.exit(main())
