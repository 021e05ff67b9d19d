"""What the cloud offers: AI flavors, and the Kubernetes of the data file beside this module."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from components.flavors import Flavor
from sandbox.interfaces import JsonObject

_GIB = 2**30
_GBPS = 125_000_000  # bytes per second


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)


def hardware(flavor: Flavor, count: int) -> JsonObject:
    """Fields of `cloud.project.ai.Resources` for `count` units, as the platform fills them in.

    Disk and network are 0 where nothing public was found: their type allows no null.
    """
    return {
        "flavor": flavor.id,
        "flavorCount": count,
        "gpu": count if flavor.is_gpu else 0,
        "cpu": flavor.cpu * count,
        "memory": int(flavor.memory_gib * _GIB * count),
        "ephemeralStorage": int((flavor.ephemeral_storage_gib or 0) * _GIB * count),
        "publicNetwork": int((flavor.public_network_gbps or 0) * _GBPS * count),
        "privateNetwork": 0,
        "gpuBrand": "NVIDIA" if flavor.is_gpu else None,
        "gpuModel": flavor.gpu_model,
        "gpuMemory": None if flavor.gpu_memory_gib is None else int(flavor.gpu_memory_gib * _GIB),
    }


def capability(flavor: Flavor) -> JsonObject:
    """The flavor as `cloud.project.ai.capabilities.Flavor`."""
    unit = hardware(flavor, 1)
    gpu: JsonObject = {key: unit[key] for key in ("gpuBrand", "gpuModel", "gpuMemory")}
    keys = ("cpu", "gpu", "memory", "ephemeralStorage", "publicNetwork", "privateNetwork")
    return {
        "id": flavor.id,
        "type": flavor.type,
        "default": flavor.default,
        "description": flavor.description,
        "max": flavor.max,
        "resourcesPerUnit": {key: unit[key] for key in keys},
        "gpuInformation": gpu if flavor.is_gpu else None,
    }


class NodeFlavor(_Data):
    """An instance flavor for nodes."""

    vcpus: int
    ram_gb: int


class KubernetesOffer(_Data):
    """`kubernetes.json`: versions (minor to full), regions and node flavors of Managed Kubernetes."""

    source: str
    versions: dict[str, str]
    default: str
    free_regions: list[str]
    standard_regions: list[str]
    flavors: dict[str, NodeFlavor]

    @property
    def regions(self) -> list[str]:
        """All regions of Managed Kubernetes, which are also those of OpenStack here."""
        return sorted([*self.free_regions, *self.standard_regions])

    def newer_than(self, minor: str) -> list[str]:
        """Minor versions above `minor`, in order."""
        ordered = sorted(self.versions, key=lambda version: [int(part) for part in version.split(".")])
        return ordered[ordered.index(minor) + 1 :]


@cache
def kubernetes() -> KubernetesOffer:
    """What Managed Kubernetes offers."""
    data = Path(__file__).with_name("kubernetes.json")
    return KubernetesOffer.model_validate_json(data.read_text(encoding="utf-8"))
