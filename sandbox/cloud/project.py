"""What the API tells about the project and what it may use: state, quotas, vRack, offer, rights."""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from sandbox.cloud import catalogue, stamps
from sandbox.cloud.http import Route, not_found, parse
from sandbox.cloud.infrastructure import ProjectInfrastructure
from sandbox.cloud.kube import Kubes
from sandbox.cloud.settings import CloudSettings
from sandbox.interfaces import JsonObject, JsonValue

_PROJECT = "/cloud/project/{project}"
_MIB_PER_GB = 1024


class Question(BaseModel):
    """Body of `POST /iam/resource/{urn}/authorization/check`."""

    model_config = ConfigDict(extra="forbid")

    actions: list[str]


class ProjectApi:
    """Endpoints about the project as a whole; they change nothing."""

    def __init__(self, settings: CloudSettings, kubes: Kubes, infrastructure: ProjectInfrastructure) -> None:
        self._settings = settings
        self._kubes = kubes
        self._infrastructure = infrastructure
        self._created = stamps.now()

    @property
    def routes(self) -> list[Route]:
        """Those of API v1."""
        kube = f"{_PROJECT}/capabilities/kube"
        return [
            Route("GET", "/cloud.json", self._description, public=True),
            Route("GET", _PROJECT, self._get, "get"),
            Route("GET", f"{_PROJECT}/quota", self._quotas, "quota/get"),
            Route("GET", f"{_PROJECT}/vrack", self._vrack, "vrack/get"),
            Route("GET", f"{kube}/regions", self._kube_regions, "capabilities/kube/regions/get"),
            Route(
                "GET",
                f"{kube}/flavors",
                self._kube_flavors,
                "capabilities/kube/flavors/get",
                query=("region",),
            ),
        ]

    @property
    def v2_routes(self) -> list[Route]:
        """Those of API v2."""
        return [Route("POST", "/iam/resource/{urn}/authorization/check", self._check)]

    async def _description(self, _request: web.Request) -> JsonValue:
        """The API's description of itself, of which only what is offered is here."""
        versions: JsonValue = [*catalogue.kubernetes().versions]
        models: JsonObject = {"cloud.kube.VersionEnum": {"enum": versions, "enumType": "string"}}
        return {"apiVersion": "1.0", "resourcePath": "/cloud", "apis": [], "models": models}

    async def _get(self, _request: web.Request) -> JsonValue:
        return {
            "project_id": self._settings.project,
            "projectName": "sandbox",
            "description": "sandbox",
            "planCode": "project.2018",
            "status": self._settings.project_status,
            "access": "full",
            "creationDate": self._created,
            "expiration": None,
            "manualQuota": False,
            "orderId": None,
            "unleash": True,
        }

    async def _quotas(self, _request: web.Request) -> JsonValue:
        return [self._quota(region) for region in catalogue.kubernetes().regions]

    def _quota(self, region: str) -> JsonObject:
        """What the project may use of a region, and uses."""
        most, flavors = self._settings.region_quota, catalogue.kubernetes().flavors
        kubes = [kube for kube in self._kubes.all() if kube.given.region == region]
        nodes = [flavors[pool.flavor] for kube in kubes for pool in kube.pools.values() for _ in pool.nodes]
        clusters = {kube.id for kube in kubes}
        return {
            "region": region,
            "instance": {
                "maxInstances": most.instances,
                "usedInstances": len(nodes),
                "maxCores": most.cores,
                "usedCores": sum(flavor.vcpus for flavor in nodes),
                "maxRam": most.memory_mib,
                "usedRAM": sum(flavor.ram_gb * _MIB_PER_GB for flavor in nodes),
            },
            "volume": {
                "maxVolumeCount": most.volumes,
                "maxGigabytes": most.volume_gib,
                "maxVolumeBackupCount": most.volumes,
                "maxBackupGigabytes": most.volume_gib,
                **self._infrastructure.volumes_used(clusters),
                "volumeBackupCount": 0,
                "usedBackupGigabytes": 0,
            },
            "loadbalancer": {
                "maxLoadbalancers": most.load_balancers,
                "usedLoadbalancers": self._infrastructure.load_balancers_used(clusters),
            },
        }

    async def _vrack(self, _request: web.Request) -> JsonValue:
        if not self._settings.in_vrack:
            raise not_found("Vrack", "the project is in no vRack")
        return {"id": "pn-000000", "name": "sandbox", "description": ""}

    async def _kube_regions(self, _request: web.Request) -> JsonValue:
        return [*catalogue.kubernetes().regions]

    async def _kube_flavors(self, request: web.Request) -> JsonValue:
        """Flavors of a region; here every region has all of them."""
        region = request.query.get("region")
        if region is not None and region not in catalogue.kubernetes().regions:
            raise not_found("Region", f"region {region} has no Managed Kubernetes")
        return [
            {
                "name": name,
                "category": name[0],
                "gpus": 0,
                "ram": flavor.ram_gb,
                "vCPUs": flavor.vcpus,
                "state": "available",
            }
            for name, flavor in catalogue.kubernetes().flavors.items()
        ]

    async def _check(self, request: web.Request) -> JsonValue:
        """Which actions the account has: all that the settings do not deny."""
        asked = (await parse(request, Question)).actions
        denied = self._settings.denied_actions
        return {
            "urn": request.match_info["urn"],
            "authorizedActions": [action for action in asked if action not in denied],
            "unauthorizedActions": [action for action in asked if action in denied],
        }
