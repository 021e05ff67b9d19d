"""The dashboard of the vLLM endpoint: from "are the users well served?" down to "is this dashboard right?".

It reads only what the rules have recorded for each replica and for the fleet, and what Prometheus and
Alertmanager say about themselves: the counters of the scrapes mix up all replicas behind the endpoint's URL.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

from dashboards.endpoint import SIGHT, WINDOW_SECONDS, Endpoint, ratio
from dashboards.objectives import TIERS
from dashboards.panels import (
    DATASOURCE,
    Bars,
    Dial,
    Heatmap,
    Lanes,
    Limits,
    Lines,
    Numbers,
    Panel,
    Query,
    Table,
    Text,
)
from dashboards.recording import WINDOW
from dashboards.target import API_CALLS, Target

UID = "vllm-ministral-monitoring"
"""Uid of the dashboard, part of its address."""
SLUG = "ministral-14b-vllm-metrics-monitoring"
"""Human-readable part of the dashboard's address; Grafana ignores it."""

_ZERO = "0 * max(prometheus_tsdb_head_series)"
"""0 at all times when Prometheus ran, unlike `vector(0)`, which says so of an outage as well."""

_SMOOTHED = "It is the mean of five minutes: after a start it takes that long to be right."

_TTFT = "vllm:time_to_first_token_seconds"
_FIRING = 'alertstate="firing"'


def build(target: Target) -> str:
    """The dashboard as JSON of Grafana's classic schema, the same text for the same target."""
    endpoint = Endpoint(target)
    builder = (
        builders.Dashboard("Ministral 14B vLLM metrics monitoring")
        .uid(UID)
        .description(
            f"The endpoint {target.job}, model {target.labels['model']}. Read it from the top: the first row "
            "is the verdict, the others say why, the last one whether to believe it. The verdict is on all "
            "replicas, whatever is chosen."
        )
        .tags(["vllm"])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .variables(list(_variables(endpoint)))
        .annotations(list(_annotations(endpoint)))
    )
    if target.runbooks.startswith("https://"):
        link = builders.DashboardLink("Runbooks").type(dashboard.DashboardLinkType.LINK)
        builder = builder.link(link.url(target.runbooks).icon("doc").target_blank(True))
    for title, panels in _ROWS:
        builder = builder.with_row(builders.Row(title))
        for panel in panels(endpoint):
            builder = builder.with_panel(panel.builder())
    built = builder.build()
    # The address of a single panel holds its number.
    for number, drawn in enumerate(built.panels or (), 1):
        drawn.id_val = number
    return json.dumps(json.loads(JSONEncoder(sort_keys=True).encode(built)), indent=1, sort_keys=True)


def _variables(endpoint: Endpoint) -> Iterator[builders.QueryVariable]:
    running, selector = "replica:vllm:num_requests_running", endpoint.target.selector
    for name, label, source in (
        ("model", "model_name", f"{running}{{{selector}}}"),
        ("replica", "replica", f'{running}{{{selector},model_name=~"$model"}}'),
    ):
        query = f"label_values({source}, {label})"
        yield (
            builders.QueryVariable(name)
            .label(name.capitalize())
            .datasource(DATASOURCE)
            .query(query)
            .definition(query)
            .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            # All is what comes later, too.
            .all_value(".*")
            .current(dashboard.VariableOption(True, ["All"], ["$__all"]))
        )


def _annotations(endpoint: Endpoint) -> Iterator[builders.AnnotationQuery]:
    for name, color, shown, expr, text in (
        ("Replica appeared", "green", True, endpoint.appeared(), "{{replica}}"),
        ("Replica gone", "purple", True, endpoint.gone(), "{{replica}}"),
        # At first not shown: one that fires for hours would cover all panels, and has a lane of its own.
        ("Alert", "red", False, _firing("alertname, severity"), "{{alertname}} ({{severity}})"),
    ):
        yield (
            builders.AnnotationQuery()
            .name(name)
            .datasource(DATASOURCE)
            .enable(shown)
            .icon_color(color)
            .expr(expr)
            # At least: a shorter one would take a replica that was not met for a moment to be gone.
            .step(SIGHT)
            .title_format(name)
            .text_format(text)
        )


def _verdict(endpoint: Endpoint) -> Sequence[Panel]:
    target, objectives = endpoint.target, endpoint.target.objectives
    promised = {
        "time_to_first_token": objectives.time_to_first_token.ratio,
        "inter_token_latency": objectives.inter_token_latency.ratio,
        "success": objectives.success,
        "availability": objectives.availability,
    }
    page = TIERS[0]
    up = f"up{{{target.selector}}}"
    return (
        Numbers(
            title="Objectives attained, 7 days",
            description="Share of good events over the period of the objectives: first tokens and gaps "
            "between tokens in time, requests without failure, scrapes that were answered. Green keeps the "
            "promise ("
            + ", ".join(f"{name} {_percent(ratio)}" for name, ratio in promised.items())
            + "). Red breaks it: the row Why is TTFT slow or the failed share says where to go.",
            unit="percentunit",
            decimals=2,
            maximum=1,
            queries=[Query(f"1 - {endpoint.slo('errors:ratio7d')}", "{{slo}}")],
            limits=Limits.falling(min(promised.values())),
            overrides={name: Limits.falling(ratio).override() for name, ratio in promised.items()},
            history=False,
            width=10,
            height=6,
        ),
        Bars(
            title="Error budget left, 7 days",
            description="What is left of the bad events that an objective allows in seven days. 100 % is "
            "untouched, 0 spent: then change nothing that can wait, and look at the burn rate.",
            unit="percentunit",
            maximum=1,
            queries=[Query(endpoint.slo("budget_left:ratio7d"), "{{slo}}")],
            limits=Limits.falling(0.5, 0.1),
            width=6,
            height=6,
        ),
        Numbers(
            title="Replicas seen and ready",
            description="seen: replicas that a scrape met in the last minute. ready: what the platform runs. "
            "They differ for a minute or two when the fleet changes. Fewer seen than ready for longer: the "
            "balancer hides replicas, and everything here is about the others.",
            unit="none",
            decimals=0,
            queries=[
                Query(f"{endpoint.fleet('vllm:replicas_seen')} or {_ZERO}", "seen"),
                *endpoint.platform(Query(endpoint.fleet("vllm:replicas_ready"), "ready")),
            ],
            limits=Limits.falling(target.min_replicas),
            width=4,
            height=6,
        ),
        Dial(
            title="Scrapes answered",
            description="Share of the samplers' scrapes in five minutes that the public address answered. "
            "100 % is normal; a little less when a replica goes; 0 % is an endpoint, gateway or token that "
            "fails: try it with curl and look at the targets of Prometheus.",
            unit="percentunit",
            maximum=1,
            queries=[Query(f"avg(avg_over_time({up}[{WINDOW}]))", "answered")],
            limits=Limits.falling(0.99, 0.9),
            width=4,
            height=6,
        ),
        Lines(
            title="Burn rate, 1 hour",
            description="How many times faster than allowed the error budget of each objective went in the "
            f"last hour. Up to 1 lasts seven days; {page.factor:g} (red), kept up, would spend "
            f"{_percent(page.share)} of it in that hour and calls somebody. One line alone is the problem of "
            "that objective, all together are an outage.",
            unit="none",
            decimals=2,
            axis="times the allowed rate",
            roomy=page.factor,
            queries=[
                Query(
                    f"{endpoint.slo('errors:ratio1h')} / on (slo) "
                    f"clamp_min(1 - {endpoint.slo('objective:ratio')}, 0.0001)",
                    "{{slo}}",
                )
            ],
            limits=Limits.rising(1, page.factor),
        ),
        Lanes(
            title="Alerts",
            description="What fired when, critical and warning ones of this Prometheus. Nothing is normal; a "
            "gap is a time when Prometheus did not run. The name of an alert is that of its runbook.",
            unit="none",
            queries=[
                Query(
                    f"{_firing('alertname')} or on () "
                    f'label_replace({_ZERO}, "alertname", "nothing fires", "", "")',
                    "{{alertname}}",
                )
            ],
            names={"0": ("quiet", "green"), "1": ("firing", "red")},
            nothing="nothing fires",
        ),
        Numbers(
            title="Firing alerts",
            description="Alerts that fire now. critical: somebody acts at once; warning: within the day. "
            "Open the runbook with the alert's name.",
            unit="none",
            decimals=0,
            queries=[
                Query(f'count(ALERTS{{{_FIRING},severity="{severity}"}}) or {_ZERO}', severity)
                for severity in ("critical", "warning")
            ],
            limits=Limits("green", ((1, "red"),)),
            overrides={"warning": Limits.rising(1).override()},
            width=4,
        ),
        Numbers(
            title="Last answered scrape",
            description="Time since the endpoint last answered a scrape. Some 5 s are normal: the clock of "
            "this panel ticks so. Much more means that all else on this page is the past.",
            unit="s",
            decimals=0,
            queries=[
                Query(
                    f"time() - max(max_over_time((timestamp({up}) unless ({up} == 0))[1h:5s]))",
                    "ago",
                )
            ],
            limits=Limits.rising(30, 120),
            history=False,
            nothing="over 1 h",
            width=4,
        ),
    )


def _requests(endpoint: Endpoint) -> Sequence[Panel]:
    objectives = endpoint.target.objectives
    http, finished = "http_requests_total", "vllm:request_success_total"

    def answered(status: str) -> str:
        return endpoint.increase(http, where=f'{API_CALLS},status="{status}"')

    return (
        Lines(
            title="Requests by how they ended",
            description="Requests per second: stop (the model was done), length (cut off by max_tokens), "
            "abort, error. Many length: max_tokens is too small. error should be nothing. abort stays 0: "
            "vLLM does not count what a caller gives up (VllmManyAborts tells).",
            unit="reqps",
            queries=[Query(endpoint.rate(finished, "finished_reason"), "{{finished_reason}}")],
            stacked=True,
        ),
        Lines(
            title="HTTP answers by handler and status",
            description="Answers of vLLM itself to POST /v1/… per second, without probes and scrapes. 4xx "
            "are wrong requests of callers, 5xx are faults. What the gateway answers (401, 502, 503, 504) is "
            "in no metric. The very first answer of its kind is counted only if it is 5xx.",
            unit="reqps",
            queries=[Query(endpoint.rate(http, "handler, status", API_CALLS), "{{handler}} {{status}}")],
        ),
        Lines(
            title="Failed share",
            description="error: share of the requests that ended; 5xx and 4xx: shares of the answers to POST "
            "/v1/…. The dashed line is what the objective of success allows for error and 5xx together; 4xx "
            "are the callers'. What a caller gives up does not end: vLLM does not count it. Gaps are times "
            "without requests.",
            unit="percentunit",
            roomy=0.05,
            queries=[
                Query(
                    ratio(
                        endpoint.increase(finished, where='finished_reason="error"'),
                        endpoint.increase(finished, where='finished_reason!="abort"'),
                    ),
                    "error",
                ),
                *(
                    Query(
                        ratio(
                            # A status that never came has no series.
                            f"({answered(status)} or {_ZERO})",
                            endpoint.increase(http, where=API_CALLS),
                        ),
                        status,
                    )
                    for status in ("5xx", "4xx")
                ),
            ],
            limits=Limits.rising(_bad_share(objectives.success)),
        ),
        Lines(
            title="Time to first token",
            description="From the arrival of a request to its first token: waiting and prefill. The dashed "
            f"line is the objective, kept by {_percent(objectives.time_to_first_token.ratio)} of requests. "
            "It grows first when a GPU saturates; the row below says why.",
            unit="s",
            queries=endpoint.spread(_TTFT),
            limits=Limits.rising(objectives.time_to_first_token.seconds),
        ),
        Lines(
            title="Inter-token latency",
            description="Between two tokens of a stream. The dashed line is the objective, kept by "
            f"{_percent(objectives.inter_token_latency.ratio)} of gaps. The median stays flat while the "
            "queue grows; p99 rises with long prompts, whose prefill holds up running streams, and with "
            "preemptions. Finer than 10 ms it is only estimated.",
            unit="s",
            queries=endpoint.spread("vllm:inter_token_latency_seconds"),
            limits=Limits.rising(objectives.inter_token_latency.seconds),
        ),
        Lines(
            title="Time per output token",
            description="A request's mean time per token after the first one. It follows the number of "
            "running requests: a step up that lasts means larger batches, so compare it with the "
            "saturation row before suspecting the GPU.",
            unit="s",
            queries=endpoint.spread("vllm:request_time_per_output_token_seconds"),
        ),
        Lines(
            title="End-to-end latency",
            description="From the arrival of a request to its last token. It is mostly the length of the "
            "answer, so compare it with the tokens per request; below 0.3 s it is only estimated.",
            unit="s",
            queries=endpoint.spread("vllm:e2e_request_latency_seconds"),
        ),
        Heatmap(
            title="Time to first token, distribution",
            description="How many first tokens of the last five minutes took how long. One band is healthy; "
            "a second one above it is a group of requests (long prompts) or a replica that is slow, which "
            "quantiles would blend; a band that climbs is a queue.",
            unit="s",
            queries=[Query(endpoint.increase(f"{_TTFT}_bucket", "le"), "{{le}}")],
        ),
        Lines(
            title="Time to first token p95 by replica",
            description="The replicas should be alike. One that stays above the others is cold (a new one, "
            "for some minutes), busy with longer prompts, or on a worse GPU. The dashed line is the "
            "objective.",
            unit="s",
            queries=[Query(endpoint.quantile(0.95, _TTFT, "replica"), "{{replica}}")],
            limits=Limits.rising(objectives.time_to_first_token.seconds),
        ),
    )


def _slowness(endpoint: Endpoint) -> Sequence[Panel]:
    length = "vllm:request_prompt_tokens"
    queue, prefill = "vllm:request_queue_time_seconds", "vllm:request_prefill_time_seconds"
    limit = Limits.rising(endpoint.target.objectives.time_to_first_token.seconds)
    unstacked = {
        "TTFT": {"custom.stacking": {"mode": "none", "group": "B"}, "custom.fillOpacity": 0},
    }
    return (
        Lines(
            title="Queue and prefill against TTFT, p95",
            description="Two areas, a line above them. Queue dominates: too few replicas or batch slots, "
            "look at the saturation. Prefill dominates: prompts are long or no longer cached. Quantiles do "
            "not add up, and below 0.3 s the areas are only estimated: then take the means. The areas are "
            "told when a request ends, the line at its first token: after a change they lag behind it by "
            "the length of a request. The dashed line is the objective.",
            unit="s",
            queries=[
                Query(endpoint.quantile(0.95, queue), "queue"),
                Query(endpoint.quantile(0.95, prefill), "prefill"),
                Query(endpoint.quantile(0.95, _TTFT), "TTFT"),
            ],
            stacked=True,
            overrides=unstacked,
            limits=limit,
        ),
        Lines(
            title="Queue and prefill against TTFT, mean",
            description="The same as means, which are exact for short times as well, and add up while the "
            "load is steady. Queue and prefill are told when a request ends, TTFT at its first token: after "
            "a change the areas follow by the length of a request. Only a gap below the line that lasts is "
            "time outside of the engine: tokenizing, the API server, images to be read.",
            unit="s",
            queries=[
                Query(endpoint.mean(queue), "queue"),
                Query(endpoint.mean(prefill), "prefill"),
                Query(endpoint.mean(_TTFT), "TTFT"),
            ],
            stacked=True,
            overrides=unstacked,
            limits=limit,
        ),
        Lines(
            title="Waiting requests by replica",
            description="Requests in the queue of each replica. Now and then a few are normal. Waiting that "
            "lasts, not the use of the GPU, says that a replica is missing; on one replica alone it says "
            "that the balancer is unfair. A fraction is a mean over scrapes some seconds apart.",
            unit="short",
            queries=[Query(endpoint.gauge("vllm:num_requests_waiting"), "{{replica}}")],
        ),
        Lines(
            title="Prompt length",
            description="Tokens per prompt. TTFT follows p95 when nothing waits: a rise here is callers who "
            "send more, not a slower GPU.",
            unit="count:tokens",
            queries=endpoint.spread(length),
        ),
        Lines(
            title="Prompt tokens computed",
            description="Prefill work per second of each replica: prompt tokens that no cache spared. When "
            "it levels off while the queue grows, prefill is at its limit.",
            unit="count:tokens/s",
            queries=[
                Query(endpoint.rate("vllm:request_prefill_kv_computed_tokens_sum", "replica"), "{{replica}}")
            ],
        ),
        Lines(
            title="Prefix cache hit rate",
            description="Share of prompt tokens that were found in the prefix cache. What is normal depends "
            "on how much callers repeat; a sudden fall makes prefill, and so TTFT, longer: new replicas "
            "start cold, and a full KV cache throws prefixes out. Gaps are times without prompts.",
            unit="percentunit",
            maximum=1,
            queries=[Query(endpoint.hits("vllm:prefix_cache"), "hit rate")],
        ),
    )


def _saturation(endpoint: Endpoint) -> Sequence[Panel]:
    target = endpoint.target
    running = endpoint.gauge("vllm:num_requests_running")
    load = _load(endpoint)
    return (
        Lines(
            title="Running requests by replica",
            description="Requests in the batch of each replica. Replicas should be alike; a full one beside "
            f"an idle one is the balancer's doing. A fraction is a mean over scrapes some seconds apart. "
            f"{_scaling(target)}",
            unit="short",
            queries=[
                Query(running, "{{replica}}"),
                Query(f"avg({running})", "mean"),
            ],
            overrides={"mean": {"custom.lineWidth": 3}},
            limits=_scaled(target),
            width=10 if load else 12,
        ),
        Lines(
            title="Running and waiting requests",
            description="All replicas together. A full batch with nobody waiting is healthy: that is what "
            "the GPU is paid for. Waiting that grows while running is flat is saturation.",
            unit="short",
            queries=[
                Query(endpoint.fleet("vllm:num_requests_running"), "running"),
                Query(endpoint.fleet("vllm:num_requests_waiting"), "waiting"),
            ],
            width=10 if load else 12,
        ),
        *load,
        Lines(
            title="KV cache in use by replica",
            description="Share of the KV cache that running requests hold. High is good use; near 100 % "
            "requests are preempted and computed again. Then: shorter contexts, fewer at once "
            "(max_num_seqs), or more replicas.",
            unit="percentunit",
            maximum=1,
            queries=[Query(endpoint.gauge("vllm:kv_cache_usage_perc", "max"), "{{replica}}")],
            limits=Limits.rising(0.8, 0.95),
            width=6,
        ),
        Lines(
            title="Preemptions by replica",
            description="Requests per second that lost their place in the KV cache. 0 is normal; anything "
            "that lasts wastes work and shows in p99 of the latencies first. It needs a full KV cache.",
            unit="reqps",
            queries=[Query(endpoint.rate("vllm:num_preemptions_total", "replica"), "{{replica}}")],
            limits=Limits.rising(0.1, 1),
            width=6,
        ),
        Lines(
            title="Tokens per engine step by replica",
            description="How much work a step of the engine does: batching. It rises with load; low while "
            "requests wait means that something other than the batch is full. Up to vLLM 0.22 prompt tokens "
            "that were cached count as well.",
            unit="count:tokens",
            queries=[Query(endpoint.mean("vllm:iteration_tokens_total", "replica"), "{{replica}}")],
            width=6,
        ),
        Lines(
            title="CPU of the API server by replica",
            description="CPU seconds per second of the process that takes requests and sends tokens. It is "
            "one Python process: near 1 it holds up the GPU, and TTFT grows while nothing waits in the "
            "engine.",
            unit="short",
            axis="cores",
            queries=[Query(endpoint.rate("process_cpu_seconds_total", "replica"), "{{replica}}")],
            limits=Limits.rising(0.8, 1),
            width=6,
        ),
    )


def _load(endpoint: Endpoint) -> Sequence[Panel]:
    target = endpoint.target
    if target.running_target is None:
        return ()
    capacity = target.running_target * target.max_replicas
    return (
        Dial(
            title="Load of the largest fleet",
            description=f"Running requests against those of {target.max_replicas} replicas at the scaler's "
            f"target ({capacity:g}). Near 100 % there is nothing left to scale to: raise the largest number "
            "of replicas, or the limits of callers.",
            unit="percentunit",
            maximum=1,
            queries=[Query(f"{endpoint.fleet('vllm:num_requests_running')} / {capacity:g}", "load")],
            limits=Limits.rising(0.7, 0.9),
            width=4,
        ),
    )


def _scaled(target: Target) -> Limits | None:
    """The scaler's target, where running requests are what it scales on."""
    return None if target.running_target is None else Limits.rising(target.running_target)


def _scaling(target: Target) -> str:
    """What the panels of running requests say about the scaler."""
    if target.running_target is None:
        return "The platform scales on something else, so no line is drawn."
    return (
        f"The dashed line is the scaler's target of {target.running_target:g}: a mean above it brings a "
        f"replica, until there are {target.max_replicas}; if none comes for minutes, the platform has no "
        "GPU. Far below it with several replicas the fleet is too large."
    )


def _throughput(endpoint: Endpoint) -> Sequence[Panel]:
    first = endpoint.target.objectives.time_to_first_token
    in_time = endpoint.increase(f"{_TTFT}_bucket", where=f'le="{float(first.seconds)!r}"')
    return (
        Lines(
            title="Tokens per second",
            description="All replicas together; prompt tokens include cached ones. Generated tokens that "
            f"level off while requests wait are the capacity of the fleet. {_SMOOTHED}",
            unit="count:tokens/s",
            queries=[
                Query(f"{endpoint.fleet(f'vllm:{kind}_tokens:increase5m')} / {WINDOW_SECONDS}", kind)
                for kind in ("generation", "prompt")
            ],
        ),
        Lines(
            title="Generated tokens per second by replica",
            description="One line for each replica, which is one set of GPUs. Equal load should give equal "
            "lines; the highest one that was ever reached is what a replica can do. It is the mean of five "
            "minutes, of a younger replica that since its birth.",
            unit="count:tokens/s",
            queries=[Query(endpoint.rate("vllm:generation_tokens_total", "replica"), "{{replica}}")],
        ),
        Lines(
            title="Prompt tokens per second by replica",
            description="Prompt tokens that each replica took in, cached ones included. Peaks come with "
            "peaks of TTFT and of the time between tokens on the same replica.",
            unit="count:tokens/s",
            queries=[Query(endpoint.rate("vllm:prompt_tokens_total", "replica"), "{{replica}}")],
        ),
        Lines(
            title="Tokens per request",
            description="What callers ask for: long prompts cost TTFT, long answers cost end-to-end time and "
            "KV cache. Latencies of two hours compare only where these are alike.",
            unit="count:tokens",
            queries=[
                *(
                    Query(endpoint.mean(f"vllm:request_{kind}_tokens"), f"{kind}, mean")
                    for kind in ("prompt", "generation")
                ),
                Query(endpoint.quantile(0.95, "vllm:request_generation_tokens"), "generation, p95"),
            ],
            width=6,
        ),
        Lines(
            title="Goodput",
            description="Requests per second whose first token came in time, that is within "
            f"{first.seconds:g} s, and all that got a first token. Where the lines part, more load only "
            f"makes more late answers: that is the usable capacity. {_SMOOTHED}",
            unit="reqps",
            queries=[
                Query(f"{in_time} / {WINDOW_SECONDS}", "in time"),
                Query(endpoint.rate(f"{_TTFT}_count"), "all"),
            ],
            width=6,
        ),
        *_cost(endpoint),
    )


def _cost(endpoint: Endpoint) -> Sequence[Panel]:
    price = endpoint.target.replica_eur_per_hour
    if price is None:
        return (
            Text(
                title="Cost",
                description="What the replicas cost, per hour and per million tokens, is shown for flavors "
                "whose price is known.",
                markdown="The price of a replica is not known: `components/prices.json` has none for its "
                "flavor. With a price here are € per hour and per million tokens.",
                width=12,
            ),
        )
    most = price * endpoint.target.max_replicas
    hour = f"{endpoint.paid()} * {price:g}"

    def per_million(*kinds: str) -> str:
        gained = " + ".join(endpoint.fleet(f"vllm:{kind}_tokens:increase5m") for kind in kinds)
        hourly = f"clamp_min({gained}, 1) * {3600 // WINDOW_SECONDS}"
        return f"{hour} * 1e6 / ({hourly})"

    return (
        Lines(
            title="Cost per hour",
            description=f"Replicas times {price:g} € per replica and hour; the dashed line is the largest "
            "fleet. It should fall again after a peak: if it does not, look at the capacity row.",
            unit="currencyEUR",
            decimals=2,
            roomy=most,
            queries=[Query(hour, "€ per hour")],
            limits=Limits.rising(most),
            width=6,
        ),
        Lines(
            title="Cost per million tokens",
            description="At the pace of the last five minutes. The axis is logarithmic: an idle fleet costs "
            "the same for hardly any token. Lower with larger batches; compare hours of equal load. "
            f"{_SMOOTHED}",
            unit="currencyEUR",
            decimals=2,
            minimum=None,
            queries=[
                Query(per_million("generation"), "generated tokens"),
                Query(per_million("prompt", "generation"), "all tokens"),
            ],
            logarithmic=True,
            width=6,
        ),
    )


def _capacity(endpoint: Endpoint) -> Sequence[Panel]:
    target = endpoint.target
    # What happened in the last five minutes also tells of replicas that have gone since.
    alive = f"and on (replica) {endpoint.sighted()}"
    aim = target.running_target
    steps = ((1, "green"),) if aim is None else ((aim / 2, "green"), (aim, "orange"))
    running = endpoint.gauge("vllm:num_requests_running")
    return (
        Lines(
            title="Replicas",
            description="seen and ready should be one line between min and max. At max with requests "
            "waiting: the fleet is too small. Up and down every few minutes: the scaler's windows are too "
            "short for how long a replica needs to load its model.",
            unit="none",
            decimals=0,
            stepped=True,
            roomy=target.max_replicas + 1,
            queries=[
                Query(f"{endpoint.fleet('vllm:replicas_seen')} or {_ZERO}", "seen"),
                *endpoint.platform(Query(endpoint.fleet("vllm:replicas_ready"), "ready")),
                Query(f"vector({target.min_replicas})", "min"),
                Query(f"vector({target.max_replicas})", "max"),
            ],
            overrides={
                name: {"custom.lineStyle": {"fill": "dash", "dash": [10, 10]}} for name in ("min", "max")
            },
            width=12,
        ),
        Lines(
            title="Replicas that came and went",
            description="Since the bar before (a minute, or more over a long time range): up those that "
            "appeared, down those that are gone. One at a time is scaling; both at once is a replacement or "
            "a restart; again and again without a change of load is a replica that dies (see its logs). "
            "After an outage of Prometheus all of them appear.",
            unit="none",
            decimals=0,
            minimum=None,
            queries=[
                Query(f"count({endpoint.appeared()}) or {_ZERO}", "appeared", step=SIGHT),
                Query(f"-count({endpoint.gone()}) or {_ZERO}", "gone", step=SIGHT),
            ],
            bars=True,
            width=12,
        ),
        Lanes(
            title="Lives of the replicas",
            description="A lane from the birth of each replica to its end, coloured by the requests that it "
            "ran: blue few, green many, orange more than the scaler aims at. A lane that stays blue beside "
            "others gets no traffic; gaps in a lane are times when no scrape met it.",
            unit="none",
            decimals=0,
            queries=[Query(running, "{{replica}}")],
            limits=Limits("blue", steps),
            width=16,
        ),
        Bars(
            title="Age of the replicas",
            description="Time since each replica was born, the oldest first. Equal ages after a deployment "
            "are normal. Ages that never pass some minutes are restarts.",
            unit="s",
            queries=[Query(f"sort_desc({endpoint.age()})", "{{replica}}")],
            limits=Limits("blue"),
        ),
        Table(
            title="Replicas one by one",
            description="A row for each replica, the oldest first, named by its time of birth (Unix "
            "seconds). Rows should be alike; one that differs is the one to look at. tokens/s: generated "
            "ones, mean of five minutes or since the birth; running and waiting: means of the last scrapes; "
            "met: share of the rules' evaluations in five minutes that saw it.",
            unit="short",
            label="replica",
            sorted_by="born",
            queries=[
                # The panel's unit counts milliseconds.
                Query(f"sort(1000 * {endpoint.born()})", "born"),
                Query(endpoint.age(), "age"),
                Query(running, "running"),
                Query(endpoint.gauge("vllm:num_requests_waiting"), "waiting"),
                Query(endpoint.gauge("vllm:kv_cache_usage_perc", "max"), "KV cache"),
                Query(f"{endpoint.rate('vllm:generation_tokens_total', 'replica')} {alive}", "tokens/s"),
                Query(f"{endpoint.quantile(0.95, _TTFT, 'replica')} {alive}", "TTFT p95"),
                Query(f"{endpoint.coverage()} {alive}", "met"),
            ],
            overrides={
                "born": {"unit": "dateTimeAsIso"},
                "age": {"unit": "s"},
                "running": {"decimals": 0},
                "waiting": {"decimals": 0},
                "KV cache": {"unit": "percentunit"},
                "TTFT p95": {"unit": "s"},
                "met": {"unit": "percentunit"},
            },
            width=24,
        ),
    )


def _cache(endpoint: Endpoint) -> Sequence[Panel]:
    prefix, images = "vllm:prefix_cache", "vllm:mm_cache"
    return (
        Lines(
            title="Prefix cache",
            description="Prompt tokens per second that were looked up in the prefix cache, and those that "
            "were there. found near 0 with chat traffic: the callers' prompts begin with something that "
            "changes (a date, an id), or prefix caching is off.",
            unit="count:tokens/s",
            queries=[
                Query(endpoint.rate(f"{prefix}_queries_total"), "looked up"),
                Query(endpoint.rate(f"{prefix}_hits_total"), "found"),
            ],
        ),
        Lines(
            title="Prefix cache hit rate by replica",
            description="Each replica has a cache of its own. A low new one warms up within minutes. All "
            "low with many replicas: the balancer sends a conversation to another one each time.",
            unit="percentunit",
            maximum=1,
            queries=[Query(endpoint.hits(prefix, "replica"), "{{replica}}")],
        ),
        Lines(
            title="Multimodal cache",
            description="Images and the like per second, looked up and found already processed. Flat at 0 "
            "while callers send text only.",
            unit="count:items/s",
            queries=[
                Query(endpoint.rate(f"{images}_queries_total"), "looked up"),
                Query(endpoint.rate(f"{images}_hits_total"), "found"),
            ],
        ),
    )


def _monitoring(endpoint: Endpoint) -> Sequence[Panel]:
    target = endpoint.target
    own_groups = target.rule_groups
    duration, interval = (
        f"prometheus_rule_group_{name}_seconds{{{own_groups}}}" for name in ("last_duration", "interval")
    )
    stored = " + ".join(
        f"max(prometheus_tsdb_{part}_bytes)"
        for part in ("storage_blocks", "wal_storage_size", "head_chunks_storage_size")
    )

    def failed(job: str, aggregation: str = "avg") -> str:
        return f"1 - {aggregation}(avg_over_time(up{{{job}}}[{WINDOW}]))"

    def group(expression: str) -> str:
        """The same by the group's name, without the file that it is in."""
        return f'label_replace({expression}, "group", "$1", "rule_group", ".+;(.+)")'

    def happened(counter: str, matcher: str = "") -> str:
        return f"sum(increase({counter}{matcher}[{WINDOW}]))"

    return (
        Lines(
            title="Scrape duration by sampler",
            description="How long the endpoint took to answer each sampler. Tenths of a second are normal. "
            "More is a busy API server or gateway, and from 5 s on scrapes may be cut off.",
            unit="s",
            queries=[
                Query(
                    f"max by (sampler) (scrape_duration_seconds{{{target.selector}}})", "sampler {{sampler}}"
                )
            ],
            limits=Limits.rising(1, 5),
            width=6,
        ),
        Lines(
            title="Samples per scrape",
            description="Series in an answer, and those that are kept. Steady is normal; a jump is another "
            "version of vLLM or a label with too many values; 0 is an answer without metrics.",
            unit="short",
            axis="samples",
            queries=[
                Query(f"max(scrape_samples_scraped{{{target.selector}}})", "scraped"),
                Query(f"max(scrape_samples_post_metric_relabeling{{{target.selector}}})", "kept"),
            ],
            width=6,
        ),
        Lines(
            title="Failed scrapes",
            description="Share of scrapes in five minutes that failed, by sampler, and of the questions to "
            "the platform. 0 is normal. All samplers: endpoint, gateway or token. The platform alone: its "
            "API or the exporter; then ready is unknown, everything else still right.",
            unit="percentunit",
            roomy=0.1,
            queries=[
                Query(failed(target.selector, "avg by (sampler) "), "sampler {{sampler}}"),
                *endpoint.platform(Query(failed(f'job="{target.platform_job}"'), "platform")),
            ],
            limits=Limits.rising(0.05, 0.5),
            width=6,
        ),
        Numbers(
            title="Scrapes of unknown replicas",
            description="Samplers whose last answer did not say when its process was born. It should be 0: "
            "such answers are left out of everything here. vLLM with several API server processes gives no "
            "such time.",
            unit="none",
            decimals=0,
            queries=[
                Query(f"sum(fleet:vllm:unidentified_scrapes{{{target.selector}}}) or {_ZERO}", "unknown")
            ],
            limits=Limits("green", ((1, "red"),)),
            width=6,
        ),
        Lines(
            title="Sampler coverage by replica",
            description="Share of the rules' evaluations in five minutes that had a scrape of the replica. "
            "About 90 %, now and then 75 %, is normal; lower makes rates noisy; a replica that sinks towards "
            "0 while it lives is hidden by the balancer. New replicas start low and dead ones end so.",
            unit="percentunit",
            maximum=1,
            queries=[Query(endpoint.coverage(), "{{replica}}")],
            limits=Limits.falling(0.5, 0.25),
        ),
        Lines(
            title="Rule evaluation against its interval",
            description="Share of its interval that each rule group needs. From 100 % on evaluations are "
            "skipped, and series have holes: give Prometheus more CPU.",
            unit="percentunit",
            roomy=1,
            queries=[Query(group(f"max by (rule_group) ({duration} / {interval})"), "{{group}}")],
            limits=Limits.rising(0.5, 1),
        ),
        Lines(
            title="Rule failures",
            description="Rules of this endpoint that failed, and evaluations that were skipped, in five "
            "minutes. Anything above 0 makes dashboards and alerts wrong: the log of Prometheus says why.",
            unit="short",
            queries=[
                Query(happened("prometheus_rule_evaluation_failures_total", f"{{{own_groups}}}"), "failed"),
                Query(
                    happened("prometheus_rule_group_iterations_missed_total", f"{{{own_groups}}}"), "skipped"
                ),
            ],
            limits=Limits.rising(1),
        ),
        Dial(
            title="Disk of Prometheus",
            description="Blocks, write-ahead log and head of the store against the size of its volume. Up "
            "to 80 % is by design; beyond, the log grows faster than blocks are dropped, and a full disk "
            "stops everything here: lower retentionSize or enlarge the volume.",
            unit="percentunit",
            maximum=1,
            queries=[Query(f"({stored}) / {target.prometheus_bytes}", "in use")],
            limits=Limits.rising(0.8, 0.9),
        ),
        Lines(
            title="Head series",
            description="Series that Prometheus keeps in memory. Each replica adds its own, so it rises "
            "with every birth and falls hours later. A steady climb is replicas that restart.",
            unit="short",
            queries=[Query("max(prometheus_tsdb_head_series)", "series")],
        ),
        Lines(
            title="Notifications",
            description="In five minutes: messages of Alertmanager, those that failed, and alerts that "
            "Prometheus could not hand over. Failed or dropped above 0: nobody is told. Check the "
            "receiver's address and secret.",
            unit="short",
            queries=[
                Query(happened("alertmanager_notifications_total"), "sent"),
                Query(happened("alertmanager_notifications_failed_total"), "failed"),
                Query(happened("prometheus_notifications_dropped_total"), "dropped"),
            ],
        ),
    )


_ROWS: tuple[tuple[str, Callable[[Endpoint], Sequence[Panel]]], ...] = (
    ("Verdict: are the users well served?", _verdict),
    ("Requests, errors, durations", _requests),
    ("Why is TTFT slow?", _slowness),
    ("Saturation: how close to the limits?", _saturation),
    ("Throughput and cost", _throughput),
    ("Capacity and scaling", _capacity),
    ("Caches", _cache),
    ("Monitoring of the monitoring", _monitoring),
)


def _firing(by: str) -> str:
    """1 for each alert that somebody should do something about; Watchdog and its like have no severity."""
    return f'max by ({by}) (ALERTS{{{_FIRING},severity=~"critical|warning"}})'


def _percent(ratio: float) -> str:
    return f"{ratio * 100:.6g} %"


def _bad_share(objective: float) -> float:
    """What an objective allows, without the digits that binary fractions add."""
    return round(1 - objective, 6)
