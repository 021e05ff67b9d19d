"""The AI Deploy part of API v1: `/cloud/project/{serviceName}/ai`."""

from __future__ import annotations

from aiohttp import web

from components.flavors import FLAVORS, REGIONS, ai_api_url
from sandbox.cloud import catalogue
from sandbox.cloud.apps import App, Apps, LogLine
from sandbox.cloud.http import Route, bad_request, not_found, parse
from sandbox.cloud.schema import (
    AppSpec,
    AppUpdate,
    ImageUpdate,
    LabelUpdate,
    ScalingStrategy,
    selector,
)
from sandbox.cloud.settings import CloudSettings
from sandbox.interfaces import JsonValue

_PATH = "/cloud/project/{project}/ai"
_APP = f"{_PATH}/app/{{app}}"
_REGIONS = f"{_PATH}/capabilities/region"
_REGION = f"{_REGIONS}/{{region}}"


class AiApi:
    """Endpoints for apps, capabilities and the authorization."""

    def __init__(self, settings: CloudSettings, apps: Apps) -> None:
        self._settings = settings
        self._apps = apps
        self._authorized = settings.ai_authorized

    @property
    def routes(self) -> list[Route]:
        """The routes, without those of tokens."""
        return [
            Route("GET", f"{_PATH}/app", self._list, "ai/app/get", query=("labelSelector", "statusState")),
            Route("POST", f"{_PATH}/app", self._create, "ai/app/create"),
            Route("GET", _APP, self._get, "ai/app/get"),
            Route("PUT", _APP, self._update, "ai/app/edit"),
            Route("DELETE", _APP, self._delete, "ai/app/delete", query=("force",)),
            Route("PUT", f"{_APP}/start", self._start, "ai/app/start"),
            Route("PUT", f"{_APP}/stop", self._stop, "ai/app/stop"),
            Route("PUT", f"{_APP}/scalingstrategy", self._scale, "ai/app/scalingstrategy/edit"),
            Route("PUT", f"{_APP}/label", self._label, "ai/app/label/edit"),
            Route("PUT", f"{_APP}/image", self._image, "ai/app/image/edit"),
            Route("GET", f"{_APP}/log", self._log, "ai/app/log/get", query=("page", "size", "replica")),
            Route("GET", f"{_PATH}/authorization", self._authorization, "ai/authorization/get"),
            Route("POST", f"{_PATH}/authorization", self._authorize, "ai/authorization/create"),
            Route("GET", _REGIONS, self._regions, "ai/capabilities/region/get"),
            Route("GET", _REGION, self._region, "ai/capabilities/region/get"),
            Route("GET", f"{_REGION}/flavor", self._flavors, "ai/capabilities/region/flavor/get"),
            Route("GET", f"{_PATH}/capabilities/quota", self._quota, "ai/capabilities/quota/get"),
            Route("GET", f"{_PATH}/capabilities/feature", self._features, "ai/capabilities/feature/get"),
        ]

    def _find(self, request: web.Request) -> App:
        return self._apps.find(request.match_info["app"])

    async def _list(self, request: web.Request) -> JsonValue:
        apps = self._apps.all()
        if (given := request.query.get("labelSelector")) is not None:
            try:
                apps = self._apps.selected(selector(given))
            except ValueError as error:
                raise bad_request(f"labelSelector: {error}") from None
        if states := request.query.getall("statusState", []):
            apps = [app for app in apps if app.state in states]
        return [app.json() for app in apps]

    async def _create(self, request: web.Request) -> JsonValue:
        return self._apps.create(await parse(request, AppSpec)).json()

    async def _get(self, request: web.Request) -> JsonValue:
        return self._find(request).json()

    async def _update(self, request: web.Request) -> JsonValue:
        app = self._find(request)
        self._apps.update(app, await parse(request, AppUpdate))
        return app.json()

    async def _delete(self, request: web.Request) -> JsonValue:
        force = request.query.get("force", "false")
        if force not in ("true", "false"):
            raise bad_request(f"force: {force} is neither true nor false")
        self._apps.delete(self._find(request), force == "true")
        return None

    async def _start(self, request: web.Request) -> JsonValue:
        self._apps.start(self._find(request))
        return None

    async def _stop(self, request: web.Request) -> JsonValue:
        self._apps.stop(self._find(request))
        return None

    async def _scale(self, request: web.Request) -> JsonValue:
        app = self._find(request)
        self._apps.set_scaling(app, await parse(request, ScalingStrategy))
        return None

    async def _label(self, request: web.Request) -> JsonValue:
        app, change = self._find(request), await parse(request, LabelUpdate)
        self._apps.set_label(app, change.name, change.value)
        return None

    async def _image(self, request: web.Request) -> JsonValue:
        app, change = self._find(request), await parse(request, ImageUpdate)
        self._apps.update(app, AppUpdate(url=change.url))
        return {"message": f"image of app {app.id} is now {change.url}"}

    async def _log(self, request: web.Request) -> JsonValue:
        """Log lines, oldest first; page 1 holds the newest `size` lines (order and paging are assumed)."""
        lines = list(self._find(request).logs)
        if (replica := request.query.get("replica")) is not None:
            lines = [line for line in lines if line.replica == replica]
        last = lines[-1].timestamp if lines else None
        shown = _page(lines, _positive(request, "page", 1), _positive(request, "size", max(1, len(lines))))
        logs: list[JsonValue] = [{"timestamp": line.timestamp, "content": line.content} for line in shown]
        return {"lastActivity": last, "logs": logs}

    async def _authorization(self, _request: web.Request) -> JsonValue:
        return {"authorized": self._authorized}

    async def _authorize(self, _request: web.Request) -> JsonValue:
        self._authorized = True
        return None

    async def _regions(self, _request: web.Request) -> JsonValue:
        return [_region(region) for region in REGIONS]

    async def _region(self, request: web.Request) -> JsonValue:
        return _region(_known(request.match_info["region"]))

    async def _flavors(self, request: web.Request) -> JsonValue:
        _known(request.match_info["region"])
        return [catalogue.capability(flavor) for flavor in FLAVORS.values()]

    async def _quota(self, _request: web.Request) -> JsonValue:
        # The published types give the names in upper case, and only as an example.
        return {"resources": {"GPU": self._settings.gpu_quota, "CPU": 12}, "storage": 0}

    async def _features(self, _request: web.Request) -> JsonValue:
        return {"lab": False, "registry": True}


def _positive(request: web.Request, name: str, default: int) -> int:
    value = request.query.get(name, str(default))
    if not value.isdecimal() or int(value) == 0:
        raise bad_request(f"{name}: {value} is not a positive number")
    return int(value)


def _page(lines: list[LogLine], page: int, size: int) -> list[LogLine]:
    end = max(0, len(lines) - (page - 1) * size)
    return lines[max(0, end - size) : end]


def _known(region: str) -> str:
    if region not in REGIONS:
        raise not_found("Region", f"region {region} has no AI products")
    return region


def _region(region: str) -> JsonValue:
    return {
        "id": region,
        "cliInstallUrl": f"https://cli.{region.lower()}.ai.cloud.ovh.net/install.sh",
        "documentationUrl": "https://docs.ovh.com/gb/en/publiccloud/ai/",
        "registryUrl": f"{ai_api_url(region)}/registry",
        "version": "v1",
    }
