"""Pulumi components: the endpoint, the monitoring cluster and the monitoring stack."""
