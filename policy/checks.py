"""What is wrong about resources, and what to change. Facts in, violations out; no check knows Pulumi.

Every check gets the configuration of its policy, whose defaults are in `pack.py`. What is not known in a
preview is judged in the update.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from components import platform_exporter
from components.setting_types import ChartVersion, Image
from components.settings import PROJECT
from policy import costs
from policy.facts import (
    APP,
    CERTIFICATE,
    CLOUD_USER,
    CLUSTER,
    OPENSTACK,
    PASSWORD,
    PYTHON_PROVIDER,
    RELEASE,
    SECRET,
    SERVICE,
    STACK,
    TOKEN,
    UNKNOWN,
    Resource,
    Secret,
    leaves,
    maps,
    within,
)


@dataclass(frozen=True)
class Violation:
    """Something that a policy does not allow."""

    where: str
    """What to change: a key of the stack file, or a property of a resource."""
    value: str | None
    """What is there now; None when nothing is, or what may not be printed."""
    allowed: str
    """What may be there instead."""
    urn: str = ""
    """The resource, where a check of the whole stack finds something at one."""

    def __str__(self) -> str:
        """`where = value: allowed`."""
        return f"{self.where}{'' if self.value is None else f' = {self.value}'}: {self.allowed}"


Config = Mapping[str, Any]
"""Configuration of a policy; numbers are floats."""
ResourceCheck = Callable[[Resource, Config], Iterator[Violation]]
"""Judges a resource before it is made."""
StackCheck = Callable[[Sequence[Resource], Config], Iterator[Violation]]
"""Judges all resources together, at the end of a preview or an update."""


def restricted_access(resource: Resource, _config: Config) -> Iterator[Violation]:
    """An app answers with a token only."""
    if resource.type == APP and resource.get("unsecure_http") is True:
        yield Violation(
            _property(resource, "unsecure_http"), "true", "must be false: everybody could call the model"
        )


def pinned_images(resource: Resource, _config: Config) -> Iterator[Violation]:
    """What is started tomorrow is what was tried today."""
    if resource.type == APP:
        yield from _refused(_key("image"), resource.get("image"), Image)
    if resource.type == RELEASE:
        yield from _refused(_key("chartVersion"), resource.get("version"), ChartVersion)
    for path, container in _containers(resource, "containers", "initContainers"):
        where = _property(resource, *path, "image")
        if within(resource.properties, "metadata", "name") == platform_exporter.NAME:
            where = _key("platformExporterImage")
        yield from _refused(where, container.get("image"), Image)


def probes_present(resource: Resource, _config: Config) -> Iterator[Violation]:
    """Nobody is sent to a replica that does not serve, and one that hangs is restarted."""
    if resource.type == APP:
        for name, key in (("readiness_probe", "readinessProbe"), ("liveness_probe", "livenessProbe")):
            if resource.get(name) is None:
                yield Violation(_key(key), None, "is missing: set path and port")
    # A Job ends, and nobody calls it.
    for path, container in _containers(resource) if resource.type.startswith("kubernetes:apps/") else ():
        for name in ("readinessProbe", "livenessProbe"):
            if container.get(name) is None:
                yield Violation(_property(resource, *path, name), None, "is missing")


def bounded_replicas(resource: Resource, config: Config) -> Iterator[Violation]:
    """The autoscaler stops at a number that somebody has agreed to."""
    most = costs.most_replicas(resource) if resource.type == APP else None
    if most is not None and most > config["maxReplicas"]:
        yield Violation(_key("maxReplicas"), str(most), f"at most {config['maxReplicas']:g}")


def gpu_quota(resource: Resource, config: Config) -> Iterator[Violation]:
    """An app fits into the GPUs that the project may use."""
    if resource.type != APP:
        return
    most, gpus = costs.most_replicas(resource), resource.get("gpu")
    if most is not None and isinstance(gpus, int | float) and most * gpus > config["maxGpus"]:
        yield Violation(
            _key("maxReplicas"),
            str(most),
            f"with {_key('gpuCount')} = {gpus:g} this needs {most * gpus:g} GPUs; "
            f"at most {config['maxGpus']:g}, unless OVHcloud's support has raised the quota",
        )


def bounded_cost(resources: Sequence[Resource], config: Config) -> Iterator[Violation]:
    """The whole stack costs at most so much per hour when it is scaled out, and all of it has a price."""
    bill = costs.bill(resources)
    if bill.unpriced:
        keys = _keys("gpuFlavor", "nodeFlavor", "storageClass", "clusterRegion")
        yield Violation(
            f"price of {'; '.join(dict.fromkeys(bill.unpriced))}",
            None,
            f"nobody knows it: change {keys} to what components/prices.json has, or write the price there "
            "with date and source",
        )
    _, most = bill.known
    if most > config["maxEurPerHour"]:
        priced = [(item.eur_per_hour[1], item.name) for item in bill.items if item.eur_per_hour]
        dearest = ", ".join(f"{name} ({eur:.2f})" for eur, name in sorted(priced, reverse=True)[:2])
        keys = _keys("maxReplicas", "gpuCount", "gpuFlavor", "nodeCount", "nodeFlavor")
        yield Violation(
            "cost per hour",
            f"{most:.2f} EUR",
            f"at most {config['maxEurPerHour']:g} EUR; most of it are {dearest}; change {keys}",
        )


_SECRET_OUTPUTS = {
    TOKEN: ("value",),
    PASSWORD: ("value",),
    CERTIFICATE: ("key_pem",),
    CLUSTER: ("kubeconfig",),
    CLOUD_USER: ("password",),
}
"""Outputs that are made by the cloud or by the program, so no input tells that they are secrets."""


def secret_properties(resource: Resource, _config: Config) -> Iterator[Violation]:
    """Tokens, passwords, keys and kubeconfigs are secrets for Pulumi, in state, previews and plans."""
    for path, value in leaves(resource.properties):
        if _plain_text(value) and _holds_a_secret(resource, path):
            yield _in_clear(resource, *path)
    for path, container in _containers(resource, "containers", "initContainers"):
        for _, variable in maps(container.get("env")):
            name = str(variable.get("name"))
            if names_a_secret(name, *_IN_VARIABLES) and _plain_text(variable.get("value")):
                yield _in_clear(resource, *path, "env", name)
    for name in _SECRET_OUTPUTS.get(resource.type, ()):
        if name not in resource.secret_outputs:
            yield Violation(
                _property(resource, name),
                None,
                "would be stored in plain text: name it in additional_secret_outputs of the resource",
            )


def _holds_a_secret(resource: Resource, path: tuple[str, ...]) -> bool:
    """Whether what is at `path` in a resource is to be kept secret."""
    if resource.type == SECRET and path[0] in ("data", "stringData"):
        return True
    in_variable = resource.type == APP and path[0] == "env"
    return names_a_secret(path[-1], *(_IN_VARIABLES if in_variable else ()))


def secrets_in_clear(resources: Sequence[Resource], _config: Config) -> Iterator[Violation]:
    """No secret of the stack stands anywhere in plain text, and no output of the stack shows one."""
    secrets = {text for resource in resources for text in _secret_texts(resource)}
    for resource in resources:
        for path, value in leaves(resource.properties):
            if not _plain_text(value):
                continue
            if resource.type == PYTHON_PROVIDER:
                where, advice = path[0], "take it out"
            else:
                where, advice = _property(resource, *path), "hand it on as pulumi.Output.secret(…)"
            if any(secret in value for secret in secrets):
                yield Violation(where, None, f"holds a secret in plain text: {advice}", resource.urn)
            elif resource.type == STACK and names_a_secret(path[-1]):
                yield Violation(where, None, f"is in plain text: {advice}", resource.urn)


_WIDEST = {4: 8, 6: 16}
"""Shortest prefix of a source range that still is somebody's: nobody has more than 10.0.0.0/8."""
_INTERNAL = "service.beta.kubernetes.io/openstack-internal-load-balancer"


def source_ranges(resource: Resource, _config: Config) -> Iterator[Violation]:
    """Who may reach a public load balancer is written down."""
    for path, service, notes in _services(resource):
        if service.get("type") != "LoadBalancer" or within(notes, _INTERNAL) == "true":
            continue
        where = _property(resource, *path, "loadBalancerSourceRanges")
        if path == ("values", "grafana", "service"):
            where = _key("grafanaSourceRanges")
        ranges = service.get("loadBalancerSourceRanges")
        if not ranges:
            yield Violation(
                where, None, "is missing: everybody could reach the load balancer; for example 203.0.113.0/24"
            )
        for text in ranges if isinstance(ranges, list) else []:
            if isinstance(text, str) and not _limited(text):
                yield Violation(
                    where,
                    text,
                    "must be a range of your own, such as 203.0.113.0/24, and not of nearly everybody",
                )


def _services(resource: Resource) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any], Any]]:
    """What may be a Service, of its own or in the values of a chart, with its path and its annotations."""
    if resource.type == SERVICE and isinstance(resource.get("spec"), Mapping):
        yield ("spec",), resource.get("spec"), resource.get("metadata", "annotations")
    if resource.type == RELEASE:
        for path, found in maps(resource.properties.get("values")):
            yield ("values", *path), found, found.get("annotations")


def _limited(text: str) -> bool:
    """Whether a text is a source range, and not one of nearly everybody."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return network.prefixlen >= _WIDEST[network.version]


_PROTECTED = {APP: "app", CLUSTER: "cluster"}
"""What must be protected, and what `protect` calls it."""


def production_protected(resources: Sequence[Resource], config: Config) -> Iterator[Violation]:
    """Nothing that production stands on can be deleted or replaced by a slip."""
    settings = _settings(resources)
    environment = settings.get("environment")
    if environment not in config["environments"]:
        return
    for resource in resources:
        word = _PROTECTED.get(resource.type)
        if word and not resource.protect:
            yield Violation(
                _key("protect"),
                str(settings.get("protect")),
                f"must name {word} while {_key('environment')} is {environment}",
                resource.urn,
            )


_REGIONS = {
    APP: ("region", "region"),
    CLUSTER: ("region", "clusterRegion"),
    OPENSTACK: ("region", "clusterRegion"),
}
"""Property with the region, and the key it comes from."""


def european_regions(resource: Resource, config: Config) -> Iterator[Violation]:
    """Model, prompts and metrics stay where the law of the European Union holds."""
    name, key = _REGIONS.get(resource.type, ("", ""))
    region = resource.get(name)
    places: list[str] = config["places"]
    if isinstance(region, str) and not any(
        # A place has numbered regions, and some have lettered zones: GRA11, RBX-A.
        re.fullmatch(rf"{re.escape(place)}\d*(-[A-Z])?", region)
        for place in places
    ):
        yield Violation(_key(key), region, f"must be in one of {', '.join(places)}")


def scoped_tokens(resource: Resource, _config: Config) -> Iterator[Violation]:
    """A token may call the apps of its deployment, and do nothing else."""
    if resource.type != TOKEN:
        return
    role, selector = resource.get("role"), resource.get("label_selector")
    if role not in ("ai_training_read", UNKNOWN):
        yield Violation(
            _property(resource, "role"), str(role), "must be ai_training_read: others stop and delete apps"
        )
    if selector is not UNKNOWN and not re.fullmatch(r"[^=,\s]+=[^=,\s]+", str(selector)):
        yield Violation(
            _property(resource, "label_selector"),
            str(selector),
            "must be name=value: without it the token opens every app of the project",
        )


def known_storage_classes(resource: Resource, config: Config) -> Iterator[Violation]:
    """Every volume is of a class that the cluster has, and whose price is known."""
    classes: list[str] = config["classes"]
    for path, found in maps(resource.properties):
        name = found.get("storageClassName")
        if isinstance(name, str) and name not in classes:
            where = (
                _key("storageClass")
                if resource.type == RELEASE
                else _property(resource, *path, "storageClassName")
            )
            yield Violation(where, name, f"must be one of {', '.join(classes)}")
            return


_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRET_WORDS = (
    ("token",),
    ("password",),
    ("passphrase",),
    ("kubeconfig",),
    ("api", "key"),
    ("private", "key"),
    ("access", "key"),
    ("application", "secret"),
    ("client", "secret"),
    ("key", "pem"),
)
_IN_VARIABLES = (("secret",), ("credentials",), ("key",))
"""What names a secret as an environment variable, and elsewhere is the name of something else."""


def names_a_secret(name: str, *more: tuple[str, ...]) -> bool:
    """Whether a property of this name holds a secret: its last words say so.

    `more` are last words besides the usual ones. `passwordKey` and `token_ids` name none.
    """
    words = tuple(word.lower() for word in _WORD.findall(name))
    return any(words[-len(last) :] == last for last in (*_SECRET_WORDS, *more))


_SHORTEST_SECRET = 16
"""Characters; what is shorter is a number, a path or a name that may well stand elsewhere, too."""


def _secret_texts(resource: Resource) -> Iterator[str]:
    """The secrets of a resource that are one text and long enough to be told from other texts."""
    for path, value in leaves(resource.properties):
        # All variables of an app are secrets, most of them for no other reason than that.
        if resource.type == APP and path[0] == "env" and not _holds_a_secret(resource, path):
            continue
        text = value.value if isinstance(value, Secret) else None
        if isinstance(text, str) and len(text) >= _SHORTEST_SECRET:
            yield text


def _settings(resources: Sequence[Resource]) -> Mapping[str, Any]:
    """The settings of the stack."""
    return next((resource.settings for resource in resources if resource.settings), {})


def _plain_text(value: Any) -> bool:
    """Whether a value is text that is known, there at all, and no secret."""
    return isinstance(value, str) and bool(value)


def _in_clear(resource: Resource, *path: str) -> Violation:
    return Violation(
        _property(resource, *path),
        None,
        "is in plain text: keep it in a secret setting (`pulumi config set --secret`) and hand it on as "
        "pulumi.Output.secret(…)",
    )


def _containers(resource: Resource, *kinds: str) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """The containers of a workload of Kubernetes, with their paths; `kinds` defaults to `containers`."""
    if not resource.type.startswith(("kubernetes:apps/", "kubernetes:batch/", "kubernetes:core/v1:Pod")):
        return
    for path, found in maps(resource.properties):
        if path[-2:-1] and path[-2] in (kinds or ("containers",)):
            yield path, found


def _refused(where: str, value: Any, wanted: Any) -> Iterator[Violation]:
    """A violation when `value` is known and no `wanted`, a type of settings that says why."""
    if value is UNKNOWN:
        return
    try:
        TypeAdapter(wanted).validate_python("" if value is None else value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        yield Violation(where, None if value is None else str(value), reason)


def _key(name: str) -> str:
    """A key of the stack file."""
    return f"{PROJECT}:{name}"


def _keys(*names: str) -> str:
    return f"{', '.join(map(_key, names[:-1]))} or {_key(names[-1])}"


def _property(resource: Resource, *path: str) -> str:
    """A property that no setting changes, but the program."""
    return f"{'.'.join(path)} of {resource.name}"
