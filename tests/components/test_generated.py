"""Passwords and self-signed certificates."""

from __future__ import annotations

import datetime
import re
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from pulumi.output import UNKNOWN

from components.generated import PasswordProvider, SelfSignedCertificateProvider
from tests.components.stacks import CHECKOUT

PASSWORD = {"length": 32.0, "keeper": "a"}
NAMES = {"dns_names": ["localhost"], "ip_addresses": ["127.0.0.1"], "validity_days": 397.0}


def made(provider: PasswordProvider | SelfSignedCertificateProvider, props: dict[str, Any]) -> dict[str, Any]:
    outs = provider.create(props).outs
    assert outs is not None
    return outs


@pytest.mark.parametrize("length", [8, 32, 33])
def test_a_password_is_random_and_fits_into_a_url(length: int) -> None:
    result = PasswordProvider().create({"length": float(length)})
    assert result.outs is not None
    value = result.outs["value"]
    assert re.fullmatch(rf"[A-Za-z0-9_-]{{{length}}}", value)
    assert value != made(PasswordProvider(), {"length": float(length)})["value"]
    assert result.id not in value


def test_only_another_keeper_makes_another_password() -> None:
    outs = made(PasswordProvider(), PASSWORD)
    assert not PasswordProvider().diff("id", outs, {**PASSWORD, "length": 40.0}).changes
    diff = PasswordProvider().diff("id", outs, {**PASSWORD, "keeper": "b"})
    assert (diff.changes, diff.replaces) == (True, ["keeper"])


def test_a_server_with_the_certificate_is_trusted_by_who_has_it(tmp_path: Path) -> None:
    outs = made(SelfSignedCertificateProvider(), NAMES)
    pair = tmp_path / "pair.pem"
    pair.write_text(outs["key_pem"] + outs["certificate_pem"])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        trusting = ssl.create_default_context(cadata=outs["certificate_pem"])
        for host in ("localhost", "127.0.0.1"):
            url = f"https://{host}:{server.server_address[1]}"
            assert httpx.get(url, verify=trusting, trust_env=False).status_code == 204
        with pytest.raises(httpx.ConnectError):
            httpx.get(url, verify=ssl.create_default_context(), trust_env=False)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("key", "value"),
    [("dns_names", ["a"]), ("ip_addresses", []), ("ip_addresses", [UNKNOWN]), ("validity_days", 90.0)],
)
def test_every_change_makes_another_certificate(key: str, value: Any) -> None:
    outs = made(SelfSignedCertificateProvider(), NAMES)
    assert not SelfSignedCertificateProvider().diff("id", outs, NAMES).changes
    diff = SelfSignedCertificateProvider().diff("id", outs, {**NAMES, key: value})
    assert (diff.changes, diff.replaces) == (True, [key])


@pytest.mark.parametrize(("days_left", "due"), [(31, False), (29, True), (-1, True)])
def test_it_is_renewed_in_its_last_30_days(days_left: int, due: bool) -> None:
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days_left)
    diff = SelfSignedCertificateProvider().diff("id", {**NAMES, "not_after": end.isoformat()}, NAMES)
    assert (diff.changes, diff.replaces) == (due, ["not_after"] if due else [])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dns_names": [], "ip_addresses": []}, "give a DNS name or an IP address"),
        ({"ip_addresses": ["10.0.0.300"]}, "10.0.0.300"),
        ({"validity_days": 30.0}, "must be more than 30"),
    ],
)
def test_mistakes_are_refused(change: dict[str, Any], words: str) -> None:
    failures = SelfSignedCertificateProvider().check({}, {**NAMES, **change}).failures
    assert [words in failure.reason for failure in failures] == [True]


def test_values_not_known_yet_are_no_mistake() -> None:
    for change in ({"ip_addresses": [UNKNOWN]}, {"ip_addresses": UNKNOWN}, {"validity_days": UNKNOWN}):
        assert not SelfSignedCertificateProvider().check({}, {**NAMES, **change}).failures


def test_who_makes_and_reads_no_certificate_does_not_import_cryptography() -> None:
    """It would be 30 ms in every preview, and in the process of the providers."""
    modules = "components.settings, components.monitoring_stack, components.ai_deploy.providers"
    code = f"import sys, {modules}; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=False).returncode == 0
