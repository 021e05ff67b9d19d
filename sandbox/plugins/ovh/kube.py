"""Managed Kubernetes: cluster and restrictions of its API server."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

import yaml

from sandbox.plugins.bridge import ResourceData
from sandbox.plugins.framework import PluginError
from sandbox.plugins.ovh.resource import (
    FREE_BOOL,
    FREE_INT,
    FREE_TEXT,
    KUBE_ID,
    OUTPUT_BOOL,
    OUTPUT_TEXT,
    SERVICE_NAME,
    TEXT,
    OvhResource,
    escape,
    without_unset,
)
from sandbox.plugins.schema import Field, Schema, State


def _block(fields: Schema) -> Field:
    """An optional block inside a computed one."""
    return Field("object", optional=True, computed=True, fields=fields)


_RESOURCES: Final = _block(
    {kind: _block({"cpu": FREE_TEXT, "memory": FREE_TEXT}) for kind in ("limits", "requests")}
)
_CILIUM: Final[Schema] = {
    "clusterId": FREE_INT,
    "clusterMesh": _block(
        {"enabled": FREE_BOOL, "apiServer": _block({"nodePort": FREE_INT, "serviceType": FREE_TEXT})}
    ),
    "hubble": _block(
        {
            "enabled": FREE_BOOL,
            "relay": _block({"enabled": FREE_BOOL}),
            "ui": _block(
                {"enabled": FREE_BOOL, "backendResources": _RESOURCES, "frontendResources": _RESOURCES}
            ),
        }
    ),
}
_ADMISSION_PLUGINS: Final[Schema] = {
    "enableds": Field("set", optional=True, computed=True),
    "disableds": Field("set", optional=True, computed=True),
}


class Kube(OvhResource):
    """`ovh:CloudProject/kube:Kube`, a cluster."""

    timeouts: ClassVar[Mapping[str, int]] = {
        "create": 900,
        "update": 3600,
        "delete": 600,
        "read": 300,
        "default": 600,
    }
    schema: ClassVar[Schema] = {
        "serviceName": SERVICE_NAME,
        "name": Field("string", auto_named=True),
        "version": FREE_TEXT,
        "plan": Field("string", optional=True, computed=True, allowed=("standard", "free")),
        "region": Field("string", required=True, force_new=True),
        "updatePolicy": FREE_TEXT,
        "kubeProxyMode": Field(
            "string", optional=True, computed=True, force_new=True, allowed=("iptables", "ipvs")
        ),
        "privateNetworkId": Field("string", force_new=True),
        "nodesSubnetId": Field("string", optional=True, computed=True, required_with="privateNetworkId"),
        "loadBalancersSubnetId": Field("string", required_with="privateNetworkId"),
        "privateNetworkConfiguration": Field(
            "object",
            fields={
                "defaultVrackGateway": Field("string", required=True),
                "privateNetworkRoutingAsDefault": Field("bool", required=True),
            },
        ),
        "customizationApiservers": Field(
            "set",
            optional=True,
            computed=True,
            elements="object",
            fields={
                "admissionplugins": Field(
                    "set", optional=True, computed=True, elements="object", fields=_ADMISSION_PLUGINS
                )
            },
        ),
        "customizationKubeProxy": Field(
            "object",
            fields={
                "iptables": Field("object", fields={"minSyncPeriod": TEXT, "syncPeriod": TEXT}),
                "ipvs": Field(
                    "object",
                    fields={
                        "minSyncPeriod": TEXT,
                        "scheduler": Field("string", allowed=("rr", "lc", "dh", "sh", "sed", "nq")),
                        "syncPeriod": TEXT,
                        "tcpFinTimeout": TEXT,
                        "tcpTimeout": TEXT,
                        "udpTimeout": TEXT,
                    },
                ),
            },
        ),
        "customizations": Field("set", computed=True, elements="object"),
        "customizationCilium": Field("object", optional=True, computed=True, left_out=True, fields=_CILIUM),
        "ipAllocationPolicy": Field(
            "object",
            optional=True,
            computed=True,
            force_new=True,
            left_out=True,
            fields={"podsIpv4Cidr": FREE_TEXT, "servicesIpv4Cidr": FREE_TEXT},
        ),
        "controlPlaneIsUpToDate": OUTPUT_BOOL,
        "isUpToDate": OUTPUT_BOOL,
        "nextUpgradeVersions": Field("set", computed=True),
        "nodesUrl": OUTPUT_TEXT,
        "status": OUTPUT_TEXT,
        "url": OUTPUT_TEXT,
        "kubeconfig": Field("string", computed=True, secret=True),
        "kubeconfigAttributes": Field(
            "list",
            computed=True,
            secret=True,
            elements="object",
            fields={
                "host": OUTPUT_TEXT,
                "clusterCaCertificate": Field("string", computed=True, secret=True),
                "clientCertificate": Field("string", computed=True, secret=True),
                "clientKey": Field("string", computed=True, secret=True),
            },
        ),
    }

    def create(self, data: ResourceData) -> None:
        """Creates the cluster, waits for READY; one that does not come up is lost, as in the real plugin."""
        path = f"/cloud/project/{data.get('serviceName')}/kube"
        try:
            cluster = self._api.post(path, cluster_body(data.get))
        except PluginError as error:
            version = f": {data.get('version')}" if data.get("version") else ""
            named = f"{data.get('name') or ''} ({data.get('region')}){version}"
            raise PluginError(f"calling Post {path} with params {named}:\n\t {error}") from error
        self._wait_available(f"{path}/{cluster['id']}", data.timeout)
        self._wait_ready(f"{path}/{cluster['id']}", ("INSTALLING", "UNKNOWN"), data.timeout)
        data.id = cluster["id"]
        self.read(data)

    def read(self, data: ResourceData) -> None:
        """Reads the cluster, and its kubeconfig if there is none yet."""
        cluster = self._found(data, self._path(data))
        if cluster is None:
            return
        data.set(cluster_state(cluster))
        if data.get("customizations") is None:
            data.set({"customizations": []})
        if not data.get("kubeconfig") or not data.get("kubeconfigAttributes"):
            data.set(self.kubeconfig(self._path(data)))

    def update(self, data: ResourceData) -> None:
        """Makes one call for each thing that changed, in the order of the real provider."""
        path = self._path(data)
        if data.changed("customizationApiservers", "customizationKubeProxy", "customizationCilium"):
            body: dict[str, Any] = {}
            if data.changed("customizationApiservers"):
                body["apiServer"] = _api_server(data.get("customizationApiservers"))
            if data.changed("customizationKubeProxy"):
                body["kubeProxy"] = _kube_proxy(data.get("customizationKubeProxy"))
            if data.changed("customizationCilium"):
                body["cilium"] = data.get("customizationCilium")
            self._api.put(f"{path}/customization", body)
            self._wait_ready(path, ("UPDATING", "REDEPLOYING", "RESETTING"), data.timeout)
        if data.changed("version"):
            require_next_minor(str(data.old("version")), str(data.get("version")))
            self._api.post(f"{path}/update", {"strategy": "NEXT_MINOR"})
            self._wait_ready(path, ("UPDATING", "REDEPLOYING", "RESETTING"), data.timeout)
        if data.changed("plan"):
            old, new = data.old("plan"), data.get("plan")
            if old == "standard":
                raise PluginError(f"you cannot migrate from {old} to {new}")
            raise PluginError(f"migrate from {old} to {new} is not available yet")
        if data.changed("updatePolicy"):
            self._api.put(f"{path}/updatePolicy", {"updatePolicy": data.get("updatePolicy")})
        if data.changed("loadBalancersSubnetId"):
            subnet = {"loadBalancersSubnetId": data.get("loadBalancersSubnetId") or ""}
            self._api.put(f"{path}/updateLoadBalancersSubnetId", subnet)
            self._wait_ready(path, ("REDEPLOYING", "RESETTING"), data.timeout)
        if data.changed("name"):
            self._api.put(path, {"name": data.get("name") or ""})
        if data.changed("privateNetworkConfiguration"):
            network = _private_network(data.get("privateNetworkConfiguration"))
            self._api.put(f"{path}/privateNetworkConfiguration", network)
            self._wait_ready(path, ("REDEPLOYING", "RESETTING"), data.timeout)

    def delete(self, data: ResourceData) -> None:
        """Deletes the cluster and waits until it is gone."""
        path = self._path(data)
        if self._removed(path):
            try:
                self._wait(path, ("DELETING",), ("DELETED",), data.timeout)
            except PluginError as error:
                raise PluginError(f"timeout while waiting kube {data.id} to be DELETED: {error}") from error

    def import_state(self, id: str) -> tuple[str, State]:
        """Takes `<project>/<cluster>`."""
        service, slash, cluster = id.partition("/")
        if not slash:
            raise PluginError("import Id is not service_name/kubeid formatted")
        path = f"/cloud/project/{service}/kube/{cluster}"
        return cluster, {"serviceName": service, **self.kubeconfig(path)}

    def kubeconfig(self, path: str) -> State:
        """The properties `kubeconfig` and `kubeconfigAttributes` of the cluster at `path`."""
        content = self._api.post(f"{path}/kubeconfig")["content"]
        config = yaml.safe_load(content)
        if not config.get("clusters") or not config.get("users"):
            raise PluginError("kubeconfig is invalid")
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        attributes = {
            "host": cluster.get("server", ""),
            "clusterCaCertificate": cluster.get("certificate-authority-data", ""),
            "clientCertificate": user.get("client-certificate-data", ""),
            "clientKey": user.get("client-key-data", ""),
        }
        return {"kubeconfig": content, "kubeconfigAttributes": [attributes]}

    def _path(self, data: ResourceData) -> str:
        return f"/cloud/project/{data.get('serviceName')}/kube/{data.id}"

    def _wait_ready(self, path: str, pending: Sequence[str], timeout: float) -> None:
        try:
            self._wait(path, pending, ("READY",), timeout)
        except PluginError as error:
            cluster = path.rpartition("/")[2]
            raise PluginError(f"timeout while waiting kube {cluster} to be READY: {error}") from error


def cluster_body(get: Callable[[str], Any]) -> dict[str, Any]:
    """Body of a cluster's creation; network configuration and customization are always in it."""
    cilium = get("customizationCilium")
    body = {
        "name": get("name"),
        "privateNetworkId": get("privateNetworkId"),
        "privateNetworkConfiguration": _private_network(get("privateNetworkConfiguration")),
        "region": get("region"),
        "version": get("version"),
        "plan": get("plan"),
        "updatePolicy": get("updatePolicy"),
        "customization": without_unset(
            {
                "apiServer": _api_server(get("customizationApiservers")),
                "kubeProxy": _kube_proxy(get("customizationKubeProxy")),
                "cilium": cilium,
            }
        ),
        "kubeProxyMode": get("kubeProxyMode"),
        "loadBalancersSubnetId": get("loadBalancersSubnetId"),
        "nodesSubnetId": get("nodesSubnetId"),
        "ipAllocationPolicy": get("ipAllocationPolicy"),
    }
    return without_unset(body)


def _private_network(configuration: Mapping[str, Any] | None) -> dict[str, Any]:
    given = configuration or {}
    return {
        "defaultVrackGateway": given.get("defaultVrackGateway", ""),
        "privateNetworkRoutingAsDefault": given.get("privateNetworkRoutingAsDefault", False),
    }


def _api_server(customization: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """API form of `customizationApiservers`."""
    if not customization:
        return {"admissionPlugins": {}}
    given = customization[0]["admissionplugins"][0]
    return {
        "admissionPlugins": {
            "enabled": sorted(given.get("enableds") or []),
            "disabled": sorted(given.get("disableds") or []),
        }
    }


def _kube_proxy(customization: Mapping[str, Any] | None) -> dict[str, Any]:
    given = customization or {}
    return {"iptables": given.get("iptables") or {}, "ipvs": given.get("ipvs") or {}}


_CLUSTER_TEXTS: Final = (
    "name",
    "region",
    "plan",
    "status",
    "updatePolicy",
    "url",
    "nodesUrl",
    "kubeProxyMode",
    "privateNetworkId",
    "nodesSubnetId",
    "loadBalancersSubnetId",
)


def cluster_state(cluster: Mapping[str, Any]) -> State:
    """Properties that a cluster object of the API determines; null strings become empty, as in Go."""
    version = str(cluster["version"])
    if "." not in version:
        raise PluginError(
            f"the API gave version {version!r} without a dot, on which the real provider crashes"
        )
    state: State = {
        "controlPlaneIsUpToDate": bool(cluster.get("controlPlaneIsUpToDate")),
        "isUpToDate": bool(cluster.get("isUpToDate")),
        "nextUpgradeVersions": cluster.get("nextUpgradeVersions") or [],
        # "1.34.2-1" is the patch 2-1 of 1.34
        "version": version[: version.rindex(".")],
    }
    for key in _CLUSTER_TEXTS:
        state[key] = cluster.get(key) or ""
    customization = cluster.get("customization") or {}
    if customization.get("apiServer"):
        plugins = customization["apiServer"]["admissionPlugins"]
        given = {"enableds": plugins.get("enabled") or [], "disableds": plugins.get("disabled") or []}
        state["customizationApiservers"] = [{"admissionplugins": [given]}]
    proxy = {
        mode: settings
        for mode in ("iptables", "ipvs")
        if (settings := without_unset((customization.get("kubeProxy") or {}).get(mode) or {}))
    }
    if proxy:
        state["customizationKubeProxy"] = proxy
    if customization.get("cilium"):
        state["customizationCilium"] = customization["cilium"]
    if cluster.get("ipAllocationPolicy"):
        state["ipAllocationPolicy"] = cluster["ipAllocationPolicy"]
    return state


def require_next_minor(old: str, new: str) -> None:
    """Refuses any change of version but to the next minor (`1.34` to `1.35`)."""
    versions = []
    for version in (old, new):
        if not re.fullmatch(r"\d+(\.\d+)*", version):
            raise PluginError(f"version {version} does not match a semver")
        versions.append([int(part) for part in version.split(".")])
    before, after = versions
    if before[0] != 1 or after[0] != 1:
        raise PluginError("the only supported major version is 1")
    if len(before) < 2 or len(after) < 2:
        raise PluginError('the version should only specify the major and minor versions (e.g. "1.20")')
    if after < before:
        raise PluginError(f"cannot downgrade cluster from {old} to {new}")
    if before[1] + 1 != after[1]:
        raise PluginError(
            f"cannot upgrade cluster from {old} to {new}, only next minor version is authorized"
        )


class KubeIpRestrictions(OvhResource):
    """`ovh:CloudProject/kubeIpRestrictions:KubeIpRestrictions`, who may reach the API server.

    Its id is the cluster's.
    """

    timeouts: ClassVar[Mapping[str, int]] = {
        "create": 600,
        "update": 300,
        "delete": 300,
        "read": 300,
        "default": 600,
    }
    schema: ClassVar[Schema] = {
        "serviceName": SERVICE_NAME,
        "kubeId": KUBE_ID,
        "ips": Field("set", required=True),
    }

    def create(self, data: ResourceData) -> None:
        """Puts the whole list."""
        self._put(data, data.get("ips"))
        data.id = str(data.get("kubeId"))
        self.read(data)

    def read(self, data: ResourceData) -> None:
        """Reads the list."""
        ips = self._found(data, self._path(data))
        if ips is not None:
            data.set({"ips": ips})

    def update(self, data: ResourceData) -> None:
        """Puts the whole list."""
        self._put(data, data.get("ips"))
        self.read(data)

    def delete(self, data: ResourceData) -> None:
        """Puts an empty list."""
        self._put(data, [])

    def import_state(self, id: str) -> tuple[str, State]:
        """Takes `<project>/<cluster>`."""
        parts = id.split("/")
        if len(parts) != 2:
            raise PluginError("Import Id is not service_name/kubeid formatted")
        return parts[1], {"serviceName": parts[0], "kubeId": parts[1]}

    def _put(self, data: ResourceData, ips: Iterable[str]) -> None:
        path = self._path(data)
        # Terraform keeps a set of strings in the order of their checksums' digits.
        ordered = sorted(ips, key=lambda ip: str(zlib.crc32(ip.encode())))
        try:
            self._api.put(path, {"ips": ordered})
        except PluginError as error:
            listed = " ".join(ordered)
            raise PluginError(f"calling Put {path} with params [{listed}]:\n\t {error}") from error
        cluster = path.removesuffix("/ipRestrictions")
        try:
            # The real provider waits with the timeout of an update whatever it does.
            self._wait(cluster, ("REDEPLOYING", "RESETTING"), ("READY",), self.timeout("update"))
        except PluginError as error:
            text = f"timeout while waiting kube {data.get('kubeId')} to be READY: {error}"
            raise PluginError(text) from error

    def _path(self, data: ResourceData) -> str:
        service, cluster = escape(data.get("serviceName")), escape(data.get("kubeId"))
        return f"/cloud/project/{service}/kube/{cluster}/ipRestrictions"
