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
from typing import Any, Final, ParamSpec, TypeVar, get_args

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
from pulumi.runtime.rpc import UNKNOWN, wrap_rpc_secret
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from components.ai_deploy import adoption, gate, ownership, removal, tokens
from components.ai_deploy.api import LEAVING, RESTING, AiDeploy, App
from components.ai_deploy.change import change
from components.ai_deploy.client import OvhApiError, OvhClient
from components.ai_deploy.creation import create
from components.ai_deploy.credentials import KEYS, CredentialsError, find_credentials
from components.ai_deploy.engine import ENGINE, Engine, EngineGoneError
from components.ai_deploy.errors import DeployError
from components.ai_deploy.ownership import Owner
from components.ai_deploy.plan import described, observed, plan, restarting
from components.ai_deploy.spec import (
    LABEL_IDENTITY,
    LABEL_NONCE,
    LABEL_RESOURCE,
    AppSpec,
    ContainerUpdates,
)
from components.ai_deploy.waiting import WALL_CLOCK, Clock
from components.unknowns import is_unknown

_P = ParamSpec("_P")
_T = TypeVar("_T")

Props = dict[str, Any]
"""Inputs or outputs of a resource."""


class _CloudProvider(ResourceProvider):
    """A provider that talks to OVHcloud with the credentials of the stack."""

    serialize_as_secret_always = False
    clock: Clock = WALL_CLOCK
    engine: Engine = ENGINE
    _configuration: Mapping[str, str | None]

    def configure(self, req: ConfigureRequest) -> None:
        """Keeps the credentials of the configuration; they are looked at when the first call is made."""
        self._configuration = {key: req.config.get(key) for key in KEYS}

    @functools.cached_property
    def _client(self) -> OvhClient:
        return OvhClient(find_credentials(self._configuration), self.clock, before_change=self.engine.require)

    def _api(self, props: Props, olds: Props | None = None) -> AiDeploy:
        hidden = [*_secrets(props), *_secrets(olds or {})]
        return AiDeploy(self._client, props["service_name"], hidden)


def _secrets(props: Props) -> list[str]:
    """Environment and token of a resource."""
    # The value of an identity is none.
    token = props.get("value") if "token_name" in props else props.get("token")
    values = [*(props.get("env") or {}).values(), token]
    return [value for value in values if isinstance(value, str)]


def _explained(method: Callable[_P, _T]) -> Callable[_P, _T]:
    """Leaves the error without its history: the engine shows the user a traceback of all of it."""

    @functools.wraps(method)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return method(*args, **kwargs)
        except (OvhApiError, CredentialsError, EngineGoneError, DeployError) as error:
            raise error.with_traceback(None) from None

    return wrapper


class IdentityProvider(_CloudProvider):
    """A random id of the deployment, made once and kept in state.

    Everything that carries it is made after it and deleted before it. What is there when it is deleted was
    left behind by a crash, and no state knows of it.
    """

    def diff(self, _id: str, _olds: Props, _news: Props) -> DiffResult:
        """Another project is another deployment."""
        changed = _changed(_olds, _news, "service_name")
        return DiffResult(changes=bool(changed), replaces=changed)

    def create(self, props: Props) -> CreateResult:
        """16 hexadecimal digits, as id and as output `value`; no call is made."""
        value = secrets.token_hex(8)
        return CreateResult(value, {**props, "value": value})

    @_explained
    def delete(self, _id: str, _props: Props) -> None:
        """Deletes apps that were never confirmed, and tokens, of this deployment."""
        api, identity = self._api(_props), _props["value"]
        removal.remove_leftovers(api, ownership.leftovers(api, identity), self.engine.say)
        for app in api.apps(LABEL_IDENTITY, identity):
            # Somebody took it out of the state, and may want it.
            self.engine.say(
                f"app {app.id} ({app.state}) carries the id of this deployment, but the state does not hold "
                "it: it bills until it is deleted in the Control Panel."
            )
        tokens.sweep(api, identity, (), self.engine.say)


class AppProvider(_CloudProvider):
    """Apps: accepted on create, changed in place where the platform can, deleted for good.

    Inputs: `service_name`, `identity`, `resource`, the fields of `AppSpec`, and

    - `container_updates`: how changes get to running containers; not itself a change of the app.
    - `adopt`: id of an app to take over instead of making one; without meaning once the app is another one.
    - `state`, which no program sets but `read`: a state in which the app was found resting, or `CHANGED`.
    - `starts`, which `check` counts: how often the containers were made anew by a change, or started after
      they were found at rest. The readiness gate runs when it goes up. A hash of the settings would not do:
      it is as before when a change that failed is taken back or drift is put right, and secrets can be
      guessed from it.
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
        failures = []
        if news["container_updates"] not in (*get_args(ContainerUpdates), UNKNOWN):
            failures.append(CheckFailure("container_updates", f"is one of {get_args(ContainerUpdates)}"))
        if _olds:
            self._held.add((news["resource"], _olds.get("adopt")))
        if news.get("adopt") and (news["resource"], news["adopt"]) not in self._held:
            failures += self._obstacles(inputs)
        return CheckResult(inputs, failures)

    @property
    def _held(self) -> set[tuple[str, str | None]]:
        """Resources that state holds, and what they were to take over.

        One that is replaced is checked a second time as if it were new, and shall not be compared again.
        """
        # In one step: several threads ask.
        held: set[tuple[str, str | None]] = self.__dict__.setdefault("_seen", set())
        return held

    @_explained
    def _obstacles(self, inputs: Props) -> list[CheckFailure]:
        if is_unknown([inputs["adopt"], inputs["service_name"], _settings(inputs)]):
            return []
        # An identity that is not known yet belongs to no app.
        app = self._api(inputs).find_app(inputs["adopt"])
        found = adoption.obstacles(app, _spec(inputs), _owner(inputs))
        return [CheckFailure("adopt", f"app {inputs['adopt']}: {obstacle}") for obstacle in found]

    def diff(self, _id: str, _olds: Props, _news: Props) -> DiffResult:
        """Changed settings, and which of them replace the app."""
        difference = plan(_owned(_olds), _owned(_news))
        replaces = [*difference.replaced, *_changed(_olds, _news, "service_name")]
        if _news.get("adopt") not in (None, _id, _olds.get("adopt")):
            replaces.append("adopt")
        again = bool(_changed(_olds, _news, "starts"))
        if again and not replaces:
            self.engine.say(_announcement(_olds, _news))
        changes = bool(difference.changed or replaces or again or _changed(_olds, _news, "state"))
        return DiffResult(changes=changes, replaces=replaces)

    @_explained
    def create(self, props: Props) -> CreateResult:
        """Makes the app, or takes one over; returns when it is accepted, or a little later with its URL."""
        api, spec, owner = self._api(props), _spec(props), _owner(props)
        if props.get("adopt"):
            taken = adoption.take_over(api, props["adopt"], spec, owner, self.engine.say)
            if taken is not None:
                app, nonce = taken
                return CreateResult(app.id, {**props, **_outputs(app), "adopted_nonce": nonce})
        app = create(api, spec, owner, self.engine.say)
        return CreateResult(app.id, {**props, **_outputs(app)})

    @_explained
    def read(self, id_: str, props: Props) -> ReadResult:
        """What the app has now; what was changed by hand, or stopped, comes up in the next diff."""
        app = self._api(props).find_app(id_)
        if app is None or app.state in LEAVING:
            return ReadResult("", {})
        removal.check_owner(app, _owner(props))
        seen = observed(_owned(props), app.spec)
        changed = restarting(_settings(props), seen)
        labels = seen.pop("labels")
        owner = {
            "identity": labels.pop(LABEL_IDENTITY, ""),
            "resource": labels.pop(LABEL_RESOURCE, ""),
        }
        # The engine marks as secret only what it knows already, not a variable that was set by hand.
        env = {name: wrap_rpc_secret(value) for name, value in seen.pop("env").items()}
        inputs = {**props, **seen, "env": env, "labels": labels, **owner}
        for name in ("state", *_OUTPUTS):
            inputs.pop(name, None)
        # No program sets a state: the next diff shows that it has to go, and `check` counts a start.
        if app.state in RESTING:
            inputs["state"] = app.state
        elif changed or props.get("state") == _CHANGED:
            # Of an update that was cut off nobody knows whether the containers have come anew, and are ready.
            inputs["state"] = _CHANGED
        outs = {**inputs, **_outputs(app)}
        if "adopted_nonce" in props:
            outs["adopted_nonce"] = props["adopted_nonce"]
        return ReadResult(id_, outs, inputs)

    @_explained
    def update(self, _id: str, _olds: Props, _news: Props) -> UpdateResult:
        """Makes the changes in place, and starts an app that rests when its containers have to come anew."""
        spec = _spec(_news)
        wanted = _owned({**_news, **spec.settings()})
        app = change(
            self._api(_news, _olds),
            _id,
            plan(_owned(_olds), wanted),
            wanted,
            _news["container_updates"] if _changed(_olds, _news, "starts") else None,
            _news["resource"],
            self.engine.say,
        )
        outs = {**_news, **_outputs(app)}
        if "adopted_nonce" in _olds:
            # A take-over whose engine was killed before it could save this may have written another one.
            outs["adopted_nonce"] = app.labels.get(LABEL_NONCE, _olds["adopted_nonce"])
        return UpdateResult(outs)

    @_explained
    def delete(self, _id: str, _props: Props) -> None:
        """Stops the app, deletes it and waits until it is gone."""
        api, nonce = self._api(_props), _props.get("adopted_nonce")
        if nonce is not None and adoption.taken_over_since(api, _id, nonce):
            self.engine.say(f"app {_id} is kept: it has been taken over anew")
        else:
            removal.retire(api, _id, _owner(_props))


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


_CHANGED: Final = "CHANGED"
"""Stands for a state of the app after its containers were changed behind the back of Pulumi's state."""

_OUTPUTS: Final = ("url", "monitoring_url", "adopted_nonce")


def _outputs(app: App) -> Props:
    return {"url": app.url, "monitoring_url": app.monitoring_url}


def _announcement(olds: Props, news: Props) -> str:
    """What a change does to the running containers, for who looks at a preview."""
    resource, gate = news["resource"], "the update waits until it is ready again"
    changed = described(_settings(olds), _settings(news)) or "what the containers run was"
    if olds.get("state") in RESTING:
        return f"{resource}: the app is {olds['state']} and will be started; {gate}."
    if news["container_updates"] == "restart":
        return f"{resource}: {changed} changed, so the app is stopped and started: down until then; {gate}."
    return (
        f"{resource}: {changed} changed, the platform rolls new containers out while the old ones serve, "
        f"which takes the GPUs of one more replica; {gate}."
    )


def _starts(old: Props, new: Props) -> int | str:
    if not old:
        return 0
    if not restarting(old, new) and "state" not in old:
        return int(old["starts"])
    # A value that is not known yet may turn out to be the old one.
    return UNKNOWN if is_unknown(_settings(new)) else int(old["starts"]) + 1


def _changed(olds: Props, news: Props, *keys: str) -> list[str]:
    return [key for key in keys if olds.get(key) != news.get(key)]


class ReadinessProvider(_CloudProvider):
    """The readiness gate: may fail without losing the app, since it is a resource of its own.

    Runs when the app is another one, or its containers were started anew; not for scaling and labels. A first
    run that does not get through fails. A later one keeps its outputs, at which callers and Prometheus find
    the app that serves, and says in the output `failure` why, for `Verdict` to fail with: what a resource
    that fails has put out is lost to the rest of the program.
    """

    def diff(self, _id: str, _olds: Props, _news: Props) -> DiffResult:
        """Whether to run again."""
        changed = _changed(_olds, _news, "service_name", "app_id", "starts", "model")
        return DiffResult(changes=bool(changed or _olds["failure"]), replaces=[])

    @_explained
    def create(self, props: Props) -> CreateResult:
        """Confirms the app and waits until it serves the model."""
        return CreateResult(f"{props['resource']}-{secrets.token_hex(4)}", self._pass(props))

    @_explained
    def update(self, _id: str, _olds: Props, _news: Props) -> UpdateResult:
        """Confirms the app and waits until it serves the model; if it does not, the outputs stay."""
        try:
            return UpdateResult(self._pass(_news))
        except (OvhApiError, CredentialsError, DeployError) as error:
            return UpdateResult({**_olds, "failure": str(error)})

    def _pass(self, props: Props) -> Props:
        url = gate.wait_until_ready(
            self._api(props),
            props["app_id"],
            Owner(props["identity"], props["app_resource"]),
            model=props["model"],
            token=props["token"],
            timeout=props["timeout_seconds"],
            resource=props["resource"],
            say=self.engine.say,
        )
        known = {key: value for key, value in props.items() if key != "token"}
        return {**known, "url": url, "failure": ""}


class VerdictProvider(ResourceProvider):
    """Fails when a readiness gate did not get through."""

    serialize_as_secret_always = False

    def diff(self, _id: str, _olds: Props, _news: Props) -> DiffResult:
        """Whether there is news; what a preview does not know yet is none."""
        changed = _changed(_olds, _news, "failure") and not is_unknown(_news)
        return DiffResult(changes=bool(changed), replaces=[])

    @_explained
    def create(self, props: Props) -> CreateResult:
        """Fails, or does nothing."""
        return CreateResult("verdict", self._judge(props))

    @_explained
    def update(self, _id: str, _olds: Props, _news: Props) -> UpdateResult:
        """Fails, or does nothing."""
        return UpdateResult(self._judge(_news))

    def _judge(self, props: Props) -> Props:
        if props["failure"]:
            raise DeployError(props["failure"])
        return props


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
        if changed and not set(_olds["token_ids"]) & set(_news["token_ids"]):
            self.engine.say(
                "This update revokes every token that is in use now; callers need the new one at once."
            )
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

    def _sweep(self, props: Props, keep: list[str]) -> None:
        tokens.sweep(self._api(props), props["identity"], keep, self.engine.say)
