"""How Prometheus' configuration spells what the operator's resources say: option by field."""

from __future__ import annotations

from collections.abc import Mapping

from sandbox.cluster.kinds import Object

RELABELING = {
    "sourceLabels": "source_labels",
    "separator": "separator",
    "targetLabel": "target_label",
    "regex": "regex",
    "modulus": "modulus",
    "replacement": "replacement",
}
SCRAPE_CONFIG_FIELDS = {
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
ENDPOINT_FIELDS = {
    "honorTimestamps": "honor_timestamps",
    "trackTimestampsStaleness": "track_timestamps_staleness",
    "interval": "scrape_interval",
    "scrapeTimeout": "scrape_timeout",
    "path": "metrics_path",
    "params": "params",
    "followRedirects": "follow_redirects",
    "enableHttp2": "enable_http2",
}
LIMITS = {
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
GLOBAL = {
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
PROXY = {
    "proxyUrl": "proxy_url",
    "noProxy": "no_proxy",
    "proxyFromEnvironment": "proxy_from_environment",
}
TLS = {
    "insecureSkipVerify": "insecure_skip_verify",
    "serverName": "server_name",
    "minVersion": "min_version",
    "maxVersion": "max_version",
    "caFile": "ca_file",
    "certFile": "cert_file",
    "keyFile": "key_file",
}
ALERTMANAGER_FIELDS = {
    "scheme": "scheme",
    "pathPrefix": "path_prefix",
    "timeout": "timeout",
    "enableHttp2": "enable_http2",
    "apiVersion": "api_version",
}


def copied(spec: Object, names: Mapping[str, str]) -> Object:
    """Fields of a specification under Prometheus' names."""
    return {option: spec[name] for name, option in names.items() if name in spec}
