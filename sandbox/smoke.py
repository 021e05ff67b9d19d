"""The smoke test: proof, seen from outside, that what `pulumi up` built works."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from sandbox.connection import Addresses

_PATIENCE_SECONDS = 60.0
"""How long a condition may take to become true: a few scrapes."""


class SmokeError(Exception):
    """A check of the smoke test failed; the text says which, and what was seen instead."""


def samplers(resources: Iterable[Mapping[str, Any]]) -> int:
    """How many jobs scrape the endpoint, by the resources of the stack's state."""
    specs = [item["inputs"]["spec"] for item in resources if item["type"].endswith(":ScrapeConfig")]
    return sum("sampler" in static["labels"] for spec in specs for static in spec["staticConfigs"])


def checks(outputs: Mapping[str, Any], addresses: Addresses, ca_bundle: Path, samplers: int) -> Iterator[str]:
    """Runs the checks one by one, a line for each that holds; raises SmokeError at the first that does not.

    `outputs` are the stack's outputs with secrets shown, `samplers` how many jobs scrape the endpoint.
    """
    trusted = ssl.create_default_context(cafile=ca_bundle)
    with httpx.Client(timeout=30, verify=trusted, trust_env=False) as client:
        yield from _endpoint(client, outputs, addresses)
        yield from _monitoring(client, addresses, samplers)


def _endpoint(client: httpx.Client, outputs: Mapping[str, Any], addresses: Addresses) -> Iterator[str]:
    resources = client.get(f"{addresses.api}/sandbox/resources").raise_for_status().json()
    states = {thing["id"]: thing["detail"]["state"] for thing in resources if thing["kind"] == "ai-app"}
    _expect(states.get(outputs["app_id"]) == "RUNNING", f"app {outputs['app_id']} RUNNING", str(states))
    yield f"app {outputs['app_id']} is RUNNING"

    url = f"{outputs['openai_base_url']}/chat/completions"
    question = {
        "model": outputs["model"],
        "messages": [{"role": "user", "content": "What is an autoscaler, in one sentence?"}],
        "max_tokens": 32,
    }
    bearer = {"Authorization": f"Bearer {outputs['client_token']}"}
    answer = client.post(url, json=question, headers=bearer)
    _expect(answer.status_code == 200, "chat completion 200 with the client token", _seen(answer))
    text = answer.json()["choices"][0]["message"]["content"]
    yield f"chat completion with client_token answers 200: {text!r}"

    refused = client.post(url, json=question)
    _expect(refused.status_code == 401, "chat completion 401 without a token", _seen(refused))
    yield "chat completion without a token answers 401"

    metrics = client.get(f"{outputs['endpoint_url']}/metrics", headers=bearer)
    _expect(metrics.status_code == 200 and "vllm:" in metrics.text, "/metrics 200", _seen(metrics))
    yield f"/metrics answers 200 with {metrics.text.count('# TYPE vllm:')} vLLM families"


def _monitoring(client: httpx.Client, addresses: Addresses, samplers: int) -> Iterator[str]:
    up = _await(
        lambda: _query(client, addresses, 'up{service="vllm", sampler!=""}'),
        lambda result: [sample["value"][1] for sample in result] == ["1"] * samplers,
        f'up{{service="vllm"}} == 1 of {samplers} samplers',
    )
    job = up[0]["metric"]["job"]
    yield f"{len(up)} samplers scrape {job} at {up[0]['metric']['instance']}: up is 1"

    counter = f'sum(replica:vllm:generation_tokens_total{{job="{job}"}})'
    tokens = _await(
        lambda: _query(client, addresses, counter),
        lambda result: bool(result) and float(result[0]["value"][1]) > 0,
        f"{counter} > 0",
    )
    yield f"the rules tell replicas apart: {counter} = {tokens[0]['value'][1]}"

    ready = client.get(f"{addresses.alertmanager}/-/ready")
    _expect(ready.status_code == 200, "Alertmanager ready", _seen(ready))
    yield "Alertmanager is ready"


def _query(client: httpx.Client, addresses: Addresses, expression: str) -> list[Any]:
    answer = client.get(f"{addresses.prometheus}/api/v1/query", params={"query": expression})
    result: list[Any] = answer.raise_for_status().json()["data"]["result"]
    return result


def _await(get: Callable[[], list[Any]], true: Callable[[list[Any]], bool], what: str) -> list[Any]:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        result = get()
        if true(result):
            return result
        if time.monotonic() > deadline:
            raise SmokeError(f"{what}: not seen within {_PATIENCE_SECONDS:g} s, last answer {result}")
        time.sleep(0.5)


def _expect(holds: bool, what: str, seen: str) -> None:
    if not holds:
        raise SmokeError(f"{what}: saw {seen}")


def _seen(response: httpx.Response) -> str:
    return f"{response.status_code} {response.text[:300]}"
