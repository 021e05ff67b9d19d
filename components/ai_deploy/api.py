"""The calls of AI Deploy that this package makes, over the client of the OVHcloud API.

Paths, bodies and answers are those of API v1, `/cloud/project/{serviceName}/ai`. Rights that the credentials
need (IAM actions under `publicCloudProject:apiovh:`): `ai/app/get`, `create`, `edit`, `delete`, `start`,
`stop`, `ai/app/scalingstrategy/edit`, `ai/app/label/edit`, `ai/app/log/get`, `ai/token/get`, `create`,
`delete`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.ai_deploy.client import OvhApiError, OvhClient
from components.ai_deploy.plan import Call

RESTING = frozenset({"STOPPED", "FAILED", "ERROR"})
"""States of an app that has no replica and will not get one by itself; it can be started or deleted."""
GONE = frozenset({"DELETED"})
"""States of an app that is no more."""
LEAVING = GONE | {"DELETING"}
"""States of an app that is gone or going."""


@dataclass(frozen=True)
class App:
    """An app as the API shows it."""

    id: str
    spec: Mapping[str, Any]
    """`AppSpec` with what the platform filled in; environment values are in clear."""
    status: Mapping[str, Any]

    @property
    def state(self) -> str:
        """`QUEUED`, `INITIALIZING`, `SCALING`, `RUNNING`, `STANDBY`, `STOPPING`, `STOPPED`, `FAILED`, …."""
        return str(self.status.get("state") or "")

    @property
    def url(self) -> str | None:
        """Public address without trailing slash; None until the platform has given one."""
        url = self.status.get("url")
        return str(url).rstrip("/") if url else None

    @property
    def monitoring_url(self) -> str | None:
        """Address of the platform's own dashboard."""
        return self.status.get("monitoringUrl") or None

    @property
    def labels(self) -> Mapping[str, str]:
        """All labels, the platform's and our own too."""
        return self.spec.get("labels") or {}

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values of the environment, to be kept out of texts."""
        return tuple(str(item.get("value") or "") for item in self.spec.get("envVars") or ())

    @property
    def info(self) -> str:
        """What the platform says about the state, as `CODE: message`."""
        info = self.status.get("info") or {}
        return ": ".join(str(info[key]) for key in ("code", "message") if info.get(key))


class AiDeploy:
    """AI Deploy in one Public Cloud project; each method is one call and raises OvhApiError.

    `deadline` is a time on the client's clock after which a call is not repeated.
    """

    def __init__(self, client: OvhClient, service_name: str) -> None:
        self.client = client
        self._base = f"/cloud/project/{service_name}/ai"

    def apps(self, label: str, value: str) -> list[App]:
        """Apps of all regions that carry a label. The API's own filter is not relied on."""
        answer = self._get("/app", {"labelSelector": f"{label}={value}"})
        return [app for app in map(_app, answer) if app.labels.get(label) == value]

    def find_app(self, app_id: str, deadline: float | None = None) -> App | None:
        """The app, None when it does not exist any more."""
        try:
            app = _app(self._get(f"/app/{app_id}", deadline=deadline))
        except OvhApiError as error:
            if error.status == 404:
                return None
            raise
        return None if app.state in GONE else app

    def create_app(self, body: Mapping[str, Any]) -> App:
        """Creates an app; with `may_have_acted` in the error it may exist nevertheless."""
        hide = [item["value"] for item in body.get("envVars") or ()]
        return _app(self.client.request("POST", f"{self._base}/app", body, hide=hide))

    def change_app(self, app_id: str, call: Call) -> None:
        """Makes one change of a plan."""
        hide = [item["value"] for item in call.body.get("envVars") or () if item["value"]]
        self.client.request("PUT", f"{self._base}/app/{app_id}{call.path}", call.body, hide=hide)

    def start_app(self, app_id: str) -> None:
        """Starts a resting app; it keeps id and URL."""
        self.client.request("PUT", f"{self._base}/app/{app_id}/start")

    def stop_app(self, app_id: str) -> None:
        """Stops an app; billing ends when it is stopped."""
        self.client.request("PUT", f"{self._base}/app/{app_id}/stop")

    def delete_app(self, app_id: str, *, force: bool = False) -> None:
        """Deletes an app; one that is gone is no error. `force` kills a running one."""
        params = {"force": "true"} if force else None
        self._delete(f"/app/{app_id}", params)

    def log(self, app_id: str, deadline: float | None = None) -> list[str]:
        """The last lines that the app's containers wrote, oldest first."""
        answer = self._get(f"/app/{app_id}/log", deadline=deadline) or {}
        return [str(line.get("content", "")).rstrip("\n") for line in answer.get("logs") or ()]

    def tokens(self) -> list[Mapping[str, Any]]:
        """All tokens of the project; their values are not shown."""
        return list(self._get("/token"))

    def find_token(self, token_id: str) -> Mapping[str, Any] | None:
        """A token without its value, None when it does not exist any more."""
        try:
            answer: Mapping[str, Any] = self._get(f"/token/{token_id}")
        except OvhApiError as error:
            if error.status == 404:
                return None
            raise
        return answer

    def create_token(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Creates a token; the answer is the only one that shows its value (`status.value`)."""
        answer: Mapping[str, Any] = self.client.request("POST", f"{self._base}/token", body)
        return answer

    def delete_token(self, token_id: str) -> None:
        """Revokes a token; one that is gone is no error."""
        self._delete(f"/token/{token_id}")

    def _get(self, path: str, params: Mapping[str, str] | None = None, deadline: float | None = None) -> Any:
        return self.client.request("GET", self._base + path, params=params, deadline=deadline)

    def _delete(self, path: str, params: Mapping[str, str] | None = None) -> None:
        try:
            self.client.request("DELETE", self._base + path, params=params)
        except OvhApiError as error:
            if error.status != 404:
                raise


def _app(answer: Any) -> App:
    if not isinstance(answer, dict) or "id" not in answer:
        raise OvhApiError(
            "AI Deploy", f"an app was expected, the answer is {type(answer).__name__}", may_have_acted=True
        )
    return App(str(answer["id"]), answer.get("spec") or {}, answer.get("status") or {})
