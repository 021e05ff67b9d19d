"""Helm's install, upgrade and uninstall (version 3), over the API.

Templates are no part of it: the chart is a model in Python.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from sandbox.cluster.chart import hook_events
from sandbox.plugins.framework import PluginError
from sandbox.plugins.kubernetes import chart as charts
from sandbox.plugins.kubernetes import readiness
from sandbox.plugins.kubernetes.api import MERGE_PATCH, Api, Manifest, NoMatch, Ref, StatusError
from sandbox.plugins.kubernetes.changes import merge_patch
from sandbox.plugins.kubernetes.objects import pruned
from sandbox.plugins.kubernetes.records import DEPLOYED, FAILED, SUPERSEDED, Record, decode, encode

_MANAGER: Final = "pulumi-resource-kubernetes"
"""Helm names its field manager after the executable it runs in."""
_DEFINITION_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Order:
    """What to install or to upgrade to."""

    name: str
    namespace: str
    values: dict[str, Any] = field(repr=False)
    timeout: float
    """Seconds for each wait."""
    wait: bool = True
    wait_for_jobs: bool = False
    atomic: bool = False
    cleanup_on_fail: bool = False
    create_namespace: bool = False
    skip_definitions: bool = False
    skip_hooks: bool = False
    replace: bool = False
    """Take a name whose last release failed."""
    max_history: int = 0
    """Revisions to keep, 0 for all."""
    description: str = ""


class HelmError(PluginError):
    """Helm refused or failed, and no release came of it."""


class ReleaseFailed(HelmError):  # noqa: N818 (a state of the release)
    """Helm failed on the way: the release exists, with status `failed`."""

    def __init__(self, record: Record, message: str) -> None:
        super().__init__(message)
        self.record = record


def in_uninstall_order(manifests: Sequence[Manifest]) -> list[Manifest]:
    """Objects of an install backwards, but custom ones (kinds that Helm does not know) last again."""
    built_in = [manifest for manifest in manifests if not _custom(manifest)]
    return built_in[::-1] + [manifest for manifest in manifests if _custom(manifest)]


def _custom(manifest: Manifest) -> bool:
    group = manifest["apiVersion"].rpartition("/")[0]
    return "." in group and not group.endswith(".k8s.io")


def foreign(live: Manifest, release: str, namespace: str) -> str | None:
    """Why an object that is there already cannot become part of a release; None when it can."""
    labels = live["metadata"].get("labels") or {}
    annotations = live["metadata"].get("annotations") or {}
    required = [
        ("label", labels, "app.kubernetes.io/managed-by", "Helm"),
        ("annotation", annotations, "meta.helm.sh/release-name", release),
        ("annotation", annotations, "meta.helm.sh/release-namespace", namespace),
    ]
    wrong = [
        f'{what} validation error: {_mismatch(found.get(key), key)}: must be set to "{value}"'
        for what, found, key, value in required
        if found.get(key) != value
    ]
    return "; ".join(["invalid ownership metadata", *wrong]) if wrong else None


def _mismatch(current: str | None, key: str) -> str:
    if current is None:
        return f'missing key "{key}"'
    return f'key "{key}" must equal the release\'s, current value is "{current}"'


class Helm:
    """Helm's actions on one cluster."""

    def __init__(self, api: Api, pause: Callable[[], None]) -> None:
        """`pause` waits one poll interval; what it raises ends a wait."""
        self._api = api
        self._pause = pause

    def history(self, namespace: str, name: str) -> list[Record]:
        """All revisions of a release, oldest first; none when there is no such release."""
        secrets = self._api.select("v1", "Secret", namespace, {"name": name, "owner": "helm"})
        return sorted((decode(secret) for secret in secrets), key=lambda record: record.revision)

    def last(self, namespace: str, name: str) -> Record | None:
        """The newest revision."""
        history = self.history(namespace, name)
        return history[-1] if history else None

    def install(self, order: Order) -> Record:
        """Installs a release. Raises `ReleaseFailed` when it exists but did not come up."""
        last = self.last(order.namespace, order.name)
        if last is not None and not (order.replace and last.status == FAILED):
            raise HelmError("cannot re-use a name that is still in use")
        rendered = charts.render(order.values, order.name, order.namespace)
        if not order.skip_definitions:
            self._define(rendered.definitions)
        present = self._adoptable(order, rendered.manifest, "install")
        if order.create_namespace:
            self._create_namespace(order.namespace)
        now = _now()
        record = Record(
            name=order.name,
            namespace=order.namespace,
            revision=last.revision + 1 if last else 1,
            status="pending-install",
            description="Initial install underway",
            values=order.values,
            manifest=rendered.manifest,
            hooks=rendered.hooks,
            first_deployed=now,
            last_deployed=now,
        )
        self._save(record)
        try:
            self._run_hooks(order, record, "pre-install")
            for manifest in record.manifest:
                self._put(record, manifest, present.get(Ref.of(manifest)), None)
            self._await(order, record)
            self._run_hooks(order, record, "post-install")
        except PluginError as error:
            failed = self._fail(record, str(error))
            if not order.atomic:
                raise ReleaseFailed(failed, str(error)) from error
            self.uninstall(order.namespace, order.name, wait=True, timeout=order.timeout)
            raise HelmError(
                f"release {order.name} failed, and has been uninstalled due to atomic being set: {error}"
            ) from error
        return self._settle(record, order.description or "Install complete")

    def upgrade(self, order: Order) -> Record:
        """Upgrades a release. Raises `ReleaseFailed` when the new revision did not come up."""
        history = self.history(order.namespace, order.name)
        if not history:
            raise HelmError(f'"{order.name}" has no deployed releases')
        if history[-1].pending:
            raise HelmError("another operation (install/upgrade/rollback) is in progress")
        current = next((each for each in reversed(history) if each.status == DEPLOYED), history[-1])
        rendered = charts.render(order.values, order.name, order.namespace)
        before = {Ref.of(manifest): manifest for manifest in current.manifest}
        added = [manifest for manifest in rendered.manifest if Ref.of(manifest) not in before]
        present = self._adoptable(order, added, "update")
        record = Record(
            name=order.name,
            namespace=order.namespace,
            revision=history[-1].revision + 1,
            status="pending-upgrade",
            description="Preparing upgrade",
            values=order.values,
            manifest=rendered.manifest,
            hooks=rendered.hooks,
            first_deployed=current.first_deployed,
            last_deployed=_now(),
        )
        self._save(record)
        created: list[Manifest] = []
        try:
            self._run_hooks(order, record, "pre-upgrade")
            self._converge(record, before, present, created)
            self._await(order, record)
            self._run_hooks(order, record, "post-upgrade")
        except PluginError as error:
            failed = self._fail(record, str(error))
            if order.cleanup_on_fail or order.atomic:
                self._remove(order.namespace, created)
            if not order.atomic:
                raise ReleaseFailed(failed, str(error)) from error
            self._roll_back(order, failed, current)
            raise ReleaseFailed(
                failed,
                f"release {order.name} failed, and has been rolled back due to atomic being set: {error}",
            ) from error
        for each in history:
            if each.status == DEPLOYED:
                self._resave(replace(each, status=SUPERSEDED))
        self._forget(history, order.max_history)
        return self._settle(record, order.description or "Upgrade complete")

    def uninstall(self, namespace: str, name: str, wait: bool, timeout: float) -> None:
        """Removes a release's objects and its records; CustomResourceDefinitions stay."""
        history = self.history(namespace, name)
        if not history:
            raise HelmError(f"uninstall: Release not loaded: {name}: release: not found")
        record = history[-1]
        self._resave(
            replace(record, status="uninstalling", description="Deletion in progress (or silently failed)")
        )
        order = Order(name, namespace, record.values, timeout)
        self._run_hooks(order, record, "pre-delete")
        doomed = [item for item in in_uninstall_order(record.manifest) if not _kept(item)]
        self._remove(namespace, doomed)
        if wait:
            self._await_gone(namespace, doomed, timeout)
        self._run_hooks(order, record, "post-delete")
        for each in history:
            self._delete(Ref.of(encode(each)))

    def _roll_back(self, order: Order, failed: Record, good: Record) -> None:
        """Makes a new revision of the last good one."""
        record = replace(
            good,
            revision=failed.revision + 1,
            status="pending-rollback",
            description=f"Rollback to {good.revision}",
            last_deployed=_now(),
        )
        self._save(record)
        self._converge(record, {Ref.of(manifest): manifest for manifest in failed.manifest}, {}, [])
        self._await(order, record)
        self._resave(replace(good, status=SUPERSEDED))
        self._settle(record, record.description)

    def _converge(
        self,
        record: Record,
        before: dict[Ref, Manifest],
        present: dict[Ref, Manifest],
        created: list[Manifest],
    ) -> None:
        """Makes the cluster hold `record` where it held `before`: creates, patches, then deletes the rest."""
        for manifest in record.manifest:
            key = Ref.of(manifest)
            live = present.get(key) or self._api.find(_placed(manifest, record.namespace))
            self._put(record, manifest, live, before.get(key))
            if live is None:
                created.append(manifest)
        kept = {Ref.of(manifest) for manifest in record.manifest}
        dropped = [item for key, item in before.items() if key not in kept and not _kept(item)]
        self._remove(record.namespace, dropped)

    def _put(
        self, record: Record, manifest: Manifest, live: Manifest | None, before: Manifest | None
    ) -> None:
        """Creates an object, or patches it to hold what the chart says and no longer what it said before."""
        if live is None:
            self._create(manifest, record.namespace)
            return
        patch = merge_patch(pruned(live, manifest), manifest)
        if before is not None:
            patch = _merged(merge_patch(before, manifest), patch)
        if patch:
            self._api.patch(_placed(manifest, record.namespace), patch, MERGE_PATCH, _MANAGER)

    def _create(self, manifest: Manifest, namespace: str) -> None:
        ref = _placed(manifest, namespace)
        if self._api.served(ref.api_version, ref.kind).namespaced:
            manifest = manifest | {"metadata": manifest["metadata"] | {"namespace": ref.namespace}}
        self._api.create(manifest, _MANAGER)

    def _adoptable(self, order: Order, manifests: list[Manifest], action: str) -> dict[Ref, Manifest]:
        """Live objects that are there already and belong to the release; another owner's is an error."""
        found = {}
        for manifest in manifests:
            ref = _placed(manifest, order.namespace)
            try:
                self._api.served(ref.api_version, ref.kind)
            except NoMatch as error:
                raise HelmError(
                    "unable to build kubernetes objects from release manifest: resource mapping not found "
                    f'for name: "{ref.name}" namespace: "{ref.namespace}": {error}\n'
                    "ensure CRDs are installed first"
                ) from error
            live = self._api.find(ref)
            if live is None:
                continue
            if reason := foreign(live, order.name, order.namespace):
                raise HelmError(
                    f'Unable to continue with {action}: {ref.kind} "{ref.name}" in namespace '
                    f'"{ref.namespace}" exists and cannot be imported into the current release: {reason}'
                )
            found[Ref.of(manifest)] = live
        return found

    def _define(self, definitions: list[Manifest]) -> None:
        """Creates CustomResourceDefinitions that are not there, and waits until their kinds are served."""
        for definition in definitions:
            try:
                self._api.create(definition, _MANAGER)
            except StatusError as error:
                if error.reason != "AlreadyExists":
                    raise HelmError(
                        f"failed to install CRD {definition['metadata']['name']}: {error}"
                    ) from error
        self._wait_for(
            lambda: self._unready([Ref.of(definition) for definition in definitions]), _DEFINITION_SECONDS
        )

    def _create_namespace(self, name: str) -> None:
        manifest = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {"name": name}},
        }
        if self._api.find(Ref.of(manifest)) is None:
            self._api.create(manifest, _MANAGER)

    def _await(self, order: Order, record: Record) -> None:
        if order.wait:
            awaited = [item for item in record.manifest if item["kind"] != "Job" or order.wait_for_jobs]
            refs = [_placed(item, record.namespace) for item in awaited]
            self._wait_for(lambda: self._unready(refs), order.timeout)

    def _unready(self, refs: list[Ref]) -> list[str]:
        """What is not ready yet, and why. An object that was ready leaves `refs`."""
        reasons = []
        for ref in list(refs):
            live = self._api.find(ref)
            reason = readiness.pending(live) if live else "it does not exist"
            if reason:
                reasons.append(f"{ref}: {reason}")
            else:
                refs.remove(ref)
        return reasons

    def _await_gone(self, namespace: str, manifests: list[Manifest], timeout: float) -> None:
        refs = [_placed(item, namespace) for item in manifests]

        def remaining() -> list[str]:
            refs[:] = [ref for ref in refs if self._api.find(ref) is not None]
            return [f"{ref}: still there" for ref in refs]

        self._wait_for(remaining, timeout)

    def _wait_for(self, reasons: Callable[[], list[str]], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while left := reasons():
            if time.monotonic() >= deadline:
                raise HelmError(
                    f"context deadline exceeded after {timeout:g} s, waiting for {'; '.join(left)}"
                )
            self._pause()

    def _run_hooks(self, order: Order, record: Record, event: str) -> None:
        """Runs the hooks of an event in turn: makes the object, waits for Jobs and Pods to end."""
        if order.skip_hooks:
            return
        hooks = sorted((hook for hook in record.hooks if event in hook_events(hook)), key=charts.weight)
        for hook in hooks:
            ref = _placed(hook, record.namespace)
            if "before-hook-creation" in charts.delete_policies(hook):
                self._delete(ref)
                self._await_gone(record.namespace, [hook], order.timeout)
            try:
                self._create(hook, record.namespace)
                self._wait_for(partial(self._unfinished, ref), order.timeout)
            except PluginError as error:
                if "hook-failed" in charts.delete_policies(hook):
                    self._delete(ref)
                raise HelmError(f"failed {event}: {error}") from error
        for hook in reversed(hooks):
            if "hook-succeeded" in charts.delete_policies(hook):
                self._delete(_placed(hook, record.namespace))

    def _unfinished(self, ref: Ref) -> list[str]:
        """Whether a hook's Job or Pod is still at work; other kinds are done once they are there."""
        if ref.kind not in ("Job", "Pod"):
            return []
        live = self._api.find(ref)
        if live is None:
            return []  # a finished Job goes by itself (ttlSecondsAfterFinished), maybe between two looks
        if reason := readiness.failed(live):
            raise HelmError(reason)
        reason = readiness.pending(live)
        return [f"{ref}: {reason}"] if reason else []

    def _remove(self, namespace: str, manifests: list[Manifest]) -> None:
        for manifest in manifests:
            self._delete(_placed(manifest, namespace))

    def _delete(self, ref: Ref) -> None:
        if self._api.find(ref) is None:
            return
        try:
            self._api.delete(ref, "Background")
        except StatusError as error:
            if error.code != 404:
                raise

    def _fail(self, record: Record, reason: str) -> Record:
        failed = replace(record, status=FAILED, description=f'Release "{record.name}" failed: {reason}')
        self._resave(failed)
        return failed

    def _settle(self, record: Record, description: str) -> Record:
        deployed = replace(record, status=DEPLOYED, description=description)
        self._resave(deployed)
        return deployed

    def _save(self, record: Record) -> None:
        try:
            self._api.create(encode(record), "Helm")
        except StatusError as error:
            raise HelmError(f"create: failed to create: {error}") from error

    def _resave(self, record: Record) -> None:
        secret = encode(record)
        live = self._api.get(Ref.of(secret))
        version = live["metadata"]["resourceVersion"]
        self._api.replace(secret | {"metadata": secret["metadata"] | {"resourceVersion": version}}, "Helm")

    def _forget(self, history: list[Record], limit: int) -> None:
        """Deletes the oldest records, so that with the one to come there are `limit` at most."""
        if limit > 0:
            for record in history[: max(0, len(history) + 1 - limit)]:
                self._delete(Ref.of(encode(record)))


def _placed(manifest: Manifest, namespace: str) -> Ref:
    """Where an object is; one that names no namespace lies in the release's, if its kind has namespaces."""
    ref = Ref.of(manifest)
    return ref if ref.namespace else replace(ref, namespace=namespace)


def _kept(manifest: Manifest) -> bool:
    annotations = manifest["metadata"].get("annotations") or {}
    return annotations.get("helm.sh/resource-policy") == "keep"


def _merged(first: Manifest, second: Manifest) -> Manifest:
    """Two merge patches as one; `second` wins."""
    merged = dict(first)
    for key, value in second.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
