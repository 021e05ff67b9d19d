"""The bill of a stack before it is deployed: what its settings cost per hour and month, at least and at most.

Pure. At least is with `minReplicas` and at most with `maxReplicas` replicas; all else is there all the time.
What OVHcloud bills for traffic, registry and object storage does not follow from settings and is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from components.ai_deploy.spec import DeploymentStrategy
from components.prices import Price, flavor_eur_per_hour, has_one_zone, prices
from components.settings import ClusterSettings, EndpointSettings, MonitoringSettings, Settings

HOURS_PER_MONTH = 730
"""Hours of a mean month, 8760 / 12."""
_DECIMALS = 4
"""Digits of sums in EUR; a GiB is far below a cent per hour."""


@dataclass(frozen=True)
class Item:
    """Something that is paid for by the hour."""

    name: str
    price: Price | None
    """Of one unit; None: nothing is known of it."""
    least: int
    """Fewest units."""
    most: int
    """Most units."""

    @property
    def eur_per_hour(self) -> tuple[float, float] | None:
        """Of the fewest and of the most units; None while the price is not known."""
        if self.price is None or self.price.eur_per_hour is None:
            return None
        return self.least * self.price.eur_per_hour, self.most * self.price.eur_per_hour


@dataclass(frozen=True)
class Bill:
    """What a stack costs, in EUR without VAT."""

    items: tuple[Item, ...]
    notes: tuple[str, ...]
    """What the sums do not say."""

    @property
    def unpriced(self) -> tuple[str, ...]:
        """Names of the items whose price is not known."""
        return tuple(item.name for item in self.items if item.eur_per_hour is None)

    @property
    def known(self) -> tuple[float, float]:
        """EUR per hour, at least and at most, of the items that have a price."""
        rates = [rate for item in self.items if (rate := item.eur_per_hour) is not None]
        least, most = (sum(column) for column in zip(*rates, strict=True)) if rates else (0.0, 0.0)
        return round(least, _DECIMALS), round(most, _DECIMALS)

    @property
    def floor(self) -> float | None:
        """EUR per hour with the fewest replicas; None while a price is not known."""
        return None if self.unpriced else self.known[0]

    @property
    def ceiling(self) -> float | None:
        """EUR per hour with the most replicas; None while a price is not known."""
        return None if self.unpriced else self.known[1]

    def text(self) -> str:
        """A headline, the bill as a table with aligned columns, and the notes."""
        header = ("EUR", "min/h", "max/h", "min/month", "max/month")
        total = "at least" if self.unpriced else "sum"
        rows = [header, *(_row(item.name, item.eur_per_hour) for item in self.items), _row(total, self.known)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [self._headline(), *(_aligned(row, widths) for row in rows)]
        if self.unpriced:
            lines.append(f"No price is known for {'; '.join(self.unpriced)}: all costs more than is shown.")
        return "\n".join([*lines, *self.notes])

    def _headline(self) -> str:
        # While the engine works it shows the first line alone.
        least, most = (f"{eur:.2f}" for eur in self.known)
        rate = least if least == most else f"{least} to {most}"
        return f"Costs {'more than ' if self.unpriced else ''}{rate} EUR per hour without VAT:"


def bill(settings: Settings) -> Bill:
    """The bill of a stack with these settings."""
    endpoint, cluster, monitoring = settings.endpoint, settings.cluster, settings.monitoring
    rest = [*_cluster(cluster), *_storage_and_network(monitoring)]
    if not has_one_zone(cluster.cluster_region):
        rest = [replace(item, price=None) for item in rest]
    items = (_replicas(endpoint), *rest)
    return Bill(items, tuple(_notes(endpoint, items)))


def _replicas(endpoint: EndpointSettings) -> Item:
    # Nobody knows AI Deploy to scale to zero, though its API takes a minimum of 0.
    least, most = max(1, endpoint.min_replicas), endpoint.max_replicas
    count = f"{least}" if least == most else f"{least} to {most}"
    gpus = f"{endpoint.gpu_count} x " if endpoint.gpu_count > 1 else ""
    return Item(
        f"{count} replica{'s' if most > 1 else ''}, {gpus}{endpoint.gpu_flavor}",
        prices().ai_deploy.get(endpoint.gpu_flavor),
        least * endpoint.gpu_count,
        most * endpoint.gpu_count,
    )


def _cluster(cluster: ClusterSettings) -> Iterator[Item]:
    yield Item("cluster, free plan", prices().kubernetes, 1, 1)
    count, flavor = cluster.node_count, cluster.node_flavor
    price = prices().instances.get(flavor)
    yield Item(f"{count} node{'s' if count > 1 else ''}, {flavor}", price, count, count)


def _storage_and_network(monitoring: MonitoringSettings) -> Iterator[Item]:
    size = monitoring.prometheus_storage + monitoring.alertmanager_storage + monitoring.grafana_storage
    volume_type = monitoring.storage_class.removeprefix("csi-cinder-")
    yield Item(f"{size} GiB of volumes, {volume_type}", prices().volume(volume_type), size, size)
    if monitoring.grafana_access == "load-balancer":
        balancer = monitoring.grafana_load_balancer_flavor
        yield Item(f"load balancer, {balancer}", prices().load_balancers[balancer], 1, 1)
        yield Item("gateway, S", prices().gateway, 1, 1)
        kept = ", kept by destroy" if monitoring.grafana_keep_address else ""
        yield Item(f"floating IP{kept}", prices().floating_ip, 1, 1)


def _notes(endpoint: EndpointSettings, items: tuple[Item, ...]) -> Iterator[str]:
    if endpoint.min_replicas == 0:
        yield "minReplicas 0 is counted as 1: whether AI Deploy scales to zero is not known."
    if endpoint.container_updates == "roll":
        surge, _ = DeploymentStrategy().limits(endpoint.max_replicas)
        price = flavor_eur_per_hour(endpoint.gpu_flavor)
        cost = "" if price is None else f" ({surge * endpoint.gpu_count * price:.2f} per hour)"
        yield f"On top while an update rolls out: up to {surge} replica{'s' if surge > 1 else ''}{cost}."
    if not endpoint.delete_before_replace:
        yield "On top while a new app replaces this one: its replicas a second time."
    dates = [item.price.date for item in items if item.price is not None]
    # In a region with prices of its own, of a flavor that is not in the file, there is none.
    known = f" Prices of {min(dates)} to {max(dates)}, from components/prices.json." if dates else ""
    yield f"A month has {HOURS_PER_MONTH} hours; traffic, registry and object storage are left out.{known}"


def _row(name: str, eur_per_hour: tuple[float, float] | None) -> tuple[str, ...]:
    if eur_per_hour is None:
        return (name, *["unknown"] * 4)
    least, most = eur_per_hour
    months = (f"{eur * HOURS_PER_MONTH:.2f}" for eur in eur_per_hour)
    return (name, f"{least:.{_DECIMALS}f}", f"{most:.{_DECIMALS}f}", *months)


def _aligned(row: tuple[str, ...], widths: list[int]) -> str:
    name, *numbers = row
    cells = (number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True))
    return "  ".join([name.ljust(widths[0]), *cells])
