"""Kubernetes objects as Pulumi resources."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Final, NoReturn

from sandbox.plugins.framework import (
    Cancelled,
    CheckFailure,
    CheckRequest,
    CheckResult,
    ConfigureRequest,
    Created,
    CreateRequest,
    DeleteRequest,
    Diff,
    DiffRequest,
    InitFailed,
    Plugin,
    PluginError,
    PropertyChange,
    ReadRequest,
    ReadResult,
    UpdateRequest,
    poll_seconds,
)
from sandbox.plugins.kubernetes import changes, kubeconfig, objects, readiness, release, releases
from sandbox.plugins.kubernetes.api import JSON_PATCH, Api, Manifest, NoMatch, Ref, StatusError, Unreachable
from sandbox.plugins.kubernetes.helm import Helm
from sandbox.plugins.kubernetes.objects import Kind
from sandbox.plugins.values import Object, has_unknown, reveal, reveal_object

_CREATE_MANAGER: Final = "pulumi-kubernetes"
_MANAGER_PREFIX: Final = "pulumi-kubernetes-"
_TIMEOUT_SECONDS: Final = 600.0
_CREATE_TRIES: Final = 6
"""Tries of a create whose kind or namespace is not there yet; the pause doubles from one to the next."""

_SERVER_KEYS: Final = ("kubeconfig", "context", "cluster")
_CLUSTER_IDENTIFIER: Final = "clusterIdentifier"
_NOT_MODELLED: Final = (
    "alwaysRender",
    "renderYamlToDirectory",
    "skipUpdateUnreachable",
    "strictMode",
    "upsertExistingObjects",
)
_SKIP_AWAIT_ON_DELETE: Final = frozenset(
    {"DaemonSet", "Deployment", "Job", "Namespace", "Pod", "ReplicationController", "StatefulSet"}
)
"""Kinds whose deletion `pulumi.com/skipAwait` does not wait for."""

_DELETE_HINT: Final = (
    "you can remove this resource from Pulumi state by rerunning the operation with the "
    'PULUMI_K8S_DELETE_UNREACHABLE environment variable set to "true"'
)
_EXISTS_HINT: Final = (
    "The resource already exists in the cluster. This can happen when:\n\n"
    "  - Renaming a Pulumi resource: use an alias to preserve the identity, or use deleteBeforeReplace if "
    "the resource needs replacement.\n"
    "  - Adopting a resource into Pulumi: use `pulumi import`."
)


@dataclass(frozen=True)
class _Settings:
    """Configuration of a provider, but for the cluster."""

    mutable_secrets: bool
    mutable_config_maps: bool
    patch_force: bool
    delete_unreachable: bool


class _NotReady(Exception):  # noqa: N818 (a state of the object)
    """An object is there, but a wait for it ended without success; `live` is how it was seen last."""

    def __init__(self, live: Manifest, message: str, reasons: list[str]) -> None:
        super().__init__(message)
        self.live = live
        self.reasons = reasons


class KubernetesPlugin(Plugin):
    """The provider plugin `kubernetes`."""

    name = "kubernetes"
    version = "4.34.2"

    _settings: _Settings
    _namespace: str = "default"
    _api: Api | None = None
    _unreachable: str = "the provider is not configured"
    """Why there is no `_api`."""

    def check_config(self, request: CheckRequest) -> CheckResult:
        """Refuses what the stand-in would have to ignore."""
        failures = [
            CheckFailure(f"{key!r} is not modelled by the sandbox's stand-in: leave it out", key)
            for key in _NOT_MODELLED
            if request.news.get(key) not in (None, False, "", "false")
        ]
        if request.news.get("enableServerSideApply") in (False, "false"):
            failures.append(
                CheckFailure(
                    "the sandbox's stand-in knows server-side apply only: leave the key out",
                    "enableServerSideApply",
                )
            )
        return CheckResult(request.news, failures)

    def diff_config(self, request: DiffRequest) -> Diff:
        """Replaces the provider, and with it all its resources, for another cluster.

        With a `clusterIdentifier` in both, its change alone decides. Without, the active cluster of the
        kubeconfig does, and an unknown kubeconfig counts as another cluster.
        """
        olds, news = reveal_object(request.old_inputs), reveal_object(request.news)
        changed = {
            key for key in {*olds, *news} if has_unknown(news.get(key)) or olds.get(key) != news.get(key)
        }
        before, after = olds.get(_CLUSTER_IDENTIFIER), news.get(_CLUSTER_IDENTIFIER)
        replacing: set[str] = set()
        if before and after:
            if _CLUSTER_IDENTIFIER in changed:
                replacing.add(_CLUSTER_IDENTIFIER)
        elif any(has_unknown(news.get(key)) for key in _SERVER_KEYS) or _another_cluster(olds, news):
            replacing = changed & set(_SERVER_KEYS)
        return Diff({key: PropertyChange(replace=key in replacing) for key in sorted(changed)})

    def configure(self, request: ConfigureRequest) -> None:
        """Connects to the cluster. One that cannot be reached is an error only of what needs it."""
        args = reveal_object(request.args)
        self._settings = _Settings(
            mutable_secrets=_flag(args, "enableSecretMutable", "PULUMI_K8S_ENABLE_SECRET_MUTABLE"),
            mutable_config_maps=_flag(args, "enableConfigMapMutable", "PULUMI_K8S_ENABLE_CONFIGMAP_MUTABLE"),
            patch_force=_flag(args, "enablePatchForce", "PULUMI_K8S_ENABLE_PATCH_FORCE"),
            delete_unreachable=_flag(args, "deleteUnreachable", "PULUMI_K8S_DELETE_UNREACHABLE"),
        )
        self._api = None
        if not args.get("kubeconfig"):
            self._unreachable = (
                "the provider has no `kubeconfig`, and the sandbox's stand-in never takes the one in ~/.kube"
            )
            return
        try:
            config = kubeconfig.load(str(args["kubeconfig"]))
            access = kubeconfig.access(config, _text(args, "context"), _text(args, "cluster"))
            api = Api(access)
            self._namespace = _text(args, "namespace") or access.namespace
        except kubeconfig.KubeconfigError as error:
            self._unreachable = f"failed to parse kubeconfig data in `kubernetes:config:kubeconfig`: {error}"
            return
        try:
            api.version()
        except (StatusError, Unreachable) as error:
            self._unreachable = f"unable to load schema information from the API server: {error}"
            return
        self._api = api

    def check(self, request: CheckRequest) -> CheckResult:
        """Completes inputs: the name, the namespace, the form in which the server keeps them."""
        if request.type == release.TOKEN:
            return releases.check(request, self._namespace)
        kind = Kind.of(request.type)
        given: Object = {**kind.header, "metadata": {}, **request.news}
        inputs = objects.normal(reveal_object(given))
        metadata = objects.metadata(inputs)
        if not isinstance(reveal(given["metadata"]), dict):
            return CheckResult(given)
        if not metadata.get("name"):
            if metadata.get("generateName"):
                raise PluginError(
                    "the `.metadata.generateName` field is not supported in Server-Side Apply mode"
                )
            inputs = objects.with_name(inputs, self._automatic_name(request))
        if not metadata.get("namespace") and self._namespaced(kind):
            inputs = objects.with_namespace(inputs, self._namespace)
        return CheckResult(objects.with_secrets(inputs, given))

    def _automatic_name(self, request: CheckRequest) -> str:
        olds = reveal_object(request.olds)
        if objects.annotation(olds, objects.AUTONAMED) == "true":
            return str(objects.metadata(olds)["name"])
        return f"{request.name}-{objects.random_hex(request.random_seed or os.urandom(16))}"

    def _namespaced(self, kind: Kind) -> bool:
        if kind.cluster_scoped:
            return False
        if self._api is None:
            return True
        try:
            return self._api.served(kind.api_version, kind.kind).namespaced
        except NoMatch:
            return True  # its CRD is not there yet; most are namespaced

    def diff(self, request: DiffRequest) -> Diff:
        """Compares new inputs with the live object in state, as far as the old inputs spoke of it."""
        if request.type == release.TOKEN:
            found = release.changes(request.old_outputs, request.news, request.ignore_changes)
            return Diff({changes.format_path(path): change for path, change in found.items()})
        kind = Kind.of(request.type)
        old_inputs, live = objects.parse_state(reveal_object(request.old_outputs))
        new = objects.normal(reveal_object(request.news))
        old = objects.pruned(objects.normal(live), objects.normal(old_inputs))
        if self._namespaced(kind):
            old = objects.with_namespace(old, objects.metadata(old).get("namespace") or "default")
            new = objects.with_namespace(new, objects.metadata(new).get("namespace") or "default")
        else:
            old, new = objects.with_namespace(old, ""), objects.with_namespace(new, "")
        # A name that the program has now is compared even if it had none before.
        old = old | {"metadata": objects.metadata(old) | {"name": objects.metadata(live)["name"]}}
        force_new = changes.replacing(new, self._settings.mutable_secrets, self._settings.mutable_config_maps)
        found = changes.without_ignored(changes.compare(old, new, force_new), request.ignore_changes)
        same_place = all(
            objects.metadata(new).get(key) == objects.metadata(old).get(key) for key in ("name", "namespace")
        )
        return Diff(
            {changes.format_path(path): change for path, change in found.items()},
            delete_before_replace=any(change.replace for change in found.values())
            and same_place
            and objects.annotation(new, objects.AUTONAMED) != "true",
        )

    def create(self, request: CreateRequest) -> Created:
        """Creates an object and waits until it is ready; a preview asks the server what would come of it."""
        if request.type == release.TOKEN:
            if request.preview:
                return Created("", release.preview(request.inputs))
            return releases.create(self._helm("create"), request, self.warn)
        inputs = reveal_object(request.inputs)
        if request.preview and not self._can_preview(inputs):
            return Created("", request.inputs)
        api = self._reachable()
        manager = self._manager(inputs, {})
        try:
            live = self._create(api, inputs, request.preview)
        except PluginError as error:
            if request.preview and _preview_in_vain(error):
                return Created("", request.inputs)
            raise PluginError(_creation_error(request, inputs, error)) from error

        def state(live: Manifest) -> Object:
            return objects.state(inputs, live, request.inputs, str(inputs["apiVersion"]), manager)

        if request.preview:
            # An empty status would make programs that look into it fail.
            return Created("", state({key: value for key, value in live.items() if key != "status"}))
        id = _id(live)
        try:
            live = self._await(api, inputs, live, request.timeout)
        except _NotReady as error:
            reason = (
                f'resource "{request.urn}" was successfully created, but the Kubernetes API server reported '
                f"that it failed to fully initialize or become live: {error}"
            )
            raise InitFailed(id, state(error.live), [reason, *error.reasons]) from error
        return Created(id, state(live))

    def _create(self, api: Api, inputs: Manifest, preview: bool) -> Manifest:
        """Creates the object. Its kind or namespace may be on the way: such failures are tried again."""
        wait = poll_seconds()
        for _ in range(_CREATE_TRIES - 1):
            try:
                return api.create(inputs, _CREATE_MANAGER, dry_run=preview)
            except StatusError as error:
                if error.code != 404 or (preview and error.namespace_missing):
                    raise
            except NoMatch:
                if preview:
                    raise
            self.pause(wait)
            wait *= 2
        return api.create(inputs, _CREATE_MANAGER, dry_run=preview)

    def read(self, request: ReadRequest) -> ReadResult | None:
        """Reads an object that Pulumi manages (refresh), or any by its id (`.get()`, import)."""
        if self._api is None:
            self.warn(request.urn, f"configured Kubernetes cluster is unreachable: {self._unreachable}")
            if self._settings.delete_unreachable:
                return None
            raise PluginError(
                "failed to read resource state due to unreachable cluster. If the cluster was deleted, "
                + _DELETE_HINT
            )
        if request.type == release.TOKEN:
            return releases.read(Helm(self._api, self.pause), request)
        kind = Kind.of(request.type)
        namespace, name = objects.split_id(request.id)
        inputs = objects.normal(reveal_object(request.inputs))
        _, known = objects.parse_state(reveal_object(request.outputs))
        external = not inputs.get("kind") and not known.get("kind")
        if not inputs.get("kind"):
            inputs = kind.header | inputs
            place = {"name": name} | ({"namespace": namespace} if namespace else {})
            inputs["metadata"] = place | objects.metadata(inputs)
        ref = Ref(inputs["apiVersion"], inputs["kind"], namespace, name)
        live = self._api.find(ref)
        if live is None:
            return None
        given = objects.with_secrets(objects.pruned(live, inputs), request.inputs)
        outputs = objects.state(
            objects.pruned(live, inputs),
            live,
            request.inputs,
            str(reveal(request.outputs.get(objects.INITIAL_API_VERSION)) or inputs["apiVersion"]),
            self._manager(inputs, request.outputs),
        )
        if not external and (reason := _pending(self._api, inputs, live)):
            message = f"Resource '{name}' was created but failed to initialize"
            raise InitFailed(request.id, outputs, [message, reason], given)
        return ReadResult(request.id, given, outputs)

    def update(self, request: UpdateRequest) -> Object:
        """Applies new inputs and waits until the object is ready again; a preview asks the server."""
        if request.type == release.TOKEN:
            if request.preview:
                return release.preview(request.news)
            return releases.update(self._helm("update"), request)
        inputs = objects.normal(reveal_object(request.news))
        if request.preview and not self._can_preview(inputs):
            return request.news
        api = self._reachable()
        _, known = objects.parse_state(reveal_object(request.old_outputs))
        ref = Ref.of(known)
        manager = self._manager(inputs, request.old_outputs)
        api_version = str(
            reveal(request.old_outputs.get(objects.INITIAL_API_VERSION)) or inputs["apiVersion"]
        )

        def state(live: Manifest) -> Object:
            return objects.state(inputs, live, request.news, api_version, manager)

        def failed(live: Manifest, error: Exception, reasons: list[str]) -> NoReturn:
            reason = (
                f'the Kubernetes API server reported that "{_id(live)}" failed to fully initialize or become '
                f"live: {objects.masked(str(error), request.news)}"
            )
            if request.preview:
                raise PluginError(reason) from error
            raise InitFailed(_id(live), state(live), [reason, *reasons]) from error

        live = api.find(ref)
        if live is None:
            raise PluginError(f'update of resource "{request.urn}" failed: {ref} not found')
        try:
            live = self._apply(api, request, inputs, live, manager)
        except PluginError as error:
            failed(live, error, [])
        if request.preview:
            return state(live)
        try:
            live = self._await(api, inputs, live, request.timeout)
        except _NotReady as error:
            failed(error.live, error, error.reasons)
        return state(live)

    def _apply(
        self, api: Api, request: UpdateRequest, inputs: Manifest, live: Manifest, manager: str
    ) -> Manifest:
        """Makes the live object have the inputs' fields."""
        ref = Ref.of(live)
        if inputs["kind"] == "CustomResourceDefinition":
            version = objects.metadata(live)["resourceVersion"]
            wanted = objects.with_value(inputs, ("metadata", "resourceVersion"), (version,))
            return api.replace(wanted, manager, dry_run=request.preview)
        fields = objects.metadata(live).get("managedFields") or []
        taken = objects.taken_over(fields, manager)
        if taken is not None and not request.preview:
            version = objects.metadata(live)["resourceVersion"]
            patch = [
                {"op": "replace", "path": "/metadata/managedFields", "value": taken},
                {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
            ]
            live = api.patch(ref, patch, JSON_PATCH, manager)
            fields = objects.metadata(live).get("managedFields") or []
        force = (
            self._settings.patch_force
            or objects.annotation(inputs, objects.PATCH_FORCE) == "true"
            # Nobody is known to own the fields.
            or not fields
            # They are still in the hands that created them, as in a preview, which takes nothing over.
            or objects.taken_over(fields, manager) is not None
        )
        for ignored in request.ignore_changes:
            path = changes.parse_path(ignored)
            managers = objects.owners(fields, path)
            if managers and manager not in managers:
                inputs = objects.with_value(inputs, path, ())
            elif value := objects.value_at(live, path):
                inputs = objects.with_value(inputs, path, value)
        try:
            return api.apply(inputs, manager, force, dry_run=request.preview)
        except StatusError as error:
            if error.reason != "Conflict":
                raise
            raise PluginError(
                "server-side apply field conflict detected: give the field to one manager, or set the "
                'annotation pulumi.com/patchForce: "true"\n'
                f'The resource managed by field manager "{manager}" had an apply conflict: {error}'
            ) from error

    def delete(self, request: DeleteRequest) -> None:
        """Deletes an object and waits until it is gone."""
        if request.type == release.TOKEN:
            releases.delete(self._helm("delete"), request)
            return
        if self._api is None:
            self.warn(request.urn, f"configured Kubernetes cluster is unreachable: {self._unreachable}")
            if self._settings.delete_unreachable:
                return
            raise PluginError(
                "configured Kubernetes cluster is unreachable. If the cluster was deleted, " + _DELETE_HINT
            )
        inputs, known = objects.parse_state(reveal_object(request.outputs))
        ref = Ref.of(known)
        policy = objects.annotation(inputs, objects.DELETION_PROPAGATION).capitalize()
        try:
            self._api.delete(ref, policy if policy in ("Orphan", "Background") else "Foreground")
        except NoMatch:
            return  # its CRD is gone, and all its objects with it
        except StatusError as error:
            if error.code == 404:
                return
            raise
        skip = objects.annotation(inputs, objects.SKIP_AWAIT) == "true"
        if not (skip and ref.kind in _SKIP_AWAIT_ON_DELETE):
            self._await_gone(self._api, ref, known, _timeout(request.timeout, inputs))

    def _await_gone(self, api: Api, ref: Ref, known: Manifest, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while (live := api.find(ref)) is not None:
            if objects.metadata(live).get("uid") != objects.metadata(known).get("uid"):
                return  # somebody made a new one
            if time.monotonic() >= deadline:
                raise PluginError(
                    f"timed out waiting for the condition: {ref} still exists {timeout:g} s after its "
                    f"deletion began{_remaining(live)}"
                )
            self.pause()

    def _reachable(self) -> Api:
        if self._api is None:
            raise PluginError(f"configured Kubernetes cluster is unreachable: {self._unreachable}")
        return self._api

    def _can_preview(self, inputs: Manifest) -> bool:
        """Whether the server can be asked: all is known, it is there, and it serves the kind."""
        if self._api is None or has_unknown(inputs):
            return False
        try:
            self._api.served(inputs["apiVersion"], inputs["kind"])
        except NoMatch:
            return False
        return True

    def _manager(self, inputs: Manifest, outputs: Object) -> str:
        """Field manager of an object: by annotation, else the one in state, else a new one."""
        manager = objects.annotation(inputs, objects.FIELD_MANAGER) or reveal(
            outputs.get(objects.FIELD_MANAGER_KEY)
        )
        return str(manager or f"{_MANAGER_PREFIX}{objects.random_hex(os.urandom(16))}")

    def _await(self, api: Api, inputs: Manifest, live: Manifest, timeout: float) -> Manifest:
        """Waits until the object is ready; returns it as it is then. Raises `_NotReady`."""
        seconds = _timeout(timeout, inputs)
        deadline = time.monotonic() + seconds
        name = objects.metadata(live)["name"]
        while reason := _pending(api, inputs, live):
            if time.monotonic() >= deadline:
                raise _NotReady(live, f"'{name}' timed out waiting to be Ready after {seconds:g} s", [reason])
            try:
                self.pause()
            except Cancelled as error:
                raise _NotReady(live, f'Resource operation was cancelled for "{name}"', [reason]) from error
            live = api.find(Ref.of(live)) or live
        return live

    def _helm(self, action: str) -> Helm:
        if self._api is None:
            raise PluginError(f"can't {action} Helm Release with unreachable cluster: {self._unreachable}")
        return Helm(self._api, self.pause)


def _pending(api: Api, inputs: Manifest, live: Manifest) -> str | None:
    """Why the object is not ready, None when it is or when nobody wants to wait."""
    if objects.annotation(inputs, objects.SKIP_AWAIT) == "true":
        return None
    if live["kind"] == "PersistentVolumeClaim":
        return readiness.claim_pending(live, _binding_mode(api, live))
    return readiness.pending(live)


def _another_cluster(olds: Manifest, news: Manifest) -> bool:
    """Whether two configurations point to different clusters; false if one of them points to none."""
    before, after = _active_cluster(olds), _active_cluster(news)
    return before is not None and after is not None and before != after


def _active_cluster(args: Manifest) -> Manifest | None:
    if not args.get("kubeconfig"):
        return None
    try:
        config = kubeconfig.load(str(args["kubeconfig"]))
    except kubeconfig.KubeconfigError as error:
        raise PluginError(f"failed to parse kubeconfig: {error}") from error
    return kubeconfig.active_cluster(config, args.get("context"), args.get("cluster"))


def _flag(args: Object, key: str, variable: str) -> bool:
    """A switch of the provider, else of the environment; off by default."""
    value = args.get(key, os.environ.get(variable, "false"))
    return value in (True, "true")


def _text(args: Object, key: str) -> str | None:
    """A text argument; None when it is missing or empty."""
    value = args.get(key)
    return value if isinstance(value, str) and value else None


def _timeout(seconds: float, inputs: Manifest) -> float:
    """Seconds to wait: from the resource's options, else from its annotation, else ten minutes."""
    if seconds:
        return seconds
    text = objects.annotation(inputs, objects.TIMEOUT_SECONDS)
    return float(text) if text.isdecimal() else _TIMEOUT_SECONDS


def _id(live: Manifest) -> str:
    metadata = objects.metadata(live)
    return objects.qualified_id(metadata.get("namespace", ""), metadata["name"])


def _binding_mode(api: Api, claim: Manifest) -> str:
    """When the volume of a claim is made: `Immediate` or `WaitForFirstConsumer`."""
    name = claim["spec"].get("storageClassName")
    found = api.find(Ref("storage.k8s.io/v1", "StorageClass", "", name)) if name else None
    return str((found or {}).get("volumeBindingMode", "Immediate"))


def _preview_in_vain(error: PluginError) -> bool:
    """Whether a dry run failed for a reason that the real run need not have."""
    if isinstance(error, StatusError):
        return error.namespace_missing or error.reason in ("AlreadyExists", "Forbidden")
    return isinstance(error, NoMatch)


def _creation_error(request: CreateRequest, inputs: Manifest, error: PluginError) -> str:
    if isinstance(error, NoMatch):
        return (
            f'creation of resource "{request.urn}" with kind {inputs["apiVersion"]}/{inputs["kind"]} failed '
            "because the Kubernetes API server reported that the apiVersion for this resource does not "
            f"exist. Verify that any required CRDs have been created: {error}"
        )
    text = objects.masked(str(error), request.inputs)
    if isinstance(error, StatusError) and error.reason == "AlreadyExists":
        text += f"\n\n{_EXISTS_HINT}"
    return f'resource "{request.urn}" was not successfully created by the Kubernetes API server: {text}'


def _remaining(live: Manifest) -> str:
    """What keeps an object that is being deleted, as an addition to a sentence."""
    finalizers = (objects.metadata(live).get("finalizers") or []) + (
        (live.get("spec") or {}).get("finalizers") or []
    )
    messages = [
        condition["message"]
        for condition in (live.get("status") or {}).get("conditions") or []
        if condition.get("status") == "True" and condition.get("message")
    ]
    reasons = [f"finalizers {', '.join(finalizers)}"] if finalizers else []
    return f" ({'; '.join(reasons + messages)})" if reasons or messages else ""
