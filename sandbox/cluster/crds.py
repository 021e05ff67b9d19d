"""CustomResourceDefinitions of monitoring.coreos.com, as the chart installs them (prometheus-operator 0.93).

The schemas hold the operator's field names, so that an unknown field is refused. Fields that the sandbox acts
on have their types, patterns and allowed values; the others take anything. Descriptions are left out.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from sandbox.cluster.kinds import Object

GROUP = "monitoring.coreos.com"

DURATION = r"^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$"
"""Prometheus durations, the operator's pattern."""
_GO_DURATION = r"^(0|(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$"
_BYTE_SIZE = r"(^0|([0-9]*[.])?[0-9]+((K|M|G|T|E|P)i?)?B)$"

Schema = dict[str, Any]


def _string(**rules: Any) -> Schema:
    return {"type": "string", **rules}


def _enum(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def _list(items: Schema, **rules: Any) -> Schema:
    return {"type": "array", "items": items, **rules}


def _map(values: Schema, **rules: Any) -> Schema:
    return {"type": "object", "additionalProperties": values, **rules}


def _object(properties: Mapping[str, Schema], required: Sequence[str] = (), **rules: Any) -> Schema:
    schema: Schema = {"type": "object", "properties": dict(properties), **rules}
    return schema | {"required": list(required)} if required else schema


def _free(*names: str) -> dict[str, Schema]:
    return {name: {"x-kubernetes-preserve-unknown-fields": True} for name in names}


def _each(schema: Schema, *names: str) -> dict[str, Schema]:
    return dict.fromkeys(names, schema)


_TEXT = _string()
_INTEGER: Schema = {"type": "integer", "format": "int64"}
_LIMIT: Schema = {"type": "integer", "format": "int64", "minimum": 0}
_BOOLEAN: Schema = {"type": "boolean"}
_INT_OR_STRING: Schema = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "x-kubernetes-int-or-string": True,
}
_TIME = _string(pattern=DURATION)
_LABELS = _map(_TEXT)
_SECRET_KEY = _object(
    {"name": _TEXT, "key": _TEXT, "optional": _BOOLEAN}, ["key"], **{"x-kubernetes-map-type": "atomic"}
)
_SELECTOR = _object(
    {
        "matchLabels": _LABELS,
        "matchExpressions": _list(
            _object({"key": _TEXT, "operator": _TEXT, "values": _list(_TEXT)}, ["key", "operator"])
        ),
    },
    **{"x-kubernetes-map-type": "atomic"},
)
_NAMESPACES = _object({"any": _BOOLEAN, "matchNames": _list(_TEXT)})
_SECRET_OR_CONFIG_MAP = _object({"secret": _SECRET_KEY, "configMap": _SECRET_KEY})
_TLS_VERSION = _enum("TLS10", "TLS11", "TLS12", "TLS13")
_TLS_FIELDS = {
    "ca": _SECRET_OR_CONFIG_MAP,
    "cert": _SECRET_OR_CONFIG_MAP,
    "keySecret": _SECRET_KEY,
    "serverName": _TEXT,
    "insecureSkipVerify": _BOOLEAN,
    "minVersion": _TLS_VERSION,
    "maxVersion": _TLS_VERSION,
}
_SAFE_TLS = _object(_TLS_FIELDS)
_TLS = _object(_TLS_FIELDS | _each(_TEXT, "caFile", "certFile", "keyFile"))
_AUTHORIZATION = _object({"type": _TEXT, "credentials": _SECRET_KEY})
_BASIC_AUTH = _object({"username": _SECRET_KEY, "password": _SECRET_KEY})
_OAUTH2 = _object(
    {
        "clientId": _SECRET_OR_CONFIG_MAP,
        "clientSecret": _SECRET_KEY,
        "tokenUrl": _string(minLength=1),
        "scopes": _list(_TEXT),
        "endpointParams": _LABELS,
        "tlsConfig": _SAFE_TLS,
        **_free("proxyUrl", "noProxy", "proxyFromEnvironment", "proxyConnectHeader"),
    },
    ["clientId", "clientSecret", "tokenUrl"],
)
_AUTHENTICATION = {"authorization": _AUTHORIZATION, "basicAuth": _BASIC_AUTH, "oauth2": _OAUTH2}
_ACTIONS = (
    "replace",
    "keep",
    "drop",
    "hashmod",
    "labelmap",
    "labeldrop",
    "labelkeep",
    "lowercase",
    "uppercase",
    "keepequal",
    "dropequal",
)
_CAPITALIZED = {
    "hashmod": "HashMod",
    "labelmap": "LabelMap",
    "labeldrop": "LabelDrop",
    "labelkeep": "LabelKeep",
    "keepequal": "KeepEqual",
    "dropequal": "DropEqual",
}
_RELABELINGS = _list(
    _object(
        {
            "action": _enum(
                *_ACTIONS, *(_CAPITALIZED.get(action, action.capitalize()) for action in _ACTIONS)
            )
            | {"default": "replace"},
            "sourceLabels": _list(_TEXT),
            "targetLabel": _TEXT,
            "regex": _TEXT,
            "replacement": _TEXT,
            "separator": _TEXT,
            "modulus": _INTEGER,
        }
    )
)
_PROTOCOL = _enum(
    "PrometheusProto",
    "OpenMetricsText0.0.1",
    "OpenMetricsText1.0.0",
    "PrometheusText0.0.4",
    "PrometheusText1.0.0",
)
_PROTOCOLS = _list(_PROTOCOL, minItems=1, **{"x-kubernetes-list-type": "set"})
_LIMITS = _each(
    _LIMIT,
    "sampleLimit",
    "targetLimit",
    "labelLimit",
    "labelNameLengthLimit",
    "labelValueLengthLimit",
    "keepDroppedTargets",
)
_SCRAPE_LIMITS = _LIMITS | {
    "scrapeProtocols": _PROTOCOLS,
    "fallbackScrapeProtocol": _PROTOCOL,
    "scrapeClass": _string(minLength=1),
    "nativeHistogramBucketLimit": _LIMIT,
    "nativeHistogramMinBucketFactor": _INT_OR_STRING,
    "scrapeNativeHistograms": _BOOLEAN,
    "scrapeClassicHistograms": _BOOLEAN,
    "convertClassicHistogramsToNHCB": _BOOLEAN,
}
_PROXY = _free("proxyUrl", "noProxy", "proxyFromEnvironment", "proxyConnectHeader")
_SCHEME = _enum("http", "https", "HTTP", "HTTPS")
_VOLUME_CLAIM_TEMPLATE = _object(
    {
        "apiVersion": _TEXT,
        "kind": _TEXT,
        "metadata": _object({"name": _TEXT, "labels": _LABELS, "annotations": _LABELS}),
        "spec": _object(
            {
                "accessModes": _list(_TEXT),
                "storageClassName": _TEXT,
                "volumeMode": _TEXT,
                "volumeName": _TEXT,
                "volumeAttributesClassName": _TEXT,
                "resources": _object({"requests": _map(_INT_OR_STRING), "limits": _map(_INT_OR_STRING)}),
                "selector": _SELECTOR,
                **_free("dataSource", "dataSourceRef"),
            }
        ),
        **_free("status"),
    }
)
_STORAGE = _object(
    {
        "disableMountSubPath": _BOOLEAN,
        "volumeClaimTemplate": _VOLUME_CLAIM_TEMPLATE,
        **_free("emptyDir", "ephemeral"),
    }
)
_POD_FIELDS = {
    **_each(
        _TEXT,
        "image",
        "version",
        "tag",
        "sha",
        "baseImage",
        "imagePullPolicy",
        "serviceAccountName",
        "priorityClassName",
        "schedulerName",
        "portName",
        "externalUrl",
        "routePrefix",
        "serviceName",
        "dnsPolicy",
    ),
    **_each(_BOOLEAN, "paused", "listenLocal", "hostNetwork", "hostUsers", "automountServiceAccountToken"),
    **_each(_BOOLEAN, "enableServiceLinks"),
    **_each(_list(_TEXT), "secrets", "configMaps", "enableFeatures"),
    "replicas": {"type": "integer", "format": "int32"},
    "minReadySeconds": {"type": "integer", "format": "int32", "minimum": 0},
    "terminationGracePeriodSeconds": _LIMIT,
    "logLevel": _enum("", "debug", "info", "warn", "error"),
    "logFormat": _enum("", "logfmt", "json"),
    "podManagementPolicy": _enum("OrderedReady", "Parallel"),
    "nodeSelector": _LABELS,
    "storage": _STORAGE,
    **_free(
        "podMetadata",
        "imagePullSecrets",
        "volumes",
        "volumeMounts",
        "persistentVolumeClaimRetentionPolicy",
        "web",
        "resources",
        "affinity",
        "tolerations",
        "topologySpreadConstraints",
        "securityContext",
        "dnsConfig",
        "updateStrategy",
        "containers",
        "initContainers",
        "hostAliases",
        "additionalArgs",
    ),
}


def _prometheus() -> Schema:
    selectors = [
        f"{kind}{suffix}"
        for kind in ("serviceMonitor", "podMonitor", "probe", "scrapeConfig", "rule")
        for suffix in ("Selector", "NamespaceSelector")
    ]
    return _object(
        _POD_FIELDS
        | _LIMITS
        | _each(_SELECTOR, *selectors)
        | _each(_TIME | {"default": "30s"}, "scrapeInterval", "evaluationInterval")
        | _each(_TIME, "scrapeTimeout", "retention", "ruleQueryOffset")
        | _each(_string(pattern=_BYTE_SIZE), "retentionSize", "bodySizeLimit", "enforcedBodySizeLimit")
        | _each(
            _BOOLEAN,
            "enableRemoteWriteReceiver",
            "enableOTLPReceiver",
            "enableAdminAPI",
            "disableCompaction",
            "walCompression",
            "overrideHonorLabels",
            "overrideHonorTimestamps",
            "ignoreNamespaceSelectors",
            "allowOverlappingBlocks",
            "scrapeNativeHistograms",
            "scrapeClassicHistograms",
            "convertClassicHistogramsToNHCB",
        )
        | _each(
            _LIMIT,
            "enforcedSampleLimit",
            "enforcedTargetLimit",
            "enforcedLabelLimit",
            "enforcedLabelNameLengthLimit",
            "enforcedLabelValueLengthLimit",
            "enforcedKeepDroppedTargets",
            "maximumStartupDurationSeconds",
        )
        | _each(
            _TEXT,
            "replicaExternalLabelName",
            "prometheusExternalLabelName",
            "enforcedNamespaceLabel",
            "queryLogFile",
            "scrapeFailureLogFile",
            "nameEscapingScheme",
        )
        | {
            "shards": {"type": "integer", "format": "int32"},
            "externalLabels": _LABELS,
            "scrapeProtocols": _PROTOCOLS,
            "nameValidationScheme": _enum("UTF8", "Legacy"),
            "reloadStrategy": _enum("HTTP", "ProcessSignal"),
            "serviceDiscoveryRole": _enum("Endpoints", "EndpointSlice"),
            "podTargetLabels": _list(_TEXT),
            "additionalScrapeConfigs": _SECRET_KEY,
            "additionalAlertRelabelConfigs": _SECRET_KEY,
            "additionalAlertManagerConfigs": _SECRET_KEY,
            "alerting": _object(
                {
                    "alertmanagers": _list(
                        _object(
                            {
                                "name": _string(minLength=1),
                                "namespace": _TEXT,
                                "port": _INT_OR_STRING,
                                "scheme": _SCHEME,
                                "pathPrefix": _TEXT,
                                "apiVersion": _enum("v1", "V1", "v2", "V2"),
                                "timeout": _TIME,
                                "enableHttp2": _BOOLEAN,
                                "tlsConfig": _TLS,
                                "relabelings": _RELABELINGS,
                                "alertRelabelings": _RELABELINGS,
                                "bearerTokenFile": _TEXT,
                                **_free("authorization", "basicAuth", "sigv4"),
                                **_PROXY,
                            },
                            ["name", "port"],
                        )
                    )
                },
                ["alertmanagers"],
            ),
        }
        | _free(
            "remoteWrite",
            "remoteWriteReceiverMessageVersions",
            "remoteRead",
            "otlp",
            "apiserverConfig",
            "arbitraryFSAccessThroughSMs",
            "excludedFromEnforcement",
            "prometheusRulesExcludedFromEnforce",
            "tracingConfig",
            "scrapeClasses",
            "shardRetentionPolicy",
            "shardingStrategy",
            "tsdb",
            "runtime",
            "rules",
            "query",
            "exemplars",
            "thanos",
        )
    )


def _alertmanager() -> Schema:
    return _object(
        _POD_FIELDS
        | {
            "configSecret": _TEXT,
            "retention": _string(pattern=_GO_DURATION, default="120h"),
            "additionalPeers": _list(_TEXT),
            "clusterLabel": _TEXT,
            "clusterAdvertiseAddress": _TEXT,
            "forceEnableClusterMode": _BOOLEAN,
            "alertmanagerConfigSelector": _SELECTOR,
            "alertmanagerConfigNamespaceSelector": _SELECTOR,
        }
        | _each(
            _string(pattern=_GO_DURATION),
            "clusterGossipInterval",
            "clusterPushpullInterval",
            "clusterPeerTimeout",
        )
        | _free("alertmanagerConfigMatcherStrategy", "alertmanagerConfiguration", "limits", "clusterTLS")
    )


def _prometheus_rule() -> Schema:
    rule = _object(
        {
            "record": _TEXT,
            "alert": _TEXT,
            "expr": _INT_OR_STRING,
            "for": _TIME,
            "keep_firing_for": _string(pattern=DURATION, minLength=1),
            "labels": _LABELS,
            "annotations": _LABELS,
        },
        ["expr"],
    )
    group = _object(
        {
            "name": _string(minLength=1),
            "interval": _TIME,
            "query_offset": _TIME,
            "limit": _INTEGER,
            "labels": _LABELS,
            "partial_response_strategy": _string(pattern="^(abort|warn)?$"),
            "rules": _list(rule),
        },
        ["name"],
    )
    keyed = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    return _object({"groups": _list(group, **keyed)})


def _scrape_config() -> Schema:
    discoveries = (
        "file http kubernetes consul dns ec2 azure gce openstack digitalOcean kuma eureka docker dockerSwarm "
        "linode hetzner nomad puppetDB lightSail ovhcloud scaleway ionos"
    )
    targets = _list(_string(minLength=1), minItems=1, **{"x-kubernetes-list-type": "set"})
    return _object(
        _SCRAPE_LIMITS
        | _AUTHENTICATION
        | _PROXY
        | _each(
            _BOOLEAN,
            "honorLabels",
            "honorTimestamps",
            "trackTimestampsStaleness",
            "enableCompression",
            "enableHTTP2",
        )
        | _free(*(f"{discovery}SDConfigs" for discovery in discoveries.split()))
        | {
            "jobName": _string(minLength=1),
            "staticConfigs": _list(_object({"targets": targets, "labels": _LABELS}, ["targets"])),
            "scheme": _SCHEME,
            "metricsPath": _string(minLength=1),
            "scrapeInterval": _TIME,
            "scrapeTimeout": _TIME,
            "params": _map(_list(_TEXT)),
            "bodySizeLimit": _string(pattern=_BYTE_SIZE),
            "nameValidationScheme": _enum("UTF8", "Legacy"),
            "nameEscapingScheme": _TEXT,
            "relabelings": _RELABELINGS | {"minItems": 1},
            "metricRelabelings": _RELABELINGS | {"minItems": 1},
            "tlsConfig": _SAFE_TLS,
        }
    )


def _service_monitor() -> Schema:
    services = {"targetLabels": _list(_TEXT), "serviceDiscoveryRole": _enum("Endpoints", "EndpointSlice")}
    return _monitor("endpoints", services, {"tlsConfig": _TLS, "bearerTokenFile": _TEXT}, ["endpoints"])


def _pod_monitor() -> Schema:
    number: Schema = {"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535}
    return _monitor("podMetricsEndpoints", {}, {"tlsConfig": _SAFE_TLS, "portNumber": number})


def _monitor(
    endpoints: str, own: dict[str, Schema], of_endpoint: dict[str, Schema], required: Sequence[str] = ()
) -> Schema:
    """A monitor whose section of endpoints is called so; `own` fields only this kind has."""
    endpoint = _object(
        _AUTHENTICATION
        | _PROXY
        | _each(
            _BOOLEAN,
            "honorLabels",
            "honorTimestamps",
            "trackTimestampsStaleness",
            "enableHttp2",
            "followRedirects",
            "filterRunning",
        )
        | {
            "port": _TEXT,
            "targetPort": _INT_OR_STRING,
            "path": _TEXT,
            "scheme": _SCHEME,
            "params": _map(_list(_TEXT)),
            "interval": _TIME,
            "scrapeTimeout": _TIME,
            "bearerTokenSecret": _SECRET_KEY,
            "relabelings": _RELABELINGS,
            "metricRelabelings": _RELABELINGS,
        }
        | of_endpoint
    )
    return _object(
        _SCRAPE_LIMITS
        | {
            "jobLabel": _TEXT,
            "podTargetLabels": _list(_TEXT),
            "selector": _SELECTOR,
            "selectorMechanism": _enum("RelabelConfig", "RoleSelector"),
            "namespaceSelector": _NAMESPACES,
            "bodySizeLimit": _string(pattern=_BYTE_SIZE),
            "attachMetadata": _object({"node": _BOOLEAN}),
            endpoints: _list(endpoint),
        }
        | own,
        ["selector", *required],
    )


def _probe() -> Schema:
    return _object(
        _SCRAPE_LIMITS
        | _AUTHENTICATION
        | {
            "jobName": _TEXT,
            "prober": _object(
                {"url": _string(minLength=1), "scheme": _SCHEME, "path": _TEXT, **_PROXY}, ["url"]
            ),
            "module": _TEXT,
            "interval": _TIME,
            "scrapeTimeout": _TIME,
            "tlsConfig": _SAFE_TLS,
            "bearerTokenSecret": _SECRET_KEY,
            "metricRelabelings": _RELABELINGS,
            **_each(_BOOLEAN, "enableHttp2", "followRedirects"),
            **_free("targets", "params"),
        }
    )


_ANYTHING: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def _column(name: str, kind: str, path: str) -> Schema:
    return {"name": name, "type": kind, "jsonPath": path}


_INSTANCE_COLUMNS = [
    _column("Version", "string", ".spec.version"),
    _column("Desired", "integer", ".spec.replicas"),
    _column("Ready", "integer", ".status.availableReplicas"),
    _column("Reconciled", "string", ".status.conditions[?(@.type == 'Reconciled')].status"),
    _column("Available", "string", ".status.conditions[?(@.type == 'Available')].status"),
    _column("Age", "date", ".metadata.creationTimestamp"),
]


def _definition(
    kind: str,
    plural: str,
    short_name: str,
    spec: Schema,
    *,
    version: str = "v1",
    columns: Sequence[Schema] = (),
) -> Object:
    schema = _object(
        {
            "apiVersion": _TEXT,
            "kind": _TEXT,
            "metadata": {"type": "object"},
            "spec": spec,
            "status": _ANYTHING,
        },
        ["spec"],
    )
    served: Object = {
        "name": version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    if columns:
        served["additionalPrinterColumns"] = list(columns)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{GROUP}",
            "annotations": {"operator.prometheus.io/version": "0.93.1"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short_name],
                "categories": ["prometheus-operator"],
            },
            "versions": [served],
        },
    }


@functools.cache
def _definitions() -> tuple[Object, ...]:
    return (
        _definition("AlertmanagerConfig", "alertmanagerconfigs", "amcfg", _ANYTHING, version="v1alpha1"),
        _definition("Alertmanager", "alertmanagers", "am", _alertmanager(), columns=_INSTANCE_COLUMNS),
        _definition("PodMonitor", "podmonitors", "pmon", _pod_monitor()),
        _definition("Probe", "probes", "prb", _probe()),
        _definition("PrometheusAgent", "prometheusagents", "promagent", _ANYTHING, version="v1alpha1"),
        _definition("Prometheus", "prometheuses", "prom", _prometheus(), columns=_INSTANCE_COLUMNS),
        _definition("PrometheusRule", "prometheusrules", "promrule", _prometheus_rule()),
        _definition("ScrapeConfig", "scrapeconfigs", "scfg", _scrape_config(), version="v1alpha1"),
        _definition("ServiceMonitor", "servicemonitors", "smon", _service_monitor()),
        _definition("ThanosRuler", "thanosrulers", "ruler", _ANYTHING),
    )


def monitoring_crds() -> list[Object]:
    """The ten CustomResourceDefinitions, ready to be created; not to be changed."""
    return list(_definitions())
