"""vLLM on OVHcloud AI Deploy, watched from Managed Kubernetes: settings in, components, outputs."""

from __future__ import annotations

import pulumi

from components import settings as stack_settings
from components.bill import bill
from components.endpoint_monitoring import endpoint_target
from components.inference_endpoint import InferenceEndpoint
from components.monitoring_cluster import MonitoringCluster
from components.monitoring_stack import MonitoringStack

settings = stack_settings.from_pulumi()
service_name, protect = settings.general.service_name, settings.general.protect

costs = bill(settings)
pulumi.log.info(costs.text())

# Two branches that do not wait for each other ...
endpoint = InferenceEndpoint("vllm", settings.endpoint, service_name=service_name, protect="app" in protect)
cluster = MonitoringCluster(
    "monitoring", settings.cluster, service_name=service_name, protect="cluster" in protect
)
monitoring = MonitoringStack(
    "monitoring",
    settings.monitoring,
    settings.alerts,
    provider=cluster.provider,
    service_name=service_name,
    region=settings.cluster.cluster_region,
    protect="address" in protect,
    other_branch=endpoint.url,
)
# ... and meet where Prometheus learns which address to scrape with which token, and which app it is.
monitoring.monitor_endpoint(
    endpoint_target(settings),
    host=endpoint.ready_host,
    token=endpoint.scraper_token,
    app=pulumi.Output.concat(settings.ai_api_url, "/v1/app/", endpoint.app_id),
)

pulumi.export("endpoint_url", endpoint.url)
pulumi.export("openai_base_url", endpoint.openai_base_url)
pulumi.export("model", endpoint.model)
pulumi.export("app_id", endpoint.app_id)
pulumi.export("client_token", endpoint.client_token)
pulumi.export("platform_dashboard_url", endpoint.platform_dashboard_url)
pulumi.export("cluster_id", cluster.cluster_id)
pulumi.export("kubeconfig", cluster.kubeconfig)
pulumi.export("grafana_url", monitoring.grafana_url)
pulumi.export("grafana_dashboard_url", monitoring.grafana_dashboard_url)
pulumi.export("grafana_admin_password", monitoring.grafana_admin_password)
pulumi.export("prometheus_url", monitoring.prometheus_url)
pulumi.export("cost_eur_per_hour_min", costs.floor)
pulumi.export("cost_eur_per_hour_max", costs.ceiling)
if monitoring.grafana_reserved_address is not None:
    pulumi.export("grafana_reserved_address", monitoring.grafana_reserved_address)
