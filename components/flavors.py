"""What AI Deploy offers: regions, where they are asked, and flavors, with what an app may have of them.

The live list is `GET /cloud/project/{id}/ai/capabilities/region/{region}/flavor`; `flavors.json` beside this
module lets a mistake show in a preview. It names the source of its numbers; prices are in `prices.py`.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)


class Flavor(_Data):
    """A flavor of AI Deploy; its hardware is of one unit, None where nothing public was found."""

    id: str
    type: str
    """`gpu` or `cpu`: what a unit is counted in."""
    description: str
    default: bool
    max: int
    """Most units that a replica may have (4 GPUs or 12 CPUs per app, read as a limit per replica)."""
    gpu_model: str | None
    gpu_memory_gib: float | None
    cpu: int
    memory_gib: float
    ephemeral_storage_gib: float | None
    public_network_gbps: float | None

    @property
    def is_gpu(self) -> bool:
        """Whether a unit is a GPU."""
        return self.type == "gpu"


class _Offer(_Data):
    source: str
    regions: tuple[str, ...]
    flavors: tuple[Flavor, ...]


_OFFER = _Offer.model_validate_json(Path(__file__).with_name("flavors.json").read_text(encoding="utf-8"))

REGIONS = _OFFER.regions
"""Regions of the AI products."""
FLAVORS = {flavor.id: flavor for flavor in _OFFER.flavors}
"""Flavors by id."""


def ai_api_url(region: str) -> str:
    """Address of the AI platform's own API, which has one host for each region; without `/v1`."""
    return f"https://{region.lower()}.ai.cloud.ovh.net"
