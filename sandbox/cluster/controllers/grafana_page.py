"""Pages where Grafana would be: what was provisioned, and its dashboards with the data of Prometheus."""

from __future__ import annotations

import asyncio
import html
import json
import logging
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml
from aiohttp import web

from dashboards.page import render
from sandbox.cluster.kinds import Object
from sandbox.cluster.mounts import secret_data
from sandbox.cluster.storage import ObjectStore
from sandbox.tls import KeyPair, server_context

_LOG = logging.getLogger(__name__)

TLS_SECRET = "grafana-tls"  # noqa: S105 - the name of the Secret
_SUFFIX = "-grafana"


@dataclass(frozen=True)
class _Site:
    """Where a page listens and with what certificate."""

    address: str
    port: int
    pair: KeyPair | None


class GrafanaPages:
    """Listens on the load balancer's address of each Service `*-grafana` while it has one.

    HTTPS with the Secret `grafana-tls` of the namespace unless the port is 80. A port that cannot be bound
    (443 without the right to) is logged once and left. `links` are addresses by name, shown on the page; a
    certificate is written to `directory` for the moment of loading it.
    """

    def __init__(self, directory: Path, links: Callable[[], Mapping[str, str]]) -> None:
        self._directory = directory
        self._links = links
        self._runners: dict[_Site, web.AppRunner] = {}
        self._refused: set[_Site] = set()

    async def reconcile(self, store: ObjectStore) -> None:
        """Starts pages for new addresses, stops those whose address or certificate is gone."""
        wanted = dict(_sites(store))
        for site in self._runners.keys() - wanted.keys():
            await self._runners.pop(site).cleanup()
        self._refused &= wanted.keys()
        for site, service in wanted.items():
            if site not in self._runners and site not in self._refused:
                await self._start(store, site, service)

    async def stop(self) -> None:
        """Stops all pages."""
        for runner in self._runners.values():
            await runner.cleanup()
        self._runners.clear()

    async def _start(self, store: ObjectStore, site: _Site, service: Object) -> None:
        async def show(_: web.Request) -> web.Response:
            text = page(store, service, self._links())
            return web.Response(text=text, content_type="text/html")

        async def dashboard(request: web.Request) -> web.Response:
            uid, prometheus = request.match_info["uid"], self._links().get("prometheus", "")
            texts = {name: text for name, text in provisioned(store).items() if _title(name, text)[1] == uid}
            if not texts or not prometheus:
                return await show(request)
            try:
                rendered = await asyncio.to_thread(render, texts, prometheus)
            except (httpx.TransportError, ValueError) as error:
                return web.Response(status=502, text=f"no dashboard with data of {prometheus}: {error}\n")
            return web.Response(text=rendered.html, content_type="text/html")

        application = web.Application()
        application.router.add_get("/d/{uid}{slug:(/.*)?}", dashboard)
        application.router.add_get("/{path:.*}", show)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        try:
            context = server_context(site.pair, self._directory) if site.pair else None
            await web.TCPSite(runner, site.address, site.port, ssl_context=context).start()
        except (OSError, ssl.SSLError) as error:
            await runner.cleanup()
            self._refused.add(site)
            _LOG.info("no page for Grafana on %s:%d: %s", site.address, site.port, error)
        else:
            self._runners[site] = runner


def _sites(store: ObjectStore) -> Iterator[tuple[_Site, Object]]:
    for service in store.list("Service"):
        metadata, spec = service["metadata"], service["spec"]
        if spec["type"] != "LoadBalancer" or not metadata["name"].endswith(_SUFFIX):
            continue
        for ingress in service["status"]["loadBalancer"].get("ingress", []):
            port = spec["ports"][0]["port"]
            pair = None if port == 80 else _certificate(store, metadata["namespace"])
            if port == 80 or pair is not None:
                yield _Site(ingress["ip"], port, pair), service


def _certificate(store: ObjectStore, namespace: str) -> KeyPair | None:
    secret = store.get("Secret", namespace, TLS_SECRET)
    data = secret_data(secret or {})
    if not {"tls.crt", "tls.key"} <= data.keys():
        return None
    return KeyPair(data["tls.crt"], data["tls.key"])


def provisioned(store: ObjectStore) -> dict[str, str]:
    """The dashboards that the sidecar finds (ConfigMaps with the label `grafana_dashboard: "1"`).

    JSON by `<namespace>/<name>/<file>`.
    """
    return {
        f"{config_map['metadata']['namespace']}/{config_map['metadata']['name']}/{key}": text
        for config_map in store.list("ConfigMap", labels={"grafana_dashboard": "1"})
        for key, text in config_map.get("data", {}).items()
        if key.endswith(".json")
    }


def dashboards(store: ObjectStore) -> list[tuple[str, str]]:
    """Title and uid of each provisioned dashboard."""
    return sorted(_title(name, text) for name, text in provisioned(store).items())


def _title(key: str, text: str) -> tuple[str, str]:
    try:
        model = json.loads(text)
    except ValueError as error:  # Grafana would log it and go on too
        return f"{key} is no JSON: {error}", ""
    if not isinstance(model, dict):
        return f"{key} is no dashboard", ""
    return str(model.get("title", key)), str(model.get("uid", ""))


def datasources(store: ObjectStore) -> list[tuple[str, ...]]:
    """Name, type and URL of each provisioned datasource (label `grafana_datasource: "1"`)."""
    found: list[tuple[str, ...]] = []
    for config_map in store.list("ConfigMap", labels={"grafana_datasource": "1"}):
        for text in config_map.get("data", {}).values():
            sources = (yaml.safe_load(text) or {}).get("datasources", [])
            found += [tuple(str(source.get(key)) for key in ("name", "type", "url")) for source in sources]
    return sorted(found)


def page(store: ObjectStore, service: Object, links: Mapping[str, str]) -> str:
    """The HTML of the page; everything that comes from objects is escaped."""
    ranges = service["spec"].get("loadBalancerSourceRanges", [])
    metadata = service["metadata"]
    return "\n".join(
        [
            "<!doctype html><html lang=en><meta charset=utf-8><title>Grafana (sandbox)</title>",
            "<style>body{font:16px sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
            "td{padding:.2em 1em .2em 0}</style>",
            "<h1>This is the sandbox</h1>",
            "<p>Grafana does not run here. On OVHcloud this address is Grafana, behind the load balancer of "
            f"Service <code>{_text(metadata['namespace'])}/{_text(metadata['name'])}</code>; callers from "
            f"<code>{_text(', '.join(ranges) or 'anywhere')}</code> would be let in.</p>",
            "<h2>What runs for real</h2>",
            _table((name, _link(address)) for name, address in links.items()),
            "<h2>Dashboards provisioned</h2>",
            _table((_link(f"/d/{uid}", title) if uid else _text(title),) for title, uid in dashboards(store)),
            "<h2>Datasources provisioned</h2>",
            _table(map(_text, source) for source in datasources(store)),
            "</html>",
        ]
    )


def _text(value: str) -> str:
    return html.escape(value)


def _link(address: str, text: str = "") -> str:
    return f'<a href="{_text(address)}">{_text(text or address)}</a>'


def _table(rows: Iterable[Iterable[str]]) -> str:
    cells = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{cells}</table>" if cells else "<p>none</p>"
