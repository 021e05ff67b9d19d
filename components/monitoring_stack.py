"""MonitoringStack: Prometheus, Alertmanager and Grafana in a cluster, and the scrape of the endpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes
import pulumi_openstack as openstack
from pulumi_ovh import cloudproject

from components import alertmanager_config
from components.cluster_objects import secret
from components.endpoint_monitoring import EndpointMonitoring
from components.generated import Password, SelfSignedCertificate
from components.monitoring_values import (
    GRAFANA_ADMIN_SECRET,
    GRAFANA_TARGET_PORT,
    GRAFANA_TLS_SECRET,
    RELEASE,
    chart_values,
)
from components.settings import AlertSettings, MonitoringSettings
from components.unknowns import held_back, unless_failed
from dashboards import vllm
from dashboards.target import Target

NAMESPACE = "monitoring"
CHART = "kube-prometheus-stack"

_RELEASE_TIMEOUT_SECONDS = 900
"""Images are pulled, volumes attached and the load balancer made: several minutes on a new cluster."""


class MonitoringStack(pulumi.ComponentResource):
    """kube-prometheus-stack with provisioned datasource and dashboards, and who is told of alerts.

    The release knows nothing of the endpoint. They meet in small objects made last, those of
    `EndpointMonitoring`. So a new app is no Helm upgrade, and Prometheus stays on the endpoint that serves
    until the next one has answered.
    """

    grafana_url: pulumi.Output[str | None]
    """Address of Grafana; with `port-forward` the local end of the tunnel. None while the release fails."""
    grafana_dashboard_url: pulumi.Output[str | None]
    """Address of the vLLM dashboard."""
    grafana_admin_password: pulumi.Output[str]
    """Password of the user admin, a secret."""
    grafana_reserved_address: pulumi.Output[str] | None
    """The floating IP that is reserved for Grafana, if the settings ask for one."""
    prometheus_url: pulumi.Output[str]
    """The external address of the settings, else the in-cluster one."""

    def __init__(
        self,
        name: str,
        settings: MonitoringSettings,
        alerts: AlertSettings,
        *,
        provider: kubernetes.Provider,
        service_name: str,
        region: str,
        protect: bool,
        other_branch: pulumi.Output[Any],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declares the stack.

        `service_name` is the project, `region` that of the cluster. `other_branch` is what does not depend on
        the cluster: a failed cluster lets it finish before the objects in the cluster fail.
        """
        super().__init__("ovh-vllm:components:MonitoringStack", name, None, opts)
        self._name = name
        self._settings = settings
        self._inside = pulumi.ResourceOptions(parent=self, provider=provider)
        # Every other object takes its namespace from this one, so that all of them are held back with it.
        self._namespace = kubernetes.core.v1.Namespace(
            f"{name}-namespace",
            metadata={"name": held_back(NAMESPACE, provider.id, other_branch)},
            opts=self._inside,
        )

        password = Password(f"{name}-grafana-password", opts=pulumi.ResourceOptions(parent=self))
        admin = self._secret(
            GRAFANA_ADMIN_SECRET,
            {"admin-user": "admin", "admin-password": password.value},
        )
        self.grafana_reserved_address = None
        if settings.grafana_reserved_address:
            self.grafana_reserved_address = self._reserve_address(service_name, region, protect, other_branch)
        certificate, key = self._grafana_certificate()
        tls = self._secret(
            GRAFANA_TLS_SECRET, {"tls.crt": certificate, "tls.key": key}, type_="kubernetes.io/tls"
        )
        mounted = [admin, tls]
        receivers = alertmanager_config.secrets(alerts)
        if receivers:
            mounted.append(
                self._secret(
                    alertmanager_config.RECEIVERS_SECRET,
                    {key: pulumi.Output.secret(value) for key, value in receivers.items()},
                )
            )
        release = kubernetes.helm.v3.Release(
            f"{name}-release",
            name=RELEASE,
            namespace=self._namespace.metadata.name,
            chart=CHART,
            version=settings.chart_version,
            repository_opts={"repo": settings.chart_repository},
            timeout=_RELEASE_TIMEOUT_SECONDS,
            values=chart_values(
                settings,
                alerts,
                certificate_digest=certificate.apply(lambda pem: hashlib.sha256(pem.encode()).hexdigest()),
                load_balancer_address=self.grafana_reserved_address,
            ),
            opts=self._inside.merge(pulumi.ResourceOptions(depends_on=mounted)),
        )
        self._release = release
        self.grafana_url = unless_failed(provider.id, self._grafana_address())
        self.grafana_dashboard_url = self.grafana_url.apply(
            lambda url: f"{url}/d/{vllm.UID}/{vllm.SLUG}" if url else None
        )
        self.grafana_admin_password = password.value
        self.prometheus_url = pulumi.Output.from_input(
            settings.prometheus_external_url or f"http://{RELEASE}-prometheus.{NAMESPACE}:9090"
        )
        self.register_outputs(
            {
                "grafana_url": self.grafana_url,
                "grafana_admin_password": self.grafana_admin_password,
                "prometheus_url": self.prometheus_url,
            }
        )

    def monitor_endpoint(
        self,
        target: Target,
        *,
        host: pulumi.Input[str],
        token: pulumi.Input[str],
        app: pulumi.Input[str],
    ) -> None:
        """Watches the endpoint at `host` (and port), of which the platform tells at the address `app`.

        `token` is a Bearer token for both. `host` and `app` should become known only when the endpoint has
        answered; everything but the scrapes and the rules about them waits for nothing.
        """
        EndpointMonitoring(
            # Not the job's name: a changed modelLabel would make objects with fixed names beside themselves.
            "vllm",
            target,
            self._settings,
            namespace=self._namespace.metadata.name,
            release=self._release,
            host=host,
            token=token,
            app=app,
            opts=self._inside,
        )

    def _secret(
        self, name: str, data: Mapping[str, pulumi.Input[str]], type_: str = "Opaque"
    ) -> kubernetes.core.v1.Secret:
        return secret(
            f"{self._name}-{name}",
            name,
            self._namespace.metadata.name,
            data,
            type_=type_,
            opts=self._inside,
        )

    def _reserve_address(
        self, service_name: str, region: str, protect: bool, other_branch: pulumi.Output[Any]
    ) -> pulumi.Output[str]:
        """A floating IP of the cluster's region, made with an OpenStack user of the least role."""
        user = cloudproject.User(
            f"{self._name}-openstack-user",
            service_name=service_name,
            description="reserves the address of Grafana",
            role_names=["network_operator"],
            opts=pulumi.ResourceOptions(parent=self),
        )
        provider = openstack.Provider(
            f"{self._name}-openstack",
            auth_url=user.openstack_rc["OS_AUTH_URL"],
            tenant_id=user.openstack_rc["OS_TENANT_ID"],
            user_name=user.username,
            password=user.password,
            user_domain_name="Default",
            project_domain_name="Default",
            region=region,
            opts=pulumi.ResourceOptions(parent=self),
        )
        address = openstack.networking.FloatingIp(
            f"{self._name}-grafana-address",
            pool="Ext-Net",
            description=held_back("Grafana", provider.id, other_branch),
            opts=pulumi.ResourceOptions(
                parent=self,
                provider=provider,
                # The load balancer binds the address: a later update would take it away from it.
                ignore_changes=["portId", "fixedIp"],
                protect=protect and not self._settings.grafana_keep_address,
                retain_on_delete=self._settings.grafana_keep_address,
            ),
        )
        return pulumi.Output.from_input(address.address)

    def _grafana_certificate(self) -> tuple[pulumi.Output[str], pulumi.Output[str]]:
        """Certificate and private key of Grafana (PEM): those of the settings, else self-signed ones."""
        settings = self._settings
        if settings.grafana_certificate:
            key = pulumi.Output.secret(settings.grafana_private_key.get_secret_value())
            return pulumi.Output.from_input(settings.grafana_certificate), key
        addresses: list[pulumi.Input[str]] = []
        if self.grafana_reserved_address is not None:
            addresses.append(self.grafana_reserved_address)
        generated = SelfSignedCertificate(
            f"{self._name}-grafana-certificate",
            dns_names=["localhost", f"{RELEASE}-grafana.{NAMESPACE}"],
            ip_addresses=addresses,
            opts=pulumi.ResourceOptions(parent=self),
        )
        return generated.certificate_pem, generated.key_pem

    def _grafana_address(self) -> pulumi.Output[str | None]:
        """Read from the Service that the release made; None when the release failed.

        The id comes from the release's own status: a literal one would be read in the first preview after an
        update that died half-way, and fail it because the Service does not exist.
        """
        if self._settings.grafana_access == "port-forward":
            return pulumi.Output.from_input(f"https://localhost:{GRAFANA_TARGET_PORT}")
        status = self._release.status
        service = kubernetes.core.v1.Service.get(
            f"{self._name}-grafana",
            pulumi.Output.concat(status.namespace, "/", status.name, "-grafana"),
            opts=self._inside,
        )
        port = "" if self._settings.grafana_port == 443 else f":{self._settings.grafana_port}"

        def url(state: kubernetes.core.v1.outputs.ServiceStatus | None) -> str | None:
            # A read that is skipped because the release failed leaves None behind (engines before 3.272).
            ingress = state.load_balancer.ingress if state and state.load_balancer else None
            return f"https://{ingress[0].ip}{port}" if ingress else None

        return service.status.apply(url)
