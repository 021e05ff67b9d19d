"""The branch of the project's program that BRANCH names, and nothing of the other."""

from __future__ import annotations

import os

import pulumi

from components import settings as stack_settings
from components.inference_endpoint import InferenceEndpoint
from components.monitoring_cluster import MonitoringCluster
from components.monitoring_stack import MonitoringStack

settings = stack_settings.from_pulumi()
service_name = settings.general.service_name
match os.environ["BRANCH"]:
    case "endpoint":
        endpoint = InferenceEndpoint("vllm", settings.endpoint, service_name=service_name, protect=False)
        pulumi.export("url", endpoint.url)
    case "monitoring":
        cluster = MonitoringCluster("monitoring", settings.cluster, service_name=service_name, protect=False)
        stack = MonitoringStack(
            "monitoring",
            settings.monitoring,
            settings.alerts,
            provider=cluster.provider,
            service_name=service_name,
            region=settings.cluster.cluster_region,
            protect=False,
            other_branch=pulumi.Output.from_input("no other branch"),
        )
        pulumi.export("url", stack.grafana_url)
