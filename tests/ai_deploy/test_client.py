from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from urllib.parse import parse_qs

import pytest

from components.ai_deploy.client import ATTEMPTS, OvhApiError, OvhClient
from components.ai_deploy.credentials import AccessToken, ApplicationKey, Auth, Credentials, ServiceAccount
from components.ai_deploy.waiting import Clock
from tests.ai_deploy.servers import Answer, Request, Server, serving

KEYS = ApplicationKey("public-key", "application-secret", "consumer-secret")


class Time:
    """A clock that only moves when somebody sleeps."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.clock = Clock(lambda: sum(self.pauses), self.pauses.append)


def client(server: Server, auth: Auth = KEYS, time: Time | None = None) -> OvhClient:
    return OvhClient(Credentials(f"{server.url}/1.0", auth), (time or Time()).clock)


def api(respond: Callable[[Request], Answer], clock_ahead: int = 0) -> Callable[[Request], Answer]:
    """Adds `/auth/time` to a server."""

    def answer(request: Request) -> Answer:
        if request.path == "/1.0/auth/time":
            return Answer(body=int(time.time()) + clock_ahead)
        return respond(request)

    return answer


@pytest.mark.parametrize("clock_ahead", [0, -7200])
def test_requests_are_signed_as_documented_on_the_clock_of_the_api(clock_ahead: int) -> None:
    with serving(api(lambda _: Answer(body={"id": "x"}), clock_ahead)) as server:
        body = {"name": "ü", "count": 8000}
        assert client(server).request("POST", "/cloud/x", body, params={"a": "b=c d"}) == {"id": "x"}
    request = server.requests[-1]
    headers = request.headers
    url = f"http://{headers['Host']}{request.path}"
    text = "+".join(
        (
            "application-secret",
            "consumer-secret",
            "POST",
            url,
            request.body.decode(),
            headers["X-Ovh-Timestamp"],
        )
    )
    assert headers["X-Ovh-Signature"] == "$1$" + hashlib.sha1(text.encode()).hexdigest()  # noqa: S324
    assert (headers["X-Ovh-Application"], headers["X-Ovh-Consumer"]) == ("public-key", "consumer-secret")
    assert abs(int(headers["X-Ovh-Timestamp"]) - time.time() - clock_ahead) < 60
    assert b" " not in request.body
    assert request.json == body


def test_the_time_of_the_api_is_asked_once_and_without_signature() -> None:
    with serving(api(lambda _: Answer())) as server:
        ovh = client(server)
        ovh.request("GET", "/me")
        ovh.request("GET", "/me")
    assert [request.path for request in server.requests] == ["/1.0/auth/time", "/1.0/me", "/1.0/me"]
    assert "X-Ovh-Signature" not in server.requests[0].headers


def test_a_service_account_fetches_a_token_and_renews_it_before_it_ends() -> None:
    tokens = iter(("first", "second"))

    def respond(request: Request) -> Answer:
        if request.path == "/auth/oauth2/token":
            form = parse_qs(request.body.decode())
            assert form == {
                "grant_type": ["client_credentials"],
                "client_id": ["id"],
                "client_secret": ["client-secret"],
                "scope": ["all"],
            }
            return Answer(body={"access_token": next(tokens), "expires_in": 3600, "token_type": "Bearer"})
        return Answer(body=request.headers["Authorization"])

    with serving(respond) as server:
        now = Time()
        account = ServiceAccount("id", "client-secret", f"{server.url}/auth/oauth2/token")
        ovh = client(server, account, now)
        assert [ovh.request("GET", "/me") for _ in range(2)] == ["Bearer first"] * 2
        now.clock.sleep(3600 - 30)
        assert ovh.request("GET", "/me") == "Bearer second"


def test_a_revoked_token_of_a_service_account_is_renewed_once() -> None:
    tokens = iter(("revoked", "good"))

    def respond(request: Request) -> Answer:
        if request.path == "/token":
            return Answer(body={"access_token": next(tokens), "expires_in": 3600})
        good = request.headers["Authorization"] == "Bearer good"
        return Answer(body="fine") if good else Answer(401, {"message": "This token is not valid"})

    with serving(respond) as server:
        account = ServiceAccount("id", "client-secret", f"{server.url}/token")
        assert client(server, account).request("GET", "/me") == "fine"


@pytest.mark.parametrize("answer", [None, {}, ["text"], {"access_token": None}])
def test_an_answer_without_a_token_is_an_error_of_the_api(answer: object) -> None:
    with serving(lambda _: Answer(body=answer)) as server:
        account = ServiceAccount("id", "client-secret", f"{server.url}/token")
        with pytest.raises(OvhApiError, match="/token: no answer: the answer holds no access_token"):
            client(server, account).request("GET", "/me")


def test_an_access_token_is_sent_as_bearer() -> None:
    with serving(lambda request: Answer(body=request.headers["Authorization"])) as server:
        assert client(server, AccessToken("ready-made")).request("GET", "/me") == "Bearer ready-made"


def failing(times: int, failure: Answer) -> Callable[[Request], Answer]:
    """Fails so many times, then succeeds."""
    left = [failure] * times

    def respond(_: Request) -> Answer:
        return left.pop() if left else Answer(body="fine")

    return api(respond)


FAILURES = [Answer(429), Answer(500), Answer(502, b"<html>"), Answer(503), Answer(504), Answer(reset=True)]


@pytest.mark.parametrize("failure", FAILURES, ids=str)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_what_may_be_repeated_is_repeated_with_growing_pauses(method: str, failure: Answer) -> None:
    now = Time()
    with serving(failing(3, failure)) as server:
        assert client(server, time=now).request(method, "/x") == "fine"
    first, second, third = now.pauses
    assert 0.5 <= first <= 1 <= second <= 2 <= third <= 4


@pytest.mark.parametrize("failure", FAILURES[1:], ids=str)
def test_a_post_that_may_have_acted_is_sent_once_and_says_so(failure: Answer) -> None:
    with serving(failing(1, failure)) as server:
        with pytest.raises(OvhApiError) as caught:
            client(server).request("POST", "/x", {})
        assert server.count("POST", "/1.0/x") == 1
    assert caught.value.may_have_acted


def test_a_post_that_certainly_did_nothing_is_sent_again() -> None:
    with serving(failing(2, Answer(429))) as server:
        assert client(server).request("POST", "/x", {}) == "fine"
    with serving(api(lambda _: Answer())) as gone:
        pass
    with pytest.raises(OvhApiError) as caught:
        client(gone, AccessToken("t")).request("POST", "/x", {})
    assert not caught.value.may_have_acted


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 501])
def test_refusals_are_not_repeated(status: int) -> None:
    with serving(failing(1, Answer(status, {"message": "no"}))) as server:
        with pytest.raises(OvhApiError) as caught:
            client(server).request("GET", "/x")
        assert server.count("GET", "/1.0/x") == 1
    assert caught.value.status == status


def test_retry_after_is_honoured() -> None:
    now = Time()
    with serving(failing(1, Answer(429, headers={"Retry-After": "17"}))) as server:
        client(server, time=now).request("GET", "/x")
    assert now.pauses == [17]


def test_it_gives_up_after_some_attempts_or_at_the_deadline() -> None:
    with serving(failing(99, Answer(500, {"message": "broken"}))) as server:
        with pytest.raises(OvhApiError, match="HTTP 500: broken"):
            client(server).request("GET", "/x")
        assert server.count("GET", "/1.0/x") == ATTEMPTS
        now = Time()
        with pytest.raises(OvhApiError, match="HTTP 500: broken"):
            client(server, time=now).request("GET", "/y", deadline=3)
        assert sum(now.pauses) <= 3


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            Answer(
                404, {"class": "Client::NotFound::App", "message": "no such app"}, {"X-Ovh-QueryID": "EU.42"}
            ),
            ["GET /x: HTTP 404 Client::NotFound::App: no such app.", "(query id EU.42)"],
        ),
        (
            Answer(
                403,
                {
                    "class": "Client::Forbidden",
                    "message": "User not authorized",
                    "details": {"unauthorizedActionsByIAM": "publicCloudProject:apiovh:ai/app/create"},
                },
            ),
            ["Give the credentials these rights", "publicCloudProject:apiovh:ai/app/create"],
        ),
        (
            Answer(403, {"errorCode": "NOT_GRANTED_CALL", "message": "This call has not been granted"}),
            ["does not allow GET /x"],
        ),
        (
            Answer(
                403,
                {
                    "class": "Client::Forbidden",
                    "errorCode": "INVALID_CREDENTIAL",
                    "message": "This credential is not valid",
                },
            ),
            ["INVALID_CREDENTIAL", "make new ones"],
        ),
        (
            Answer(401, {"class": "Client::Unauthorized::InvalidAuthToken", "message": "no"}),
            ["expired", "make new ones"],
        ),
        (Answer(400, {"message": "GPU quota exceeded"}), ["quota", "OVHcloud's support"]),
        (
            Answer(403, b"<html><style>p{}</style><h1>Blocked</h1>by the proxy</html>"),
            ["HTTP 403 (no JSON): Blocked by the proxy."],
        ),
        (Answer(200, b"<html>Login</html>"), ["HTTP 200 (no JSON): Login."]),
        (Answer(302, b"", {"Location": "/login"}), ["HTTP 302"]),
    ],
    ids=lambda value: value.status if isinstance(value, Answer) else None,
)
def test_errors_say_what_happened_and_what_to_do(answer: Answer, words: list[str]) -> None:
    with serving(api(lambda _: answer)) as server, pytest.raises(OvhApiError) as caught:
        client(server).request("GET", "/x")
    for word in words:
        assert word in str(caught.value)


def test_no_secret_is_in_any_message_or_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    def respond(request: Request) -> Answer:
        # Echoes everything that it was sent.
        return Answer(
            400, {"message": f"bad: {request.body.decode()} {dict(request.headers)} application-secret"}
        )

    secret = 'hf-"quoted"-secret'
    with serving(api(respond)) as server:
        ovh = client(server)
        with pytest.raises(OvhApiError) as caught:
            ovh.request("POST", "/x", {"envVars": [{"name": "HF_TOKEN", "value": secret}]}, hide=[secret])
    for text in (str(caught.value), repr(caught.value), repr(ovh), caplog.text):
        for part in ("application-secret", "consumer-secret", "quoted"):
            assert part not in text
    assert "***" in str(caught.value)


def test_before_each_attempt_to_change_something_somebody_may_object() -> None:
    class EndedError(Exception):
        pass

    asked: list[str] = []

    def object_at_second(name: str) -> None:
        asked.append(name)
        if len(asked) == 2:
            raise EndedError

    with serving(failing(1, Answer(503))) as server:
        ovh = OvhClient(Credentials(f"{server.url}/1.0", AccessToken("t")), Time().clock, object_at_second)
        with pytest.raises(EndedError):
            ovh.request("PUT", "/x")
        assert server.count("PUT", "/1.0/x") == 1
        ovh.request("GET", "/x")
    assert asked == ["PUT /x", "PUT /x"]


def test_a_clock_that_jumped_costs_one_more_request() -> None:
    """The offset to the API's clock is asked once; a laptop that slept or NTP makes it wrong."""
    ahead = [0, 3600]

    def respond(request: Request) -> Answer:
        if request.path == "/1.0/auth/time":
            return Answer(body=int(time.time()) + ahead.pop(0))
        behind = int(request.headers["X-Ovh-Timestamp"]) < time.time() + 60
        refusal = {"errorCode": "QUERY_TIME_OUT", "message": "Query out of time"}
        return Answer(400, refusal) if behind else Answer(body={"id": "x"})

    with serving(respond) as server:
        assert client(server).request("POST", "/cloud/x", {}) == {"id": "x"}
    assert server.count("GET", "/1.0/auth/time") == 2
    assert server.count("POST", "/1.0/cloud/x") == 2


def test_a_clock_that_stays_wrong_is_named() -> None:
    refusal = Answer(400, {"class": "Client::BadRequest", "message": "Query out of time"})
    with (
        serving(api(lambda _: refusal)) as server,
        pytest.raises(OvhApiError, match="clock of this machine"),
    ):
        client(server).request("GET", "/cloud/x")
    assert server.count("GET", "/1.0/cloud/x") == 2


def test_a_time_that_is_none_is_an_error_of_the_api() -> None:
    with (
        serving(lambda _: Answer(body={})) as server,
        pytest.raises(OvhApiError, match="a time was expected"),
    ):
        client(server).request("GET", "/cloud/x")
