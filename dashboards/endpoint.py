"""Expressions over the recorded series of an endpoint, as panels and annotations read them.

What happens is read over the five minutes of the rules (`WINDOW`), however far one zooms in: a scrape meets
only one of the replicas, so a window as short as `$__rate_interval` may miss some of them, while in five
minutes each is met often enough. So it is shown smoothed, and fully only after five minutes.
"""

from __future__ import annotations

from dataclasses import dataclass

from dashboards.panels import Query
from dashboards.recording import WINDOW
from dashboards.target import Target

WINDOW_SECONDS = 300
"""Seconds of `WINDOW`."""
SIGHT = "1m"
"""How long a replica that no scrape meets is taken to be there, as in the recording rules."""
STEP = "$__interval"
"""Time between two points; a window for what happens between them, so that no zoom misses anything."""
_QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class Endpoint:
    """Expressions over the recorded series of the endpoint.

    `replica:` series are those of the model and the replicas that are chosen on the page.
    """

    target: Target

    def series(self, name: str, where: str = "") -> str:
        """A family of each replica; HTTP and process metrics know no model."""
        model = 'model_name=~"$model"' if name.startswith("vllm:") else ""
        matchers = (self.target.selector, model, 'replica=~"$replica"', where)
        return f"replica:{name}{{{','.join(filter(None, matchers))}}}"

    def fleet(self, name: str) -> str:
        """A series about all replicas together, added up over what else tells it apart."""
        return f"sum(fleet:{name}{{{self.target.selector}}})"

    def slo(self, name: str) -> str:
        """A series of each objective."""
        return f"max by (slo) (fleet:slo_{name}{{{self.target.selector}}})"

    def increase(self, name: str, by: str = "", where: str = "") -> str:
        """What a counter gained within the window."""
        aggregation = f"sum by ({by}) " if by else "sum"
        return f"{aggregation}(increase({self.series(name, where)}[{WINDOW}]))"

    def rate(self, name: str, by: str = "", where: str = "") -> str:
        """What a counter gains per second; of one replica: since its birth, if that is not long ago."""
        gained = self.increase(name, by, where)
        each = f"{gained} / {WINDOW_SECONDS}"
        if by == "replica":
            # Not every replica says when it was born.
            each = f"({gained} / on (replica) clamp({self.age()}, 1, {WINDOW_SECONDS}) or {each})"
        return each

    def gauge(self, name: str, aggregation: str = "sum") -> str:
        """A gauge of each replica, whose engines are aggregated."""
        return f"{aggregation} by (replica) (last_over_time({self.series(name)}[{SIGHT}]))"

    def quantile(self, quantile: float, family: str, by: str = "") -> str:
        """A quantile of a histogram; nothing while nothing is counted."""
        buckets = self.increase(f"{family}_bucket", f"le, {by}" if by else "le")
        # Of nothing it is NaN, which no comparison lets through.
        return f"histogram_quantile({quantile}, {buckets}) >= 0"

    def mean(self, family: str, by: str = "") -> str:
        """The mean of a histogram; nothing while nothing is counted."""
        return ratio(self.increase(f"{family}_sum", by), self.increase(f"{family}_count", by))

    def spread(self, family: str) -> list[Query]:
        """Quantiles and mean of a histogram."""
        quantiles = [Query(self.quantile(share, family), f"p{100 * share:g}") for share in _QUANTILES]
        return [*quantiles, Query(self.mean(family), "mean")]

    def hits(self, cache: str, by: str = "") -> str:
        """Share of what was looked up in a cache and found there."""
        return ratio(self.increase(f"{cache}_hits_total", by), self.increase(f"{cache}_queries_total", by))

    def sighted(self, window: str = SIGHT, ago: str = "") -> str:
        """1 or more for each replica that was met within the window, which may end some time ago."""
        running = f"replica:vllm:num_requests_running{{{self.target.selector}}}[{window}]"
        return f"count by (replica) (last_over_time({running}{f' offset {ago}' if ago else ''}))"

    def appeared(self) -> str:
        """1 or more for each replica that was first met since the point before."""
        return f"{self.sighted(STEP)} unless {self.sighted(STEP, STEP)}"

    def gone(self) -> str:
        """1 or more for each replica that was last met before the point before."""
        return f"{self.sighted(STEP, STEP)} unless {self.sighted(STEP)}"

    def born(self) -> str:
        """Unix seconds when each replica was born."""
        return self.gauge("vllm:generation_tokens_created", "max")

    def age(self) -> str:
        """Seconds since each replica was born."""
        return f"time() - {self.born()}"

    def coverage(self) -> str:
        """Share of the rules' evaluations that had a scrape of each replica."""
        met = f"max by (replica) (count_over_time({self.series('vllm:num_requests_running')}[{WINDOW}]))"
        evaluations = f"count_over_time(fleet:vllm:replicas_seen{{{self.target.selector}}}[{WINDOW}])"
        return f"{met} / on () group_left () clamp_min(max({evaluations}), 1)"

    def paid(self) -> str:
        """Replicas that cost money: those that the platform runs, or are seen while it does not say."""
        seen = self.fleet("vllm:replicas_seen")
        return f"({self.fleet('vllm:replicas_ready')} or {seen})" if self.target.platform_metrics else seen

    def platform(self, *queries: Query) -> tuple[Query, ...]:
        """The queries, if the platform is asked about the app at all."""
        return queries if self.target.platform_metrics else ()


def ratio(part: str, whole: str) -> str:
    """A share or a mean; of nothing there is none."""
    return f"{part} / ({whole} > 0)"
