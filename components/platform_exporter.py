"""PlatformExporter: asks the AI platform's own API about the app, for Prometheus."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes

NAME = "ai-deploy-exporter"
"""Name of all its objects."""
PORT = 7979
MODULE = "app"
"""The set of metrics that a scrape names."""

_CONFIG_DIRECTORY = f"/etc/{NAME}/config"
_TOKEN_DIRECTORY = f"/etc/{NAME}/token"
_NOBODY = 65534
_PROMETHEUS = {"app.kubernetes.io/name": "prometheus"}
"""Labels that the operator puts on Prometheus' pods."""


def exporter_config() -> str:
    """Configuration of json_exporter 0.7; JSON is YAML. The app to ask for comes with each scrape.

    401 and 403 are accepted, so that a rejected token can be told from an API that is down: the scrape then
    succeeds without a single value.
    """
    status: dict[str, Any] = {
        "name": "ai_deploy_app",
        "type": "object",
        # Not the whole app: the exporter logs where it finds nothing, and an app has environment variables.
        # Only an answer that has no status at all is logged as a whole.
        "path": "{.status}",
        # Lower case is what it reads; an unknown key would be ignored.
        "valuetype": "gauge",
    }
    metrics = [
        {
            **status,
            "help": "Replicas that are ready, as the platform says.",
            "values": {"available_replicas": "{.availableReplicas}"},
        },
        {
            **status,
            "help": "State of the app, always 1.",
            "labels": {"state": "{.state}"},
            "values": {"state": "1"},
        },
    ]
    module = {
        "http_client_config": {
            "authorization": {"type": "Bearer", "credentials_file": f"{_TOKEN_DIRECTORY}/token"},
            "follow_redirects": False,
        },
        "valid_status_codes": [200, 401, 403],
        "metrics": metrics,
    }
    return json.dumps({"modules": {MODULE: module}}, indent=2)


class PlatformExporter(pulumi.ComponentResource):
    """json_exporter with the scraper's token. It knows no app, so a replaced one restarts nothing."""

    address: pulumi.Output[str]
    """Where Prometheus finds it, as host and port."""

    def __init__(
        self,
        name: str,
        *,
        namespace: pulumi.Input[str],
        image: str,
        token: kubernetes.core.v1.Secret,
        opts: pulumi.ResourceOptions,
    ) -> None:
        """Declares the exporter; the Secret `token` has the Bearer token under the key `token`."""
        super().__init__("ovh-vllm:components:PlatformExporter", name, None, opts)
        inside = pulumi.ResourceOptions(parent=self)
        selector = {"app.kubernetes.io/name": NAME}
        metadata: Any = {"name": NAME, "namespace": namespace, "labels": selector}
        self.address = pulumi.Output.concat(NAME, ".", namespace, f":{PORT}")
        text = exporter_config()
        config = kubernetes.core.v1.ConfigMap(
            f"{name}-config", metadata=metadata, data={"config.yml": text}, opts=inside
        )
        pod: Any = {
            "metadata": {
                "labels": selector,
                # It reads its configuration at start only.
                "annotations": {"checksum/config": hashlib.sha256(text.encode()).hexdigest()},
            },
            "spec": _pod(image, token.metadata.name),
        }
        # It sends its token to whatever address a caller names.
        policy = kubernetes.networking.v1.NetworkPolicy(
            f"{name}-callers",
            metadata=metadata,
            spec={
                "pod_selector": {"match_labels": selector},
                "policy_types": ["Ingress"],
                "ingress": [
                    {
                        "from_": [{"pod_selector": {"match_labels": _PROMETHEUS}}],
                        "ports": [{"port": PORT, "protocol": "TCP"}],
                    }
                ],
            },
            opts=inside,
        )
        kubernetes.apps.v1.Deployment(
            name,
            metadata=metadata,
            spec={"replicas": 1, "selector": {"match_labels": selector}, "template": pod},
            opts=inside.merge(pulumi.ResourceOptions(depends_on=[config, token, policy])),
        )
        kubernetes.core.v1.Service(
            f"{name}-service",
            metadata=metadata,
            spec={
                "selector": selector,
                "ports": [{"name": "http", "port": PORT, "target_port": "http", "protocol": "TCP"}],
            },
            opts=inside,
        )
        self.register_outputs({"address": self.address})


def _pod(image: str, token_secret: pulumi.Input[str]) -> dict[str, Any]:
    probe = {"httpGet": {"path": "/", "port": "http"}}
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _NOBODY,
            "runAsGroup": _NOBODY,
            "fsGroup": _NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "exporter",
                "image": image,
                "args": [f"--config.file={_CONFIG_DIRECTORY}/config.yml"],
                "ports": [{"name": "http", "containerPort": PORT}],
                "readinessProbe": probe,
                "livenessProbe": probe,
                "resources": {
                    "requests": {"cpu": "10m", "memory": "32Mi"},
                    "limits": {"memory": "64Mi"},
                },
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "config", "mountPath": _CONFIG_DIRECTORY, "readOnly": True},
                    {"name": "token", "mountPath": _TOKEN_DIRECTORY, "readOnly": True},
                ],
            }
        ],
        "volumes": [
            {"name": "config", "configMap": {"name": NAME}},
            {"name": "token", "secret": {"secretName": token_secret, "defaultMode": 0o440}},
        ],
    }
