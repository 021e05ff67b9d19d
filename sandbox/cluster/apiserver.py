"""HTTP of the Kubernetes API: discovery, objects, patches, watches, tables.

What is served, and how it differs from a real API server:

* Every write is validated as with `fieldValidation=Strict`, whatever the parameter says.
* One version per kind; no conversion, no admission webhooks, no aggregated APIs, no quota.
* `limit` is ignored: a list is always whole.
* JSON only. `kubectl create namespace x` and its like send protobuf, which is refused; `apply -f` works.
* Subresources: `status`. Others (`scale`, `log`, `exec`, …) answer 501 "not implemented in the sandbox".
* OpenAPI says only what kubectl asks before it sends an object: that the server validates fields itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from aiohttp import web

from sandbox.cluster import errors, fields, selectors
from sandbox.cluster.documents import Documents
from sandbox.cluster.errors import ApiError, Cause
from sandbox.cluster.kinds import Kind, Object
from sandbox.cluster.storage import ObjectStore
from sandbox.cluster.tables import table

_LOG = logging.getLogger(__name__)

_MERGE = "application/merge-patch+json"
_STRATEGIC = "application/strategic-merge-patch+json"
_JSON_PATCH = "application/json-patch+json"
_APPLY = "application/apply-patch+yaml"

_MAX_BODY = 8 * 1024 * 1024
_ADMINISTRATORS = "system:masters"


@dataclass(frozen=True)
class _Target:
    """What a path names; `name` is "" for a collection, `namespace` None for all of them."""

    kind: Kind
    namespace: str | None
    name: str
    subresource: str


class ApiServer:
    """Answers requests for the objects of one store; `version` is such as `1.34.2-1`."""

    def __init__(self, store: ObjectStore, cluster: str, version: str) -> None:
        self._store = store
        self._cluster = cluster
        self._documents = Documents(store.kinds, version)
        self._ranges: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._closing = asyncio.Event()

    def restrict(self, ranges: Sequence[str]) -> None:
        """Source ranges that may call; empty means all. ValueError for what is no CIDR."""
        self._ranges = [ipaddress.ip_network(item, strict=False) for item in ranges]

    def application(self) -> web.Application:
        """The aiohttp application; one handler, since a path means what the store serves at that moment."""
        application = web.Application(client_max_size=_MAX_BODY)
        application.router.add_route("*", "/{path:.*}", self._handle)
        application.on_shutdown.append(self._close)
        return application

    async def _close(self, _: web.Application) -> None:
        self._closing.set()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            self._admit(request)
            return await self._answer(request)
        except ApiError as error:
            return web.json_response(error.status(), status=error.code)
        except fields.PatchError as error:
            refusal = errors.bad_request(f"the patch cannot be applied: {error}")
            return web.json_response(refusal.status(), status=refusal.code)
        except web.HTTPException:
            raise
        except Exception as error:
            _LOG.exception("%s %s failed", request.method, request.path)
            failure = ApiError(500, "InternalError", f"an error on the server: {type(error).__name__}")
            return web.json_response(failure.status(), status=failure.code)

    def _admit(self, request: web.Request) -> None:
        """Refuses callers by address and by the subject of their certificate."""
        address = ipaddress.ip_address(request.remote or "0.0.0.0")  # noqa: S104
        if self._ranges and not any(address in network for network in self._ranges):
            listed = ", ".join(str(network) for network in self._ranges)
            raise ApiError(
                403,
                "Forbidden",
                f"{address} is not in the IP restrictions of cluster {self._cluster} ({listed}); "
                "a real cluster would not answer at all",
            )
        certificate = request.transport.get_extra_info("peercert") if request.transport else None
        if not certificate:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        subject = [pair for part in certificate["subject"] for pair in part]
        user = next((value for key, value in subject if key == "commonName"), "")
        if ("organizationName", _ADMINISTRATORS) not in subject:
            raise ApiError(403, "Forbidden", f'User "{user}" cannot access path "{request.path}"')

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path.strip("/")
        if path in ("healthz", "livez", "readyz"):
            return web.Response(text="ok")
        document = self._documents.at(path, request.host)
        if document is not None:
            return web.json_response(document)
        target = self._target(path)
        if target.subresource not in ("", "status") or (target.subresource and not target.kind.status):
            raise errors.not_implemented(f"{request.path} ({target.subresource})")
        handlers: dict[tuple[str, bool], Callable[..., Any]] = {
            ("GET", False): self._list,
            ("GET", True): self._get,
            ("POST", False): self._post,
            ("PUT", True): self._put,
            ("PATCH", True): self._patch,
            ("DELETE", True): self._delete,
        }
        handler = handlers.get((request.method, bool(target.name)))
        if handler is None:
            raise errors.not_implemented(f"{request.method} {request.path}")
        answer: web.StreamResponse = await handler(request, target)
        return answer

    def _target(self, path: str) -> _Target:
        parts = path.split("/")
        if parts[:2] == ["api", "v1"]:
            group, version, rest = "", "v1", parts[2:]
        elif parts[0] == "apis" and len(parts) > 3:
            group, version, rest = parts[1], parts[2], parts[3:]
        else:
            raise errors.unknown_resource(f"/{path}")
        namespace: str | None = None
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] != "status":
            namespace, rest = rest[1], rest[2:]
        kind = self._store.kinds.find(group, version, rest[0])
        if kind is None or len(rest) > 3:
            raise errors.unknown_resource(f"/{path}")
        name = rest[1] if len(rest) > 1 else ""
        if name and kind.namespaced and namespace is None:
            raise errors.unknown_resource(f"/{path}")
        return _Target(kind, namespace, name, rest[2] if len(rest) > 2 else "")

    def _current(self, target: _Target) -> Object:
        found = self._store.get(target.kind.kind, target.namespace or "", target.name)
        if found is None:
            raise errors.not_found(target.kind.plural, target.kind.group, target.name)
        return found

    async def _get(self, request: web.Request, target: _Target) -> web.StreamResponse:
        found = self._current(target)
        if _wants_table(request):
            return web.json_response(table(target.kind, [found], str(self._store.resource_version)))
        return web.json_response(found)

    async def _list(self, request: web.Request, target: _Target) -> web.StreamResponse:
        matches = selectors.matcher(
            request.query.get("labelSelector", ""), request.query.get("fieldSelector", "")
        )
        if request.query.get("watch") in ("1", "true"):
            return await self._watch(request, target, matches)
        found = self._store.list(target.kind.kind, target.namespace)
        items = [item for item in found if matches(item)]
        version = str(self._store.resource_version)
        if _wants_table(request):
            return web.json_response(table(target.kind, items, version))
        if not target.kind.custom:
            for item in items:
                del item["kind"], item["apiVersion"]
        return web.json_response(
            {
                "kind": f"{target.kind.kind}List",
                "apiVersion": target.kind.api_version,
                "metadata": {"resourceVersion": version},
                "items": items,
            }
        )

    async def _post(self, request: web.Request, target: _Target) -> web.StreamResponse:
        value = await _body(request)
        self._fit(target, value)
        stored = self._store.create(value, _manager(request), dry_run=_dry_run(request))
        return web.json_response(stored, status=201)

    async def _put(self, request: web.Request, target: _Target) -> web.StreamResponse:
        value = await _body(request)
        self._fit(target, value)
        stored = self._store.update(
            value, _manager(request), subresource=target.subresource, dry_run=_dry_run(request)
        )
        return web.json_response(stored)

    async def _patch(self, request: web.Request, target: _Target) -> web.StreamResponse:
        patch = await _body(request)
        dry_run = _dry_run(request)
        if request.content_type == _APPLY:
            if not request.query.get("fieldManager"):
                cause = Cause(
                    "FieldValueRequired", "Required value: is required for apply patch", "fieldManager"
                )
                raise errors.invalid("PatchOptions", "meta.k8s.io", "", [cause])
            self._fit(target, patch)
            exists = self._store.get(target.kind.kind, target.namespace or "", target.name) is not None
            stored = self._store.apply(
                patch,
                request.query["fieldManager"],
                force=request.query.get("force") in ("1", "true"),
                subresource=target.subresource,
                dry_run=dry_run,
            )
            return web.json_response(stored, status=200 if exists else 201)
        current = self._current(target)
        value = self._patched(request.content_type, target.kind, current, patch)
        self._fit(target, value)
        return web.json_response(
            self._store.update(value, _manager(request), subresource=target.subresource, dry_run=dry_run)
        )

    def _patched(self, content_type: str, kind: Kind, current: Object, patch: Any) -> Object:
        node = self._store.schemas.node(kind)
        if content_type == _MERGE:
            value = fields.merge_patch(current, patch)
        elif content_type == _JSON_PATCH:
            value = fields.json_patch(current, patch)
        elif content_type == _STRATEGIC and not kind.custom:
            value = fields.strategic_merge_patch(node, current, patch)
        else:
            # Custom kinds have no strategic merge patch in the real server either.
            raise ApiError(
                415,
                "UnsupportedMediaType",
                "the body of the request was in an unknown format - accepted media types include: "
                f"{_JSON_PATCH}, {_MERGE}, {_APPLY}",
            )
        if not isinstance(value, dict):
            raise errors.bad_request("the patch does not leave an object")
        return value

    async def _delete(self, request: web.Request, target: _Target) -> web.StreamResponse:
        if target.subresource:
            raise errors.not_implemented(f"DELETE {request.path}")
        options = await _body(request) if request.can_read_body else {}
        propagation = (
            request.query.get("propagationPolicy") or options.get("propagationPolicy") or "Background"
        )
        before = self._current(target)
        last = self._store.delete(
            target.kind.kind,
            target.namespace or "",
            target.name,
            propagation=propagation,
            preconditions=options.get("preconditions"),
            dry_run=_dry_run(request) or bool(options.get("dryRun")),
        )
        if self._store.get(target.kind.kind, target.namespace or "", target.name) is not None:
            return web.json_response(last)
        details = {"name": target.name, "kind": target.kind.plural, "uid": before["metadata"]["uid"]}
        if target.kind.group:
            details["group"] = target.kind.group
        return web.json_response(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        )

    def _fit(self, target: _Target, value: Object) -> None:
        """Completes a body from its path, and refuses one that contradicts it."""
        kind = target.kind
        value.setdefault("apiVersion", kind.api_version)
        value.setdefault("kind", kind.kind)
        if (value["apiVersion"], value["kind"]) != (kind.api_version, kind.kind):
            got = f"{value['apiVersion']}, kind {value['kind']}"
            raise errors.bad_request(
                f"the body is a {got}; this path takes {kind.api_version}, kind {kind.kind}"
            )
        metadata = value.setdefault("metadata", {})
        if not isinstance(metadata, dict):
            raise errors.bad_request("metadata is no object")
        if target.name and metadata.setdefault("name", target.name) != target.name:
            text = f"the name of the object ({metadata['name']}) does not match the name on the URL"
            raise errors.bad_request(f"{text} ({target.name})")
        if kind.namespaced:
            if target.namespace is None:
                raise errors.not_implemented(f"writing {kind.plural} without a namespace in the path")
            if (metadata.get("namespace") or target.namespace) != target.namespace:
                raise errors.bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
            metadata["namespace"] = target.namespace

    async def _watch(
        self, request: web.Request, target: _Target, matches: Callable[[Object], bool]
    ) -> web.StreamResponse:
        store, kind = self._store, target.kind
        since = request.query.get("resourceVersion", "0")
        if not since.isdecimal():
            raise errors.bad_request(f"resourceVersion {since!r} is no number")
        at = int(since)
        oldest = store.history[0].resource_version if len(store.history) == store.history.maxlen else 0
        if 0 < at < oldest:
            raise ApiError(410, "Expired", f"too old resource version: {at} ({oldest})")
        limit = _seconds(request)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)

        async def send(type_: str, item: Object) -> None:
            shown = (
                table(kind, [item], item["metadata"]["resourceVersion"]) if _wants_table(request) else item
            )
            await response.write(json.dumps({"type": type_, "object": shown}).encode() + b"\n")

        def selected(item: Object | None) -> bool:
            inside = item is not None and target.namespace in (None, item["metadata"].get("namespace"))
            return inside and item is not None and matches(item)

        try:
            async with asyncio.timeout(limit):
                if at == 0:
                    at = store.resource_version
                    for item in filter(matches, store.list(kind.kind, target.namespace)):
                        await send("ADDED", item)
                while not self._closing.is_set():
                    changes = [change for change in store.history if change.resource_version > at]
                    at = store.resource_version
                    for change in changes:
                        if change.kind != kind.kind:
                            continue
                        if change.after is not None and selected(change.after):
                            await send("MODIFIED" if selected(change.before) else "ADDED", change.after)
                        elif change.before is not None and selected(change.before):
                            metadata = {
                                **change.before["metadata"],
                                "resourceVersion": str(change.resource_version),
                            }
                            await send("DELETED", {**change.before, "metadata": metadata})
                    await _first(store.written(at), self._closing.wait())
        except (TimeoutError, ConnectionResetError) as end:
            _LOG.debug("watch of %s ended: %s", kind.plural, type(end).__name__)
        return response


async def _first(*waits: Any) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _seconds(request: web.Request) -> float:
    """How long a watch may last; an hour unless the client says otherwise."""
    text = request.query.get("timeoutSeconds", "3600")
    if not text.isdecimal():
        raise errors.bad_request(f"timeoutSeconds {text!r} is no number")
    return float(text)


def _wants_table(request: web.Request) -> bool:
    return "as=Table" in request.headers.get("Accept", "")


def _dry_run(request: web.Request) -> bool:
    value = request.query.get("dryRun", "")
    if value not in ("", "All"):
        raise errors.bad_request(f"dryRun: Unsupported value: {value!r}: supported values: All")
    return value == "All"


def _manager(request: web.Request) -> str:
    """The field manager: the parameter, else the program name in the User-Agent, as the server does it."""
    agent = request.headers.get("User-Agent", "unknown").split("/")[0]
    return (request.query.get("fieldManager") or agent)[:128]


async def _body(request: web.Request) -> Any:
    """The decoded body; what is in it is never repeated in an error, since it may be secret."""
    if "protobuf" in request.content_type:
        raise ApiError(
            415,
            "UnsupportedMediaType",
            "the sandbox takes JSON, not protobuf: use `kubectl apply -f`, not `kubectl create <kind>`",
        )
    raw = await request.read()
    try:
        value = yaml.safe_load(raw) if "yaml" in request.content_type else json.loads(raw)
    except (ValueError, yaml.YAMLError):
        raise errors.bad_request("the body of the request is neither JSON nor YAML") from None
    if request.content_type != _JSON_PATCH and not isinstance(value, dict):
        raise errors.bad_request("the body of the request is no object")
    return value
