"""The resource `kubernetes:helm.sh/v3:Release`: inputs, state and differences. Pure."""

from __future__ import annotations

from typing import Any, Final

from sandbox.cluster.chart import APP_VERSION, CHART, VERSION
from sandbox.plugins.framework import CheckFailure, PropertyChange
from sandbox.plugins.kubernetes.api import Manifest
from sandbox.plugins.kubernetes.changes import Path, compare
from sandbox.plugins.kubernetes.helm import Order
from sandbox.plugins.kubernetes.objects import INPUTS, with_secrets
from sandbox.plugins.kubernetes.records import Record, resource_names
from sandbox.plugins.values import UNKNOWN, Object, Secret, Unknown, Value, reveal, reveal_object

TOKEN: Final = "kubernetes:helm.sh/v3:Release"  # noqa: S105
_TIMEOUT_SECONDS: Final = 300

_DEFAULTS: Final[Object] = {
    "allowNullValues": False,
    "atomic": False,
    "chart": "",
    "cleanupOnFail": False,
    "createNamespace": False,
    "dependencyUpdate": False,
    "description": "",
    "devel": False,
    "disableCRDHooks": False,
    "disableOpenapiValidation": False,
    "disableWebhooks": False,
    "forceUpdate": False,
    "keyring": "",
    "lint": False,
    "postrender": "",
    "recreatePods": False,
    "renderSubchartNotes": False,
    "replace": False,
    "resetValues": False,
    "reuseValues": False,
    "skipAwait": False,
    "skipCrds": False,
    "verify": False,
    "version": "",
    "waitForJobs": False,
}
"""What the real plugin fills in: the zero values of the struct it decodes the inputs into."""
_OPTIONAL: Final = ("maxHistory", "values", "repositoryOpts", "name", "namespace", "timeout")
# [I] The recording has no repositoryOpts; zero values are filled in at its top level, so they are here too.
_REPOSITORY: Final = ("caFile", "certFile", "keyFile", "password", "repo", "username")
_NOT_MODELLED: Final = (
    "forceUpdate",
    "keyring",
    "lint",
    "postrender",
    "recreatePods",
    "reuseValues",
    "valueYamlFiles",
    "verify",
)
_FORCE_NEW: Final[list[Path]] = [("name",), ("namespace",)]


def not_modelled(news: Object) -> list[CheckFailure]:
    """A failure for each input that the stand-in would have to ignore."""
    return [
        CheckFailure(f"{key!r} is not modelled by the sandbox's stand-in for Helm: leave it out", key)
        for key in _NOT_MODELLED
        if news.get(key)
    ]


def complete(news: Object, name: str, namespace: str) -> Object:
    """The inputs with all that the real plugin fills in; `name` and `namespace` where there is none.

    Secrets stay where they are, except that a list with a secret in it is secret as a whole.
    """
    given = {
        key: value for key, value in news.items() if value is not None and key in (*_DEFAULTS, *_OPTIONAL)
    }
    default_timeout = 0 if news.get("skipAwait") is True else _TIMEOUT_SECONDS
    inputs = _DEFAULTS | {"timeout": default_timeout, "values": {}} | given
    inputs["name"] = given.get("name") or name
    inputs["namespace"] = given.get("namespace") or namespace
    repository = inputs.get("repositoryOpts")
    if isinstance(repository, dict):
        inputs["repositoryOpts"] = {**dict.fromkeys(_REPOSITORY, ""), **repository}
    return with_secrets(reveal_object(inputs), inputs)


def known(value: Value) -> Any:
    """The value without what a preview does not know: such entries of maps and lists are left out."""
    match reveal(value):
        case dict() as entries:
            return {key: known(item) for key, item in entries.items() if not _is_unknown(item)}
        case list() as items:
            return [known(item) for item in items if not _is_unknown(item)]
        case plain:
            return plain


def _is_unknown(value: Value) -> bool:
    return isinstance(reveal(value), Unknown)


def repository_url(inputs: Manifest) -> str:
    """The repository of revealed inputs, empty when there is none."""
    options = inputs.get("repositoryOpts")
    return str(options.get("repo", "")) if isinstance(options, dict) else ""


def order(inputs: Manifest) -> Order:
    """What revealed inputs ask Helm for."""
    return Order(
        name=inputs["name"],
        namespace=inputs["namespace"],
        values=inputs["values"],
        timeout=inputs["timeout"] or _TIMEOUT_SECONDS,
        wait=not inputs["skipAwait"],
        wait_for_jobs=inputs["waitForJobs"],
        atomic=inputs["atomic"],
        cleanup_on_fail=inputs["cleanupOnFail"],
        create_namespace=inputs["createNamespace"],
        skip_definitions=inputs["skipCrds"],
        skip_hooks=inputs["disableWebhooks"],
        replace=inputs["replace"],
        max_history=inputs.get("maxHistory", 0),
        description=inputs["description"],
    )


def state(inputs: Object, record: Record) -> Object:
    """Outputs of a release that exists; its values are the ones that Helm has."""
    return _checkpoint(
        inputs,
        reveal_object(inputs)
        | {
            "values": record.values,
            "resourceNames": {
                key: list[Value](names) for key, names in resource_names(record.manifest).items()
            },
            "status": {
                "appVersion": APP_VERSION,
                "chart": CHART,
                "name": record.name,
                "namespace": record.namespace,
                "revision": record.revision,
                "status": record.status,
                "version": VERSION,
            },
        },
    )


def preview(inputs: Object) -> Object:
    """Outputs of a release to come."""
    return _checkpoint(inputs, reveal_object(inputs) | {"resourceNames": UNKNOWN, "status": UNKNOWN})


def _checkpoint(inputs: Object, outputs: Object) -> Object:
    return with_secrets(outputs, inputs) | {INPUTS: Secret(reveal_object(inputs))}


def changes(outputs: Object, news: Object, ignored: tuple[str, ...]) -> dict[Path, PropertyChange]:
    """What differs between a release's state and new inputs.

    Compared is what is in the new inputs or was in the old ones; the rest of the state is the plugin's own.
    Of `ignored` only `version` is honoured, as by the real plugin (the engine resets ignored inputs).
    """
    old = reveal_object(outputs)
    old_inputs = old.pop(INPUTS, {})
    wanted = reveal_object(news)
    if "version" in ignored:
        wanted["version"] = old.get("version", "")
    return compare(_visible(old, wanted, old_inputs), wanted, _FORCE_NEW)


def _visible(state: Any, new: Any, old: Any) -> Any:
    if not isinstance(state, dict):
        return state
    news = new if isinstance(new, dict) else {}
    olds = old if isinstance(old, dict) else {}
    return {
        key: _visible(value, news.get(key), olds.get(key))
        for key, value in state.items()
        if key in news or key in olds
    }


def imported(record: Record) -> Object:
    """Inputs of a release that Pulumi did not make."""
    return complete(
        {"chart": CHART, "version": VERSION, "values": record.values}, record.name, record.namespace
    )
