"""Hypothesis strategies for the settings of an app, and a model of what the API does with calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from components.ai_deploy.plan import Call
from components.ai_deploy.spec import MANAGED_LABELS, PLATFORM_LABEL_PREFIX, AppSpec, create_body

TEXTS = st.sampled_from(["a", "b", "x/y:z", "ü \"'", " ", "null", "0", "\\", "日本", "a=b"]) | st.text(
    max_size=4
)
WORDS = TEXTS.filter(bool)
VARIABLES = st.sampled_from(["HF_TOKEN", "HF_HOME", "team"]) | WORDS.filter(lambda name: "=" not in name)
LABELS = st.sampled_from(["team", "env", "a.b/c-d_e", "OVH/x", "ovh", "deploy"]) | WORDS.filter(
    lambda name: not name.startswith(PLATFORM_LABEL_PREFIX) and name not in MANAGED_LABELS
)
PORTS = st.sampled_from([8000, 8080]) | st.integers(1, 65535)
PATHS = st.sampled_from(["/", "/health"]) | TEXTS.map("/{}".format)

_COUNTS = st.sampled_from([1, 3, 10]) | st.integers(1, 3600)
_SECONDS = st.sampled_from([0, 300]) | st.integers(0, 3600)
_AMOUNTS = st.sampled_from(["25%", "0", "1", "100%"])


def probes(*, success: st.SearchStrategy[int] = _COUNTS) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"port": PORTS},
        optional={
            "path": PATHS,
            "initialDelaySeconds": _SECONDS,
            "periodSeconds": _COUNTS,
            "timeoutSeconds": _COUNTS,
            "failureThreshold": _COUNTS,
            "successThreshold": success,
        },
    )


_METRIC = st.fixed_dictionaries(
    {
        "apiUrl": st.sampled_from(["http://<SELF>:8000/metrics", "https://a/b?c=d"]),
        "valueLocation": WORDS,
        "targetValue": st.integers(1, 100) | st.floats(0.5, 100),
    },
    optional={
        "format": st.sampled_from(["JSON", "XML", "YAML", "PROMETHEUS"]),
        "aggregationType": st.sampled_from(["AVERAGE", "MIN", "MAX", "SUM"]),
    },
)
_USAGE = st.fixed_dictionaries(
    {"resourceType": st.sampled_from(["CPU", "RAM"]), "averageUsageTarget": st.integers(1, 100)}
)
_DRIVERS = _USAGE | _METRIC.map(lambda metric: {"customMetrics": metric})
_WINDOWS = st.fixed_dictionaries(
    {},
    optional={
        "cooldownPeriodSeconds": st.integers(60, 3600),
        "scaleUpStabilizationWindowSeconds": _SECONDS,
        "scaleDownStabilizationWindowSeconds": _SECONDS,
    },
)
_BOUNDS = st.tuples(st.integers(0, 10), st.integers(1, 10)).map(
    lambda pair: {"replicasMin": min(pair), "replicasMax": max(pair)}
)
_AUTOMATIC = st.tuples(_BOUNDS, _DRIVERS, _WINDOWS).map(lambda parts: parts[0] | parts[1] | parts[2])
_SCALING = st.integers(1, 10).map(lambda count: {"fixed": {"replicas": count}}) | _AUTOMATIC.map(
    lambda automatic: {"automatic": automatic}
)
_SOURCES = st.sampled_from(
    [
        {"standalone": {}},
        {"standalone": {"name": "a"}},
        {"dataStore": {"alias": "s3", "container": "weights"}},
        {"dataStore": {"alias": "s3", "container": "weights", "prefix": "llm"}},
        {"publicGit": {"url": "https://a/b.git"}},
        {"publicSwift": {"url": "https://a/b"}},
    ]
)
_VOLUMES = st.lists(
    st.sampled_from(["standalone:/hub:rw", "weights@s3/llm:/data:ro:cache"])
    | st.fixed_dictionaries(
        {"mountPath": PATHS, "volumeSource": _SOURCES},
        optional={"permission": st.sampled_from(["RO", "RW", "RWD"]), "cache": st.booleans()},
    ),
    max_size=2,
    unique_by=lambda volume: volume.split(":")[1] if isinstance(volume, str) else volume["mountPath"],
)
_FIXED = {
    "name": st.sampled_from(["vllm", "vllm", "ü x"]),
    "region": st.sampled_from(["GRA", "GRA", "BHS"]),
    "unsecure_http": st.booleans(),
    "partner_id": st.none() | WORDS,
    "volumes": _VOLUMES,
}
"""Fields that no call changes."""
_CHANGEABLE = {
    "image": WORDS,
    "flavor": st.sampled_from(["h100-1-gpu", "l4-1-gpu"]) | WORDS,
    "command": st.lists(TEXTS, max_size=3),
    "env": st.dictionaries(VARIABLES, WORDS, max_size=3),
    "labels": st.dictionaries(LABELS, TEXTS, max_size=3),
    "default_http_port": PORTS,
    "deployment_strategy": st.fixed_dictionaries(
        {},
        optional={
            "maxSurge": _AMOUNTS,
            "maxUnavailable": _AMOUNTS,
            "progressDeadlineSeconds": _COUNTS,
            "terminationGracePeriodSeconds": _SECONDS,
        },
    ),
    "scaling_strategy": _SCALING,
}
_OPTIONAL = {
    "grpc_port": PORTS,
    "readiness_probe": probes(),
    "liveness_probe": probes(success=st.just(1)),
}
"""Fields that a call changes or adds, but takes away never."""
_UNITS = st.sampled_from(["gpu", "cpu"])
_REQUIRED = ("name", "region", "image", "flavor")

_everything = st.fixed_dictionaries({**_FIXED, **_CHANGEABLE, **_OPTIONAL, "count": st.integers(1, 12)})


@st.composite
def _settings(draw: st.DrawFn, unit: str | None = None) -> dict[str, Any]:
    drawn = draw(_everything)
    drawn[unit or draw(_UNITS)] = drawn.pop("count")
    absent = draw(st.sets(st.sampled_from(sorted(drawn.keys() - {*_REQUIRED, "gpu", "cpu"}))))
    return {name: value for name, value in drawn.items() if name not in absent}


@st.composite
def changes(draw: st.DrawFn) -> tuple[AppSpec, AppSpec]:
    """An app and what shall become of it: some settings are others, given or taken away."""
    old, other = draw(_settings()), draw(_settings())
    names = sorted(old.keys() | other.keys())
    chosen = draw(st.sets(st.sampled_from(names), min_size=1))
    if chosen & {"gpu", "cpu"}:
        chosen |= {"gpu", "cpu"}
    new = {name: value for name, value in old.items() if name not in chosen}
    new |= {name: value for name, value in other.items() if name in chosen}
    return AppSpec.model_validate(old), AppSpec.model_validate(new)


@st.composite
def changes_in_place(draw: st.DrawFn) -> tuple[AppSpec, AppSpec]:
    """An app and what shall become of it, by calls that there are."""
    unit = draw(_UNITS)
    old, other = draw(_settings(unit)), draw(_settings(unit))
    chosen = draw(st.sets(st.sampled_from(sorted([*_CHANGEABLE, *_OPTIONAL, unit])), min_size=1))
    new = {name: value for name, value in old.items() if name not in chosen - _OPTIONAL.keys()}
    new |= {name: value for name, value in other.items() if name in chosen}
    return AppSpec.model_validate(old), AppSpec.model_validate(new)


specs = _settings().map(AppSpec.model_validate)
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


@st.composite
def noises(draw: st.DrawFn, live: Mapping[str, Any]) -> dict[str, Any]:
    """The same app as another answer may show it: other order, absent for null, members that are new."""
    after = {key: value for key, value in live.items() if value is not None or draw(st.booleans())}
    after["envVars"] = draw(st.permutations(live["envVars"]))
    after["labels"] = {
        **live["labels"],
        **draw(st.dictionaries(TEXTS.map(f"{PLATFORM_LABEL_PREFIX}{{}}".format), TEXTS, max_size=2)),
        **draw(
            st.sampled_from([{}, {"deploy-nonce": "ab"}, {"deploy-nonce": "ab", "deploy-confirmed": "true"}])
        ),
    }
    scaling = dict(live["scalingStrategy"])
    if automatic := scaling.get("automatic"):
        scaling["automatic"] = {**automatic, "replicas": draw(st.integers(0, 10)), "somethingNew": {"a": 1}}
        if "customMetrics" in automatic:
            # The platform's own defaults, without meaning beside a metric.
            scaling["automatic"] |= draw(
                st.sampled_from([{}, {"resourceType": "CPU", "averageUsageTarget": 75}])
            )
    after["scalingStrategy"] = {"fixed": None, "automatic": None, **scaling}
    for part in ("probe", "livenessProbe", "deploymentStrategy", "resources"):
        if after.get(part):
            after[part] = {**after[part], "somethingNew": draw(st.sampled_from([None, 1, []]))}
    return {**after, "somethingNew": 1}


def forgetful(live: Mapping[str, Any]) -> dict[str, Any]:
    """The same app as an API of before the last additions shows it."""
    scaling = dict(live["scalingStrategy"])
    if automatic := scaling.get("automatic"):
        scaling["automatic"] = {
            name: value
            for name, value in automatic.items()
            if not name.endswith(("WindowSeconds", "PeriodSeconds"))
        }
    return {**live, "scalingStrategy": scaling}


def apply(live: Mapping[str, Any], call: Call) -> dict[str, Any]:
    """What the API's documentation says that a call does to an app."""
    after = {**live}
    match call.path:
        case "/scalingstrategy":
            after["scalingStrategy"] = dict(call.body)
        case "/label":
            assert call.body.keys() == {"name", "value"}
            labels = {**live["labels"], call.body["name"]: call.body["value"]}
            after["labels"] = {name: value for name, value in labels.items() if value is not None}
        case "":
            for name, value in call.body.items():
                assert value is not None, f"{name}: null changes nothing"
                if name == "url":
                    after["image"] = value
                elif name in ("flavor", "gpu", "cpu"):
                    after["resources"] = {**after["resources"], name: value}
                elif name == "envVars":
                    env = {item["name"]: item["value"] for item in live["envVars"]}
                    env |= {item["name"]: item["value"] for item in value}
                    after["envVars"] = [{"name": key, "value": text} for key, text in env.items() if text]
                else:
                    assert name in ("command", "defaultHttpPort", "grpcPort", "probe", "livenessProbe") or (
                        name == "deploymentStrategy"
                    ), f"UpdateInput has no {name}"
                    after[name] = value
        case other:
            raise AssertionError(f"no such call: {other}")
    return after
