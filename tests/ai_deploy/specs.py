"""Hypothesis strategies for the settings of an app, and a model of what the API does with calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from components.ai_deploy.plan import Call
from components.ai_deploy.spec import AppSpec, create_body

WORDS = st.sampled_from(["a", "b", "hf_token", "x/y:z", "ü \"'"])
NAMES = st.sampled_from(["HF_TOKEN", "HF_HOME", "team", "env"])

probes = st.fixed_dictionaries(
    {"port": st.sampled_from([8000, 8080])},
    optional={
        "path": st.sampled_from(["/", "/health"]),
        "initialDelaySeconds": st.sampled_from([0, 300]),
        "failureThreshold": st.integers(1, 120),
    },
)
metric = st.fixed_dictionaries(
    {
        "apiUrl": st.just("http://<SELF>:8000/metrics"),
        "format": st.sampled_from(["JSON", "PROMETHEUS"]),
        "valueLocation": WORDS,
        "targetValue": st.floats(0.5, 100),
    }
)
bounds = {"replicasMin": st.integers(0, 2), "replicasMax": st.integers(2, 4)}
windows = {
    "cooldownPeriodSeconds": st.integers(60, 3600),
    "scaleUpStabilizationWindowSeconds": st.integers(0, 9),
}
usage = {"resourceType": st.sampled_from(["CPU", "RAM"]), "averageUsageTarget": st.integers(1, 100)}
scaling = st.one_of(
    st.fixed_dictionaries({"fixed": st.fixed_dictionaries({"replicas": st.integers(1, 4)})}),
    st.fixed_dictionaries(
        {"automatic": st.fixed_dictionaries({**bounds, "customMetrics": metric}, optional=windows)}
    ),
    st.fixed_dictionaries({"automatic": st.fixed_dictionaries({**bounds, **usage}, optional=windows)}),
)
fields = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["a", "a", "b"]),
        "region": st.sampled_from(["GRA", "GRA", "BHS"]),
        "image": WORDS,
        "flavor": st.sampled_from(["h100-1-gpu", "l4-1-gpu"]),
        "scaling_strategy": scaling,
    },
    optional={
        "command": st.lists(WORDS, max_size=2),
        "env": st.dictionaries(NAMES, WORDS, max_size=3),
        "labels": st.dictionaries(NAMES, st.sampled_from(["", "x"]), max_size=3),
        "default_http_port": st.sampled_from([8000, 8080]),
        "grpc_port": st.just(9000),
        "readiness_probe": probes,
        "liveness_probe": probes,
        "deployment_strategy": st.fixed_dictionaries({"progressDeadlineSeconds": st.integers(600, 601)}),
        "volumes": st.sampled_from([(), ("standalone:/hub:rw",)]),
        "unsecure_http": st.booleans(),
    },
)
units = st.sampled_from([{"gpu": 1}, {"gpu": 2}, {"cpu": 4}])


@st.composite
def changes(draw: st.DrawFn) -> tuple[AppSpec, AppSpec]:
    """An app and what shall become of it: one to three settings are others, given or taken away."""
    old, other = ({**draw(fields), **draw(units)} for _ in range(2))
    names = sorted(old.keys() | other.keys() | {"gpu"})
    chosen = set(draw(st.lists(st.sampled_from(names), min_size=1, max_size=3)))
    if chosen & {"gpu", "cpu"}:
        chosen |= {"gpu", "cpu"}
    new = {name: value for name, value in old.items() if name not in chosen}
    new |= {name: value for name, value in other.items() if name in chosen}
    return AppSpec.model_validate(old), AppSpec.model_validate(new)


specs = changes().map(lambda pair: pair[0])
"""Any valid app."""


def created(spec: AppSpec) -> dict[str, Any]:
    """`spec` of the app that the API shows after `POST /app`: with what the platform fills in."""
    body = create_body(spec)
    units = spec.gpu or spec.cpu or 0
    filled = {"cpu": 28 * units, "memory": 350 << 30, "gpuModel": "H100", "gpuBrand": "NVIDIA"}
    return {
        "command": None,
        "grpcPort": None,
        "probe": None,
        "livenessProbe": None,
        **body,
        "envVars": body.get("envVars", []),
        "labels": {**body.get("labels", {}), "ovh/id": "4711", "ovh/type": "app"},
        "resources": {**(filled if spec.gpu else {"memory": units << 32, "gpu": 0}), **body["resources"]},
    }


def apply(live: Mapping[str, Any], call: Call) -> dict[str, Any]:
    """What the API's documentation says that a call does to an app."""
    after = {**live}
    match call.path:
        case "/scalingstrategy":
            after["scalingStrategy"] = dict(call.body)
        case "/label":
            labels = {**live["labels"], call.body["name"]: call.body["value"]}
            after["labels"] = {name: value for name, value in labels.items() if value is not None}
        case "":
            for name, value in call.body.items():
                if value is None:
                    continue
                if name == "url":
                    after["image"] = value
                elif name in ("flavor", "gpu", "cpu"):
                    after["resources"] = {**after["resources"], name: value}
                elif name == "envVars":
                    env = {item["name"]: item["value"] for item in live["envVars"]}
                    env |= {item["name"]: item["value"] for item in value}
                    after["envVars"] = [{"name": key, "value": text} for key, text in env.items() if text]
                else:
                    after[name] = value
        case other:
            raise AssertionError(f"no such call: {other}")
    return after
