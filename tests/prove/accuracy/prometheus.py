"""A real Prometheus with the real rules, SPEED times as fast."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from dashboards import recording
from dashboards.rules import Recording, spec
from dashboards.target import Target
from sandbox.cluster.daemon import free_port
from tests.dashboards.targets import PROD
from tests.prove.accuracy import SPEED
from tests.prove.accuracy.scenarios import Scenario

_UNITS = {"s": 1, "m": 60}
_FAMILIES = (
    "vllm:generation_tokens_total",
    "vllm:time_to_first_token_seconds_bucket",
    "vllm:request_success_total",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
)
"""What is recorded of each fleet; the rules of all families have the same form."""
ARTICLE_INTERVAL = "15s"
"""Of the only scrape of the reference architecture."""

Series = Mapping[tuple[tuple[str, str], ...], Sequence[tuple[float, float]]]
"""Labels to (Unix time, value)."""


class PrometheusError(Exception):
    """Prometheus does not do what it is asked."""


def faster(duration: str) -> str:
    """A duration of PromQL as it is at SPEED."""
    return f"{int(duration[:-1]) * _UNITS[duration[-1]] * 1000 // SPEED}ms"


def faster_ranges(expression: str) -> str:
    """An expression with all its ranges and offsets as they are at SPEED."""
    return re.sub(r"(?:(?<=\[)|(?<=offset ))\d+[sm]\b", lambda match: faster(match[0]), expression)


def target(job: str, most: int) -> Target:
    """An endpoint of at most so many replicas."""
    return replace(
        PROD,
        job=job,
        labels={"service": "vllm", "model": "model", "environment": "proof"},
        max_replicas=most,
        platform_metrics=False,
    )


def rules(scenario: Scenario) -> dict[str, Any]:
    """The contents of its rule file."""
    wanted = target(scenario.label, scenario.most)
    document = spec(recording.groups(wanted), wanted.runbooks)
    for group in document["groups"]:
        group["interval"] = faster(group["interval"])
        group["rules"] = [rule for rule in group["rules"] if _needed(Recording(rule["record"], rule["expr"]))]
        for rule in group["rules"]:
            rule["expr"] = faster_ranges(rule["expr"])
    return document


def _needed(rule: Recording) -> bool:
    level, _, series = rule.record.partition(":")
    return level != "replica" or series in _FAMILIES


def configuration(scenarios: Sequence[Scenario], address: str) -> dict[str, Any]:
    """Samplers as the ScrapeConfigs of the program make them, and the reference architecture's scrape."""
    interval = faster(recording.SAMPLER_INTERVAL)
    jobs = []
    for scenario in scenarios:
        wanted = target(scenario.label, scenario.most)
        for number in range(recording.samplers(wanted)):
            labels = {**wanted.labels, "sampler": str(number)}
            jobs.append(_job(scenario.label, f"{scenario.label}-{number}", address, interval, labels))
        article = faster(ARTICLE_INTERVAL)
        jobs.append(_job(scenario.label, f"{scenario.label}-article", address, article, {}, "-article"))
    return {"scrape_configs": jobs, "rule_files": ["rules/*.yml"]}


def _job(
    label: str, name: str, address: str, interval: str, labels: Mapping[str, str], suffix: str = ""
) -> dict[str, Any]:
    return {
        "job_name": name,
        "scrape_interval": interval,
        "scrape_timeout": interval,
        "metrics_path": f"/{label}/metrics",
        "enable_http2": False,
        "enable_compression": False,
        "static_configs": [{"targets": [address], "labels": dict(labels)}],
        "relabel_configs": [{"target_label": "job", "replacement": f"{label}{suffix}"}],
    }


class Prometheus:
    """The process in a folder of its own; `running` makes one."""

    def __init__(self, binary: Path, folder: Path, client: aiohttp.ClientSession) -> None:
        self._binary = binary
        self._folder = folder
        self._client = client
        self._url = f"http://127.0.0.1:{free_port()}"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Starts and waits until it answers; data of an earlier process are there again."""
        command = (
            str(self._binary),
            f"--config.file={self._folder}/prometheus.yml",
            f"--storage.tsdb.path={self._folder}/data",
            f"--web.listen-address={self._url.removeprefix('http://')}",
            f"--query.lookback-delta={faster('5m')}",
            f"--scrape.discovery-reload-interval={faster('5s')}",
            "--query.max-samples=500000000",
            "--query.timeout=5m",
            "--log.level=warn",
        )
        with (self._folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
        while not await self._is_ready():
            if self._process.returncode is not None:
                text = (self._folder / "log").read_text()
                raise PrometheusError(f"Prometheus ended with {self._process.returncode}: {text[-2000:]}")
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Ends it as a pod is ended."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            await self._process.wait()

    async def query(self, expression: str, **window: float) -> Series:
        """The answer, a matrix or a vector; with `start`, `end`, `step` (Unix time, seconds) of a range.

        Anything but a clean answer is an error, warnings and hints too. Only that `increase` of a young
        counter is cut at zero, for one bucket more than for another, is how Prometheus is.
        """
        path = "/api/v1/query_range" if window else "/api/v1/query"
        form = {"query": expression, **{name: repr(value) for name, value in window.items()}}
        async with self._client.post(f"{self._url}{path}", data=form) as response:
            answer = json.loads(await response.text())
        told = [*filter(None, [answer.get("error")]), *answer.get("warnings", ()), *answer.get("infos", ())]
        told = [text for text in told if "fixed for monotonicity" not in text]
        if told:
            raise PrometheusError(f"{expression}: {told}")
        return {
            tuple(sorted(found["metric"].items())): [
                (moment, float(value)) for moment, value in found.get("values", [found.get("value")])
            ]
            for found in answer["data"]["result"]
        }

    async def number(self, expression: str) -> float:
        """The only value of an expression; 0 where there is none."""
        found = await self.query(expression)
        return next(iter(found.values()))[0][1] if found else 0.0

    async def metric(self, name: str) -> float:
        """Sum of a metric of Prometheus about itself."""
        async with self._client.get(f"{self._url}/metrics") as response:
            text = await response.text()
        return sum(
            float(match[1]) for match in re.finditer(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
        )

    async def _is_ready(self) -> bool:
        try:
            async with self._client.get(f"{self._url}/-/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False


@asynccontextmanager
async def running(
    binary: Path, folder: Path, config: Mapping[str, Any], rule_files: Mapping[str, Mapping[str, Any]]
) -> AsyncIterator[Prometheus]:
    """A Prometheus with this configuration, started."""
    (folder / "rules").mkdir()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(dict(config)))
    for name, document in rule_files.items():
        (folder / "rules" / f"{name}.yml").write_text(yaml.safe_dump(dict(document)))
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as client:
        prometheus = Prometheus(binary, folder, client)
        try:
            await prometheus.start()
            yield prometheus
        finally:
            await prometheus.stop()
