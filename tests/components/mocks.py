"""A stand-in for the Pulumi engine: runs a program and keeps what it asks for, as it goes over the wire.

On top of the SDK's mocks it shows secrets, dependencies and options of each request, the program's outputs,
and lets resources fail as `up --continue-on-error` does: what depends on them is skipped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from pulumi.runtime import (
    MockCallArgs,
    MockResourceArgs,
    Mocks,
    Settings,
    configure,
    rpc,
    run_in_stack,
    set_all_config,
)
from pulumi.runtime.mocks import MockMonitor
from pulumi.runtime.proto import engine_pb2, resource_pb2
from pulumi.runtime.settings import ROOT

from components.settings import PROJECT, load
from components.settings import Settings as StackSettings
from tests.components.stacks import SERVICE, configuration

AI = "pulumi-python:dynamic/ai-deploy"
KUBE = "ovh:CloudProject/kube:Kube"
NODE_POOL = "ovh:CloudProject/kubeNodePool:KubeNodePool"
IP_RESTRICTIONS = "ovh:CloudProject/kubeIpRestrictions:KubeIpRestrictions"
USER = "ovh:CloudProject/user:User"
KUBERNETES = "pulumi:providers:kubernetes"
OPENSTACK = "pulumi:providers:openstack"
FLOATING_IP = "openstack:networking/floatingIp:FloatingIp"
RELEASE = "kubernetes:helm.sh/v3:Release"
SERVICE_OBJECT = "kubernetes:core/v1:Service"
SECRET_OBJECT = "kubernetes:core/v1:Secret"
CONFIG_MAP = "kubernetes:core/v1:ConfigMap"
DEPLOYMENT = "kubernetes:apps/v1:Deployment"
NETWORK_POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
SCRAPE_CONFIG = "kubernetes:monitoring.coreos.com/v1alpha1:ScrapeConfig"
PROMETHEUS_RULE = "kubernetes:monitoring.coreos.com/v1:PrometheusRule"

IDENTITY = "00112233445566ff"
STARTS = 2
PLATFORM_DASHBOARD = "https://dashboard.example"
ENDPOINT = "https://app-1.app.gra.ai.cloud.ovh.net"
KUBECONFIG = "canary-kubeconfig"
CLIENT_TOKEN = "canary-vllm-client-token-1"
SCRAPER_TOKEN = "canary-vllm-scraper-token-1"
GRAFANA_PASSWORD = "canary-password"
GRAFANA_KEY = "canary-key"
OPENSTACK_PASSWORD = "canary-openstack"
HUGGING_FACE_TOKEN = "canary-hugging-face"
RECEIVERS = {
    "alertWebhookUrl": "https://example.com/canary-webhook",
    "alertSlackUrl": "https://hooks.slack.com/services/canary-slack",
    "alertPagerDutyKey": "0canary0pagerduty0key00000000000",
    "alertEmailTo": "oncall@example.com,lead@example.com",
    "alertEmailFrom": "alerts@example.com",
    "alertSmtpHost": "smtp.example.com:587",
    "alertSmtpUser": "alerts",
    "alertSmtpPassword": "canary-smtp",
}
"""Settings with every receiver."""
RECEIVER_KEYS = {
    "alertWebhookUrl": "webhook-url",
    "alertSlackUrl": "slack-url",
    "alertPagerDutyKey": "pagerduty-key",
    "alertSmtpPassword": "smtp-password",
}
"""Which of them are secrets, and the files that they become."""
RECEIVER_SECRETS = {file: RECEIVERS[key] for key, file in RECEIVER_KEYS.items()}
"""What of them must stay a secret, by the file that it becomes."""
SECRETS = (
    KUBECONFIG,
    CLIENT_TOKEN,
    SCRAPER_TOKEN,
    GRAFANA_PASSWORD,
    GRAFANA_KEY,
    OPENSTACK_PASSWORD,
    HUGGING_FACE_TOKEN,
    *RECEIVER_SECRETS.values(),
)
"""What must never travel in plain text."""
GRAFANA_CERTIFICATE = "certificate"
GRAFANA_SERVICE = "ns/rel-grafana"
OPENSTACK_RC = {"OS_AUTH_URL": "https://auth.example/v3", "OS_TENANT_ID": "tenant"}
GRAFANA_ADDRESS = "203.0.113.10"


_SIGNATURE, _SECRET = rpc._special_sig_key, rpc._special_secret_sig
"""Key and value that mark a secret on the wire."""


class Marker(Enum):
    """What stands for a value that is not known."""

    UNKNOWN = "unknown"


UNKNOWN = Marker.UNKNOWN


@dataclass(frozen=True)
class Secret:
    """A value that travels as a secret."""

    value: Any


@dataclass(frozen=True)
class Resource:
    """A resource as the program declared it."""

    urn: str
    type: str
    name: str
    inputs: dict[str, Any]
    """Wire inputs; secrets are `Secret`, unknown values `UNKNOWN`."""
    needs: frozenset[str]
    """URNs of what it waits for: dependencies of every kind and its provider."""
    provider: str
    """URN of its provider; empty for the default one."""
    protect: bool
    retain_on_delete: bool
    ignore_changes: list[str]
    secret_outputs: frozenset[str]
    """Outputs that it asks to be kept as secrets."""


@dataclass(frozen=True)
class Read:
    """A resource of which only the state is read."""

    type: str
    id: Any
    provider: str


@dataclass
class Deployment:
    """What a program asked for, in order."""

    resources: list[Resource] = field(default_factory=list)
    """Made ones."""
    skipped: list[Resource] = field(default_factory=list)
    """Not made: what they depend on has failed, was skipped, or they themselves failed."""
    reads: list[Read] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    """Outputs of the stack."""
    said: list[str] = field(default_factory=list)
    """What it told the user for information."""
    warnings: list[str] = field(default_factory=list)

    def of(self, type_: str) -> list[Resource]:
        """The resources of a type."""
        return [resource for resource in self.resources if resource.type == type_]

    def one(self, type_: str) -> Resource:
        """The only resource of a type."""
        (resource,) = self.of(type_)
        return resource

    def named(self, type_: str, name: str) -> Resource:
        """The Kubernetes object of a type whose `metadata.name` is `name`."""
        (resource,) = (item for item in self.of(type_) if item.inputs["metadata"]["name"] == name)
        return resource


class _Cloud(Mocks):
    """What a cloud would answer: identifiers and the outputs that the program reads."""

    def call(self, args: MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        raise AssertionError(f"the program must not call {args.token}: in a first preview it answers nothing")

    def new_resource(self, args: MockResourceArgs) -> tuple[str, dict[str, Any]]:
        computed: dict[str, Any] = {}
        match args.typ.rpartition(":")[2]:
            case "Identity":
                computed = {"value": IDENTITY}
            case "Token":
                computed = {"value": f"canary-{args.name}", "token_name": args.name}
            case "App":
                computed = {"url": ENDPOINT, "monitoring_url": PLATFORM_DASHBOARD, "starts": STARTS}
            case "Readiness":
                computed = {"url": ENDPOINT}
            case "Kube":
                computed = {"kubeconfig": KUBECONFIG}
            case "User":
                computed = {
                    "username": "user-1",
                    "password": OPENSTACK_PASSWORD,
                    "openstackRc": OPENSTACK_RC,
                }
            case "FloatingIp":
                computed = {"address": GRAFANA_ADDRESS}
            case "Password":
                computed = {"value": GRAFANA_PASSWORD}
            case "SelfSignedCertificate":
                computed = {"certificate_pem": GRAFANA_CERTIFICATE, "key_pem": GRAFANA_KEY}
            case "Release":
                computed = {"status": {"name": "rel", "namespace": "ns", "status": "deployed"}}
            case "Service":
                computed = {"status": {"loadBalancer": {"ingress": [{"ip": GRAFANA_ADDRESS}]}}}
        return f"id-{args.name}", {**args.inputs, **computed}


class _Engine(MockMonitor):
    """Resource monitor and engine in one."""

    def __init__(self, preview: bool, failing: Collection[str]) -> None:
        self._cloud = _Cloud()
        super().__init__(self._cloud)
        self.deployment = Deployment()
        self._preview = preview
        self._failing = failing
        self._lost: set[str] = set()

    def RegisterResource(  # noqa: N802
        self, request: resource_pb2.RegisterResourceRequest
    ) -> resource_pb2.RegisterResourceResponse:
        urn = self.make_urn(request.parent, request.type, request.name)
        if not request.custom:
            return resource_pb2.RegisterResourceResponse(urn=urn)
        # A reference to a provider is its URN, "::" and its id.
        provider = request.provider.rpartition("::")[0]
        properties = (urns for entry in request.propertyDependencies.values() for urns in entry.urns)
        inputs = _decoded(MessageToDict(request.object))
        resource = Resource(
            urn=urn,
            type=request.type,
            name=request.name,
            inputs=inputs,
            needs=frozenset({*request.dependencies, *properties, provider} - {""}),
            provider=provider,
            protect=request.protect,
            retain_on_delete=request.retainOnDelete,
            ignore_changes=list(request.ignoreChanges),
            secret_outputs=frozenset(request.additionalSecretOutputs),
        )
        if request.type in self._failing or resource.needs & self._lost:
            self._lost.add(urn)
            self.deployment.skipped.append(resource)
            return resource_pb2.RegisterResourceResponse(urn=urn, result=resource_pb2.Result.FAIL)
        self.deployment.resources.append(resource)
        if self._preview:
            return resource_pb2.RegisterResourceResponse(urn=urn, object=request.object)
        id_, outputs = self._cloud.new_resource(MockResourceArgs(request.type, request.name, inputs))
        for name in request.additionalSecretOutputs:
            if name in outputs and not isinstance(outputs[name], Secret):
                outputs[name] = Secret(outputs[name])
        return resource_pb2.RegisterResourceResponse(urn=urn, id=id_, object=_struct(outputs))

    def ReadResource(  # noqa: N802
        self, request: resource_pb2.ReadResourceRequest
    ) -> resource_pb2.ReadResourceResponse:
        urn = self.make_urn(request.parent, request.type, request.name)
        id_ = _decoded(request.id)
        self.deployment.reads.append(Read(request.type, id_, request.provider.rpartition("::")[0]))
        if id_ is UNKNOWN:
            # The engine reads nothing, and all outputs are unknown.
            return resource_pb2.ReadResourceResponse(urn=urn, result=resource_pb2.Result.FAIL)
        _, outputs = self._cloud.new_resource(MockResourceArgs(request.type, request.name, {}))
        return resource_pb2.ReadResourceResponse(urn=urn, id=id_, properties=_struct(outputs))

    def RegisterResourceOutputs(  # noqa: N802
        self, request: resource_pb2.RegisterResourceOutputsRequest
    ) -> Empty:
        if "::pulumi:pulumi:Stack::" in request.urn:
            self.deployment.outputs.update(_decoded(MessageToDict(request.outputs)))
        return Empty()

    def Log(self, request: engine_pb2.LogRequest) -> None:  # noqa: N802
        if request.severity >= engine_pb2.WARNING:
            self.deployment.warnings.append(request.message)
        elif request.severity == engine_pb2.INFO:
            self.deployment.said.append(request.message)


def _decoded(value: Any) -> Any:
    match value:
        case dict() if value.get(_SIGNATURE) == _SECRET:
            return Secret(_decoded(value["value"]))
        case dict():
            return {key: _decoded(item) for key, item in value.items()}
        case list():
            return [_decoded(item) for item in value]
        case _:
            return UNKNOWN if value == rpc.UNKNOWN else value


def _encoded(value: Any) -> Any:
    match value:
        case Secret():
            return {_SIGNATURE: _SECRET, "value": _encoded(value.value)}
        case Marker():
            return rpc.UNKNOWN
        case dict():
            return {key: _encoded(item) for key, item in value.items()}
        case list():
            return [_encoded(item) for item in value]
        case _:
            return value


def _struct(value: dict[str, Any]) -> Struct:
    struct = Struct()
    struct.update(_encoded(value))
    return struct


def deploy(
    program: Callable[[], Awaitable[None] | Any],
    *,
    config: Mapping[str, str] | None = None,
    secrets: Collection[str] = (),
    stack: str = "prod",
    preview: bool = False,
    failing: Collection[str] = (),
) -> Deployment:
    """Runs `program` in a stack and returns what it asked for.

    `config` has keys without namespace, of which `secrets` are encrypted. In a `preview` nothing is made, so
    every output that is no input is unknown. Types of resources in `failing` fail, which costs nothing but
    what depends on them. Raises what the program raises.
    """
    engine = _Engine(preview, failing)

    async def run() -> None:
        # Mocks of the SDK, in other tests, leave their stack behind.
        ROOT.set(None)
        configure(Settings(PROJECT, stack, monitor=engine, engine=engine, dry_run=preview))
        set_all_config(
            {f"{PROJECT}:{key}": value for key, value in (config or {}).items()},
            [f"{PROJECT}:{key}" for key in secrets],
        )
        await run_in_stack(program)

    asyncio.run(run())
    return engine.deployment


def settings(stack: str, **changes: str) -> StackSettings:
    """Settings of a tracked stack with some keys changed, encrypted where they have to be."""
    return load(
        configuration(stack) | changes,
        secret=lambda key: True,
        environment={"OVH_CLOUD_PROJECT_SERVICE": SERVICE},
        stack=stack,
    )


def plain(value: Any) -> Iterator[str]:
    """Every text inside a wire value that does not travel as a secret."""
    match value:
        case str():
            yield value
        case dict():
            for key, item in value.items():
                yield key
                yield from plain(item)
        case list():
            for item in value:
                yield from plain(item)
