"""The calls of AI Deploy that this package makes, over the client of the OVHcloud API.

Paths, bodies and answers are those of API v1, `/cloud/project/{serviceName}/ai`. Rights that the credentials
need (IAM actions under `publicCloudProject:apiovh:`): `ai/app/get`, `create`, `edit`, `delete`, `start`,
`stop`, `ai/app/scalingstrategy/edit`, `ai/app/label/edit`, `ai/app/log/get`, `ai/token/get`, `create`,
`delete`. With `ai/capabilities/quota/get` a refusal for want of quota also says how large it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from components.ai_deploy.client import OvhApiError, OvhClient
from components.ai_deploy.plan import Call
from components.ai_deploy.redact import redact

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
    spec: Mapping[str, Any] = field(repr=False)
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
    def entered(self) -> str:
        """When the app came into its state, as the platform writes it; "" when it does not say."""
        return str(self.status.get("lastTransitionDate") or "")

    @property
    def gpus(self) -> int:
        """GPUs that the app holds now, or has been promised while it starts; none while it rests."""
        if self.state in RESTING | LEAVING | {"STOPPING"}:
            return 0
        scaling = self.spec.get("scalingStrategy") or {}
        least = (scaling.get("fixed") or {}).get("replicas") or (scaling.get("automatic") or {}).get(
            "replicasMin"
        )
        replicas = max(int(self.status.get("availableReplicas") or 0), int(least or 0))
        return replicas * int((self.spec.get("resources") or {}).get("gpu") or 0)

    @property
    def labels(self) -> Mapping[str, str]:
        """All labels, the platform's and our own too."""
        return self.spec.get("labels") or {}

    @property
    def info(self) -> str:
        """What the platform says about the state, as `CODE: message`."""
        info = self.status.get("info") or {}
        return ": ".join(str(info[key]) for key in ("code", "message") if info.get(key))


class AiDeploy:
    """AI Deploy in one Public Cloud project; each method is one call and raises OvhApiError.

    `secrets` are kept out of every error, and so are the environments of all apps that are met: the platform
    may repeat in its answer to any call what it knows of an app. `deadline` is a time on the client's clock
    after which a call is not repeated.
    """

    def __init__(self, client: OvhClient, service_name: str, secrets: Iterable[str] = ()) -> None:
        self.client = client
        self._base = f"/cloud/project/{service_name}/ai"
        self._secrets = set(secrets)

    def redact(self, text: str) -> str:
        """The text without the secrets that are known here, those of the credentials included."""
        return redact(text, {*self._secrets, *self.client.credentials.secrets})

    def apps(self, label: str, value: str) -> list[App]:
        """Apps of all regions that carry a label. The API's own filter is not relied on."""
        answer = self._list("/app", {"labelSelector": f"{label}={value}"})
        return [app for app in map(self._app, answer) if app.labels.get(label) == value]

    def all_apps(self) -> list[App]:
        """Every app of the project, in all regions."""
        return [self._app(answer) for answer in self._list("/app")]

    def gpu_quota(self) -> int | None:
        """How many GPUs the project may use at once; None when the answer does not say.

        The key is in capitals in the published example of the native API, and not documented for this one.
        """
        resources = self._object("/capabilities/quota").get("resources") or {}
        return next((int(count) for name, count in resources.items() if name.upper() == "GPU"), None)

    def find_app(self, app_id: str, deadline: float | None = None) -> App | None:
        """The app, None when it does not exist any more."""
        try:
            app = self._app(self._object(f"/app/{app_id}", deadline=deadline))
        except OvhApiError as error:
            self._require_missing(error, "/app")
            return None
        return None if app.state in GONE else app

    def create_app(self, body: Mapping[str, Any]) -> App:
        """Creates an app; with `may_have_acted` in the error it may exist nevertheless."""
        self._learn(body)
        return self._app(self._request("POST", "/app", body))

    def change_app(self, app_id: str, call: Call, deadline: float | None = None) -> None:
        """Makes one change of a plan."""
        self._learn(call.body)
        self._request("PUT", f"/app/{app_id}{call.path}", call.body, deadline=deadline)

    def start_app(self, app_id: str) -> None:
        """Starts a resting app; it keeps id and URL."""
        self._request("PUT", f"/app/{app_id}/start")

    def stop_app(self, app_id: str) -> None:
        """Stops an app; billing ends when it is stopped."""
        self._request("PUT", f"/app/{app_id}/stop")

    def delete_app(self, app_id: str, *, force: bool = False) -> None:
        """Deletes an app; one that is gone is no error. `force` kills a running one."""
        params = {"force": "true"} if force else None
        self._delete("/app", app_id, params)

    def log(self, app_id: str, deadline: float | None = None) -> list[str]:
        """The last lines that the app's containers wrote, oldest first."""
        answer = self._object(f"/app/{app_id}/log", deadline=deadline)
        return [str(line.get("content", "")).rstrip("\n") for line in answer.get("logs") or ()]

    def tokens(self) -> list[Mapping[str, Any]]:
        """All tokens of the project; their values are not shown."""
        return [_object("GET /token", token) for token in self._list("/token")]

    def find_token(self, token_id: str) -> Mapping[str, Any] | None:
        """A token without its value, None when it does not exist any more."""
        try:
            return self._object(f"/token/{token_id}")
        except OvhApiError as error:
            self._require_missing(error, "/token")
            return None

    def create_token(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Creates a token; the answer is the only one that shows its value (`status.value`)."""
        return _object("POST /token", self._request("POST", "/token", body))

    def delete_token(self, token_id: str) -> None:
        """Revokes a token; one that is gone is no error."""
        self._delete("/token", token_id)

    def _object(self, path: str, deadline: float | None = None) -> Mapping[str, Any]:
        return _object(f"GET {path}", self._request("GET", path, deadline=deadline))

    def _list(self, path: str, params: Mapping[str, str] | None = None) -> list[Any]:
        answer = self._request("GET", path, params=params)
        if not isinstance(answer, list):
            raise _unexpected(f"GET {path}", "a list", answer)
        return answer

    def _delete(self, kind: str, id_: str, params: Mapping[str, str] | None = None) -> None:
        try:
            self._request("DELETE", f"{kind}/{id_}", params=params)
        except OvhApiError as error:
            self._require_missing(error, kind)

    def _require_missing(self, error: OvhApiError, kind: str) -> None:
        """Raises unless the error means that the thing does not exist.

        A project that the credentials cannot see answers 404 to everything: what is in it would be forgotten.
        """
        if error.status != 404:
            raise error
        self._list(kind)

    def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        deadline: float | None = None,
    ) -> Any:
        return self.client.request(
            method, self._base + path, body, params=params, hide=self._secrets, deadline=deadline
        )

    def _app(self, answer: Any) -> App:
        if not isinstance(answer, dict) or "id" not in answer:
            raise _unexpected("AI Deploy", "an app", answer)
        app = App(str(answer["id"]), answer.get("spec") or {}, answer.get("status") or {})
        self._learn(app.spec)
        return app

    def _learn(self, spec: Mapping[str, Any]) -> None:
        """Keeps the values of an environment out of errors from now on."""
        self._secrets.update(str(item["value"]) for item in spec.get("envVars") or () if item.get("value"))


def _object(request: str, answer: Any) -> Mapping[str, Any]:
    if not isinstance(answer, dict):
        raise _unexpected(request, "an object", answer)
    return answer


def _unexpected(request: str, wanted: str, answer: Any) -> OvhApiError:
    return OvhApiError(
        request, f"{wanted} was expected, the answer is {type(answer).__name__}", may_have_acted=True
    )
