"""Alerts on what an operator of the endpoint has to do something about.

All are right for any number of replicas behind one address. What a scrape or an evaluation shows is
whichever replicas were met just then, so a bare comparison would flicker and never hold for its duration.
Conditions are therefore on windows: `max_over_time` where one good sample ends them, `min_over_time` and
`avg_over_time` where one bad sample must not begin them. The alerts of the objectives are in `objectives`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dashboards.rules import Alert, Group, Severity
from dashboards.target import API_CALLS, ENDPOINT, Target

_BY = f"by ({ENDPOINT})"


def groups(target: Target) -> Sequence[Group]:
    """The rules."""
    return [
        Group(
            f"{target.job}-alerts",
            [*_reachability(target), *_capacity(target), *_engine(target), *_prometheus(target)],
        )
    ]


def _alert(
    target: Target, name: str, severity: Severity, expr: str, duration: str, summary: str, description: str
) -> Alert:
    """An alert that names the endpoint, in its labels and at the beginning of the summary."""
    labels = {"job": target.job, **target.labels}
    return Alert(f"Vllm{name}", severity, expr, duration, f"{target.job}: {summary}", description, labels)


def _reachability(target: Target) -> Iterator[Alert]:
    """Whether the endpoint is seen, and all of it."""
    up, platform = f"up{{{target.selector}}}", f'job="{target.platform_job}"'
    down = f"max {_BY} (max_over_time({up}[2m])) == 0"
    if target.min_replicas == 0 and target.platform_metrics:
        # Scaled to zero on purpose: nobody is there to answer.
        down += f"\nunless on (job) {_fleet(target, 'replicas_ready')} == 0"
    yield _alert(
        target,
        "ScrapeDown",
        "critical",
        down,
        "1m",
        "no scrape of the public address has been answered for 3 minutes",
        "No sampler gets metrics: the app, the platform's gateway, the network or the token fails. Callers "
        "most likely fail as well. Prometheus' page Targets shows the error.",
    )
    yield _alert(
        target,
        "ScrapeFlapping",
        "warning",
        f"avg {_BY} (changes({up}[15m])) >= 6",
        "5m",
        "scrapes of the public address fail again and again",
        "Samplers changed between answered and not answered six times or more in 15 minutes: one of several "
        "replicas fails, or the gateway or the network is overloaded. Callers meet the same.",
    )
    yield _alert(
        target,
        "ScrapeMissing",
        "critical",
        f"absent({up})",
        "5m",
        "Prometheus does not scrape the endpoint at all",
        "There is no target of this job: its ScrapeConfigs are missing or were rejected. All other alerts "
        "of the endpoint are silent meanwhile.",
    )
    yield _alert(
        target,
        "ReplicaIdentityMissing",
        "warning",
        f"avg_over_time(fleet:vllm:unidentified_scrapes{{{target.selector}}}[10m]) > 0.1\n"
        f"or\n"
        f"(max {_BY} (min_over_time({up}[5m])) == 1 unless fleet:vllm:replicas_seen{{{target.selector}}})",
        "5m",
        "scrapes are answered, but do not say which replica they met",
        "Without the time of birth, vllm:generation_tokens_created, replicas cannot be told apart and are "
        "not counted: dashboards, objectives and alerts miss them. Several API server processes and "
        "switched-off statistics cause this.",
    )
    if not target.platform_metrics:
        return
    seen, ready = _fleet(target, "replicas_seen"), _fleet(target, "replicas_ready")
    yield _alert(
        target,
        "MetricsBlind",
        "warning",
        f"max_over_time({seen}[5m]) < min_over_time({ready}[5m])",
        "10m",
        "metrics show {{ $value }} replicas, but the platform runs more",
        "For 15 minutes no scrape has met the other replicas, so the platform balances by connection or "
        "cookie. What the missing ones do is in no panel and no objective.",
    )
    state = f'ai_deploy_app_state{{{platform},state!~"RUNNING|SCALING"}}'
    answered = f"max(max_over_time(up{{{platform}}}[2m])) == 1"
    # The state is in every answer; a stopped or failed app has no number of replicas.
    told = f"ai_deploy_app_state{{{platform}}}"
    yield _alert(
        target,
        "TokenRejected",
        "critical",
        # Of a token that the platform never answered, an outage of the app says nothing.
        f"{down}\nand on () {answered}\nunless on () last_over_time({told}[2m])\n"
        f"and on () present_over_time({told}[1d])",
        "1m",
        "the platform refuses the token of Prometheus",
        "Scrapes fail, and the platform's API answers the same token without saying anything about the app, "
        "which it did within the last day. The token was deleted, or does not select the app any more.",
    )
    yield _alert(
        target,
        "PlatformStatusUnknown",
        "warning",
        f"absent_over_time({ready}[10m])",
        "5m",
        "the platform has not said how many replicas run",
        "The exporter or the platform's API does not answer, or not as expected. Alerts on the number of "
        "replicas are silent meanwhile.",
    )
    yield _alert(
        target,
        "AppNotRunning",
        "warning",
        f"max by (state) (last_over_time({state}[2m])) == 1",
        "15m",
        "the app is {{ $labels.state }}",
        "The platform says that the app neither runs nor scales: it was stopped, has failed, or waits for a "
        "GPU.",
    )


def _capacity(target: Target) -> Iterator[Alert]:
    """Whether there are as many replicas as the load needs, and no more."""
    replicas = _replicas(target)
    queue = f"avg_over_time({_fleet(target, 'num_requests_waiting')}[10m]) > 1"
    yield _alert(
        target,
        "AtMaxReplicasWithQueue",
        "warning",
        f"{queue}\nand min_over_time({replicas}[5m]) >= {target.max_replicas}",
        "5m",
        f"{{{{ $value | humanize }}}} requests wait although all {target.max_replicas} replicas run",
        "The load needs more than maxReplicas. First tokens come later the longer the queue is.",
    )
    if target.max_replicas > target.min_replicas:
        yield _alert(
            target,
            "ScalerNotReacting",
            "warning",
            f"{queue}\nand max_over_time({replicas}[5m]) < {target.max_replicas}\n"
            # A scaler that adds one after the other, each of which loads for minutes, does react.
            f"and max_over_time({replicas}[5m]) <= max_over_time({replicas}[5m] offset 10m)",
            "20m",
            f"{{{{ $value | humanize }}}} requests wait, and fewer than {target.max_replicas} replicas run",
            "None was added for half an hour, which is more than a new replica needs to start. No GPU is "
            "free, the quota is used up, the new replica does not get ready, or the scaler does not see the "
            "load.",
        )
    if target.min_replicas > 0:
        yield _alert(
            target,
            "BelowMinReplicas",
            "warning",
            f"max_over_time({replicas}[5m]) < {target.min_replicas}",
            "10m",
            f"{{{{ $value }}}} replicas are ready, {target.min_replicas} should be",
            "For 15 minutes a replica has been missing: it cannot start, or no GPU is free.",
        )
    if target.max_replicas > max(target.min_replicas, 1):
        most = f"max_over_time({_fleet(target, 'num_requests_running')}[15m])"
        spare, needless = f"{most} == 0", "none has had a request for an hour"
        if target.running_target is not None:
            fits = f"0.8 * {target.running_target:g} * (min_over_time({replicas}[15m]) - 1)"
            spare, needless = f"{most} <= {fits}", "one fewer would have been enough for an hour"
        yield _alert(
            target,
            "IdleReplicas",
            "info",
            f"min_over_time({replicas}[15m]) > {max(target.min_replicas, 1)}\nand {spare}",
            "1h",
            f"{{{{ $value }}}} replicas{_price(target)} run, and {needless}",
            "The most requests of the last hour would have fitted into one replica fewer, with a fifth to "
            "spare, and still the scaler keeps all.",
        )
    yield _alert(
        target,
        "NoTraffic",
        "info",
        f"max_over_time({_fleet(target, 'generation_tokens:increase5m')}[15m]) == 0\n"
        f"and min_over_time({replicas}[15m]) > 0",
        "6h",
        f"no token has been generated for 6 hours, by replicas that cost money{_price(target)}",
        "Nobody uses the endpoint, or nobody reaches it. An app that is stopped costs nothing.",
    )


def _engine(target: Target) -> Iterator[Alert]:
    """What vLLM says of itself."""
    yield _alert(
        target,
        "KvCacheFull",
        "warning",
        f"max {_BY} (avg_over_time({_replica(target, 'vllm:kv_cache_usage_perc')}[5m])) > 0.95",
        "5m",
        "the KV cache of a replica is {{ $value | humanizePercentage }} full",
        "Requests wait for room or are preempted and computed again: answers get slow long before GPUs look "
        "busy.",
    )
    preemptions = f"sum {_BY} (increase({_replica(target, 'vllm:num_preemptions_total')}[5m]))"
    requests = f"sum {_BY} ({_fleet(target, 'requests:increase5m')})"
    yield _alert(
        target,
        "Preemptions",
        "warning",
        f"{preemptions} > 5\nand\n{preemptions} > 0.1 * {requests}",
        "10m",
        "{{ $value | humanize }} requests were preempted in 5 minutes",
        "More than one preemption for ten finished requests: the KV cache is too small for what runs at "
        "once. What was computed for a preempted request is computed again.",
    )
    # vLLM does not count what a caller aborts. But what has begun, has not ended and does not run any more
    # was given up, or died with its engine.
    begun = _half_hour(f'fleet:slo_total:increase5m{{{target.selector},slo="time_to_first_token"}}')
    ended = _half_hour(f'fleet:vllm:requests:increase5m{{{target.selector},finished_reason!="abort"}}')
    now = _fleet(target, "num_requests_running")
    lost = f"({begun} - {ended} - clamp_min({now} - {now} offset 30m, 0))"
    yield _share(
        target,
        "ManyAborts",
        "warning",
        lost,
        begun,
        0.2,
        "{{ $value | humanizePercentage }} of answers that had begun never came to their end",
        "Callers left before the answer was complete, or replicas died while they answered. Callers whose "
        "timeouts are shorter than the answers take look like this.",
    )
    yield _share(
        target,
        "TruncatedAnswers",
        "info",
        _half_hour(f'fleet:vllm:requests:increase5m{{{target.selector},finished_reason="length"}}'),
        _half_hour(_fleet(target, "requests:increase5m")),
        0.5,
        "{{ $value | humanizePercentage }} of answers were cut off",
        "Answers ended at max_tokens of the request or at the model's longest sequence and not by "
        "themselves.",
    )
    running = _replica(target, "vllm:num_requests_running")
    born = _replica(target, "vllm:generation_tokens_created")
    yield _alert(
        target,
        "RestartLoop",
        "critical",
        # One that is older than an hour, or was there an hour ago, has not died young. Scaling makes short
        # lives, too: two for each replica above the fewest are allowed.
        f"count {_BY} (\n"
        f"  count by ({ENDPOINT}, replica) (last_over_time({running}[1h]))\n"
        f"  unless on (job, replica) last_over_time({running}[2m])\n"
        f"  unless on (job, replica) last_over_time({born}[1h]) < time() - 3600\n"
        f"  unless on (job, replica) last_over_time({running}[10m] offset 1h)\n"
        f") > 2 + 2 * clamp_min(max_over_time({_fleet(target, 'replicas_seen')}[1h]) - "
        f"{target.min_replicas}, 0)",
        "1m",
        "{{ $value }} replicas came up and died within the last hour",
        "Containers start, live for less than an hour and are restarted: vLLM crashes, runs out of memory, "
        "or its liveness probe gives it up. Each restart loads the weights again.",
    )
    generated = _replica(target, "vllm:generation_tokens_total")
    answers = f"replica:http_requests_total{{{target.selector},{API_CALLS}}}"
    engine = f"by ({ENDPOINT}, replica, engine)"
    yield _alert(
        target,
        "EngineStuck",
        "critical",
        f"sum {engine} (increase({generated}[5m])) == 0\n"
        f"and sum {engine} (min_over_time({running}[5m])) >= 1\n"
        # After the last caller has left, vLLM goes on showing what ran then until somebody asks again. An
        # engine that hangs has callers whose requests end, be it in time-outs.
        f"and on (job, replica) sum by (job, replica) (increase({answers}[5m])) > 0",
        "3m",
        "an engine has requests, and has generated nothing for 5 minutes",
        "The engine hangs while its server still answers, so probes and scaler notice nothing and callers "
        "wait.",
    )
    awake = f'replica:vllm:engine_sleep_state{{{target.selector},sleep_state="awake"}}'
    yield _alert(
        target,
        "EngineAsleep",
        "warning",
        f"count {_BY} (max_over_time({awake}[5m]) == 0)",
        "5m",
        "{{ $value }} engines sleep",
        "Somebody sent an engine to sleep. It answers no request until it is woken, and its GPU costs the "
        "same.",
    )


def _prometheus(target: Target) -> Iterator[Alert]:
    """Whether what all others rely on works."""
    yield _alert(
        target,
        "PrometheusDropsSamples",
        "warning",
        # How full the volume is says nothing: at its size limit Prometheus stays for ever, right below it.
        "max(increase(prometheus_tsdb_size_retentions_total[1d])) > 0",
        "0s",
        "Prometheus drops samples before prometheusRetention is over",
        "Within the last day it deleted its oldest samples because all together reached "
        "prometheusRetentionSize. If less than seven days are left, objectives are computed of that.",
    )
    own = target.rule_groups
    yield _alert(
        target,
        "RulesFailing",
        "warning",
        f"sum by (rule_group) (increase(prometheus_rule_evaluation_failures_total{{{own}}}[10m])) > 0",
        "5m",
        'rules of the group {{ reReplaceAll ".*;" "" $labels.rule_group }} fail',
        "Panels, objectives and alerts that read these rules are wrong or silent. Prometheus' page Rules "
        "shows the error.",
    )
    yield _alert(
        target,
        "RulesLate",
        "warning",
        f"sum by (rule_group) (increase(prometheus_rule_group_iterations_missed_total{{{own}}}[10m]))\n"
        f"/ sum by (rule_group) (increase(prometheus_rule_group_iterations_total{{{own}}}[10m])) > 0.05",
        "5m",
        "{{ $value | humanizePercentage }} of the evaluations of "
        '{{ reReplaceAll ".*;" "" $labels.rule_group }} were left out',
        "Prometheus does not get done with the rules in their interval, so replicas are seen less often than "
        "the accuracy needs. It has too little CPU, or too many series.",
    )


def _half_hour(increase5m: str) -> str:
    """How many of these events the fleet had in the last half an hour."""
    return f"sum {_BY} (sum_over_time({increase5m}[30m:5m]))"


def _share(
    target: Target,
    name: str,
    severity: Severity,
    counted: str,
    total: str,
    share: float,
    summary: str,
    description: str,
) -> Alert:
    """Too many of the events of half an hour are counted."""
    return _alert(
        target,
        name,
        severity,
        # Twenty, so that a few requests of a quiet hour tell nobody anything.
        f"{counted} / {total} > {share:g}\nand\n{counted} >= 20",
        "5m",
        summary,
        description,
    )


def _fleet(target: Target, name: str) -> str:
    return f"fleet:vllm:{name}{{{target.selector}}}"


def _replica(target: Target, series: str) -> str:
    return f"replica:{series}{{{target.selector}}}"


def _replicas(target: Target) -> str:
    """How many replicas there are, as the platform says, else as many as are seen."""
    return _fleet(target, "replicas_ready" if target.platform_metrics else "replicas_seen")


def _price(target: Target) -> str:
    """What a replica costs, for a summary."""
    price = target.replica_eur_per_hour
    return "" if price is None else f" ({price:.2f} €/h each)"
