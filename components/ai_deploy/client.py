"""HTTP client of OVHcloud API v1: signs requests, repeats what may be repeated, explains errors.

Knows neither Pulumi nor AI Deploy; may be used by several threads. Signature, token and error formats are
those of go-ovh and python-ovh. Neither of them repeats a request, and OVHcloud publishes no rate limit for
this API, although parallel tools do run into one: hence the backoff here.
"""

from __future__ import annotations

import email.utils
import hashlib
import html
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from components.ai_deploy.credentials import AccessToken, ApplicationKey, Credentials, ServiceAccount
from components.ai_deploy.redact import redact
from components.ai_deploy.waiting import WALL_CLOCK, Clock

REQUEST_TIMEOUT: Final = 60.0
"""Seconds to wait for an answer."""
ATTEMPTS: Final = 6
"""How often a request is sent at most."""
_FIRST_BACKOFF: Final = 0.5
_LONGEST_BACKOFF: Final = 30.0
_LONGEST_RETRY_AFTER: Final = 300.0
_IDEMPOTENT: Final = frozenset({"GET", "PUT", "DELETE"})
_TRANSIENT: Final = frozenset({500, 502, 503, 504})
_NEVER_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_TOKEN_MARGIN: Final = 60.0
"""Seconds before its end at which an OAuth2 token is renewed."""
_SOON: Final = 5.0
_LATE: Final = 60.0
_MESSAGE_LENGTH: Final = 500
"""Characters of an answer without JSON that an error shows."""


class OvhApiError(Exception):
    """An answer of the API that is no success, or no answer at all.

    The text has the request, status, error class (such as `INVALID_CREDENTIAL` or `Client::NotFound`), the
    API's message, the query id (header `X-Ovh-QueryID`) that OVHcloud's support asks for, and what to do,
    with the IAM actions that the credentials lack; no secret.
    """

    def __init__(
        self,
        request: str,
        message: str,
        *,
        status: int | None = None,
        error_class: str = "",
        query_id: str = "",
        missing_rights: Collection[str] = (),
        may_have_acted: bool = False,
        timed_out: bool = False,
    ) -> None:
        self.status = status
        """HTTP status; None when no answer came."""
        self.may_have_acted = may_have_acted
        """Whether the platform may have done what was asked, although it did not say so."""
        # Without an answer in time the platform may be at work yet.
        self.settles_seconds = _LATE if timed_out else _SOON
        """How long to look for what was to be created, before it can be taken for not created."""
        head = " ".join(filter(None, (f"HTTP {status}" if status else "no answer", error_class)))
        answer = f"{error_class} {message}".lower()
        self.about_quota = "quota" in answer
        """Whether it speaks of a quota; which class such a refusal has is not documented."""
        self.out_of_time = "query_time_out" in answer or "query out of time" in answer
        """Whether the signature was refused for its time; nothing was done then."""
        remedy = _remedy(request, status, answer, missing_rights)
        super().__init__(
            f"{request}: {head}: {message.rstrip('.')}."
            + (f" (query id {query_id})" if query_id else "")
            + (f" {remedy}" if remedy else "")
        )


def _remedy(request: str, status: int | None, answer: str, missing_rights: Collection[str]) -> str:
    """What to do about an error, "" when there is nothing better than the message itself."""
    if missing_rights:
        return f"Give the credentials these rights (IAM): {', '.join(missing_rights)}."
    if "not_granted_call" in answer or "not been granted" in answer:
        return f"The consumer key does not allow {request}: make one with this right."
    wrong = r"invalid_?credential|not_?credential|invalid_?key|invalid_?auth_?token|expired"
    # Without an answer it may be a certificate that has expired.
    if status in (400, 401, 403) and re.search(wrong, answer):
        return "The credentials are wrong, expired or not yet validated: make new ones and set them again."
    if "signature" in answer:
        return "The application secret or the consumer key is wrong, or belongs to another endpoint."
    if "query out of time" in answer or "query_time_out" in answer:
        return "The clock of this machine runs wrong, or jumped: set it, and run the same command again."
    if "quota" in answer:
        return (
            "The project's quota of AI resources is reached (4 GPUs at once by default): delete what is not "
            "needed, ask for fewer, or have OVHcloud's support raise it."
        )
    return ""


@dataclass(frozen=True)
class _Token:
    value: str = field(repr=False)
    renew_at: float


class OvhClient:
    """Sends requests to OVHcloud API v1 with one set of credentials.

    `before_change` is called with a request's name each time before one that changes something is sent; it
    may raise to prevent it.
    """

    def __init__(
        self,
        credentials: Credentials,
        clock: Clock = WALL_CLOCK,
        before_change: Callable[[str], None] | None = None,
    ) -> None:
        self.credentials = credentials
        self.clock = clock
        self._before_change = before_change
        self._http = httpx.Client(timeout=REQUEST_TIMEOUT, headers={"User-Agent": "ovh-vllm"})
        self._lock = threading.Lock()
        self._clock_offset: int | None = None
        self._token: _Token | None = None

    def __repr__(self) -> str:
        return f"OvhClient({self.credentials!r})"

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        hide: Collection[str] = (),
        deadline: float | None = None,
    ) -> Any:
        """The JSON of the answer (None when it is empty); raises OvhApiError.

        `path` is one of API v1, or begins with `/v2/`.
        GET, PUT and DELETE are sent again after 429, 500, 502, 503, 504 and failures of the connection. A
        POST is sent again only when it certainly did nothing (429, no connection): for the rest the error's
        `may_have_acted` is true and the caller has to look. The texts in `hide` are kept out of errors; after
        `deadline` (on this client's clock) nothing is sent again.
        """
        name = f"{method} {path}"
        content = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()

        def build(*, fresh: bool) -> httpx.Request:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            request = self._http.build_request(
                method,
                _target(self.credentials.url, path),
                content=content,
                params=params,
                headers=headers,
                timeout=self._timeout(deadline),
            )
            request.headers.update(self._proof(request, content, fresh=fresh, deadline=deadline))
            # Last, since the proof may have taken minutes to get.
            if method != "GET" and self._before_change is not None:
                self._before_change(name)
            return request

        repeatable = method in _IDEMPOTENT
        try:
            return self._send(name, lambda: build(fresh=False), repeatable, hide, deadline)
        except OvhApiError as error:
            # What proves who we are is kept for a while: a token may have been revoked since, and our clock
            # been set. One more try with a new one; nothing was done.
            revoked = error.status == 401 and isinstance(self.credentials.auth, ServiceAccount)
            if not (revoked or error.out_of_time):
                raise
            return self._send(name, lambda: build(fresh=True), repeatable, hide, deadline)

    def _timeout(self, deadline: float | None) -> float:
        if deadline is None:
            return REQUEST_TIMEOUT
        return min(REQUEST_TIMEOUT, max(1.0, deadline - self.clock.now()))

    def _send(
        self,
        name: str,
        build: Callable[[], httpx.Request],
        repeatable: bool,
        hide: Collection[str],
        deadline: float | None,
    ) -> Any:
        for attempt in range(1, ATTEMPTS + 1):
            backoff = min(_FIRST_BACKOFF * 2**attempt, _LONGEST_BACKOFF)
            pause = secrets.SystemRandom().uniform(backoff / 2, backoff)
            request = build()
            token = (self._token.value,) if self._token else ()
            hidden = (*hide, *self.credentials.secrets, *token)
            try:
                response = self._http.send(request)
            except httpx.RequestError as error:
                never_sent = isinstance(error, _NEVER_SENT)
                failure = OvhApiError(
                    name,
                    redact(f"{type(error).__name__} {error}", hidden),
                    may_have_acted=not never_sent,
                    timed_out=isinstance(error, httpx.TimeoutException) and not never_sent,
                )
                again = repeatable or never_sent
            else:
                try:
                    return _decode(name, response, hidden)
                except OvhApiError as error:
                    failure = error
                again = response.status_code == 429 or (repeatable and response.status_code in _TRANSIENT)
                pause = _retry_after(response) or pause
            late = deadline is not None and self.clock.now() + pause > deadline
            if not again or late or attempt == ATTEMPTS or pause > _LONGEST_RETRY_AFTER:
                raise failure
            self.clock.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _proof(
        self, request: httpx.Request, content: bytes, *, fresh: bool, deadline: float | None
    ) -> dict[str, str]:
        """Headers that prove who sends `request`."""
        match self.credentials.auth:
            case ApplicationKey() as keys:
                timestamp = str(int(time.time()) + self._offset(fresh, deadline))
                return {
                    "X-Ovh-Application": keys.application_key,
                    "X-Ovh-Consumer": keys.consumer_key,
                    "X-Ovh-Timestamp": timestamp,
                    "X-Ovh-Signature": signature(keys, request.method, str(request.url), content, timestamp),
                }
            case ServiceAccount() as account:
                return {"Authorization": f"Bearer {self._access_token(account, fresh, deadline)}"}
            case AccessToken(token):
                return {"Authorization": f"Bearer {token}"}

    def _offset(self, fresh: bool, deadline: float | None) -> int:
        """Seconds that the API's clock is ahead of ours, asked once: a wrong clock makes wrong signatures."""
        with self._lock:
            if fresh or self._clock_offset is None:
                url = self.credentials.url + "/auth/time"
                now = self._send(
                    "GET /auth/time",
                    lambda: self._http.build_request("GET", url, timeout=self._timeout(deadline)),
                    True,
                    (),
                    deadline,
                )
                if not isinstance(now, int):
                    raise OvhApiError("GET /auth/time", f"a time was expected, the answer is {now!r:.80}")
                self._clock_offset = now - int(time.time())
            return self._clock_offset

    def _access_token(self, account: ServiceAccount, fresh: bool, deadline: float | None) -> str:
        with self._lock:
            if fresh or self._token is None or self.clock.now() >= self._token.renew_at:
                form = {
                    "grant_type": "client_credentials",
                    "client_id": account.client_id,
                    "client_secret": account.client_secret,
                    "scope": "all",
                }
                name = f"POST {account.token_url}"
                answer = self._send(
                    name,
                    lambda: self._http.build_request(
                        "POST", account.token_url, data=form, timeout=self._timeout(deadline)
                    ),
                    True,
                    (),
                    deadline,
                )
                token = answer.get("access_token") if isinstance(answer, dict) else None
                if not isinstance(token, str):
                    raise OvhApiError(name, "the answer holds no access_token")
                life = float(answer.get("expires_in") or 0)
                self._token = _Token(token, self.clock.now() + life - _TOKEN_MARGIN)
            return self._token.value


def _target(base: str, path: str) -> str:
    """The URL of a path; one that names its version, as `/v2/…`, does without the base's, as for go-ovh."""
    return (base.removesuffix("/1.0") if path.startswith(("/v1/", "/v2/")) else base) + path


def signature(keys: ApplicationKey, method: str, url: str, content: bytes, timestamp: str) -> str:
    """Header `X-Ovh-Signature` for the exact bytes of a request, as OVHcloud documents it."""
    text = "+".join((keys.application_secret, keys.consumer_key, method, url, content.decode(), timestamp))
    return "$1$" + hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _decode(name: str, response: httpx.Response, hidden: Collection[str]) -> Any:
    query_id = response.headers.get("X-Ovh-QueryID", "")
    status = response.status_code
    acted = status >= 500 or response.is_success
    try:
        answer = json.loads(response.content) if response.content.strip() else None
    except ValueError:
        raise OvhApiError(
            name,
            redact(_plain(response.text), hidden),
            status=status,
            error_class="(no JSON)",
            query_id=query_id,
            may_have_acted=acted,
        ) from None
    if response.is_success:
        return answer
    answer = answer if isinstance(answer, dict) else {"message": str(answer)}
    message = answer.get("message") or answer.get("error_description") or response.reason_phrase
    raise OvhApiError(
        name,
        redact(str(message), hidden),
        status=status,
        error_class=str(answer.get("errorCode") or answer.get("class") or answer.get("error") or ""),
        query_id=query_id,
        missing_rights=_missing_rights(answer.get("details")),
        may_have_acted=acted,
    )


def _plain(text: str) -> str:
    """A page of HTML, or whatever came instead of JSON, in one short line."""
    if "<" in text:
        text = re.sub(r"(?is)<(script|style)\b.*?</\1>|<[^>]*>", " ", text)
    text = " ".join(html.unescape(text).split())
    return text[:_MESSAGE_LENGTH] or "empty page"


def _missing_rights(details: object) -> list[str]:
    if not isinstance(details, dict):
        return []
    rights: list[str] = []
    for key in ("unauthorizedActionsByAuthentication", "unauthorizedActionsByIAM"):
        actions = details.get(key) or ()
        rights += re.split(r"[,\s]+", actions) if isinstance(actions, str) else map(str, actions)
    return sorted({right for right in rights if right})


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds of the header Retry-After, which holds a number or a date."""
    header = response.headers.get("Retry-After")
    if header is None:
        return None
    if header.isdigit():
        return float(header)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None
