"""The policies: name, description, defaults of the configuration, and the check of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyConfigSchema,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)

from components.settings import PROJECT
from policy import checks, wire
from policy.checks import ResourceCheck, StackCheck, Violation
from policy.facts import UNKNOWN, Resource

Check = TypeVar("Check", ResourceCheck, StackCheck)

EUROPEAN_UNION = ["GRA", "RBX", "EU-WEST-RBX", "SBG", "EU-WEST-PAR", "DE", "WAW", "EU-SOUTH-MIL"]
"""Places of OVHcloud in the European Union, as regions are called without their number.

Gravelines, Roubaix, Strasbourg and Paris in France, Frankfurt in Germany, Warsaw in Poland, Milan in Italy;
from its guide on datacentres of Managed Kubernetes (2026-02-03) and the regions of the AI products. Not among
them: BHS (Canada), UK (London), AP-SOUTH-MUM (India).
"""
STORAGE_CLASSES = [
    f"csi-cinder-{type_}{encrypted}"
    for type_ in ("high-speed", "high-speed-gen2", "classic")
    for encrypted in ("", "-luks")
]
"""Classes of Managed Kubernetes, from its guide on persistent volumes (2026-01-30)."""


@dataclass(frozen=True)
class Rule(Generic[Check]):
    """A policy."""

    name: str
    description: str
    check: Check
    schema: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """What can be configured: name to JSON schema with a default."""

    @property
    def defaults(self) -> dict[str, Any]:
        """The configuration of who configures nothing."""
        return {name: schema["default"] for name, schema in self.schema.items()}


def _texts(default: list[str]) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string"}, "default": default}


def _number(default: float) -> dict[str, Any]:
    return {"type": "number", "minimum": 0, "default": default}


ON_RESOURCES: tuple[Rule[ResourceCheck], ...] = (
    Rule(
        "restricted-access",
        "An AI Deploy app answers with a token only.",
        checks.restricted_access,
    ),
    Rule(
        "pinned-images",
        "Container images have a tag other than latest, or a digest; charts have a version.",
        checks.pinned_images,
    ),
    Rule(
        "probes-present",
        "Apps and containers have a readiness and a liveness probe.",
        checks.probes_present,
    ),
    Rule(
        "bounded-replicas",
        "An app has at most maxReplicas replicas.",
        checks.bounded_replicas,
        {"maxReplicas": _number(4)},
    ),
    Rule(
        "gpu-quota",
        "An app, scaled out, needs at most maxGpus GPUs.",
        checks.gpu_quota,
        {"maxGpus": _number(4)},
    ),
    Rule(
        "secret-properties",
        "Tokens, passwords, keys and kubeconfigs are secrets for Pulumi.",
        checks.secret_properties,
    ),
    Rule(
        "source-ranges",
        "A public load balancer names the source ranges that may reach it.",
        checks.source_ranges,
    ),
    Rule(
        "european-regions",
        "Everything runs in regions in the European Union.",
        checks.european_regions,
        {"places": _texts(EUROPEAN_UNION)},
    ),
    Rule(
        "scoped-tokens",
        "AI tokens are read-only and open the apps of one label.",
        checks.scoped_tokens,
    ),
    Rule(
        "known-storage-classes",
        "Volumes are of a storage class that Managed Kubernetes has.",
        checks.known_storage_classes,
        {"classes": _texts(STORAGE_CLASSES)},
    ),
)
"""Policies that judge a resource before it is made; in an update it is then not made."""

ON_STACK: tuple[Rule[StackCheck], ...] = (
    Rule(
        "bounded-cost",
        "The stack, scaled out, costs at most maxEurPerHour, and the price of everything in it is known.",
        checks.bounded_cost,
        {"maxEurPerHour": _number(15)},
    ),
    Rule(
        "no-secret-in-clear",
        "No secret of the stack stands anywhere in plain text, and no output of the stack shows one.",
        checks.secrets_in_clear,
    ),
    Rule(
        "production-protected",
        "App and cluster of a production environment are protected against deletion and replacement.",
        checks.production_protected,
        {"environments": _texts(["production"])},
    ),
)
"""Policies that judge all resources together, at the end: use a preview to know before anything is made."""


def serve() -> None:
    """Answers the engine until it is done; policies are mandatory unless a configuration says otherwise."""
    wire.keep_secrets_marked()
    policies: list[Policy] = [*map(_resource_policy, ON_RESOURCES), *map(_stack_policy, ON_STACK)]
    PolicyPack(PROJECT, policies, enforcement_level=EnforcementLevel.MANDATORY)


def _resource_policy(rule: Rule[ResourceCheck]) -> Policy:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        resource = _inputs[args.urn] = wire.resource(args)
        _report(rule.check(resource, args.get_config()), args.urn, report)

    schema = PolicyConfigSchema(dict(rule.schema))
    return ResourceValidationPolicy(rule.name, rule.description, validate, config_schema=schema)


def _stack_policy(rule: Rule[StackCheck]) -> Policy:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        resources = [_with_inputs(wire.resource(resource)) for resource in args.resources]
        urn = resources[0].urn if resources else ""
        _report(rule.check(resources, args.get_config()), urn, report)

    schema = PolicyConfigSchema(dict(rule.schema))
    return StackValidationPolicy(rule.name, rule.description, validate, config_schema=schema)


_inputs: dict[str, Resource] = {}
"""By URN, what the running preview or update has declared so far."""


def _with_inputs(resource: Resource) -> Resource:
    """A resource of a stack with its inputs: a preview knows few outputs, of a new release not one."""
    declared = _inputs.get(resource.urn)
    known = {name: value for name, value in resource.properties.items() if value is not UNKNOWN}
    return replace(resource, properties={**(declared.properties if declared else {}), **known})


def _report(violations: Iterable[Violation], urn: str, report: ReportViolation) -> None:
    """Says which stack file to change; any URN of the stack tells its name."""
    for violation in violations:
        stack = urn.removeprefix("urn:pulumi:").partition("::")[0]
        file = f"Pulumi.{stack}.yaml: " if f"{PROJECT}:" in str(violation) else ""
        report(f"{file}{violation}", violation.urn or None)
