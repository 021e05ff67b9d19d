"""The provider: its resource types, its configuration, its functions."""

from __future__ import annotations

import os
from collections.abc import Mapping

from sandbox.plugins.bridge import BridgedPlugin, BridgedResource
from sandbox.plugins.framework import ConfigureRequest, InvokeRequest, PluginError
from sandbox.plugins.ovh.client import VERSION, OvhClient, credentials
from sandbox.plugins.ovh.kube import Kube, KubeIpRestrictions, cluster_state
from sandbox.plugins.ovh.node_pool import KubeNodePool, pool_state
from sandbox.plugins.ovh.resource import SERVICE_VARIABLE, escape
from sandbox.plugins.ovh.user import User
from sandbox.plugins.schema import to_outputs
from sandbox.plugins.values import Object, reveal_object


class OvhPlugin(BridgedPlugin):
    """The provider."""

    name = "ovh"
    version = VERSION

    def __init__(self) -> None:
        super().__init__()
        self._api: OvhClient | None = None
        self._cluster = Kube(self)
        self._resources: dict[str, BridgedResource] = {
            "ovh:CloudProject/kube:Kube": self._cluster,
            "ovh:CloudProject/kubeNodePool:KubeNodePool": KubeNodePool(self),
            "ovh:CloudProject/kubeIpRestrictions:KubeIpRestrictions": KubeIpRestrictions(self),
            "ovh:CloudProject/user:User": User(self),
        }

    @property
    def api(self) -> OvhClient:
        """The configured client."""
        if self._api is None:
            raise PluginError("the provider ovh is not configured")
        return self._api

    @property
    def resources(self) -> Mapping[str, BridgedResource]:
        """Resource types by token."""
        return self._resources

    def configure(self, request: ConfigureRequest) -> None:
        """Makes the client and asks twice who it is, once for each half of the real (muxed) provider."""
        config = reveal_object(request.args)
        ignore = config.get("ignoreInitError") or os.environ.get("OVH_IGNORE_INIT_ERROR") or "false"
        for _half in ("SDKv2", "framework"):
            try:
                self._api = OvhClient(credentials(config, os.environ))
            except PluginError as error:
                raise PluginError(f"error getting ovh client: {error}") from error
            if str(ignore).lower() in ("true", "1", "t"):
                continue
            try:
                self._api.get("/auth/details")
            except PluginError as error:
                raise PluginError(f"OVH client seems to be misconfigured: {error}") from error

    def invoke(self, request: InvokeRequest) -> Object:
        """Looks up a cluster or a node pool."""
        match request.token:
            case "ovh:CloudProject/getKube:getKube":
                return self._get_kube(request.args)
            case "ovh:CloudProject/getKubeNodePool:getKubeNodePool":
                return self._get_node_pool(request.args)
            case _:
                return super().invoke(request)

    def _get_kube(self, args: Object) -> Object:
        service, cluster_id = _service(args), _argument(args, "kubeId")
        path = f"/cloud/project/{escape(service)}/kube/{escape(cluster_id)}"
        state = {**cluster_state(self.api.get(path)), "customizations": [], **self._cluster.kubeconfig(path)}
        found = {"id": cluster_id, "serviceName": service, "kubeId": cluster_id}
        return {**reveal_object(to_outputs(Kube.schema, state)), **found}

    def _get_node_pool(self, args: Object) -> Object:
        service, cluster_id, name = _service(args), _argument(args, "kubeId"), _argument(args, "name")
        for pool in self.api.get(f"/cloud/project/{service}/kube/{cluster_id}/nodepool"):
            if pool["name"] == name:
                found = {"id": pool["id"], "serviceName": service, "kubeId": cluster_id}
                return {**to_outputs(KubeNodePool.schema, pool_state(pool)), **found}
        raise PluginError(
            f"the nodepool named {name} cannot be found for cluster {cluster_id} in project {service}"
        )


def _argument(args: Object, name: str) -> str:
    value = args.get(name)
    if not isinstance(value, str) or not value:
        raise PluginError(f'Missing required argument. The argument "{name}" is required')
    return value


def _service(args: Object) -> str:
    return _argument({"serviceName": os.environ.get(SERVICE_VARIABLE), **args}, "serviceName")
