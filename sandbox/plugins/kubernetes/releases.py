"""Releases of one Helm chart as Pulumi resources."""

from __future__ import annotations

import os
from collections.abc import Callable

from sandbox.plugins.framework import (
    CheckFailure,
    CheckRequest,
    CheckResult,
    Created,
    CreateRequest,
    DeleteRequest,
    InitFailed,
    PluginError,
    ReadRequest,
    ReadResult,
    UpdateRequest,
)
from sandbox.plugins.kubernetes import chart, objects, release
from sandbox.plugins.kubernetes.helm import Helm, HelmError, Order, ReleaseFailed
from sandbox.plugins.kubernetes.records import Record
from sandbox.plugins.values import Object, has_unknown, reveal, reveal_object


def check(request: CheckRequest, namespace: str) -> CheckResult:
    """Completes inputs, and holds chart and values against the model; `namespace` is the provider's."""
    old_name = str(reveal(request.olds.get("name")) or "")
    name = old_name or f"{request.name}-{objects.random_hex(request.random_seed or os.urandom(16))}"
    inputs = release.complete(request.news, name, namespace)
    failures = release.not_modelled(request.news)
    known = release.known(dict(inputs))
    try:
        if "chart" in known and "version" in known and not has_unknown(inputs.get("repositoryOpts")):
            chart.locate(known["chart"], known["version"], release.repository_url(known))
        chart.render(known.get("values", {}), known.get("name", name), known.get("namespace", "default"))
    except chart.ChartError as error:
        # Without naming the property: Pulumi would print all values with it.
        failures.append(CheckFailure(objects.masked(str(error), request.news)))
    return CheckResult(inputs, failures)


def create(helm: Helm, request: CreateRequest, warn: Callable[[str, str], None]) -> Created:
    """Installs a release; `warn` takes the URN and what to tell about one that did not come up."""
    try:
        id, record = _run(helm.install, request.inputs)
    except ReleaseFailed as error:
        warn(
            request.urn,
            f'Helm release "{error.record.name}" was created but has a failed status. Use the `helm` command '
            f"to investigate the error, correct it, then retry. Reason: {error}",
        )
        raise _failed(request.inputs, error, "was created, but failed to initialize completely") from error
    return Created(id, release.state(request.inputs, record))


def read(helm: Helm, request: ReadRequest) -> ReadResult | None:
    """Looks up the newest revision; None when there is no such release."""
    namespace, name = objects.split_id(request.id)
    record = helm.last(namespace, name)
    if record is None:
        return None
    inputs = request.inputs or release.imported(record)
    return ReadResult(request.id, inputs, release.state(inputs, record))


def update(helm: Helm, request: UpdateRequest) -> Object:
    """Upgrades a release; returns its outputs."""
    try:
        _, record = _run(helm.upgrade, request.news)
    except ReleaseFailed as error:
        raise _failed(request.news, error, "failed to initialize completely") from error
    return release.state(request.news, record)


def delete(helm: Helm, request: DeleteRequest) -> None:
    """Uninstalls a release."""
    order = release.order(reveal_object(request.outputs))
    helm.uninstall(order.namespace, order.name, order.wait or order.atomic, order.timeout)


def _run(action: Callable[[Order], Record], inputs: Object) -> tuple[str, Record]:
    """Has Helm do it; returns the resource's id. Secrets of the inputs do not show in errors."""
    order = release.order(reveal_object(inputs))
    try:
        return objects.qualified_id(order.namespace, order.name), action(order)
    except ReleaseFailed as error:
        raise ReleaseFailed(error.record, objects.masked(str(error), inputs)) from error
    except PluginError as error:
        raise HelmError(objects.masked(str(error), inputs)) from error


def _failed(inputs: Object, error: ReleaseFailed, what: str) -> InitFailed:
    """The error by which state keeps a release that failed on the way."""
    id = objects.qualified_id(error.record.namespace, error.record.name)
    reason = (
        f'Helm release "{id}" {what}. Use Helm CLI to investigate: failed to become available within '
        f"allocated timeout. Error: Helm Release {id}: {error}"
    )
    return InitFailed(id, release.state(inputs, error.record), [reason])
