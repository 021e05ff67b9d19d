"""`python -m sandbox up|down|…`: the local stand-in for OVHcloud with the program on it."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

import httpx

from dashboards.page import files, render
from dashboards.page.grafana import seconds
from sandbox import drill, smoke
from sandbox.connection import Addresses
from sandbox.console import Console
from sandbox.engine import EngineError
from sandbox.processes import ProcessError
from sandbox.project import CHECKOUT, Folder, ProjectError
from sandbox.sandbox import Sandbox
from sandbox.settings import SandboxSettingsError
from sandbox.toolchain import ToolchainError, ensure

STACK = "sandbox"


def up(sandbox: Sandbox, console: Console, settings: Path | None) -> None:
    """Starts what does not run yet, deploys the stack, proves that it works, prints what was built."""
    for command in sandbox.commands():
        raise ProcessError(
            f"`python {' '.join(command.command[1:])}` is at work here already (process {command.id}): "
            "wait until it ends, or end it and everything else with `make sandbox-down`"
        )
    if settings is not None:
        sandbox.check(settings)
    toolchain = ensure(console.step)
    if sandbox.runs:
        console.step("the local cloud runs already")
        sandbox.wait()
    else:
        console.step("starting the local cloud")
        sandbox.start(settings)
    console.step(f"pulumi up -s {STACK}")
    engine = sandbox.engine(toolchain)
    engine.run("up", "-s", STACK, "--yes", "--skip-preview", "--continue-on-error")
    outputs = engine.outputs(STACK)
    # Prometheus has its address now: .sandbox/env tells it.
    sandbox.write_environment(toolchain)
    addresses = sandbox.addresses()[0]

    console.step("smoke test")
    bundle = Path(sandbox.connection.ca_bundle)
    for line in smoke.checks(outputs, addresses, bundle, smoke.samplers(engine.resources(STACK))):
        console.detail(f"ok: {line}")
    engine.capture("preview", "-s", STACK, "--expect-no-changes")
    console.detail("ok: a second `pulumi preview --expect-no-changes` is clean")

    console.step("built in the local cloud:")
    _print_resources(sandbox, console)
    _print_addresses(sandbox, console, outputs, addresses)


def down(sandbox: Sandbox, console: Console) -> None:
    """Destroys the stack, ends every process of the sandbox and removes its folder."""
    sandbox.interrupt()
    if sandbox.runs and sandbox.folder.connection.exists():
        try:
            _destroy(sandbox, console)
        # A stack file with a mistake, say, must not keep the sandbox alive.
        except (ToolchainError, EngineError, ProjectError, httpx.HTTPError) as error:
            console.step(f"{error}; what is left goes away with the local cloud")
    console.gone("the sandbox", sandbox.remove())


def _destroy(sandbox: Sandbox, console: Console) -> None:
    engine = sandbox.engine(ensure(console.step))
    if engine.stacks().get(STACK):
        console.step(f"pulumi destroy -s {STACK}")
        engine.run("destroy", "-s", STACK, "--yes", "--skip-preview", "--continue-on-error")
    for thing in sandbox.resources():
        console.detail(f"left over, goes away with the local cloud: {thing['kind']} {thing['name']}")


def status(sandbox: Sandbox, console: Console) -> None:
    """Tells what exists in the local cloud and what it would cost per hour."""
    if sandbox.runs:
        sandbox.wait()
        _print_resources(sandbox, console)
    else:
        console.step("the local cloud does not run; `make sandbox` starts it")


def environment(sandbox: Sandbox) -> None:
    """Prints which file a shell sources to work on the sandbox that runs."""
    file = sandbox.folder.environment
    if not (sandbox.runs and file.exists()):
        raise ProcessError("no sandbox runs: start one with `make sandbox`")
    sys.stdout.write(f"{file}\n")


def dashboards(sandbox: Sandbox, console: Console, output: Path | None, length: str | None) -> None:
    """Writes the dashboards, with the data of the running Prometheus, as one HTML page."""
    addresses = sandbox.addresses() if sandbox.runs else []
    if not addresses:
        raise ProcessError("no Prometheus runs in the local cloud; `make sandbox` starts one")
    path = output or sandbox.folder.dashboards
    try:
        files.check(path)
        shown = seconds(length) if length else None
        page = render(sandbox.dashboards()[0], addresses[0].prometheus, seconds=shown)
        files.write(path, [page.html])
    except (OSError, ValueError) as error:
        raise ProcessError(f"no page of the dashboards: {error}") from error
    for line in page.remarks():
        console.detail(line)
    console.step(f"{path.resolve().as_uri()}: {page.summary}")


def _print_resources(sandbox: Sandbox, console: Console) -> None:
    for thing in sandbox.resources():
        price = "price unknown" if thing["eurPerHour"] is None else f"{thing['eurPerHour']:.4f} €/h"
        console.detail(f"{thing['kind']:14} {price:>14}  {thing['name']}")


def _print_addresses(
    sandbox: Sandbox, console: Console, outputs: dict[str, Any], addresses: Addresses
) -> None:
    console.step("where it is:")
    names = ("openai_base_url", "model", "grafana_url", "grafana_dashboard_url")
    rows = {name: outputs[name] for name in names} | {
        "Prometheus": addresses.prometheus,
        "Alertmanager": addresses.alertmanager,
        "OVHcloud API": addresses.api,
    }
    for name, value in rows.items():
        console.detail(f"{name:22} {value}")
    environment = sandbox.folder.environment
    shown = environment.relative_to(CHECKOUT) if environment.is_relative_to(CHECKOUT) else environment
    console.step(f"the plain CLI: . {shown} && pulumi preview -s {STACK} (also -s dev, -s prod)")


def main() -> int:
    """Runs the command of the command line; the exit status is 1 when it fails."""
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("up", help=up.__doc__)
    start.add_argument("--settings", type=Path, help="TOML file for the local cloud, see sandbox/settings.py")
    commands.add_parser("down", help=down.__doc__)
    commands.add_parser("status", help=status.__doc__)
    commands.add_parser("environment", help=environment.__doc__)
    show = commands.add_parser("dashboards", help=dashboards.__doc__)
    show.add_argument("--output", type=Path, help="the page (default: dashboards.html in .sandbox)")
    show.add_argument("--range", help="time range up to now, such as 15m (default: 1h)")
    commands.add_parser("drill", help=drill.run.__doc__)
    arguments = parser.parse_args()
    sandbox, console = Sandbox(Folder()), Console()
    try:
        match arguments.command:
            case "up":
                up(sandbox, console, arguments.settings)
            case "down":
                down(sandbox, console)
            case "status":
                status(sandbox, console)
            case "environment":
                environment(sandbox)
            case "dashboards":
                dashboards(sandbox, console, arguments.output, arguments.range)
            case "drill":
                drill.run(drill.Plan(), console)
    except drill.DrillError as error:
        sys.stderr.write(f"the drill failed at this step: {error}\n")
        return 1
    except (
        ToolchainError,
        EngineError,
        ProcessError,
        ProjectError,
        SandboxSettingsError,
        smoke.SmokeError,
    ) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except httpx.HTTPError as error:
        sys.stderr.write(f"no result from {error.request.url}: {error}; the log is {sandbox.folder.log}\n")
        return 1
    except KeyboardInterrupt:
        hint = ": `make sandbox` goes on from here, `make sandbox-down` removes everything"
        if arguments.command == "drill":
            hint = ""  # its sandbox is gone by now, and no other one was touched
        sys.stderr.write(f"\ninterrupted{hint}\n")
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
