"""What the Terraform bridge does for every resource of a bridged provider (ovh, openstack), and no more.

A resource is a schema (`sandbox.plugins.schema`) and four operations on `ResourceData`, written as Terraform
providers write theirs: read what is planned, call the API, set what it answered.

Sources: pulumi-terraform-bridge (pkg/tfbridge/provider.go) and terraform-plugin-sdk v2
(helper/schema/grpc_provider.go, helper/retry), as of August 2026; recorded state.
"""

from __future__ import annotations

import json
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

import httpx

from sandbox.plugins.framework import (
    CheckFailure,
    CheckRequest,
    CheckResult,
    Created,
    CreateRequest,
    DeleteRequest,
    Diff,
    DiffRequest,
    InitFailed,
    Plugin,
    PluginError,
    ReadRequest,
    ReadResult,
    UpdateRequest,
    root_of,
)
from sandbox.plugins.loopback import is_loopback
from sandbox.plugins.schema import (
    Schema,
    State,
    changes_between,
    empty_as_planned,
    imported_inputs,
    named_by_hand,
    plan,
    raw_state_delta,
    refreshed_inputs,
    to_outputs,
    validate,
    with_defaults,
    without_nulls,
)
from sandbox.plugins.values import UNKNOWN, Object, has_unknown

_META: Final = "__meta"
_RAW_STATE_DELTA: Final = "__pulumi_raw_state_delta"
_TIMEOUTS_KEY: Final = "e2bfb730-ecaa-11e6-8f88-34363bc7c4c0"
"""Key of the timeouts in `__meta` (terraform-plugin-sdk helper/schema/resource_timeout.go)."""


class ResourceData:
    """One resource during an operation: `get` gives what is planned, `set` records what the API answered."""

    def __init__(self, id: str, prior: State, planned: State, timeout: float) -> None:
        self.id = id
        """Empty until the resource exists: an operation that fails after it was set keeps the resource."""
        self.timeout = timeout
        """Seconds that the operation may take."""
        self._prior = prior
        self._planned = planned
        self._set: State = {}

    def get(self, key: str) -> Any:
        """Value set or planned; None if there is none or it is not known yet."""
        value = self._set.get(key, self._planned.get(key))
        return None if has_unknown(value) else value

    def old(self, key: str) -> Any:
        """Value before the operation, None if there was none."""
        return self._prior.get(key)

    def changed(self, *keys: str) -> bool:
        """Whether the plan changes any of these properties."""
        return any(self._planned.get(key) != self._prior.get(key) for key in keys)

    def set(self, values: Mapping[str, Any]) -> None:
        """Records properties."""
        self._set.update(values)

    def state(self) -> State:
        """Planned and set properties together; what nothing was set for is None."""
        merged = {**self._planned, **self._set}
        return {key: None if has_unknown(value) else value for key, value in merged.items()}


class BridgedResource(ABC):
    """A resource type. Operations raise `PluginError`; their texts get the bridge's frame."""

    schema: ClassVar[Schema]
    timeouts: ClassVar[Mapping[str, int]] = {}
    """Seconds by operation, and `default`."""

    def timeout(self, operation: str) -> float:
        """Seconds for `operation` (create, read, update, delete) without a custom timeout."""
        # 20 minutes is Terraform's default for resources that declare nothing.
        return float(self.timeouts.get(operation, self.timeouts.get("default", 20 * 60)))

    @abstractmethod
    def create(self, data: ResourceData) -> None:
        """Makes the resource and sets `data.id` when Terraform would."""

    @abstractmethod
    def read(self, data: ResourceData) -> None:
        """Sets what the API says; clears `data.id` if the resource is gone."""

    @abstractmethod
    def update(self, data: ResourceData) -> None:
        """Changes in place what `data.changed`."""

    @abstractmethod
    def delete(self, data: ResourceData) -> None:
        """Removes the resource."""

    @abstractmethod
    def import_state(self, id: str) -> tuple[str, State]:
        """Id and first properties of a resource that is imported by `id`."""


class BridgedPlugin(Plugin):
    """A plugin whose resources are `BridgedResource`s, by type token."""

    # The bridge leaves secrets in inputs to the engine, and wraps outputs that its schema calls sensitive.
    accepts_secrets = False
    raw_state_delta: ClassVar[bool] = False
    """Whether state carries `__pulumi_raw_state_delta`, as recorded for openstack and not for ovh."""

    @property
    @abstractmethod
    def resources(self) -> Mapping[str, BridgedResource]:
        """Resource types by token."""

    def cancel(self) -> None:
        """Does nothing, as the bridge's own `Stop`: what the cloud has begun is waited for and kept."""

    def check(self, request: CheckRequest) -> CheckResult:
        """Validates and completes inputs."""
        resource = self._resource(request.type)
        failures = [
            CheckFailure(text)
            for text in validate(resource.schema, without_nulls(request.news), request.name)
        ]
        inputs = with_defaults(
            resource.schema, without_nulls(request.news), request.olds, request.name, request.random_seed
        )
        return CheckResult(inputs, failures)

    def diff(self, request: DiffRequest) -> Diff:
        """Compares state with the plan, as Terraform does; old inputs play no part in it."""
        resource = self._resource(request.type)
        prior = dict(request.old_outputs)
        planned = plan(resource.schema, prior, request.news, request.ignore_changes)
        changes = changes_between(resource.schema, prior, planned)
        replaced = {root_of(path) for path, change in changes.items() if change.replace}
        return Diff(
            changes=changes,
            delete_before_replace=bool(replaced) and named_by_hand(resource.schema, request.news),
            stables=[
                name for name, item in resource.schema.items() if item.force_new and name not in replaced
            ],
        )

    def create(self, request: CreateRequest) -> Created:
        """Creates the resource."""
        resource = self._resource(request.type)
        planned = plan(resource.schema, None, request.inputs)
        timeout = request.timeout or resource.timeout("create")
        meta = _meta(resource, create=request.timeout)
        if request.preview:
            return Created("", self._outputs(resource, "", planned, meta))
        data = ResourceData("", {}, planned, timeout)
        try:
            resource.create(data)
        except PluginError as error:
            if not data.id:
                raise _framed(error) from error
            raise InitFailed(
                data.id,
                self._outputs(resource, data.id, data.state(), meta),
                [f"creating {request.urn}: {_framed(error)}"],
            ) from error
        state = empty_as_planned(data.state(), planned)
        return Created(data.id, self._outputs(resource, data.id, state, meta))

    def read(self, request: ReadRequest) -> ReadResult | None:
        """Refreshes, or imports when there is no state."""
        resource = self._resource(request.type)
        prior: State = dict(request.outputs)
        refresh = bool(prior)
        id = request.id
        try:
            if not refresh:
                id, prior = resource.import_state(id)
            data = ResourceData(id, prior, prior, resource.timeout("read"))
            resource.read(data)
        except PluginError as error:
            raise PluginError(f"refreshing {request.urn}: {_framed(error)}") from error
        if not data.id:
            return None
        meta: str | None = prior.get(_META) or _meta(resource)
        state = data.state()
        inputs = (
            refreshed_inputs(request.inputs, state) if refresh else imported_inputs(resource.schema, state)
        )
        return ReadResult(data.id, inputs, self._outputs(resource, data.id, state, meta))

    def update(self, request: UpdateRequest) -> Object:
        """Updates the resource in place."""
        resource = self._resource(request.type)
        prior = dict(request.old_outputs)
        planned = plan(resource.schema, prior, request.news, request.ignore_changes)
        meta = _meta(resource, update=request.timeout)
        if request.preview:
            return self._outputs(resource, request.id, planned, meta)
        data = ResourceData(request.id, prior, planned, request.timeout or resource.timeout("update"))
        try:
            resource.update(data)
        except PluginError as error:
            raise InitFailed(
                request.id,
                self._outputs(resource, request.id, data.state(), meta),
                [f"updating {request.urn}: {_framed(error)}"],
            ) from error
        state = empty_as_planned(data.state(), planned)
        return self._outputs(resource, request.id, state, meta)

    def delete(self, request: DeleteRequest) -> None:
        """Deletes the resource."""
        resource = self._resource(request.type)
        state: State = dict(request.outputs)
        data = ResourceData(request.id, state, state, request.timeout or resource.timeout("delete"))
        try:
            resource.delete(data)
        except PluginError as error:
            raise PluginError(f"deleting {request.urn}: {_framed(error)}") from error

    def _resource(self, type: str) -> BridgedResource:
        resource = self.resources.get(type)
        if resource is None:
            known = ", ".join(sorted(self.resources))
            raise PluginError(
                f"resource type {type} is not implemented in the sandbox's stand-in for {self.name}, "
                f"which has {known}"
            )
        return resource

    def _outputs(self, resource: BridgedResource, id: str, state: State, meta: str | None) -> Object:
        outputs = to_outputs(resource.schema, state)
        outputs["id"] = id or UNKNOWN
        if meta is not None:
            outputs[_META] = meta
        if self.raw_state_delta and not has_unknown(outputs):
            outputs[_RAW_STATE_DELTA] = raw_state_delta(resource.schema, state)
        return outputs


def _framed(error: PluginError) -> PluginError:
    """The error in the frame in which Terraform's SDK reports diagnostics."""
    return PluginError(f"1 error occurred:\n\t* {error}\n\n")


def _meta(resource: BridgedResource, **custom: float) -> str | None:
    """`__meta` of a resource: its timeouts in nanoseconds, `custom` ones (seconds, 0 for none) first."""
    if not resource.timeouts:
        return None
    timeouts = {**resource.timeouts, **{name: value for name, value in custom.items() if value}}
    nanoseconds = {name: int(seconds * 1_000_000_000) for name, seconds in sorted(timeouts.items())}
    return json.dumps({_TIMEOUTS_KEY: nanoseconds}, separators=(",", ":"))


def wait_for_state(
    refresh: Callable[[], str],
    pending: Sequence[str],
    target: Sequence[str],
    timeout: float,
    pause: Callable[[], None],
    delay: bool = True,
) -> None:
    """Polls until the state is in `target`, as terraform-plugin-sdk's StateChangeConf does.

    Any state outside `pending` (if there are any) ends the wait with an error, as the end of `timeout` (s)
    does. `delay`: whether it waits once before the first look.
    """
    end = time.monotonic() + timeout
    wanted = ", ".join(target)
    if delay:
        pause()
    while True:
        state = refresh()
        if state in target:
            return
        if pending and state not in pending:
            # "%!s(<nil>)" is what the real one prints for the error that there was not.
            raise PluginError(f"unexpected state '{state}', wanted target '{wanted}'. last error: %!s(<nil>)")
        if time.monotonic() >= end:
            raise PluginError(
                f"timeout while waiting for state to become '{wanted}' "
                f"(last state: '{state}', timeout: {_go_duration(timeout)})"
            )
        pause()


def _go_duration(seconds: float) -> str:
    """Go's text of a duration: 900 s is `15m0s`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def local_client(timeout: float) -> httpx.Client:
    """An HTTP client that sends no header by itself except Host and Content-Length; `timeout` in seconds."""
    # No proxies, as Go uses none for loopback addresses. OpenSSL itself reads SSL_CERT_FILE.
    client = httpx.Client(timeout=timeout, trust_env=False, verify=ssl.create_default_context())
    client.headers = httpx.Headers()
    for name in ("accept", "accept-encoding", "connection", "user-agent"):
        client.headers.pop(name, None)
    return client


def unreachable(method: str, url: str, error: httpx.HTTPError) -> PluginError:
    """Error for a request that got no answer, in the form of Go's HTTP client."""
    hint = " (is the sandbox running?)" if isinstance(error, httpx.ConnectError) else ""
    return PluginError(f'{method.capitalize()} "{url}": {error}{hint}')


def require_loopback(url: str, setting: str, plugin: str) -> None:
    """Raises PluginError for an address off this machine."""
    if not is_loopback(url):
        raise PluginError(
            f"{setting} is {url!r}, but this is the sandbox's stand-in for {plugin}, which only talks to the "
            f"local sandbox: set {setting} to the sandbox's address, or use the real plugin"
        )
