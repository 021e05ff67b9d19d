"""MonitoringCluster: a Managed Kubernetes cluster with one node pool and a Kubernetes provider for it."""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as kubernetes
from pulumi_ovh import cloudproject

from components.settings import ClusterSettings
from components.unknowns import required


class MonitoringCluster(pulumi.ComponentResource):
    """An MKS cluster on the public network, a node pool of fixed size, and access restrictions if asked for.

    Nothing here knows of the endpoint: a cluster that cannot be had costs no GPU, nor the reverse.
    """

    cluster_id: pulumi.Output[str]
    """Id of the cluster."""
    kubeconfig: pulumi.Output[str]
    """Admin kubeconfig, a secret."""
    provider: kubernetes.Provider
    """Provider for everything in the cluster; what it makes waits for the node pool and goes before it."""

    def __init__(
        self,
        name: str,
        settings: ClusterSettings,
        *,
        service_name: str,
        protect: bool,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declares the cluster in the project `service_name`; `protect` is for the cluster alone."""
        super().__init__("ovh-vllm:components:MonitoringCluster", name, None, opts)
        kube = cloudproject.Kube(
            name,
            service_name=service_name,
            name=settings.cluster_name,
            region=settings.cluster_region,
            version=settings.kubernetes_version,
            update_policy=settings.cluster_update_policy,
            opts=pulumi.ResourceOptions(parent=self, protect=protect),
        )
        pool = cloudproject.KubeNodePool(
            f"{name}-nodes",
            service_name=service_name,
            kube_id=required(kube.id),
            name=settings.node_pool_name,
            flavor_name=settings.node_flavor,
            autoscale=False,
            desired_nodes=settings.node_count,
            min_nodes=settings.node_count,
            max_nodes=settings.node_count,
            opts=pulumi.ResourceOptions(parent=self),
        )
        ready: list[pulumi.Resource] = [pool]
        if settings.api_server_ranges:
            restrictions = cloudproject.KubeIpRestrictions(
                f"{name}-api-server",
                service_name=service_name,
                kube_id=required(kube.id),
                ips=settings.api_server_ranges,
                opts=pulumi.ResourceOptions(parent=self),
            )
            ready.append(restrictions)
        self.provider = kubernetes.Provider(
            f"{name}-kubernetes",
            kubeconfig=kube.kubeconfig,
            # Without it a rotated kubeconfig would replace the provider and with it every object.
            cluster_identifier=kube.id,
            # A changed Secret or ConfigMap is patched: a replacement under a fixed name leaves a gap, in
            # which the operator drops the scrape job whose token is missing.
            enable_secret_mutable=True,
            enable_config_map_mutable=True,
            opts=pulumi.ResourceOptions(parent=self, depends_on=ready),
        )
        self.cluster_id = kube.id
        self.kubeconfig = kube.kubeconfig
        self.register_outputs({"cluster_id": self.cluster_id, "kubeconfig": self.kubeconfig})
