"""Grafana dashboards as Python; the sidecar provisions the JSON they make."""
