"""What the API server refuses beyond the schemas: names, sizes, contradictions, changes of immutable fields.

Each rule gives causes with the texts of the real server. Rules of custom kinds that in a real cluster the
operator enforces (with an event, later) are enforced here at once: authentication methods exclude each other,
and a scrape's timeout is at most its interval.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sandbox.cluster import errors
from sandbox.cluster.errors import Cause
from sandbox.cluster.kinds import Kind, Object
from sandbox.cluster.quantities import quantity, seconds
from sandbox.cluster.schemas import shown

_MEBIBYTE = 1024 * 1024

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_SERVICE = r"[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = rf"({_QUALIFIED})?"
_DATA_KEY = r"[-._a-zA-Z0-9]+"

_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start "
    f"and end with an alphanumeric character (e.g. 'my-name', regex used for validation is '{_LABEL}')"
)
_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    f"'{_SUBDOMAIN}')"
)
_SERVICE_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
    "character, and end with an alphanumeric character (e.g. 'my-name', regex used for validation is "
    f"'{_SERVICE}')"
)


def check_encoding(kind: Kind, value: Object) -> None:
    """Refuses a Secret whose data is not base64; the value is not shown."""
    if kind.kind != "Secret":
        return
    for key, encoded in value.get("data", {}).items():
        try:
            base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            text = f"illegal base64 data in data[{key}]: {error}"
            raise errors.undecodable(kind.kind, kind.version, text) from None


def check(kind: Kind, new: Object, old: Object | None) -> list[Cause]:
    """What is wrong with `new`; `old` is the stored version in an update, None in a create."""
    causes = list(_metadata(kind, new))
    rule = _RULES.get(kind.kind)
    if rule is not None:
        causes += rule(new)
    frozen = _IMMUTABLE.get(kind.kind)
    if old is not None and frozen is not None:
        causes += frozen(new, old)
    return causes


def _value(field: str, value: Any, why: str) -> Cause:
    return Cause("FieldValueInvalid", f"Invalid value: {shown(value)}: {why}", field)


def _required(field: str, why: str = "") -> Cause:
    return Cause("FieldValueRequired", f"Required value{': ' if why else ''}{why}", field)


def _not_allowed(field: str, why: str) -> Cause:
    return Cause("FieldValueForbidden", f"Forbidden: {why}", field)


def _unsupported(field: str, value: Any, allowed: tuple[str, ...]) -> Cause:
    text = ", ".join(f'"{item}"' for item in allowed)
    return Cause(
        "FieldValueNotSupported", f"Unsupported value: {shown(value)}: supported values: {text}", field
    )


def _too_long(field: str) -> Cause:
    return Cause("FieldValueTooLong", f"Too long: may not be more than {_MEBIBYTE} bytes", field)


def _metadata(kind: Kind, value: Object) -> Iterator[Cause]:
    metadata = value["metadata"]
    name = metadata["name"]
    if kind.group == "rbac.authorization.k8s.io":
        if name in (".", "..") or "/" in name or "%" in name:
            yield _value("metadata.name", name, "may not be '.' or '..' and may not contain '/' or '%'")
    else:
        pattern, longest, text = _SUBDOMAIN, 253, _SUBDOMAIN_TEXT
        if kind.kind == "Namespace":
            pattern, longest, text = _LABEL, 63, _LABEL_TEXT
        elif kind.kind == "Service":
            pattern, longest, text = _SERVICE, 63, _SERVICE_TEXT
        if not re.fullmatch(pattern, name):
            yield _value("metadata.name", name, text)
        if len(name) > longest:
            yield _value("metadata.name", name, f"must be no more than {longest} characters")
    yield from _labels("metadata.labels", metadata.get("labels", {}))
    annotations = metadata.get("annotations", {})
    for key in annotations:
        yield from _key("metadata.annotations", key)
    if sum(len(key) + len(str(item)) for key, item in annotations.items()) > 256 * 1024:
        yield Cause(
            "FieldValueTooLong", "Too long: may not be more than 262144 bytes", "metadata.annotations"
        )


def _key(field: str, key: str) -> Iterator[Cause]:
    prefix, slash, name = key.rpartition("/")
    if not re.fullmatch(_QUALIFIED, name) or len(name) > 63:
        yield _value(
            field,
            key,
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with "
            "an alphanumeric character, 63 characters at most",
        )
    if slash and not re.fullmatch(_SUBDOMAIN, prefix):
        yield _value(field, key, f"prefix part {_SUBDOMAIN_TEXT}")


def _labels(field: str, labels: Mapping[str, str]) -> Iterator[Cause]:
    for key, value in labels.items():
        yield from _key(field, key)
        if len(value) > 63:
            yield _value(field, value, "must be no more than 63 characters")
        if not re.fullmatch(_LABEL_VALUE, value):
            yield _value(
                field,
                value,
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
                "'.', and must start and end with an alphanumeric character",
            )


def _data(value: Object) -> Iterator[Cause]:
    for field in ("data", "binaryData"):
        for key in value.get(field, {}):
            if not re.fullmatch(_DATA_KEY, key):
                yield _value(
                    f"{field}[{key}]",
                    key,
                    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. "
                    f"'key.name', or 'KEY_NAME', or 'key-name', regex used for validation is '{_DATA_KEY}')",
                )
            elif key in (".", ".."):
                yield _value(f"{field}[{key}]", key, f"must not be '{key}'")
            elif key.startswith(".."):
                yield _value(f"{field}[{key}]", key, "must not start with '..'")


def _config_map(value: Object) -> Iterator[Cause]:
    yield from _data(value)
    size = sum(len(item.encode()) for item in value.get("data", {}).values())
    size += sum(len(item) * 3 // 4 for item in value.get("binaryData", {}).values())
    if size > _MEBIBYTE:
        yield _too_long("[]")


def _secret(value: Object) -> Iterator[Cause]:
    yield from _data(value)
    data = value.get("data", {})
    if sum(len(item) * 3 // 4 for item in data.values()) > _MEBIBYTE:
        yield _too_long("data")
    if value.get("type") == "kubernetes.io/tls":
        yield from (_required(f"data[{key}]") for key in ("tls.crt", "tls.key") if key not in data)


def _service(value: Object) -> Iterator[Cause]:
    spec = value.get("spec", {})
    kind = spec.get("type", "ClusterIP")
    allowed = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    if kind not in allowed:
        yield _unsupported("spec.type", kind, allowed)
    ports = spec.get("ports", [])
    if not ports and kind != "ExternalName" and spec.get("clusterIP") != "None":
        yield _required("spec.ports")
    seen: set[Any] = set()
    for index, port in enumerate(ports):
        field = f"spec.ports[{index}]"
        if not 1 <= port["port"] <= 65535:
            yield _value(f"{field}.port", port["port"], "must be between 1 and 65535, inclusive")
        if len(ports) > 1 and not port.get("name"):
            yield _required(f"{field}.name")
        if port.get("name") and not re.fullmatch(_LABEL, port["name"]):
            yield _value(f"{field}.name", port["name"], _LABEL_TEXT)
        protocols = ("SCTP", "TCP", "UDP")
        if port.get("protocol", "TCP") not in protocols:
            yield _unsupported(f"{field}.protocol", port["protocol"], protocols)
        for key in (("name", port.get("name")), (port.get("protocol"), port["port"])):
            if key in seen and key[1]:
                yield Cause("FieldValueDuplicate", f"Duplicate value: {shown(key[1])}", field)
            seen.add(key)
    ranges = spec.get("loadBalancerSourceRanges", [])
    if ranges and kind != "LoadBalancer":
        yield _not_allowed("spec.loadBalancerSourceRanges", "may only be used when `type` is 'LoadBalancer'")
    for index, cidr in enumerate(ranges):
        if not _is_cidr(cidr):
            yield _value(
                f"spec.loadBalancerSourceRanges[{index}]",
                cidr,
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            )


def _is_cidr(text: str) -> bool:
    try:
        ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        return False
    return "/" in text


def _claim(value: Object) -> Iterator[Cause]:
    yield from _claim_spec("spec", value.get("spec", {}))


def _claim_spec(field: str, spec: Mapping[str, Any]) -> Iterator[Cause]:
    modes = spec.get("accessModes", [])
    allowed = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
    if not modes:
        yield _required(f"{field}.accessModes", "at least 1 access mode is required")
    yield from (_unsupported(f"{field}.accessModes", mode, allowed) for mode in modes if mode not in allowed)
    storage = spec.get("resources", {}).get("requests", {}).get("storage")
    if storage is None:
        yield _required(f"{field}.resources[storage]")
    elif quantity(storage) <= 0:
        yield _value(f"{field}.resources[storage]", storage, "must be greater than zero")


def _workload(value: Object) -> Iterator[Cause]:
    spec = value["spec"]
    labels = spec["template"].get("metadata", {}).get("labels", {})
    wanted = spec["selector"].get("matchLabels", {})
    if not wanted and not spec["selector"].get("matchExpressions"):
        yield _value("spec.selector", spec["selector"], "empty selector is invalid for deployment")
    if any(labels.get(key) != item for key, item in wanted.items()):
        yield _value("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    yield from _labels("spec.template.metadata.labels", labels)
    yield from _pod_spec("spec.template.spec", spec["template"].get("spec", {}))
    for index, template in enumerate(spec.get("volumeClaimTemplates", [])):
        yield from _claim_spec(f"spec.volumeClaimTemplates[{index}].spec", template.get("spec", {}))


def _job(value: Object) -> Iterator[Cause]:
    template = value["spec"]["template"].get("spec", {})
    allowed = ("OnFailure", "Never")
    if template.get("restartPolicy", "Always") not in allowed:
        yield _unsupported(
            "spec.template.spec.restartPolicy", template.get("restartPolicy", "Always"), allowed
        )
    yield from _pod_spec("spec.template.spec", template)


def _pod(value: Object) -> Iterator[Cause]:
    yield from _pod_spec("spec", value.get("spec", {}))


def _pod_spec(field: str, spec: Mapping[str, Any]) -> Iterator[Cause]:
    if not spec.get("containers"):
        yield _required(f"{field}.containers")
    for index, volume in enumerate(spec.get("volumes", [])):
        for source in ("configMap", "secret"):
            for number, item in enumerate(volume.get(source, {}).get("items", [])):
                place = f"{field}.volumes[{index}].{source}.items[{number}].path"
                if item["path"].startswith("/"):
                    yield _value(place, item["path"], "must be a relative path")
                if ".." in item["path"].split("/"):
                    yield _value(place, item["path"], "must not contain '..'")
    volumes = {volume["name"] for volume in spec.get("volumes", [])}
    for group in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(group, [])):
            place = f"{field}.{group}[{index}]"
            if not container.get("image"):
                yield _required(f"{place}.image")
            for number, mount in enumerate(container.get("volumeMounts", [])):
                # A StatefulSet's claim templates are volumes too; only their names are not known here.
                if mount["name"] not in volumes and "template" not in field:
                    yield Cause(
                        "FieldValueNotFound",
                        f"Not found: {shown(mount['name'])}",
                        f"{place}.volumeMounts[{number}].name",
                    )


def _scrape(field: str, spec: Mapping[str, Any], interval: str) -> Iterator[Cause]:
    every, timeout = spec.get(interval), spec.get("scrapeTimeout")
    if every and timeout and seconds(timeout) > seconds(every):
        yield _value(f"{field}.scrapeTimeout", timeout, f"must not be greater than {interval} ({every})")
    methods = [method for method in ("authorization", "basicAuth", "oauth2") if method in spec]
    if len(methods) > 1:
        yield _value(field, methods, "at most one of authorization, basicAuth, oauth2 may be set")
    if str(spec.get("authorization", {}).get("type", "")).lower() == "basic":
        yield _value(f"{field}.authorization.type", spec["authorization"]["type"], "use basicAuth instead")


def _scrape_config(value: Object) -> Iterator[Cause]:
    yield from _scrape("spec", value["spec"], "scrapeInterval")
    for index, entry in enumerate(value["spec"].get("staticConfigs", [])):
        targets = entry["targets"]
        for number, target in enumerate(targets):
            if target in targets[:number]:
                field = f"spec.staticConfigs[{index}].targets[{number}]"
                yield Cause("FieldValueDuplicate", f"Duplicate value: {shown(target)}", field)


def _service_monitor(value: Object) -> Iterator[Cause]:
    for index, endpoint in enumerate(value["spec"].get("endpoints", [])):
        yield from _scrape(f"spec.endpoints[{index}]", endpoint, "interval")


def _prometheus_rule(value: Object) -> Iterator[Cause]:
    names: set[str] = set()
    for index, group in enumerate(value["spec"].get("groups", [])):
        if group["name"] in names:
            yield Cause(
                "FieldValueDuplicate",
                f'Duplicate value: {{"name":"{group["name"]}"}}',
                f"spec.groups[{index}]",
            )
        names.add(group["name"])
        for number, rule in enumerate(group.get("rules", [])):
            field = f"spec.groups[{index}].rules[{number}]"
            if bool(rule.get("record")) == bool(rule.get("alert")):
                yield _value(field, sorted(rule), "exactly one of record and alert must be set")
            if rule["expr"] == "":
                yield _required(f"{field}.expr")


_RULES: Mapping[str, Callable[[Object], Iterator[Cause]]] = {
    "ConfigMap": _config_map,
    "Secret": _secret,
    "Service": _service,
    "PersistentVolumeClaim": _claim,
    "Deployment": _workload,
    "StatefulSet": _workload,
    "DaemonSet": _workload,
    "Job": _job,
    "Pod": _pod,
    "ScrapeConfig": _scrape_config,
    "Prometheus": _scrape_config,
    "ServiceMonitor": _service_monitor,
    "PrometheusRule": _prometheus_rule,
}


def _frozen(field: str, new: Any, old: Any) -> Iterator[Cause]:
    if new != old:
        yield _value(field, new, "field is immutable")


def _service_update(new: Object, old: Object) -> Iterator[Cause]:
    before, after = old["spec"].get("clusterIP"), new["spec"].get("clusterIP")
    if before and after != before:
        yield _value("spec.clusterIPs[0]", [after] if after else [], "may not change once set")


def _claim_update(new: Object, old: Object) -> Iterator[Cause]:
    def fixed(spec: Mapping[str, Any]) -> dict[str, Any]:
        free = ("resources", "volumeAttributesClassName") + (
            () if spec.get("volumeName") else ("volumeName",)
        )
        return {key: item for key, item in spec.items() if key not in free}

    before = fixed(old["spec"])
    after = {key: item for key, item in fixed(new["spec"]).items() if key in before or key != "volumeName"}
    if before != after:
        yield _not_allowed(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for "
            "bound claims",
        )
    size, wanted = (quantity(item["spec"]["resources"]["requests"]["storage"]) for item in (old, new))
    if wanted < size:
        yield _not_allowed("spec.resources.requests.storage", "field can not be less than status.capacity")
    elif wanted > size and old.get("status", {}).get("phase") != "Bound":
        yield _not_allowed("spec", "only bound claims can be expanded")


def _volume_update(new: Object, old: Object) -> Iterator[Cause]:
    if new["spec"].get("csi") != old["spec"].get("csi"):
        yield _not_allowed(
            "spec.persistentvolumesource", "spec.persistentvolumesource is immutable after creation"
        )


def _data_update(new: Object, old: Object) -> Iterator[Cause]:
    if old.get("immutable") and any(
        new.get(key) != old.get(key) for key in ("data", "binaryData", "immutable")
    ):
        yield _not_allowed("data", "field is immutable when `immutable` is set")


def _secret_update(new: Object, old: Object) -> Iterator[Cause]:
    yield from _frozen("type", new.get("type"), old.get("type"))
    yield from _data_update(new, old)


_STATEFUL_SET_FREE = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)


def _stateful_set_update(new: Object, old: Object) -> Iterator[Cause]:
    fixed = [
        {key: item for key, item in value["spec"].items() if key not in _STATEFUL_SET_FREE}
        for value in (new, old)
    ]
    if fixed[0] != fixed[1]:
        names = ", ".join(f"'{name}'" for name in _STATEFUL_SET_FREE[:-1])
        yield _not_allowed(
            "spec",
            f"updates to statefulset spec for fields other than {names} and '{_STATEFUL_SET_FREE[-1]}' "
            "are forbidden",
        )


def _selector_update(new: Object, old: Object) -> Iterator[Cause]:
    yield from _frozen("spec.selector", new["spec"].get("selector"), old["spec"].get("selector"))


def _job_update(new: Object, old: Object) -> Iterator[Cause]:
    yield from _selector_update(new, old)
    yield from _frozen("spec.template", new["spec"]["template"], old["spec"]["template"])


def _binding_update(new: Object, old: Object) -> Iterator[Cause]:
    if new.get("roleRef") != old.get("roleRef"):
        yield _value("roleRef", new.get("roleRef"), "cannot change roleRef")


def _storage_class_update(new: Object, old: Object) -> Iterator[Cause]:
    for field in ("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"):
        if new.get(field) != old.get(field):
            yield _not_allowed(field, f"updates to {field} are forbidden.")


_IMMUTABLE: Mapping[str, Callable[[Object, Object], Iterator[Cause]]] = {
    "Service": _service_update,
    "PersistentVolumeClaim": _claim_update,
    "PersistentVolume": _volume_update,
    "ConfigMap": _data_update,
    "Secret": _secret_update,
    "StatefulSet": _stateful_set_update,
    "Deployment": _selector_update,
    "DaemonSet": _selector_update,
    "Job": _job_update,
    "RoleBinding": _binding_update,
    "ClusterRoleBinding": _binding_update,
    "StorageClass": _storage_class_update,
}
