"""Series that tell replicas apart, although every scrape meets another one.

All replicas of an endpoint share one address, so two scrapes in a row seldom meet the same process, and
`rate()` of what they say is far too high. But each scrape also says when its process was born:
`vllm:generation_tokens_created`, or `process_start_time_seconds` where that is missing. From this the rules
make a label `replica`, and of each family that is read anywhere a series `replica:<name>`:

    replica:vllm:generation_tokens_total{job="vllm-ministral", replica="1795353188.0018203", …}

Within one replica counters never reset, and several samplers (scrape jobs of their own) see each replica
every few seconds. So these are right for any number of replicas that come and go:

    sum(increase(replica:vllm:generation_tokens_total{job="vllm-ministral"}[5m]))
    histogram_quantile(0.95, sum by (le) (increase(replica:vllm:…_bucket{job="vllm-ministral"}[5m])))
    sum(last_over_time(replica:vllm:num_requests_running{job="vllm-ministral"}[1m]))

Windows are 5 minutes; `docs/proof/replica-accuracy.md` has the measured errors. Never `rate()` of a series of
the scrapes themselves, and never `deriv()`, which goes on counting a replica that is gone.

What the rules rely on, and what they stand:

- All samples of a scrape have the timestamp of its `up`, and one expression sees a scrape as a whole or not
  at all. What is older than the `up` of its sampler is left out, else after a restart of Prometheus the last
  scrape before it would be mixed with the first one after it. A counter that Prometheus could not see for a
  while goes on where it is then.
- Scrapes of different samplers may end in another order than they began. A sample that is lower than what was
  recorded of its replica before is therefore left out: with it a counter would seem to have been reset, and
  all that it ever counted would be taken for an increase.
- One process serves one model and is one replica, however many engines (data parallelism) it has.
- Samplers see replicas at random. A balancer that sends all samplers to the same replica hides the others;
  that is seen where `fleet:vllm:replicas_seen` stays below `fleet:vllm:replicas_ready`.
- A scrape that names no birth time cannot be told apart and is not counted; how many samplers met such a
  scrape last is `fleet:vllm:unidentified_scrapes`, which should be 0. So it is with several API server
  processes in one container.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dashboards.rules import Group, Recording
from dashboards.target import ENDPOINT, Target

SAMPLER_INTERVAL = "5s"
"""Time between two scrapes of a sampler, and between two evaluations of the rules."""

WINDOW = "5m"
"""Window of increases: long enough that the seconds between two sightings of a replica do not matter."""

IDENTITY = "vllm:generation_tokens_created"
"""Unix time at which a replica made its metrics, in microseconds."""

_FALLBACK = "process_start_time_seconds"

METRIC_RELABELINGS: tuple[Mapping[str, Any], ...] = (
    # The regular expressions of Prometheus have no "all but", hence the label that lasts three lines.
    {"sourceLabels": ["__name__"], "regex": IDENTITY, "targetLabel": "__tmp_keep", "replacement": "yes"},
    {"sourceLabels": ["__name__", "__tmp_keep"], "regex": "(python_.*|.*_created);", "action": "drop"},
    {"regex": "__tmp_keep", "action": "labeldrop"},
)
"""What a ScrapeConfig leaves out of a scrape: Python's own metrics, and birth times but one."""

GAUGES: tuple[str, ...] = (
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:engine_sleep_state",
    "vllm:generation_tokens_created",
)
COUNTERS: tuple[str, ...] = (
    "vllm:generation_tokens_total",
    "vllm:prompt_tokens_total",
    "vllm:request_success_total",
    "vllm:num_preemptions_total",
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
    "vllm:mm_cache_queries_total",
    "vllm:mm_cache_hits_total",
    "http_requests_total",
    "process_cpu_seconds_total",
)
HISTOGRAMS: tuple[str, ...] = (
    "vllm:time_to_first_token_seconds",
    "vllm:inter_token_latency_seconds",
    "vllm:request_time_per_output_token_seconds",
    "vllm:e2e_request_latency_seconds",
    "vllm:request_queue_time_seconds",
    "vllm:request_prefill_time_seconds",
    "vllm:request_prompt_tokens",
    "vllm:request_generation_tokens",
)
MEANS: tuple[str, ...] = (
    "vllm:iteration_tokens_total",
    "vllm:request_prefill_kv_computed_tokens",
)
"""Histograms whose buckets nobody reads; they are left out."""
FAMILIES: tuple[str, ...] = (*GAUGES, *COUNTERS, *HISTOGRAMS, *MEANS)
"""The families recorded for each replica, named as on their TYPE lines: those that somebody reads."""

_FORGOTTEN = "15s"
"""A scrape of so long ago says nothing of now: a restarted Prometheus evaluates before it scrapes."""

_SCRAPE = "job, instance, sampler"


def samplers(target: Target) -> int:
    """How many see each replica about twice per interval when the endpoint has grown to its most."""
    return 2 * target.max_replicas


def groups(target: Target) -> Sequence[Group]:
    """The rules; what is said of the fleet is evaluated right after what it is made from."""
    rules = [*_replicas(target), *_fleet(target)]
    return [Group(f"{target.job}-replicas", rules, SAMPLER_INTERVAL)]


def _replicas(target: Target) -> Iterator[Recording]:
    for name in GAUGES:
        yield Recording(f"replica:{name}", _told_apart(target, name, "avg"))
    for name in COUNTERS:
        counter = _told_apart(target, name, "max")
        if name == "http_requests_total":
            counter = _from_zero(counter, "status", "5xx")
        yield _rising(target, name, counter)
    for name in (*HISTOGRAMS, *MEANS):
        for part in ("sum", "count") if name in MEANS else ("bucket", "sum", "count"):
            series = f"{name}_{part}"
            yield _rising(target, series, _told_apart(target, series, "max"))


def _told_apart(target: Target, series: str, over_samplers: str) -> str:
    # The births are found anew in each rule, since only within one expression they are certainly of the same
    # scrapes as the samples: between two rules of a group a scrape may end that began before both.
    return (
        f"{over_samplers} without (sampler) (\n"
        f"  {_fresh(target, series)}\n"
        f"  * on ({_SCRAPE}) group_left (replica)\n"
        f'  count_values by ({_SCRAPE}) ("replica",\n'
        f"    {_births(target)}\n"
        "  )\n"
        ")"
    )


def _rising(target: Target, series: str, counter: str) -> Recording:
    """Without samples that are lower than an earlier one: they are of scrapes that were overtaken."""
    record = f"replica:{series}"
    earlier = f"last_over_time({record}{{{target.selector}}}[1m])"
    return Recording(record, f"({counter})\nunless\n({counter}) < {earlier}")


def _births(target: Target) -> str:
    """When the replica was born that each sampler met last."""
    return (
        f"max by ({_SCRAPE}) (\n"
        f"      {_fresh(target, IDENTITY)}\n"
        f"      or on ({_SCRAPE})\n"
        f"      {_fresh(target, _FALLBACK)}\n"
        "    )\n"
        f"    and on ({_SCRAPE}) present_over_time(up{{{target.selector}}}[{_FORGOTTEN}])"
    )


def _from_zero(counter: str, label: str, value: str) -> str:
    """Also counts what made the counter of this label value appear, which `increase` does not see.

    It helps only where the counter has had another value of the label before: of a replica whose very first
    answers are of this kind, those before its first scrape are lost.
    """
    zero = f'label_replace(0 * max without ({label}) ({counter}), "{label}", "{value}", "", "")'
    return f"{counter}\nor\n{zero}"


def _fresh(target: Target, series: str) -> str:
    """The samples that are from the latest scrape of their sampler."""
    samples, scrapes = f"{series}{{{target.selector}}}", f"up{{{target.selector}}}"
    return f"({samples} and timestamp({samples}) == on ({_SCRAPE}) group_left () timestamp({scrapes}))"


def _fleet(target: Target) -> Iterator[Recording]:
    selector = target.selector
    running = f"last_over_time(replica:vllm:num_requests_running{{{selector}}}[1m])"
    waiting = f"last_over_time(replica:vllm:num_requests_waiting{{{selector}}}[1m])"
    yield Recording(
        "fleet:vllm:replicas_seen", f"count by ({ENDPOINT}) (count by ({ENDPOINT}, replica) ({running}))"
    )
    if target.platform_metrics:
        yield Recording(
            "fleet:vllm:replicas_ready",
            f'max(ai_deploy_app_available_replicas{{job="{target.platform_job}"}})',
            {"job": target.job, **target.labels},
        )
    # Right after a restart of Prometheus the last scrapes before it are still shown, and nobody knows them.
    answered = f"(up{{{selector}}} == 1 and present_over_time(up{{{selector}}}[{_FORGOTTEN}]))"
    yield Recording(
        "fleet:vllm:unidentified_scrapes",
        f"count by ({ENDPOINT}) ({answered} unless on ({_SCRAPE}) (\n    {_births(target)}\n  ))\n"
        f"or\n0 * count by ({ENDPOINT}) ({answered})",
    )
    yield Recording("fleet:vllm:num_requests_running", f"sum by ({ENDPOINT}) ({running})")
    yield Recording("fleet:vllm:num_requests_waiting", f"sum by ({ENDPOINT}) ({waiting})")
    yield _increase(target, "generation_tokens", "vllm:generation_tokens_total")
    yield _increase(target, "prompt_tokens", "vllm:prompt_tokens_total")
    yield _increase(target, "requests", "vllm:request_success_total", "finished_reason")


def _increase(target: Target, record: str, family: str, *labels: str) -> Recording:
    return Recording(
        f"fleet:vllm:{record}:increase{WINDOW}",
        f"sum by ({', '.join([ENDPOINT, *labels])}) "
        f"(increase(replica:{family}{{{target.selector}}}[{WINDOW}]))",
    )
