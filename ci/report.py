"""Markdown about one run of the Pulumi engine, from its event log: changes, costs, policies, errors.

Pure. The engine writes secrets as `[secret]` into its events; `text` hides what looks like a token besides.
Names and values come from whoever wrote the change: nothing of them is Markdown or HTML in the text.
"""

from __future__ import annotations

import html
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Final, Literal

from pulumi.runtime.rpc import UNKNOWN

from components.ai_deploy.redact import redact

LIMIT: Final = 65_536
"""Most characters of a comment or issue on GitHub; counted in bytes here, which are never fewer."""

Kind = Literal["preview", "update", "drift check"]
"""What the engine was asked to do."""

_VERBS: Final = {
    "delete": "deleted",
    "replace": "replaced",
    "create": "created",
    "import": "imported",
    "update": "updated",
}
"""Operations that are shown, the gravest first; those that belong to a replacement are part of it."""
_SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
"""Key of an object that stands for a secret."""
_COSTS: Final = {"cost_eur_per_hour_min": "fewest replicas", "cost_eur_per_hour_max": "most replicas"}
_LONGEST_VALUE: Final = 60
_ROOM: Final = {"errors": 20_000, "violations": 14_000, "warnings": 4_000, "notes": 8_000}
"""Bytes of the parts; changes take what is left."""
_MOST_PROPERTIES: Final = 6
_ESCAPES: Final = {ord(sign): f"&#{ord(sign)};" for sign in "&<>\"'|\\`*_~[]()!#"}
"""What could be a tag, a link, an image or emphasis, which code type does not prevent in HTML."""


@dataclass(frozen=True)
class Change:
    """A resource that is changed, or that is not as the state says."""

    operation: str
    type: str
    name: str
    properties: tuple[str, ...]
    """Each as `path: old → new`."""


@dataclass(frozen=True)
class Violation:
    """A rule of the policy pack that is broken."""

    policy: str
    level: str
    """`mandatory` or `advisory`."""
    resource: str
    message: str


@dataclass(frozen=True)
class Run:
    """What one run of the engine did, or would do."""

    changes: tuple[Change, ...] = ()
    violations: tuple[Violation, ...] = ()
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What the program says, the bill for one."""
    unchanged: int = 0
    costs: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    """EUR per hour before and after, by name of the stack output; None: not known."""
    policies: bool = False
    """Whether a policy pack was asked."""


def read(events: Iterable[Mapping[str, Any]]) -> Run:
    """What the events of one engine say; they are those of `--event-log`, one object a line."""
    changes: list[Change] = []
    violations: list[Violation] = []
    said: dict[str, dict[str, None]] = {"error": {}, "warning": {}, "info": {}}
    costs: dict[str, tuple[float | None, float | None]] = {}
    unchanged, policies = 0, False
    refreshed: set[str] = set()
    for event in events:
        if begun := event.get("resourcePreEvent"):
            step = begun["metadata"]
            if step["op"] == "refresh":
                refreshed.add(step["urn"])
            changes += _change(step, "inputs")
        if ended := event.get("resOutputsEvent"):
            step = ended["metadata"]
            costs |= _costs(step)
            # What a refresh has found is known when it is over; then its operation is called an update.
            changes += _change(step, "outputs") if step["urn"] in refreshed else []
        if violation := event.get("policyEvent"):
            violations.append(_violation(violation))
        diagnostic = event.get("diagnosticEvent") or {}
        if (messages := said.get(str(diagnostic.get("severity")))) is not None:
            messages[_located(diagnostic)] = None
        if summary := event.get("summaryEvent"):
            unchanged = int((summary.get("resourceChanges") or {}).get("same", 0))
        policies |= _tells_of_policies(event)
    order = list(_VERBS)
    changes.sort(key=lambda change: order.index(change.operation))
    return Run(
        tuple(changes),
        tuple(dict.fromkeys(violations)),
        tuple(filter(None, said["error"])),
        tuple(filter(None, said["warning"])),
        tuple(filter(None, said["info"])),
        unchanged,
        costs,
        policies or bool(violations),
    )


def _tells_of_policies(event: Mapping[str, Any]) -> bool:
    return bool((event.get("summaryEvent") or {}).get("PolicyPacks")) or "policyAnalyzeSummaryEvent" in event


def _change(step: Mapping[str, Any], sides: Literal["inputs", "outputs"]) -> list[Change]:
    """The change that a step makes, if it makes one; `sides` are what is compared before and after."""
    path, _, name = str(step["urn"]).rpartition("::")
    type_ = path.rpartition("::")[2].rpartition("$")[2]
    operation = str(step["op"])
    if operation not in _VERBS or type_ == "pulumi:pulumi:Stack":
        return []
    # Follows the configuration of the stack; the engine does not count it either.
    if type_.startswith("pulumi:providers:") and name.startswith("default"):
        return []
    told: list[str] = []
    if operation in ("update", "replace"):
        old, new = ((step.get(side) or {}).get(sides) or {} for side in ("old", "new"))
        # Secrets look alike before and after: then there are names alone.
        told = list(_differences("", old, new)) or list(step.get("detailedDiff") or step.get("diffs") or ())
    return [Change(operation, type_, name, tuple(told))]


def _differences(path: str, old: Any, new: Any) -> Iterator[str]:
    if _shown(old) == _shown(new) == "[secret]" or old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict) and _SIGNATURE not in {*old, *new}:
        for key in dict.fromkeys([*old, *new]):
            if not key.startswith("__"):
                yield from _differences(f"{path}.{key}".lstrip("."), old.get(key), new.get(key))
        return
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _differences(f"{path}[{number}]", before, after)
        return
    before, after = _shown(old), _shown(new)
    yield f"{path}: {before} → {after}" if before != after else f"{path}: changed, too long to show"


def _shown(value: Any) -> str:
    match value:
        case None:
            return "(none)"
        case dict() if _SIGNATURE in value:
            return "[secret]"
        case dict() | list():
            text = "…" if _SIGNATURE in json.dumps(value) else json.dumps(value, ensure_ascii=False)
        case str():
            text = value if value != UNKNOWN else "(known after the update)"
        case _:
            text = json.dumps(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _costs(step: Mapping[str, Any]) -> dict[str, tuple[float | None, float | None]]:
    if step.get("type") != "pulumi:pulumi:Stack":
        return {}
    old, new = (((step.get(side) or {}).get("outputs") or {}) for side in ("old", "new"))
    if step.get("op") == "create":
        # What is not there yet costs nothing.
        old = dict.fromkeys(_COSTS, 0.0)
    return {name: (old.get(name), new.get(name)) for name in _COSTS if name in new}


def _violation(event: Mapping[str, Any]) -> Violation:
    # The engine calls advisory violations warnings.
    level = {"warning": "advisory"}.get(event["enforcementLevel"], event["enforcementLevel"])
    resource = str(event.get("resourceUrn") or "").rpartition("::")[2]
    return Violation(str(event["policyName"]), level, resource, str(event["message"]).strip())


def _located(diagnostic: Mapping[str, Any]) -> str:
    name = str(diagnostic.get("urn") or "").rpartition("::")[2]
    message = str(diagnostic["message"]).strip()
    return f"{name}: {message}" if name and message else message


def text(
    kind: Kind, stack: str, run: Run, *, ok: bool, footer: str = "", secrets: Collection[str] = ()
) -> str:
    """The run as Markdown of at most `LIMIT` bytes; `secrets` are shown nowhere.

    `ok` is false when the engine failed; a drift check fails by finding drift. What does not fit is counted.
    """
    run = _hidden(run, secrets)
    head = [marker(kind, stack), f"### {_headline(kind, stack, run, ok)}", *_errors(run, ok)]
    if kind != "drift check":
        head += [*_costs_table(run), *_policies(run), *_warnings(run)]
    tail = [*_notes(run), footer]
    room = LIMIT - sum(_size(part) + 2 for part in (*head, *tail)) - 200
    parts = [*head, _table(run.changes, room), *tail]
    return "\n\n".join(filter(None, parts)) + "\n"


def _hidden(value: Any, secrets: Collection[str]) -> Any:
    """The same with no secret in any text; before texts are escaped, which would change secrets, too."""
    if isinstance(value, str):
        return redact(value, secrets)
    if isinstance(value, tuple):
        return tuple(_hidden(part, secrets) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{one.name: _hidden(getattr(value, one.name), secrets) for one in fields(value)}
        )
    return value


def marker(kind: Kind, stack: str) -> str:
    """The first line, by which a comment or issue is found again; Markdown does not show it."""
    return f"<!-- ovh-vllm {kind} of {stack} -->"


def _size(text: str) -> int:
    return len(text.encode())


def _headline(kind: Kind, stack: str, run: Run, ok: bool) -> str:
    counts = {verb: sum(change.operation == verb for change in run.changes) for verb in _VERBS}
    words = {verb: f"to {verb}" if kind == "preview" else done for verb, done in _VERBS.items()}
    parts = ", ".join(f"{count} {words[verb]}" for verb, count in counts.items() if count)
    match kind:
        case "drift check":
            state = drift(run)
        case _:
            unchanged = f", {run.unchanged} unchanged" if run.unchanged else ""
            state = f"{parts or 'no changes'}{unchanged}"
    failed = not ok and not (kind == "drift check" and run.changes)
    # Pages are small; the words come first.
    return f"{kind.capitalize()} of {stack}: {'failed' if failed else state}"


def drift(run: Run) -> str:
    """What a drift check has found, in a few words."""
    found = len(run.changes)
    return f"{found} resource{'s' if found != 1 else ''} not as deployed" if found else "no drift"


def _errors(run: Run, ok: bool) -> Iterator[str]:
    if run.errors:
        yield _block("\n\n".join(run.errors), _ROOM["errors"])
    elif not (ok or run.violations or run.changes):
        yield "The engine ended before it could say more here: see the log of the run."


def _costs_table(run: Run) -> Iterator[str]:
    if run.costs:
        lines = ["| EUR per hour, without VAT | before | after | change |", "|---|--:|--:|--:|"]
        lines += [f"| {_COSTS[name]} | {' | '.join(_cost(*costs))} |" for name, costs in run.costs.items()]
        yield "\n".join(lines)


def _policies(run: Run) -> Iterator[str]:
    if run.violations:
        header = "| Policy | | Resource | What to change |\n|---|---|---|---|"
        shown = sorted(run.violations, key=lambda violation: violation.level != "mandatory")
        yield _rows(header, map(_violation_row, shown), _ROOM["violations"], "violation")
    elif run.policies:
        yield "Policies: no violation."


def _warnings(run: Run) -> Iterator[str]:
    if run.warnings:
        yield _block("\n\n".join(run.warnings), _ROOM["warnings"])


def _violation_row(violation: Violation) -> str:
    level = f"**{violation.level}**" if violation.level == "mandatory" else violation.level
    cells = (_code(violation.policy), level, _code(violation.resource), _cell(violation.message))
    return f"| {' | '.join(cells)} |"


def _cost(old: float | None, new: float | None) -> tuple[str, str, str]:
    before, after = ("unknown" if cost is None else f"{cost:.2f}" for cost in (old, new))
    change = "" if old is None or new is None or old == new else f"**{new - old:+.2f}**"
    return before, after, change


def _table(changes: tuple[Change, ...], room: int) -> str:
    header = "| | Resource | Type | What changes |\n|---|---|---|---|"
    return _rows(header, map(_change_row, changes), room, "change") if changes else ""


def _change_row(change: Change) -> str:
    properties = [_code(text) for text in change.properties[:_MOST_PROPERTIES]]
    more = len(change.properties) - len(properties)
    what = "<br>".join([*properties, *([f"and {more} more"] if more else [])])
    verb = f"**{change.operation}**" if change.operation in ("delete", "replace") else change.operation
    return f"| {verb} | {_code(change.name)} | {_code(change.type)} | {what} |"


def _rows(header: str, rows: Iterable[str], room: int, what: str) -> str:
    """A table of as many rows as there is room for, in bytes; the others are counted."""
    lines, left = [header], 0
    room -= _size(header)
    for row in rows:
        room -= _size(row) + 1
        if room < 0 or left:
            left += 1
        else:
            lines.append(row)
    note = f"\n\n{left} more {what}{'s' if left > 1 else ''}: see the log of the run." if left else ""
    return "\n".join(lines) + note


def _notes(run: Run) -> Iterator[str]:
    if run.notes:
        frame = _block("\n".join(run.notes), _ROOM["notes"])
        yield f"<details><summary>Bill</summary>\n\n{frame}\n\n</details>"


def _block(text: str, room: int) -> str:
    """A text as it is, in a frame that it cannot leave; what is more than `room` bytes is cut off."""
    content = html.escape(text, quote=False).encode()
    shown = content if len(content) <= room else content[:room] + "…".encode()
    return f"<pre>{shown.decode(errors='ignore')}</pre>"


def _code(text: str) -> str:
    """A short text in code type, in a cell of a table."""
    return f"<code>{_cell(text)}</code>" if text else ""


def _cell(text: str) -> str:
    """A short text in a cell of a table: neither mention nor link nor image nor the cell's end."""
    shown = " ".join(text.split())
    shown = shown if len(shown) <= 4 * _LONGEST_VALUE else f"{shown[: 4 * _LONGEST_VALUE]}…"
    # Zero width space: GitHub looks for mentions and numbers of issues in what has been rendered.
    shown = shown.translate(_ESCAPES).replace("@", "@\u200b").replace("&#35;", "&#35;\u200b")
    # Else an address would be made a link.
    return shown.replace("://", "&#58;//").replace("www.", "www&#46;")


def unfollowable(plan: Mapping[str, Any]) -> list[str]:
    """Names of the providers whose configuration the plan does not know yet.

    What such a provider checks is not in the plan, and the engine stops half-way for the difference. So it is
    with a stack that is deployed for the first time: there is no cluster yet.
    """
    return [
        urn.rpartition("::")[2]
        for urn, resource in (plan.get("resourcePlans") or {}).items()
        if "pulumi:providers:" in urn and UNKNOWN in json.dumps((resource.get("goal") or {}).get("inputDiff"))
    ]
