"""prometheus-operator 0.93 as a function: what it makes of custom resources and Secrets.

    configuration = prometheus_config(prometheus, cluster, secrets, pods)
    configuration.document    prometheus.yml
    configuration.rules       rule files by name
    configuration.files       mounted Secrets and TLS files, by their path below /etc/prometheus
    configuration.rejected    objects that were left out, and why

The rules follow the operator's `pkg/prometheus/promcfg.go` and `resource_selector.go`, for the Prometheus
that the sandbox runs (3.x before 3.11, so that retention is a flag and not part of the file). What differs:

- Service discovery by the Kubernetes API is replaced by its result (`sandbox.cluster.discovery`): targets
  are static and carry the meta labels that discovery would give them, and the operator's own relabelings
  work on these.
- A static target of a ScrapeConfig that names a Service of the cluster is led to the pod that really serves
  it; its label `instance` stays as DNS would leave it. A Service without such a pod refuses connections.
- A ServiceMonitor whose targets do not run in the sandbox (kubelets, exporters, Grafana) gets no job, where
  the real one would have an empty or a failing target. PodMonitors and Probes get none for the same reason.
- remote_write and remote_read are left out: samples of a sandbox must not end up in a real store.
- Service discoveries other than static ones, OAuth 2 and scrape classes of a ScrapeConfig are refused by
  name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from sandbox.cluster import options
from sandbox.cluster.discovery import Cluster, Discovery, Pod, label_name
from sandbox.cluster.kinds import Object
from sandbox.cluster.quantities import seconds
from sandbox.cluster.selectors import SelectorError, matches

Job = dict[str, Any]
SecretData = Mapping[str, bytes]
Secrets = Callable[[str, str], SecretData | None]
"""Contents of the Secret in a namespace with a name, decoded; None when there is none."""

ETC = "/etc/prometheus"
"""Where the pod has its files; the process has them elsewhere, so paths below this are to be mapped."""


@dataclass(frozen=True)
class Rejected:
    """An object that the operator leaves out of the configuration."""

    object: Object
    reason: str

    @property
    def message(self) -> str:
        """Text of the operator's event."""
        metadata = self.object["metadata"]
        name = f"{metadata['namespace']}/{metadata['name']}"
        return f'"{name}" was rejected due to invalid configuration: {self.reason}'


@dataclass(frozen=True, repr=False)
class Configuration:
    """Everything that a Prometheus is given; tokens are in it, so its text form shows nothing."""

    base: Object
    """prometheus.yml without its jobs."""
    jobs: tuple[tuple[Object, Job], ...]
    """Each generated job with the object it comes from."""
    additional: tuple[Job, ...]
    """Jobs of additionalScrapeConfigs, as they were written."""
    rules: Mapping[str, str]
    """Rule files: name to contents."""
    rule_sources: Mapping[str, Object]
    """The PrometheusRule of each rule file."""
    files: Mapping[str, bytes]
    """Other files, by their path below /etc/prometheus."""
    rejected: tuple[Rejected, ...]

    @property
    def document(self) -> Object:
        """prometheus.yml."""
        jobs = [*(job for _, job in self.jobs), *self.additional]
        return {**self.base, "scrape_configs": jobs}

    def without(self, rejected: Sequence[Rejected]) -> Configuration:
        """The same without some objects, which Prometheus itself refused."""
        out = [_identity(item.object) for item in rejected]
        kept = {
            name: text for name, text in self.rules.items() if _identity(self.rule_sources[name]) not in out
        }
        return Configuration(
            self.base,
            tuple((source, job) for source, job in self.jobs if _identity(source) not in out),
            self.additional,
            kept,
            self.rule_sources,
            self.files,
            (*self.rejected, *rejected),
        )


class OperatorError(ValueError):
    """No configuration can be made for the custom resource; the old one stays."""


def prometheus_config(
    prometheus: Object, cluster: Cluster, secrets: Secrets, pods: Sequence[Pod]
) -> Configuration:
    """The configuration of a Prometheus resource.

    Raises OperatorError when the resource itself, or its additional scrape configs, cannot be used; a bad
    ScrapeConfig or ServiceMonitor is rejected alone.
    """
    spec, namespace = prometheus["spec"], prometheus["metadata"]["namespace"]
    _check_timeout(spec.get("scrapeTimeout"), _interval(spec), OperatorError)
    sources = _Sources(prometheus, cluster, secrets, Discovery(cluster, pods))
    jobs: list[tuple[Object, Job]] = []
    rejected: list[Rejected] = []
    for kind, generate in (
        ("serviceMonitor", sources.service_monitor_jobs),
        ("scrapeConfig", sources.scrape_config_jobs),
    ):
        for item in _selected(prometheus, cluster, kind):
            try:
                jobs += [(item, job) for job in generate(item)]
            except (_InvalidError, SelectorError) as error:
                rejected.append(Rejected(item, str(error)))
    mounted = {
        f"secrets/{name}/{key}": data
        for name in spec.get("secrets", ())
        for key, data in (secrets(namespace, name) or {}).items()
    }
    rules = {_rule_file(item): item for item in _selected(prometheus, cluster, "rule")}
    return Configuration(
        base=_base(prometheus, sources),
        jobs=tuple(jobs),
        additional=tuple(_additional_jobs(prometheus, secrets)),
        rules={name: _rule_text(item) for name, item in rules.items()},
        rule_sources=rules,
        files={**mounted, **sources.tls_files},
        rejected=tuple(rejected),
    )


def prometheus_arguments(prometheus: Object) -> list[str]:
    """Flags that the operator derives from the resource, without paths and addresses."""
    spec = prometheus["spec"]
    retention = spec.get("retention", "" if spec.get("retentionSize") else "24h")
    values = {
        "web.external-url": spec.get("externalUrl"),
        "web.route-prefix": spec.get("routePrefix") or "/",
        "storage.tsdb.retention.time": retention,
        "storage.tsdb.retention.size": spec.get("retentionSize"),
        "enable-feature": ",".join(spec.get("enableFeatures", ())),
        "log.level": spec.get("logLevel"),
        "log.format": spec.get("logFormat"),
    }
    switches = {
        "web.enable-remote-write-receiver": spec.get("enableRemoteWriteReceiver"),
        "web.enable-otlp-receiver": spec.get("enableOTLPReceiver"),
        "web.enable-admin-api": spec.get("enableAdminAPI"),
        "no-storage.tsdb.wal-compression": spec.get("walCompression") is False,
    }
    return [
        "--web.enable-lifecycle",
        *(f"--{flag}={value}" for flag, value in values.items() if value),
        *(f"--{flag}" for flag, value in switches.items() if value),
        *(
            f"--{argument['name']}" + (f"={argument['value']}" if argument.get("value") else "")
            for argument in spec.get("additionalArgs", ())
        ),
    ]


def alertmanager_files(alertmanager: Object, secrets: Secrets) -> dict[str, bytes]:
    """Files of an Alertmanager below /etc/alertmanager: `config/…` (with alertmanager.yaml) and `secrets/…`.

    Without its Secret the operator makes a configuration that sends nothing anywhere.
    """
    spec, metadata = alertmanager["spec"], alertmanager["metadata"]
    namespace = metadata["namespace"]
    name = spec.get("configSecret") or f"alertmanager-{metadata['name']}"
    nothing = {"route": {"receiver": "null"}, "receivers": [{"name": "null"}]}
    files = {"config/alertmanager.yaml": yaml.safe_dump(nothing).encode()}
    files |= {f"config/{key}": data for key, data in (secrets(namespace, name) or {}).items()}
    for mounted in spec.get("secrets", ()):
        for key, data in (secrets(namespace, mounted) or {}).items():
            files[f"secrets/{mounted}/{key}"] = data
    return files


def alertmanager_arguments(alertmanager: Object) -> list[str]:
    """Flags that the operator derives from the resource, without paths and addresses; one replica."""
    spec = alertmanager["spec"]
    values = {
        "data.retention": spec.get("retention"),
        "web.external-url": spec.get("externalUrl"),
        "web.route-prefix": spec.get("routePrefix") or "/",
        "log.level": spec.get("logLevel"),
        "log.format": spec.get("logFormat"),
        "enable-feature": ",".join(spec.get("enableFeatures", ())),
    }
    return ["--cluster.listen-address=", *(f"--{flag}={value}" for flag, value in values.items() if value)]


class _InvalidError(ValueError):
    """One object cannot be used; the others can."""


@dataclass
class _Sources:
    """Makes jobs; keeps the TLS files that they refer to."""

    prometheus: Object
    cluster: Cluster
    secrets: Secrets
    discovery: Discovery
    tls_files: dict[str, bytes] = field(default_factory=dict)

    def scrape_config_jobs(self, item: Object) -> Iterator[Job]:
        """The job of a ScrapeConfig."""
        spec, metadata = item["spec"], item["metadata"]
        namespace = metadata["namespace"]
        unknown = sorted(
            name
            for name in spec
            if name.endswith("SDConfigs") or name in ("oauth2", "scrapeClass", "proxyConnectHeader")
        )
        if unknown:
            raise _InvalidError(f"{', '.join(unknown)}: not implemented in the sandbox's operator")
        interval = spec.get("scrapeInterval") or _interval(self.prometheus["spec"])
        _check_timeout(spec.get("scrapeTimeout"), interval, _InvalidError)
        relabelings: list[Object] = [{"source_labels": ["job"], "target_label": "__tmp_prometheus_job_name"}]
        if "jobName" in spec:
            relabelings.append({"target_label": "job", "action": "replace", "replacement": spec["jobName"]})
        relabelings += _relabelings(spec.get("relabelings", ()))
        job: Job = {
            "job_name": f"scrapeConfig/{namespace}/{metadata['name']}",
            **options.copied(spec, options.SCRAPE_CONFIG_FIELDS),
            **self._http(spec, namespace),
            **options.copied(spec, options.LIMITS),
        }
        if static := spec.get("staticConfigs"):
            job["static_configs"] = [
                {"targets": entry["targets"], "labels": dict(sorted(entry.get("labels", {}).items()))}
                for entry in static
            ]
        job["relabel_configs"] = [*relabelings, *self._by_name(job.get("static_configs", ()), relabelings)]
        if metric_relabelings := spec.get("metricRelabelings"):
            job["metric_relabel_configs"] = _relabelings(metric_relabelings)
        yield job | _names(spec)

    def service_monitor_jobs(self, item: Object) -> Iterator[Job]:
        """The jobs of a ServiceMonitor's endpoints, as far as their targets run."""
        spec, metadata = item["spec"], item["metadata"]
        namespace = metadata["namespace"]
        for index, endpoint in enumerate(spec["endpoints"]):
            targets = list(self.discovery.targets(item, endpoint))
            if not targets:
                continue
            interval = endpoint.get("interval") or _interval(self.prometheus["spec"])
            _check_timeout(endpoint.get("scrapeTimeout"), interval, _InvalidError)
            job: Job = {
                "job_name": f"serviceMonitor/{namespace}/{metadata['name']}/{index}",
                "honor_labels": endpoint.get("honorLabels", False),
                "static_configs": targets,
                **options.copied(endpoint, options.ENDPOINT_FIELDS),
                **self._http(endpoint, namespace),
            }
            job["relabel_configs"] = _service_monitor_relabelings(item, endpoint, self.prometheus["spec"])
            job |= options.copied(spec, options.LIMITS)
            if metric_relabelings := endpoint.get("metricRelabelings"):
                job["metric_relabel_configs"] = _relabelings(metric_relabelings)
            yield job

    def alertmanagers(self) -> list[Object]:
        """The section `alertmanagers`: the pods behind the Services that the resource names."""
        found = []
        for endpoint in self.prometheus["spec"].get("alerting", {}).get("alertmanagers", ()):
            namespace = endpoint.get("namespace", self.prometheus["metadata"]["namespace"])
            service = self.cluster.get("Service", namespace, endpoint["name"])
            port = "__meta_kubernetes_endpoint_port_name"
            entry = options.copied(endpoint, options.ALERTMANAGER_FIELDS)
            entry["static_configs"] = list(self.discovery.behind(service)) if service else []
            entry["relabel_configs"] = [
                {
                    "action": "keep",
                    "source_labels": ["__meta_kubernetes_service_name"],
                    "regex": endpoint["name"],
                },
                {"action": "keep", "source_labels": [port], "regex": str(endpoint["port"])},
                *_relabelings(endpoint.get("relabelings", ())),
            ]
            found.append(entry)
        return found

    def _by_name(self, static: Sequence[Object], relabelings: Sequence[Object]) -> Iterator[Object]:
        """Relabelings that do what DNS and Services do for the addresses that a job may end up with."""
        addresses = {target for entry in static for target in entry["targets"]}
        addresses |= {str(item["replacement"]) for item in relabelings if "replacement" in item}
        namespace = self.prometheus["metadata"]["namespace"]
        found = {address: self.discovery.served_at(address, namespace) for address in sorted(addresses)}
        real = {address: served for address, served in found.items() if served is not None}
        if real:
            yield {
                "source_labels": ["instance", "__address__"],
                "regex": ";(.+)",
                "target_label": "instance",
                "replacement": "${1}",
            }
        for address, served in real.items():
            yield {
                "source_labels": ["__address__"],
                "regex": re.escape(address),
                "target_label": "__address__",
                "replacement": served,
            }

    def _http(self, spec: Object, namespace: str) -> Object:
        """How to reach a target: scheme, proxy, credentials, TLS."""
        settings: Object = {}
        if "scheme" in spec:
            settings["scheme"] = spec["scheme"].lower()
        settings |= options.copied(spec, options.PROXY)
        if basic := spec.get("basicAuth"):
            settings["basic_auth"] = {
                part: self._secret_text(namespace, basic[part], f"basicAuth: failed to get basic auth {part}")
                for part in ("username", "password")
            }
        if authorization := spec.get("authorization"):
            kind = authorization.get("type", "").strip() or "Bearer"
            settings["authorization"] = {"type": kind}
            if credentials := authorization.get("credentials"):
                what = f'authorization: failed to get authorization token of type "{kind}"'
                settings["authorization"]["credentials"] = self._secret_text(namespace, credentials, what)
        if "bearerTokenFile" in spec:
            settings["bearer_token_file"] = spec["bearerTokenFile"]
        if "tlsConfig" in spec:
            settings["tls_config"] = self._tls(spec["tlsConfig"], namespace)
        return settings

    def _tls(self, spec: Object, namespace: str) -> Object:
        settings = options.copied(spec, options.TLS)
        for name, option in (("ca", "ca_file"), ("cert", "cert_file")):
            if source := spec.get(name):
                settings[option] = self._tls_file(namespace, source, name)
        if key := spec.get("keySecret"):
            settings["key_file"] = self._tls_file(namespace, {"secret": key}, "keySecret")
        return settings

    def _tls_file(self, namespace: str, source: Object, field_name: str) -> str:
        what = f"tlsConfig: {field_name}"
        if "secret" in source:
            kind, reference = 0, source["secret"]
            data = self._secret_key(namespace, reference, what)
        else:
            kind, reference = 1, source["configMap"]
            found = self.cluster.get("ConfigMap", namespace, reference["name"])
            data = ((found or {}).get("data", {}).get(reference["key"]) or "").encode()
            if not data:
                where = f'key "{reference["key"]}" in configmap "{reference["name"]}" not found'
                raise _InvalidError(f"{what}: {where}")
        path = f"certs/{kind}_{namespace}_{reference['name']}_{reference['key']}"
        self.tls_files[path] = data
        return f"{ETC}/{path}"

    def _secret_text(self, namespace: str, reference: Object, what: str) -> str:
        return self._secret_key(namespace, reference, what).decode(errors="replace")

    def _secret_key(self, namespace: str, reference: Object, what: str) -> bytes:
        name, key = reference.get("name", ""), reference["key"]
        data = self.secrets(namespace, name)
        if data is None:
            raise _InvalidError(f'{what}: unable to get secret "{name}": secrets "{name}" not found')
        if key not in data:
            raise _InvalidError(f'{what}: key "{key}" in secret "{name}" not found')
        return data[key]


_SELECTED = {"serviceMonitor": "ServiceMonitor", "scrapeConfig": "ScrapeConfig", "rule": "PrometheusRule"}


def _selected(prometheus: Object, cluster: Cluster, kind: str) -> list[Object]:
    """Objects that the resource's selectors choose: none without a selector, all for an empty one.

    Without a namespace selector only the resource's own namespace counts.
    """
    spec, own = prometheus["spec"], prometheus["metadata"]["namespace"]
    selector, namespaces = spec.get(f"{kind}Selector"), spec.get(f"{kind}NamespaceSelector")
    if selector is None:
        return []
    found = cluster.list(_SELECTED[kind], own if namespaces is None else None)
    labels = {
        item["metadata"]["name"]: item["metadata"].get("labels", {}) for item in cluster.list("Namespace")
    }
    try:
        return [
            item
            for item in found
            if matches(namespaces or {}, labels.get(item["metadata"]["namespace"], {}))
            and matches(selector, item["metadata"].get("labels", {}))
        ]
    except SelectorError as error:
        raise OperatorError(f"{kind}Selector or {kind}NamespaceSelector: {error}") from error


def _base(prometheus: Object, sources: _Sources) -> Object:
    spec, metadata = prometheus["spec"], prometheus["metadata"]
    reserved = {
        spec.get("prometheusExternalLabelName", "prometheus"): f"{metadata['namespace']}/{metadata['name']}",
        spec.get("replicaExternalLabelName", "prometheus_replica"): f"prometheus-{metadata['name']}-0",
    }
    labels = {**spec.get("externalLabels", {}), **{key: value for key, value in reserved.items() if key}}
    base: Object = {
        "global": {
            "scrape_interval": _interval(spec),
            "external_labels": dict(sorted(labels.items())),
            "evaluation_interval": spec.get("evaluationInterval") or "30s",
            **options.copied(spec, options.GLOBAL),
        }
    }
    if spec.get("ruleSelector") is not None:
        base["rule_files"] = [f"{ETC}/rules/*.yaml"]
    window = spec.get("tsdb", {}).get("outOfOrderTimeWindow")
    if window:
        base["storage"] = {"tsdb": {"out_of_order_time_window": window}}
    if "alerting" in spec:
        replica = spec.get("replicaExternalLabelName", "prometheus_replica")
        drop = [{"action": "labeldrop", "regex": re.escape(replica)}] if replica else []
        base["alerting"] = {"alert_relabel_configs": drop, "alertmanagers": sources.alertmanagers()}
    return base


def _additional_jobs(prometheus: Object, secrets: Secrets) -> list[Job]:
    reference = prometheus["spec"].get("additionalScrapeConfigs")
    if reference is None:
        return []
    name, key = reference["name"], reference["key"]
    data = (secrets(prometheus["metadata"]["namespace"], name) or {}).get(key)
    if data is None:
        raise OperatorError(f'loading additional scrape configs from Secret failed: key "{key}" of "{name}"')
    try:
        jobs = yaml.safe_load(data)
    except yaml.YAMLError:
        jobs = None  # the parser's message may quote a credential
    if not isinstance(jobs, list) or not all(isinstance(job, dict) for job in jobs):
        raise OperatorError(
            "generate additional scrape configs: unmarshalling additional scrape configs failed"
        )
    return jobs


def _rule_file(item: Object) -> str:
    metadata = item["metadata"]
    return f"{metadata['namespace']}-{metadata['name']}-{metadata['uid']}.yaml"


def _rule_text(item: Object) -> str:
    """A PrometheusRule's groups as a rule file; empty durations and Thanos' field are left out."""
    groups = []
    for group in item["spec"].get("groups", ()):
        fields = {
            key: value
            for key, value in group.items()
            if key != "partial_response_strategy" and (value or key == "rules")
        }
        fields["rules"] = [
            {key: value for key, value in rule.items() if value or key != "for"}
            for rule in group.get("rules", ())
        ]
        groups.append(fields)
    return yaml.safe_dump({"groups": groups}, sort_keys=False)


def _service_monitor_relabelings(monitor: Object, endpoint: Object, prometheus: Object) -> list[Object]:
    """The relabelings from meta labels to job, namespace, service, pod, container and endpoint."""
    spec = monitor["spec"]
    service = "__meta_kubernetes_service"
    rules: list[Object] = [{"source_labels": ["job"], "target_label": "__tmp_prometheus_job_name"}]
    target = [
        "__meta_kubernetes_endpoint_address_target_kind",
        "__meta_kubernetes_endpoint_address_target_name",
    ]
    rules += [
        {
            "source_labels": [*target],
            "separator": ";",
            "regex": f"{kind};(.*)",
            "replacement": "${1}",
            "target_label": kind.lower(),
        }
        for kind in ("Node", "Pod")
    ]
    for source, label in (
        ("namespace", "namespace"),
        ("service_name", "service"),
        ("pod_name", "pod"),
        ("pod_container_name", "container"),
    ):
        rules.append({"source_labels": [f"__meta_kubernetes_{source}"], "target_label": label})
    if endpoint.get("filterRunning", True):
        phase = "__meta_kubernetes_pod_phase"
        rules.append({"action": "drop", "source_labels": [phase], "regex": "(Failed|Succeeded)"})
    pod_labels = [*spec.get("podTargetLabels", ()), *prometheus.get("podTargetLabels", ())]
    rules += [
        _keep_label(f"__meta_kubernetes_{source}_label_{label_name(name)}", label_name(name))
        for source, names in (("service", spec.get("targetLabels", ())), ("pod", pod_labels))
        for name in names
    ]
    rules.append({"source_labels": [f"{service}_name"], "target_label": "job", "replacement": "${1}"})
    if "jobLabel" in spec:
        rules.append(_keep_label(f"{service}_label_{label_name(spec['jobLabel'])}", "job"))
    rules.append({"target_label": "endpoint", "replacement": endpoint["port"]})
    return rules + _relabelings(endpoint.get("relabelings", ()))


def _keep_label(source: str, target: str) -> Object:
    return {"source_labels": [source], "target_label": target, "regex": "(.+)", "replacement": "${1}"}


def _relabelings(items: Sequence[Object]) -> list[Object]:
    return [
        {
            **options.copied(item, options.RELABELING),
            **({"action": item["action"].lower()} if item.get("action") else {}),
        }
        for item in items
    ]


def _names(spec: Object) -> Object:
    escaping = {
        "AllowUTF8": "allow-utf-8",
        "Underscores": "underscores",
        "Dots": "dots",
        "Values": "values",
    }
    settings: Object = {}
    if "nameValidationScheme" in spec:
        settings["metric_name_validation_scheme"] = spec["nameValidationScheme"].lower()
    if "nameEscapingScheme" in spec:
        settings["metric_name_escaping_scheme"] = escaping[spec["nameEscapingScheme"]]
    return settings


def _interval(spec: Object) -> str:
    return str(spec.get("scrapeInterval") or "30s")


def _check_timeout(timeout: str | None, interval: str, error: type[ValueError]) -> None:
    if timeout and seconds(timeout) > seconds(interval):
        raise error(f'scrapeTimeout "{timeout}" greater than scrapeInterval "{interval}"')


def _identity(item: Object) -> tuple[str, str, str]:
    metadata = item["metadata"]
    return item["kind"], metadata["namespace"], metadata["name"]
