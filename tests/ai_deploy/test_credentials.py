from __future__ import annotations

from pathlib import Path

import pytest

from components.ai_deploy.credentials import (
    AccessToken,
    ApplicationKey,
    CredentialsError,
    ServiceAccount,
    find_credentials,
)

KEYS = {
    "ovh:applicationKey": "ak-public",
    "ovh:applicationSecret": "as-secret",
    "ovh:consumerKey": "ck-secret",
}


def find(
    config: dict[str, str | None], environment: dict[str, str] | None = None, *files: Path
) -> tuple[str, object]:
    found = find_credentials(config, environment or {}, [str(file) for file in files])
    return found.url, found.auth


def test_configuration_beats_environment_beats_files(tmp_path: Path) -> None:
    near, far = tmp_path / "near.conf", tmp_path / "far.conf"
    near.write_text("[ovh-ca]\nconsumer_key = near\n")
    far.write_text(
        "[default]\nendpoint = ovh-ca\n"
        "[ovh-ca]\napplication_key = far\napplication_secret = far\nconsumer_key = far\n"
    )
    config: dict[str, str | None] = {"ovh:applicationKey": "config"}
    environment = {"OVH_APPLICATION_KEY": "environment", "OVH_APPLICATION_SECRET": "environment"}
    assert find(config, environment, near, far) == (
        "https://ca.api.ovh.com/1.0",
        ApplicationKey("config", "environment", "near"),
    )


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        (None, "https://eu.api.ovh.com/1.0"),
        ("ovh-us", "https://api.us.ovhcloud.com/1.0"),
        ("http://127.0.0.1:4711/1.0", "http://127.0.0.1:4711/1.0"),
    ],
)
def test_endpoints_by_name_and_url(endpoint: str | None, url: str) -> None:
    assert find({"ovh:endpoint": endpoint, "ovh:accessToken": "t"}) == (url, AccessToken("t"))


def test_a_service_account_gets_its_token_where_its_endpoint_says() -> None:
    config: dict[str, str | None] = {"ovh:clientId": "id", "ovh:clientSecret": "secret"}
    assert find({**config, "ovh:endpoint": "ovh-ca"})[1] == ServiceAccount(
        "id", "secret", "https://ca.ovh.com/auth/oauth2/token"
    )
    with pytest.raises(CredentialsError, match=r"http://127.0.0.1:1/1.0: use an application key"):
        find({**config, "ovh:endpoint": "http://127.0.0.1:1/1.0"})


@pytest.mark.parametrize(
    ("config", "environment", "words"),
    [
        ({}, {}, ["no credentials", "ovh:applicationKey", "OVH_CLIENT_ID"]),
        ({"ovh:endpoint": "ovh-moon"}, {}, ["'ovh-moon' is unknown", "ovh-eu"]),
        ({"ovh:endpoint": "https://eu.api.ovh.com/1.0/"}, {}, ["must not end with a slash"]),
        (KEYS, {"OVH_CLIENT_ID": "stray"}, ["more than one way", "ovh:applicationKey", "OVH_CLIENT_ID"]),
        ({"ovh:applicationKey": "x"}, {}, ["missing ovh:applicationSecret, ovh:consumerKey"]),
        ({}, {"OVH_CLIENT_ID": "x"}, ["found OVH_CLIENT_ID", "missing ovh:clientSecret"]),
        # No header can hold these.
        ({**KEYS, "ovh:consumerKey": "ck-secret\n"}, {}, ["ovh:consumerKey: holds a space, a line's end"]),
        ({}, {"OVH_ACCESS_TOKEN": "é-secret"}, ["OVH_ACCESS_TOKEN: holds a space"]),
    ],
)
def test_mistakes_name_the_keys_and_no_value(
    config: dict[str, str | None], environment: dict[str, str], words: list[str]
) -> None:
    with pytest.raises(CredentialsError) as caught:
        find(config, environment)
    for word in words:
        assert word in str(caught.value)
    assert "secret" not in str(caught.value).replace("Secret", "")


@pytest.mark.parametrize(
    ("text", "line"),
    [("application_secret=as-secret\n", 1), ("[ovh-eu]\nconsumer_key ck-secret\n", 2)],
    ids=["no section", "no equals sign"],
)
def test_a_file_of_another_form_is_named_without_its_text(tmp_path: Path, text: str, line: int) -> None:
    """The parser's own error repeats the line, and the engine shows it to everybody."""
    file = tmp_path / "ovh.conf"
    file.write_text(text)
    with pytest.raises(CredentialsError, match=rf"ovh\.conf, line {line}: ") as caught:
        find({}, {}, file)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_of_two_equal_names_in_a_file_the_last_one_counts(tmp_path: Path) -> None:
    file = tmp_path / "ovh.conf"
    file.write_text("[ovh-eu]\naccess_token = old\naccess_token = new\n[ovh-eu]\n")
    assert find({}, {}, file)[1] == AccessToken("new")


def test_no_repr_shows_a_secret() -> None:
    methods: list[dict[str, str | None]] = [
        {**KEYS},
        {"ovh:clientId": "id", "ovh:clientSecret": "x-secret"},
        {"ovh:accessToken": "x-secret"},
    ]
    for config in methods:
        credentials = find_credentials(config, {}, [])
        assert "-secret" not in repr(credentials)
        assert all(secret.endswith("-secret") for secret in credentials.secrets)
        assert credentials.secrets
