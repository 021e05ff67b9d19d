"""Credentials of OVHcloud API v1, from the same places as the `ovh` Pulumi provider reads them.

For each value: the stack's configuration (`ovh:applicationKey`), then the environment
(`OVH_APPLICATION_KEY`), then the files `./ovh.conf`, `~/.ovh.conf`, `/etc/ovh.conf`. These names and rules
are those of go-ovh, which the provider is built on, so that one set of credentials serves both.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ENDPOINTS = {
    "ovh-eu": "https://eu.api.ovh.com/1.0",
    "ovh-ca": "https://ca.api.ovh.com/1.0",
    "ovh-us": "https://api.us.ovhcloud.com/1.0",
}
"""Base URL of the API by endpoint name."""

TOKEN_URLS = {
    "https://eu.api.ovh.com/1.0": "https://www.ovh.com/auth/oauth2/token",
    "https://ca.api.ovh.com/1.0": "https://ca.ovh.com/auth/oauth2/token",
    "https://api.us.ovhcloud.com/1.0": "https://us.ovhcloud.com/auth/oauth2/token",
}
"""Where service accounts get their token, by base URL of the API; custom URLs have no such place."""

_DEFAULT_ENDPOINT = "ovh-eu"

FILES = ("./ovh.conf", "~/.ovh.conf", "/etc/ovh.conf")
"""Files with credentials, the first that has a value wins."""


class CredentialsError(Exception):
    """The credentials are missing, incomplete or contradictory; the text names the keys and the remedy."""


@dataclass(frozen=True)
class ApplicationKey:
    """Application key, application secret and consumer key; every request is signed."""

    application_key: str
    application_secret: str = field(repr=False)
    consumer_key: str = field(repr=False)


@dataclass(frozen=True)
class ServiceAccount:
    """OAuth2 client credentials of a service account; a short-lived token is fetched at `token_url`."""

    client_id: str
    client_secret: str = field(repr=False)
    token_url: str


@dataclass(frozen=True)
class AccessToken:
    """A ready-made OAuth2 token."""

    token: str = field(repr=False)


Auth = ApplicationKey | ServiceAccount | AccessToken
"""The one way in which requests prove who sends them."""


@dataclass(frozen=True)
class Credentials:
    """Where the API is and how to authenticate there. `repr` shows no secret."""

    url: str
    """Base URL without trailing slash, for example `https://eu.api.ovh.com/1.0`."""
    auth: Auth

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that must not appear in any text."""
        match self.auth:
            case ApplicationKey(_, secret, consumer):
                return (secret, consumer)
            case ServiceAccount(client_secret=secret):
                return (secret,)
            case AccessToken(token):
                return (token,)


_METHODS = (
    ("applicationKey", "applicationSecret", "consumerKey"),
    ("clientId", "clientSecret"),
    ("accessToken",),
)
"""Configuration keys by way of authentication."""

KEYS = tuple(f"ovh:{key}" for key in ("endpoint", *(key for method in _METHODS for key in method)))
"""Every configuration key that is read."""


def find_credentials(
    config: Mapping[str, str | None],
    environment: Mapping[str, str] = os.environ,
    files: Sequence[str] = FILES,
) -> Credentials:
    """The credentials to use; raises CredentialsError.

    `config` has the keys of the `ovh` provider with their namespace (KEYS). Values of one way of
    authentication may come from different places; values of two ways may not be there at once.
    """
    look_up = _places(config, environment, files)
    endpoint = look_up("endpoint", "default").text or _DEFAULT_ENDPOINT
    url = _url(endpoint)
    values = {key: look_up(key, endpoint) for method in _METHODS for key in method}
    return Credentials(url, _auth(url, {key: value for key, value in values.items() if value.text}))


def find_url(
    config: Mapping[str, str | None],
    environment: Mapping[str, str] = os.environ,
    files: Sequence[str] = FILES,
) -> str:
    """Base URL of the API alone, for calls that need no credentials; raises CredentialsError."""
    return _url(_places(config, environment, files)("endpoint", "default").text or _DEFAULT_ENDPOINT)


@dataclass(frozen=True)
class _Value:
    """A value of the credentials, and the name under which it was found."""

    text: str = field(repr=False)
    place: str


def _places(
    config: Mapping[str, str | None], environment: Mapping[str, str], files: Sequence[str]
) -> Callable[[str, str], _Value]:
    """Finds the value of a key, in the files in a section; one that is not there is empty."""
    # Of two equal sections or names the last one counts, as for go-ovh.
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    # The last file read wins.
    for file in reversed(files):
        try:
            parser.read(Path(file).expanduser(), encoding="utf-8")
        except configparser.ParsingError as error:
            # Without the error's own text: that repeats the line, and a secret may stand there.
            line = getattr(error, "lineno", 0) or error.errors[0][0]
            raise CredentialsError(
                f"{file}, line {line}: an ovh.conf has [ovh-eu] (or another endpoint), below it name = value"
            ) from None

    def look_up(key: str, section: str) -> _Value:
        snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in key)
        variable = f"OVH_{snake.upper()}"
        places = (
            _Value(config.get(f"ovh:{key}") or "", f"ovh:{key}"),
            _Value(environment.get(variable, ""), variable),
            _Value(parser.get(section, snake, fallback=""), f"{snake} in [{section}] of an ovh.conf"),
        )
        return next((value for value in places if value.text), _Value("", ""))

    return look_up


def _url(endpoint: str) -> str:
    if endpoint.endswith("/"):
        raise CredentialsError(f"ovh:endpoint {endpoint!r} must not end with a slash")
    if endpoint.startswith(("http://", "https://")):
        return endpoint
    if endpoint not in ENDPOINTS:
        raise CredentialsError(
            f"ovh:endpoint {endpoint!r} is unknown: use {', '.join(ENDPOINTS)}, or a URL such as "
            f"{ENDPOINTS['ovh-eu']}"
        )
    return ENDPOINTS[endpoint]


def _auth(url: str, found: Mapping[str, _Value]) -> Auth:
    places = ", ".join(value.place for value in found.values())
    used = [method for method in _METHODS if any(key in found for key in method)]
    if not used:
        raise CredentialsError(
            "no credentials for the OVHcloud API: set ovh:applicationKey, ovh:applicationSecret and "
            "ovh:consumerKey (OVH_APPLICATION_KEY, …), or ovh:clientId and ovh:clientSecret "
            "(OVH_CLIENT_ID, …), or ovh:accessToken (OVH_ACCESS_TOKEN)"
        )
    if len(used) > 1:
        raise CredentialsError(
            f"more than one way to authenticate at the OVHcloud API: found {places}; keep the values of one"
        )
    # Not cut off: the provider of the cluster reads the same values, and would not.
    wrong = ", ".join(value.place for value in found.values() if not re.fullmatch(r"[!-~]+", value.text))
    if wrong:
        raise CredentialsError(
            f"{wrong}: holds a space, a line's end or a letter that no credentials have; copy it again"
        )
    method = used[0]
    missing = [f"ovh:{key}" for key in method if key not in found]
    if missing:
        raise CredentialsError(
            f"incomplete credentials for the OVHcloud API: found {places}, missing {', '.join(missing)}"
        )
    if "accessToken" in method:
        return AccessToken(found["accessToken"].text)
    if "applicationKey" in method:
        return ApplicationKey(*(found[key].text for key in method))
    if url not in TOKEN_URLS:
        raise CredentialsError(
            f"service accounts ({places}) get their tokens at {', '.join(ENDPOINTS)} only, not for the "
            f"endpoint {url}: use an application key or an access token there"
        )
    return ServiceAccount(found["clientId"].text, found["clientSecret"].text, TOKEN_URLS[url])
