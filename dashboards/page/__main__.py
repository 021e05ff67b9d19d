"""`python -m dashboards.page --prometheus URL --output FILE dashboard.json …`: dashboards as an HTML page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import httpx

from dashboards.page import files, grafana, render


def main() -> int:
    """Writes the page and says what is in it; the exit status is 1 when there is no page."""
    parser = argparse.ArgumentParser(prog="python -m dashboards.page", description=__doc__)
    parser.add_argument("--prometheus", required=True, metavar="URL", help="address of Prometheus")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="the page")
    parser.add_argument("--range", metavar="15m", help="time range up to now (default: the dashboard's own)")
    parser.add_argument("dashboards", nargs="+", type=Path, metavar="dashboard.json")
    arguments = parser.parse_args()
    try:
        files.check(arguments.output)
        shown = grafana.seconds(arguments.range) if arguments.range else None
        texts = {str(path): path.read_text(encoding="utf-8") for path in arguments.dashboards}
        page = render(texts, arguments.prometheus, seconds=shown)
        files.write(arguments.output, [page.html])
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except (httpx.TransportError, httpx.InvalidURL) as error:
        sys.stderr.write(f"no answer from {arguments.prometheus}: {error}\n")
        return 1
    for line in (*page.remarks(), f"{arguments.output}: {page.summary}"):
        sys.stdout.write(f"{line}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
