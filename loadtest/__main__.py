"""Load test of an OpenAI-compatible endpoint: a stack or any URL.

For a URL the Bearer token is read from LOADTEST_TOKEN, else from OPENAI_API_KEY. Ctrl-C ends the test and
keeps what was measured.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import math
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from autoscaling import traffic
from autoscaling.traffic import ClosedLoop, OpenLoop, Traffic
from dashboards.page import files
from loadtest import load, progress, report, results
from loadtest import replicas as platform
from loadtest import target as targets
from loadtest.client import (
    Client,
    Endpoint,
    RefusedError,
    TargetError,
    environment_proxy,
    look,
    session,
)
from loadtest.load import Recording
from loadtest.prompts import Prompts
from loadtest.replicas import Replicas
from loadtest.results import Facts, Objective
from loadtest.target import Target

INTERRUPTED = 128 + signal.SIGINT
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Plan:
    """What is to be done."""

    target: Target
    traffic: Traffic
    seed: int
    stream: bool
    timeout: float
    objectives: dict[Objective, float]
    output: Path | None
    """Without suffix; None: named after the time of the begin."""

    def files(self, began: datetime.datetime) -> tuple[Path, Path]:
        """The JSON and the page of a test."""
        base = self.output or Path(f"loadtest-{began:%Y%m%d-%H%M%S}")
        return base.with_name(f"{base.name}.json"), base.with_name(f"{base.name}.html")


async def test(plan: Plan, console: Console) -> int:
    """Runs the test, writes its files and prints what came out; the exit status."""
    target = plan.target
    endpoint = Endpoint(target.base_url, target.token, target.model, plan.stream, plan.timeout)
    async with session(endpoint, proxy=environment_proxy(endpoint.base_url)) as http:
        listed = await look(http, endpoint)
        endpoint = replace(endpoint, model=listed.model, ignore_eos=listed.vllm)
        source, seen = await platform.first_readable(target.replicas)
        console.print(f"{plan.traffic.name} to {listed.model} at {target.base_url}", soft_wrap=True)
        began = datetime.datetime.now().astimezone()
        recording = Recording()
        client = Client(http, endpoint, Prompts(plan.seed))
        stop = _stopped_by_signals()
        watcher = asyncio.create_task(platform.watch(source, seen, client.now)) if source else None
        refused: RefusedError | None = None
        with progress.Progress(console, client, recording, seen, _planned(plan.traffic)) as shown:
            try:
                await load.run(client, plan.traffic, plan.seed, recording, stop, shown.update)
            except RefusedError as error:
                refused = error
        if watcher is not None:
            watcher.cancel()
            with suppress(asyncio.CancelledError):
                await watcher
    facts = Facts(began, target.base_url, listed.model, plan.traffic, plan.seed, plan.stream, plan.objectives)
    completed = _conclude(facts, recording, seen, plan.files(began), console)
    if refused is not None:
        console.print(str(refused), style="red", soft_wrap=True)
        return 1
    if recording.partial:
        return INTERRUPTED
    return 0 if completed else 1


def _stopped_by_signals() -> asyncio.Event:
    """Set by the first Ctrl-C, or SIGTERM; a second one ends the program at once."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def handle() -> None:
        stop.set()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    for number in _SIGNALS:
        loop.add_signal_handler(number, handle)
    return stop


def _conclude(
    facts: Facts, recording: Recording, seen: Replicas, written: tuple[Path, Path], console: Console
) -> int:
    """Writes the files, prints the result; how many requests succeeded."""
    outcome = results.result(recording, facts.objectives)
    console.print(progress.summary(outcome, seen), soft_wrap=True)
    if outcome.answers or recording.unfinished:
        json_file, page = written
        document = results.document(facts, outcome, seen)
        files.write(json_file, results.to_json(document, outcome.answers))
        files.write(page, [report.page(facts, outcome, seen).html])
        console.print(f"{json_file}, {page.resolve().as_uri()}", soft_wrap=True)
    return outcome.completed


def _planned(chosen: Traffic) -> str:
    if isinstance(chosen, ClosedLoop):
        return f"{chosen.workers * chosen.requests_per_worker}"
    return f"those of {chosen.duration:.0f} s"


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: a number of seconds above 0 is needed")
    return value


def plan(arguments: argparse.Namespace) -> Plan:
    """What the command line asks for; raises TargetError, ValueError and OSError."""
    chosen: ClosedLoop | OpenLoop = traffic.parse(arguments.traffic)
    given = results.objectives(arguments.goodput)
    if arguments.url:
        target = targets.url(arguments.url, arguments.model)
    else:
        target = targets.stack(arguments.stack)
        target = replace(target, model=arguments.model or target.model)
    objectives = given or dict(target.objectives)
    if not arguments.stream:
        objectives = {name: limit for name, limit in objectives.items() if name == "e2el"}
    planned = Plan(
        target,
        chosen,
        arguments.seed,
        arguments.stream,
        arguments.timeout,
        objectives,
        arguments.output,
    )
    for file in planned.files(datetime.datetime.now().astimezone()):
        files.check(file)
    return planned


def main() -> int:
    """Runs the command line; exit status 1: nothing succeeded, 2: wrong arguments, 130: interrupted."""
    parser = argparse.ArgumentParser(prog="python -m loadtest", description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", help="base URL of an OpenAI-compatible API, such as https://host/v1")
    where.add_argument("--stack", help="a stack of Pulumi: its outputs have address, model and token")
    parser.add_argument("--model", default="", help="default: the stack's, or the first one that is listed")
    parser.add_argument(
        "--traffic",
        default="article",
        help="article, or for example poisson:rate=10,for=10m (docs/load-testing.md); default: %(default)s",
    )
    parser.add_argument("--seed", type=int, default=1, help="same seed, same requests (default: %(default)s)")
    parser.add_argument(
        "--no-stream",
        dest="stream",
        action="store_false",
        help="whole answers, as the article's script asks for: no TTFT, ITL and TPOT",
    )
    parser.add_argument(
        "--goodput",
        nargs="+",
        default=[],
        metavar="NAME:MS",
        help="objectives in milliseconds, such as ttft:2500 tpot:100 e2el:30000; default: the stack's",
    )
    parser.add_argument(
        "--timeout",
        type=_positive,
        default=Endpoint.timeout,
        help="seconds that a request may take, as the openai client has it (default: %(default)g)",
    )
    parser.add_argument("--output", type=Path, help="files without suffix (default: loadtest-<time>)")
    arguments = parser.parse_args()
    console = Console(highlight=False, markup=False)
    try:
        planned = plan(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ValueError, OSError) as error:
        parser.error(str(error))
    except TargetError as error:
        return _fail(console, error)
    try:
        return asyncio.run(test(planned, console))
    except KeyboardInterrupt:
        return INTERRUPTED
    except (TargetError, RefusedError, OSError) as error:
        return _fail(console, error)


def _fail(console: Console, error: Exception) -> int:
    console.print(str(error), style="red", soft_wrap=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
