"""The readiness gate: an app is ready when it runs, lists its model and has generated a token.

Everything is asked the way callers ask it: over the app's public URL, with a Bearer token. Callers without a
valid token are sent to a login page and may end at HTML with status 200 [inferred], so redirects are not
followed and content types are checked.

While a change rolls over the replicas the old ones go on answering. Whether the platform then shows a state
other than RUNNING is not documented: if it does not, the gate looks at the old replicas.
"""

from __future__ import annotations

from typing import Any

import httpx

from components.ai_deploy.api import LEAVING, RESTING, AiDeploy, App
from components.ai_deploy.client import OvhApiError
from components.ai_deploy.errors import DeployError, Say
from components.ai_deploy.ownership import Owner, confirm, leftovers, mark_ready
from components.ai_deploy.waiting import duration

PROGRESS_SECONDS = 30.0
"""How often the user is told where things stand."""
LOG_LINES = 20
"""Lines of the app's log that a failure shows."""
_CALL_SECONDS = 60.0
"""How long one call of the app may take."""
_LOG_SECONDS = 10.0
"""How long the log is asked for again when the API does not give it."""
_CALLABLE_STATES = frozenset({"RUNNING", "STANDBY"})
"""STANDBY is an app scaled to zero [inferred]; a call wakes it."""
_PASSING = frozenset({404, 408, 425, 429})
"""Client errors that an app which is coming up may answer for a while."""


class _NotYetError(Exception):
    """The app is not ready, more time may help; the text says what is missing."""


class _NeverError(Exception):
    """The app cannot become ready by itself; the text says why."""


def wait_until_ready(
    api: AiDeploy,
    app_id: str,
    owner: Owner,
    *,
    model: str,
    token: str,
    timeout: float,
    resource: str,
    say: Say,
) -> str:
    """Confirms the app as one of `owner`, waits until it serves `model`, and returns its public address.

    All of it takes at most `timeout` seconds; after a failure reading the log comes on top.

    `token` is the AI token to call it with, `resource` names the gate in messages. Raises DeployError with
    state, the platform's words, the last log lines and what to do; the app is kept in any case.
    """
    clock = api.client.clock
    end = clock.now() + timeout
    app = said = None
    with httpx.Client(headers={"Authorization": f"Bearer {token}"}) as http:
        for elapsed in clock.polls(timeout):
            deadline = min(clock.now() + PROGRESS_SECONDS, end)
            http.timeout = httpx.Timeout(min(_CALL_SECONDS, max(1.0, end - clock.now())))
            try:
                app = api.find_app(app_id, deadline)
                if app is None or app.state in LEAVING:
                    raise _NeverError("it was deleted")
                # The first act: what state holds shall not be taken for a leftover.
                confirm(api, app, owner, deadline)
                url = _look(app, http, model)
                mark_ready(api, app, deadline)
                _drop_latecomers(api, app_id, owner, say)
                return url
            except OvhApiError as error:
                # A change may be refused for the state that the app is in just now.
                if error.status is not None and error.status < 500 and error.status not in (409, 429):
                    raise
                missing = api.redact(str(error))
            except _NotYetError as error:
                missing = api.redact(str(error))
            except _NeverError as error:
                state = app.state if app else "gone"
                raise DeployError(_failure(api, app_id, app, state, str(error))) from error
            # Unknown as long as the API has not told it once.
            state = app.state if app else "unknown"
            news = (state, elapsed // PROGRESS_SECONDS)
            if news != said:
                said = news
                left = duration(max(0.0, timeout - elapsed))
                words = _last_words(api, app)
                say(f"{resource}: {state} after {duration(elapsed)} (gives up in {left}), {missing}{words}")
    reason = f"gave up after {duration(timeout)}: {missing}"
    raise DeployError(_failure(api, app_id, app, state, reason))


def _drop_latecomers(api: AiDeploy, app_id: str, owner: Owner, say: Say) -> None:
    """Deletes apps that came up late, after the engine that had asked for them was killed; waits for none."""
    try:
        for app in leftovers(api, owner.identity, owner.resource):
            if app.id != app_id:
                say(f"{owner.resource}: deleting app {app.id}, left over from an update that was cut off")
                api.delete_app(app.id, force=True)
    except OvhApiError as error:
        say(f"{owner.resource}: the app serves, but what a crash may have left behind stays: {error}")


def _look(app: App, http: httpx.Client, model: str) -> str:
    """One look at the app; raises _NotYetError or _NeverError."""
    if app.state in RESTING:
        raise _NeverError(f"it is {app.state} and will not start by itself")
    if app.state not in _CALLABLE_STATES:
        raise _NotYetError(
            f"waiting for RUNNING ({app.status.get('availableReplicas') or 0} replicas available)"
        )
    if app.url is None:
        raise _NotYetError("waiting for its URL")
    listed = _call(http, "GET", f"{app.url}/v1/models")
    names = [entry.get("id") for entry in listed.get("data") or () if isinstance(entry, dict)]
    if model not in names:
        raise _NotYetError(f"waiting for model {model} to be listed (listed: {', '.join(map(str, names))})")
    question = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    answer = _call(http, "POST", f"{app.url}/v1/chat/completions", question)
    if not (answer.get("usage") or {}).get("completion_tokens"):
        raise _NotYetError("the chat completion held no token")
    return app.url


def _call(http: httpx.Client, method: str, url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The JSON object that the app answers; raises _NotYetError or _NeverError."""
    name = f"{method} {httpx.URL(url).path}"
    try:
        response = http.request(method, url, json=body)
    except httpx.RequestError as error:
        raise _NotYetError(f"{name}: {type(error).__name__} {error}") from error
    status = response.status_code
    if response.is_redirect:
        raise _NotYetError(f"{name}: HTTP {status}, sent to a login page: the token is not accepted (yet)")
    if status in (401, 403):
        raise _NotYetError(f"{name}: HTTP {status}, the token is not accepted (yet)")
    content_type = response.headers.get("Content-Type", "")
    if response.is_success and not content_type.startswith("application/json"):
        raise _NotYetError(f"{name}: HTTP {status} with {content_type or 'no content type'} instead of JSON")
    if response.is_success:
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise _NotYetError(f"{name}: HTTP {status} with broken JSON")
        return answer
    text = f"{name}: HTTP {status} {response.text[:300]}"
    if response.is_client_error and status not in _PASSING:
        raise _NeverError(text)
    raise _NotYetError(text)


def _failure(api: AiDeploy, app_id: str, app: App | None, state: str, reason: str) -> str:
    lines = [
        f"app {app_id} is not ready: {reason}.",
        f"State: {state}" + (f" ({app.info})" if app and app.info else ""),
    ]
    if app is not None:
        lines += ["Last lines of its log:", *(f"  {line}" for line in _log(api, app_id))]
    return api.redact("\n".join([*lines, _remedy(state)]))


def _last_words(api: AiDeploy, app: App | None) -> str:
    """The last line of the app's log, by which a user can follow a download."""
    if app is None:
        return ""
    lines = _log(api, app.id)[-1:]
    return api.redact("".join(f"; log: {line}" for line in lines))


def _log(api: AiDeploy, app_id: str) -> list[str]:
    """The last lines of the app's log; when it cannot be read, why."""
    try:
        return api.log(app_id, deadline=api.client.clock.now() + _LOG_SECONDS)[-LOG_LINES:]
    except OvhApiError as error:
        return [f"(could not be read: {error})"]


def _remedy(state: str) -> str:
    match state:
        case "gone" | "DELETING" | "DELETED":
            return "`pulumi refresh`, then `pulumi up` makes a new one."
        case "QUEUED":
            return (
                "It waits for a GPU and bills nothing: the quota may be used up, or no GPU of this flavor be "
                "free in the region. `pulumi up` waits on; another region or flavor may be quicker."
            )
        case "STOPPED":
            return "Somebody stopped it: `pulumi refresh`, then `pulumi up` starts it again."
        case "FAILED":
            return (
                "The platform takes this for an error of the user: an image that is not linux/amd64 or does "
                "not run as uid 42420, access to the registry, or quota. Correct the settings and `pulumi "
                "up`; if the cause lay elsewhere: `pulumi refresh`, then `pulumi up` starts it again."
            )
        case "ERROR":
            return (
                "This is an error of the platform: `pulumi refresh`, then `pulumi up` starts it again; if it "
                "stays, `pulumi up --replace` with the app's URN makes a new one."
            )
        case _:
            return (
                "The app is kept and bills while it is SCALING or RUNNING. `pulumi up` waits again; a slow "
                "download needs a longer timeout, and probes that do not restart the container meanwhile."
            )
