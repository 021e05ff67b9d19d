"""Dynamic providers: what the Pulumi engine asks, handed on to the modules that know how.

State refers to these classes by module and name: renaming or moving one orphans the resources of every stack.
Instances hold nothing when they are made (they travel in state) and are shared by several threads.

Inputs and outputs are plain JSON. The engine turns numbers into floats, shows values that a preview does not
know yet as a marker text, and hands `diff`, `update` and `read` the old *outputs*; `check` alone sees the old
inputs. Outputs therefore repeat the inputs.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final, ParamSpec, TypeVar

from pulumi.dynamic import (
    CheckFailure,
    CheckResult,
    ConfigureRequest,
    CreateResult,
    DiffResult,
    ReadResult,
    ResourceProvider,
    UpdateResult,
)
from pulumi.runtime.rpc import UNKNOWN
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from components.ai_deploy import gate, lifecycle, tokens
from components.ai_deploy.api import LEAVING, RESTING, AiDeploy, App
from components.ai_deploy.client import OvhApiError, OvhClient
from components.ai_deploy.credentials import CredentialsError, find_credentials
from components.ai_deploy.engine import ENGINE, Engine, EngineGoneError
from components.ai_deploy.lifecycle import DeployError, Owner
from components.ai_deploy.plan import observed, plan, restarts
from components.ai_deploy.spec import LABEL_IDENTITY, LABEL_RESOURCE, MANAGED_LABELS, AppSpec
from components.ai_deploy.waiting import WALL_CLOCK, Clock
from components.unknowns import is_unknown

_P = ParamSpec("_P")
_T = TypeVar("_T")

Props = dict[str, Any]
"""Inputs or outputs of a resource."""

_CONFIGURATION: Final = tuple(
    f"ovh:{key}"
    for key in (
        "endpoint",
        "applicationKey",
        "applicationSecret",
        "consumerKey",
        "clientId",
        "clientSecret",
        "accessToken",
    )
)


class IdentityProvider(ResourceProvider):
    """A random id of the deployment, made once and kept in state; no call is made."""

    serialize_as_secret_always = False

    def diff(self, _id: str, _olds: Props, _news: Props) -> DiffResult:
        """Never changes."""
        return DiffResult(changes=False)

    def create(self, props: Props) -> CreateResult:
        """16 hexadecimal digits, as id and as output `value`."""
        value = secrets.token_hex(8)
        return CreateResult(value, {"value": value})


class _CloudProvider(ResourceProvider):
    """A provider that talks to OVHcloud with the credentials of the stack."""

    serialize_as_secret_always = False
    clock: Clock = WALL_CLOCK
    engine: Engine = ENGINE
    _configuration: Mapping[str, str | None]

    def configure(self, req: ConfigureRequest) -> None:
        """Keeps the credentials of the configuration; they are looked at when the first call is made."""
        self._configuration = {key: req.config.get(key) for key in _CONFIGURATION}

    @functools.cached_property
    def _client(self) -> OvhClient:
        return OvhClient(find_credentials(self._configuration), self.clock, before_change=self.engine.require)

    def _api(self, props: Props) -> AiDeploy:
        return AiDeploy(self._client, props["service_name"])


def _explained(method: Callable[_P, _T]) -> Callable[_P, _T]:
    """Leaves the error without its history: the engine shows the user a traceback of all of it."""

    @functools.wraps(method)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return method(*args, **kwargs)
        except (OvhApiError, CredentialsError, EngineGoneError, DeployError) as error:
            raise error.with_traceback(None) from None

    return wrapper


class AppProvider(_CloudProvider):
    """Apps: accepted on create, changed in place where the platform can, deleted for good.

    Inputs: `service_name`, `identity`, `resource`, the fields of `AppSpec`, and `starts`, which `check`
    counts: how often the containers were made anew by a change or started after they were found at rest. The
    readiness gate runs when it goes up. A hash of the settings would not do: it is as before when a change
    that failed is taken back or drift is put right, and secrets can be guessed from it.
    """

    def check(self, _olds: Props, news: Props) -> CheckResult:
        """Checks and normalizes the settings, and counts `starts`."""
        unknown = {name: value for name, value in _settings(news).items() if is_unknown(value)}
        stand_ins = {name: value for name, value in _STAND_INS.items() if name in unknown}
        known = {name: value for name, value in news.items() if name not in unknown}
        try:
            settings = {**_spec({**known, **stand_ins}).settings(), **unknown}
        except ValidationError as error:
            return CheckResult(news, [_failure(detail) for detail in error.errors()])
        inputs = {**news, **settings}
        inputs["starts"] = _starts(_olds, inputs)
        managed = MANAGED_LABELS.intersection(known.get("labels") or {})
        return CheckResult(
            inputs, [CheckFailure("labels", f"{name} is written by this resource itself") for name in managed]
        )

    def diff(self, _id: str, _olds: Props, _news: Props) -> DiffResult:
        """Changed settings, and which of them replace the app."""
        difference = plan(_owned(_olds), _owned(_news))
        replaces = [*difference.replaced, *_changed(_olds, _news, "service_name")]
        changes = bool(difference.changed or _changed(_olds, _news, "starts", "state", "service_name"))
        return DiffResult(changes=changes, replaces=replaces)

    @_explained
    def create(self, props: Props) -> CreateResult:
        """Makes the app; returns when it is accepted, or a little later with its URL."""
        app = lifecycle.create(self._api(props), _spec(props), _owner(props), self.engine.say)
        return CreateResult(app.id, {**props, **_outputs(app)})

    @_explained
    def read(self, id_: str, props: Props) -> ReadResult:
        """What the app has now; what was changed by hand, or stopped, comes up in the next diff."""
        app = self._api(props).find_app(id_)
        if app is None or app.state in LEAVING:
            return ReadResult("", {})
        seen = observed(_owned(props), app.spec)
        labels = seen.pop("labels")
        owner = {
            "identity": labels.pop(LABEL_IDENTITY, ""),
            "resource": labels.pop(LABEL_RESOURCE, ""),
        }
        inputs = {**props, **seen, "labels": labels, **owner}
        for name in ("state", *_OUTPUTS):
            inputs.pop(name, None)
        if app.state in RESTING:
            # No program sets it: the next diff shows that it has to go, and `check` counts a start.
            inputs["state"] = app.state
        return ReadResult(id_, {**inputs, **_outputs(app)}, inputs)

    @_explained
    def update(self, _id: str, _olds: Props, _news: Props) -> UpdateResult:
        """Makes the changes in place, and starts an app that rests when its containers have to come anew."""
        spec = _spec(_news)
        difference = plan(_owned(_olds), _owned({**_news, **spec.settings()}))
        start = bool(_changed(_olds, _news, "starts"))
        app = lifecycle.change(self._api(_news), _id, difference, start=start)
        return UpdateResult({**_news, **_outputs(app)})

    @_explained
    def delete(self, _id: str, _props: Props) -> None:
        """Stops the app, deletes it and waits until it is gone."""
        lifecycle.remove(self._api(_props), _id)


_STAND_INS: Final = {
    "name": "unknown",
    "region": "UNKNOWN",
    "image": "unknown",
    "flavor": "unknown",
    "gpu": 1,
}
"""What required settings are checked as while their value is not known."""


def _failure(detail: ErrorDetails) -> CheckFailure:
    """A mistake of the user, without the value, which may be a secret."""
    return CheckFailure(".".join(map(str, detail["loc"])), detail["msg"].removeprefix("Value error, "))


def _spec(props: Props) -> AppSpec:
    # None is a field that is not set: its default counts.
    return AppSpec.model_validate(
        {name: value for name, value in _settings(props).items() if value is not None}
    )


def _owner(props: Props) -> Owner:
    return Owner(props["identity"], props["resource"])


def _settings(props: Props) -> Props:
    return {name: props.get(name) for name in AppSpec.model_fields}


def _owned(props: Props) -> Props:
    """The settings of an app, with the labels that say whose it is: those are put right like any other."""
    labels = {name: value for name, value in _owner(props).labels.items() if value}
    return {**_settings(props), "labels": {**(props.get("labels") or {}), **labels}}


_OUTPUTS: Final = ("url", "monitoring_url")


def _outputs(app: App) -> Props:
    return {"url": app.url, "monitoring_url": app.monitoring_url}


def _starts(old: Props, new: Props) -> int | str:
    if not old:
        return 0
    if not restarts(old, new) and "state" not in old:
        return int(old["starts"])
    # A value that is not known yet may turn out to be the old one.
    return UNKNOWN if is_unknown(_settings(new)) else int(old["starts"]) + 1


def _changed(olds: Props, news: Props, *keys: str) -> list[str]:
    return [key for key in keys if olds.get(key) != news.get(key)]


class ReadinessProvider(_CloudProvider):
    """The readiness gate: may fail without losing the app, since it is a resource of its own.

    Runs when the app is another one, or its containers were started anew; not for scaling and labels.
    Changes in place, so that a failure leaves the outputs, and all who follow them, at the app that serves.
    """

    def diff(self, _id: str, _olds: Props, _news: Props) -> DiffResult:
        """Whether to run again."""
        return DiffResult(
            changes=bool(_changed(_olds, _news, "service_name", "app_id", "starts", "model")), replaces=[]
        )

    @_explained
    def create(self, props: Props) -> CreateResult:
        """Confirms the app and waits until it serves the model."""
        return CreateResult(f"{props['resource']}-{secrets.token_hex(4)}", self._pass(props))

    @_explained
    def update(self, _id: str, _olds: Props, _news: Props) -> UpdateResult:
        """Confirms the app and waits until it serves the model."""
        return UpdateResult(self._pass(_news))

    def _pass(self, props: Props) -> Props:
        ready = gate.wait_until_ready(
            self._api(props),
            props["app_id"],
            model=props["model"],
            token=props["token"],
            timeout=props["timeout_seconds"],
            resource=props["resource"],
            say=self.engine.say,
        )
        return {**{key: value for key, value in props.items() if key != "token"}, "url": ready.url}


class TokenProvider(_CloudProvider):
    """AI tokens: `create` always makes a new one; nothing of a token can be changed."""

    def diff(self, _id: str, _olds: Props, _news: Props) -> DiffResult:
        """Every change makes another token."""
        keys = ("service_name", "identity", "region", "role", "label_selector")
        changed = _changed(_olds, _news, *keys)
        return DiffResult(changes=bool(changed), replaces=changed)

    @_explained
    def create(self, props: Props) -> CreateResult:
        """Makes the token; its value is shown by the platform this once."""
        token = tokens.create(
            self._api(props), _owner(props), props["region"], props["role"], props["label_selector"]
        )
        return CreateResult(token.id, {**props, "token_name": token.name, "value": token.value})

    @_explained
    def read(self, id_: str, props: Props) -> ReadResult:
        """Whether the token still exists."""
        token = self._api(props).find_token(id_)
        return ReadResult("", {}) if token is None else ReadResult(id_, props)

    @_explained
    def delete(self, _id: str, _props: Props) -> None:
        """Revokes the token."""
        self._api(_props).delete_token(_id)


class TokenSweepProvider(_CloudProvider):
    """Deletes tokens of the deployment that no state holds; runs when the set of tokens changes."""

    def diff(self, _id: str, _olds: Props, _news: Props) -> DiffResult:
        """Whether to sweep again."""
        changed = _changed(_olds, _news, "service_name", "identity", "token_ids")
        return DiffResult(changes=bool(changed), replaces=[])

    @_explained
    def create(self, props: Props) -> CreateResult:
        """Sweeps."""
        self._sweep(props, props["token_ids"])
        return CreateResult(f"{props['identity']}-sweep", props)

    @_explained
    def update(self, _id: str, _olds: Props, _news: Props) -> UpdateResult:
        """Sweeps; tokens of before stay until the engine deletes them, after all who use them have moved."""
        self._sweep(_news, [*_olds["token_ids"], *_news["token_ids"]])
        return UpdateResult(_news)

    @_explained
    def delete(self, _id: str, _props: Props) -> None:
        """Sweeps a last time; the tokens in state are the engine's to delete."""
        self._sweep(_props, _props["token_ids"])

    def _sweep(self, props: Props, keep: list[str]) -> None:
        tokens.sweep(self._api(props), props["identity"], keep, self.engine.say)
