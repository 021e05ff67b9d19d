"""prometheus-operator 0.93 as a function: what it makes of custom resources and Secrets.

    configuration = prometheus_config(prometheus, cluster, secrets, pods)
    configuration.document    prometheus.yml
    configuration.rules       rule files by name
    configuration.files       mounted Secrets and TLS files, by their path below /etc/prometheus
    configuration.rejected    objects that were left out, and why

The rules follow the operator's `pkg/prometheus/promcfg.go` and `resource_selector.go`, for the Prometheus
that the sandbox runs (3.x before 3.11, so that retention is a flag and not part of the file). What differs:

- Service discovery by the Kubernetes API is replaced by its result: targets are static and carry the meta
  labels that discovery would give them, and the operator's own relabelings work on these.
- A static target of a ScrapeConfig that names a Service of the cluster is led to the pod that really serves
  it; its label `instance` stays as DNS would leave it. A Service without such a pod refuses connections.
- A ServiceMonitor whose targets do not run in the sandbox (kubelets, exporters, Grafana) gets no job, where
  the real one would have an empty or a failing target. PodMonitors and Probes get none for the same reason.
- remote_write and remote_read are left out: samples of a sandbox must not end up in a real store.
- Service discoveries other than static ones, OAuth 2 and scrape classes of a ScrapeConfig are refused by
  name.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import yaml

from sandbox.cluster.kinds import Object

Job = dict[str, Any]
SecretData = Mapping[str, bytes]
Secrets = Callable[[str, str], SecretData | None]
"""Contents of the Secret in a namespace with a name, decoded; None when there is none."""

ETC = "/etc/prometheus"
"""Where the pod has its files; the process has them elsewhere, so paths below this are to be mapped."""

_NOBODY = "127.0.0.1:1"
"""An address that refuses connections, as a Service without pods does."""


class Cluster(Protocol):
    """What the operator reads of a cluster."""

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object, or None."""
        ...

    def list(
        self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> list[Object]:
        """The objects of a kind, of all namespaces for None."""
        ...


@dataclass(frozen=True)
class Pod:
    """A pod that really serves metrics."""

    namespace: str
    name: str
    container: str
    labels: Mapping[str, str]
    ports: Mapping[str | int, str]
    """Address (`127.0.0.1:41234`) by name and by number of the container port."""


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


@dataclass(frozen=True)
class Configuration:
    """Everything that a Prometheus is given."""

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
    sources = _Sources(prometheus, cluster, secrets, pods)
    jobs: list[tuple[Object, Job]] = []
    rejected: list[Rejected] = []
    for kind, generate in (
        ("serviceMonitor", sources.service_monitor_jobs),
        ("scrapeConfig", sources.scrape_config_jobs),
    ):
        for item in _selected(prometheus, cluster, kind):
            try:
                jobs += [(item, job) for job in generate(item)]
            except _InvalidError as error:
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


def secret_data(secret: Object) -> dict[str, bytes]:
    """The decoded contents of a Secret object."""
    return {key: base64.b64decode(value) for key, value in secret.get("data", {}).items()}


class _InvalidError(ValueError):
    """One object cannot be used; the others can."""


@dataclass
class _Sources:
    """Makes jobs; keeps the TLS files that they refer to."""

    prometheus: Object
    cluster: Cluster
    secrets: Secrets
    pods: Sequence[Pod]
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
            **_copied(spec, _SCRAPE_CONFIG_FIELDS),
            **self._http(spec, namespace),
            **_copied(spec, _LIMITS),
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
            targets = list(self._targets(item, endpoint))
            if not targets:
                continue
            interval = endpoint.get("interval") or _interval(self.prometheus["spec"])
            _check_timeout(endpoint.get("scrapeTimeout"), interval, _InvalidError)
            job: Job = {
                "job_name": f"serviceMonitor/{namespace}/{metadata['name']}/{index}",
                "honor_labels": endpoint.get("honorLabels", False),
                "static_configs": targets,
                **_copied(endpoint, _ENDPOINT_FIELDS),
                **self._http(endpoint, namespace),
            }
            job["relabel_configs"] = _service_monitor_relabelings(item, endpoint, self.prometheus["spec"])
            job |= _copied(spec, _LIMITS)
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
            entry = _copied(endpoint, _ALERTMANAGER_FIELDS)
            entry["static_configs"] = list(self._behind(service)) if service else []
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
        found = {address: self._served_at(address) for address in sorted(addresses)}
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

    def _served_at(self, address: str) -> str | None:
        """Where a pod really serves `<service>[.<namespace>[.svc[.cluster.local]]]:<port>`.

        None for an address that names no Service of the cluster, or one without a selector.
        """
        named = re.fullmatch(r"([\w-]+)(?:\.([\w-]+)(?:\.svc(?:\.cluster\.local)?)?)?:(\d+)", address)
        if named is None:
            return None
        name, namespace = named[1], named[2] or self.prometheus["metadata"]["namespace"]
        service = self.cluster.get("Service", namespace, name)
        if service is None or not service["spec"].get("selector"):
            return None
        number = int(named[3])
        served = (at for _, port, at in self._pods_behind(service) if port["port"] == number)
        return next(served, _NOBODY)

    def _targets(self, monitor: Object, endpoint: Object) -> Iterator[Object]:
        spec, namespace = monitor["spec"], monitor["metadata"]["namespace"]
        chosen = spec.get("namespaceSelector", {})
        namespaces = chosen.get("matchNames") or [namespace]
        for service in self.cluster.list("Service"):
            metadata = service["metadata"]
            if not chosen.get("any") and metadata["namespace"] not in namespaces:
                continue
            if matches(spec["selector"], metadata.get("labels", {})):
                for target in self._behind(service):
                    if target["labels"]["__meta_kubernetes_endpoint_port_name"] == endpoint.get("port"):
                        yield target

    def _behind(self, service: Object) -> Iterator[Object]:
        """What discovery with the role `endpoints` finds behind a Service."""
        metadata, meta = service["metadata"], "__meta_kubernetes"
        for pod, port, address in self._pods_behind(service):
            labels = {
                f"{meta}_namespace": pod.namespace,
                f"{meta}_service_name": metadata["name"],
                f"{meta}_endpoint_port_name": port.get("name", ""),
                f"{meta}_endpoint_address_target_kind": "Pod",
                f"{meta}_endpoint_address_target_name": pod.name,
                f"{meta}_pod_name": pod.name,
                f"{meta}_pod_container_name": pod.container,
                f"{meta}_pod_phase": "Running",
            }
            for key, value in metadata.get("labels", {}).items():
                labels[f"{meta}_service_label_{_label(key)}"] = value
                labels[f"{meta}_service_labelpresent_{_label(key)}"] = "true"
            for key, value in pod.labels.items():
                labels[f"{meta}_pod_label_{_label(key)}"] = value
            yield {"targets": [address], "labels": labels}

    def _pods_behind(self, service: Object) -> Iterator[tuple[Pod, Object, str]]:
        """The pods that a Service selects, with each of its ports that they serve and where that is."""
        namespace, selector = service["metadata"]["namespace"], service["spec"].get("selector", {})
        for pod in self.pods:
            if pod.namespace == namespace and selector.items() <= pod.labels.items():
                for port in service["spec"]["ports"]:
                    address = pod.ports.get(port.get("targetPort", port["port"]))
                    if address is not None:
                        yield pod, port, address

    def _http(self, spec: Object, namespace: str) -> Object:
        """How to reach a target: scheme, proxy, credentials, TLS."""
        settings: Object = {}
        if "scheme" in spec:
            settings["scheme"] = spec["scheme"].lower()
        settings |= _copied(spec, _PROXY)
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
        settings = _copied(spec, _TLS)
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


def matches(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether labels fit a Kubernetes label selector; an empty one fits all."""
    for expression in selector.get("matchExpressions", ()):
        value, values = labels.get(expression["key"]), expression.get("values", [])
        fits = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not fits[expression["operator"]]:
            return False
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


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
    if namespaces:
        labels = {
            item["metadata"]["name"]: item["metadata"].get("labels", {}) for item in cluster.list("Namespace")
        }
        found = [item for item in found if matches(namespaces, labels.get(item["metadata"]["namespace"], {}))]
    return [item for item in found if matches(selector, item["metadata"].get("labels", {}))]


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
            **_copied(spec, _GLOBAL),
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
        _keep_label(f"__meta_kubernetes_{source}_label_{_label(name)}", _label(name))
        for source, names in (("service", spec.get("targetLabels", ())), ("pod", pod_labels))
        for name in names
    ]
    rules.append({"source_labels": [f"{service}_name"], "target_label": "job", "replacement": "${1}"})
    if "jobLabel" in spec:
        rules.append(_keep_label(f"{service}_label_{_label(spec['jobLabel'])}", "job"))
    rules.append({"target_label": "endpoint", "replacement": endpoint["port"]})
    return rules + _relabelings(endpoint.get("relabelings", ()))


def _keep_label(source: str, target: str) -> Object:
    return {"source_labels": [source], "target_label": target, "regex": "(.+)", "replacement": "${1}"}


def _relabelings(items: Sequence[Object]) -> list[Object]:
    return [
        {**_copied(item, _RELABELING), **({"action": item["action"].lower()} if item.get("action") else {})}
        for item in items
    ]


_RELABELING = {
    "sourceLabels": "source_labels",
    "separator": "separator",
    "targetLabel": "target_label",
    "regex": "regex",
    "modulus": "modulus",
    "replacement": "replacement",
}
_SCRAPE_CONFIG_FIELDS = {
    "honorTimestamps": "honor_timestamps",
    "trackTimestampsStaleness": "track_timestamps_staleness",
    "honorLabels": "honor_labels",
    "metricsPath": "metrics_path",
    "params": "params",
    "enableCompression": "enable_compression",
    "enableHTTP2": "enable_http2",
    "scrapeInterval": "scrape_interval",
    "scrapeTimeout": "scrape_timeout",
    "scrapeProtocols": "scrape_protocols",
    "fallbackScrapeProtocol": "fallback_scrape_protocol",
}
_ENDPOINT_FIELDS = {
    "honorTimestamps": "honor_timestamps",
    "trackTimestampsStaleness": "track_timestamps_staleness",
    "interval": "scrape_interval",
    "scrapeTimeout": "scrape_timeout",
    "path": "metrics_path",
    "params": "params",
    "followRedirects": "follow_redirects",
    "enableHttp2": "enable_http2",
}
_LIMITS = {
    "sampleLimit": "sample_limit",
    "targetLimit": "target_limit",
    "labelLimit": "label_limit",
    "labelNameLengthLimit": "label_name_length_limit",
    "labelValueLengthLimit": "label_value_length_limit",
    "keepDroppedTargets": "keep_dropped_targets",
    "scrapeNativeHistograms": "scrape_native_histograms",
    "nativeHistogramBucketLimit": "native_histogram_bucket_limit",
    "nativeHistogramMinBucketFactor": "native_histogram_min_bucket_factor",
    "scrapeClassicHistograms": "always_scrape_classic_histograms",
    "convertClassicHistogramsToNHCB": "convert_classic_histograms_to_nhcb",
    "bodySizeLimit": "body_size_limit",
}
_GLOBAL = {
    "scrapeTimeout": "scrape_timeout",
    "scrapeProtocols": "scrape_protocols",
    "ruleQueryOffset": "rule_query_offset",
    "bodySizeLimit": "body_size_limit",
    "sampleLimit": "sample_limit",
    "targetLimit": "target_limit",
    "labelLimit": "label_limit",
    "labelNameLengthLimit": "label_name_length_limit",
    "labelValueLengthLimit": "label_value_length_limit",
    "keepDroppedTargets": "keep_dropped_targets",
    "scrapeNativeHistograms": "scrape_native_histograms",
    "scrapeClassicHistograms": "always_scrape_classic_histograms",
    "convertClassicHistogramsToNHCB": "convert_classic_histograms_to_nhcb",
}
_PROXY = {
    "proxyUrl": "proxy_url",
    "noProxy": "no_proxy",
    "proxyFromEnvironment": "proxy_from_environment",
}
_TLS = {
    "insecureSkipVerify": "insecure_skip_verify",
    "serverName": "server_name",
    "minVersion": "min_version",
    "maxVersion": "max_version",
    "caFile": "ca_file",
    "certFile": "cert_file",
    "keyFile": "key_file",
}
_ALERTMANAGER_FIELDS = {
    "scheme": "scheme",
    "pathPrefix": "path_prefix",
    "timeout": "timeout",
    "enableHttp2": "enable_http2",
    "apiVersion": "api_version",
}


def _copied(spec: Object, names: Mapping[str, str]) -> Object:
    """Fields of a specification under Prometheus' names."""
    return {option: spec[name] for name, option in names.items() if name in spec}


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
    if timeout and _milliseconds(timeout) > _milliseconds(interval):
        raise error(f'scrapeTimeout "{timeout}" greater than scrapeInterval "{interval}"')


def _milliseconds(duration: str) -> int:
    """A duration of Prometheus, such as `1h30m` or `500ms`."""
    units = {"y": 31536000000, "w": 604800000, "d": 86400000, "h": 3600000, "m": 60000, "s": 1000, "ms": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)(ms|[ywdhms])", duration))


def _label(name: str) -> str:
    """A label name as Prometheus' discovery spells it."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


def _identity(item: Object) -> tuple[str, str, str]:
    metadata = item["metadata"]
    return item["kind"], metadata["namespace"], metadata["name"]
