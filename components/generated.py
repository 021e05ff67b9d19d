"""Small things that a stack makes up itself and keeps in its state: a password, a self-signed certificate.

Dynamic resources, since the plugins that do the same (pulumi-random, pulumi-tls) are one more download each.
State refers to the provider classes by module and name: renaming or moving one orphans the resources.
"""

from __future__ import annotations

import datetime
import ipaddress
import secrets
from collections.abc import Sequence
from typing import Any, Final

from pulumi import Input, Output, ResourceOptions
from pulumi.dynamic import CheckFailure, CheckResult, CreateResult, DiffResult, Resource, ResourceProvider

from components.unknowns import is_unknown

RENEWAL: Final = datetime.timedelta(days=30)
"""How long before its end a certificate is made anew, by the first update that comes."""


class PasswordProvider(ResourceProvider):
    """Random text; the cloud knows nothing of it."""

    serialize_as_secret_always = False

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """Another keeper, another password; nothing else makes one."""
        changed = _olds.get("keeper") != _news.get("keeper")
        return DiffResult(changes=changed, replaces=["keeper"] if changed else [])

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Makes the password; the id says nothing about it."""
        length = int(props["length"])
        return CreateResult(secrets.token_hex(8), {**props, "value": secrets.token_urlsafe(length)[:length]})


class Password(Resource, module="generated", name="Password"):
    """A random password of letters, digits, `-` and `_`.

    It stays the same until `keeper` changes; a changed `length` counts for the next one.
    """

    value: Output[str]
    """The password, a secret."""

    def __init__(
        self,
        resource_name: str,
        *,
        length: Input[int] = 32,
        keeper: Input[str] | None = None,
        opts: ResourceOptions | None = None,
    ) -> None:
        """Declares the password; 32 characters are 192 random bits."""
        super().__init__(
            PasswordProvider(),
            resource_name,
            {"length": length, "keeper": keeper, "value": None},
            ResourceOptions.merge(ResourceOptions(additional_secret_outputs=["value"]), opts),
        )


class SelfSignedCertificateProvider(ResourceProvider):
    """Key and certificate of a server that no public authority knows."""

    serialize_as_secret_always = False

    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Wants a name, addresses that are ones, and a life longer than the time of renewal."""
        failures = []
        names, addresses, days = news["dns_names"], news["ip_addresses"], news["validity_days"]
        if not names and not addresses:
            failures.append(CheckFailure("dns_names", "give a DNS name or an IP address"))
        if not is_unknown(days) and days <= RENEWAL.days:
            failures.append(CheckFailure("validity_days", f"must be more than {RENEWAL.days}"))
        known = [] if is_unknown(addresses) else addresses
        for address in known:
            try:
                ipaddress.ip_address(address)
            except ValueError as error:
                failures.append(CheckFailure("ip_addresses", str(error)))
        return CheckResult(news, failures)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """Every change makes another certificate, and so does the time of renewal."""
        replaces = [
            key for key in ("dns_names", "ip_addresses", "validity_days") if _olds.get(key) != _news.get(key)
        ]
        if datetime.datetime.fromisoformat(_olds["not_after"]) - _now() <= RENEWAL:
            replaces.append("not_after")
        return DiffResult(changes=bool(replaces), replaces=replaces)

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Makes key and certificate."""
        # Here, since cryptography would cost every preview 30 ms.
        from components.certificate import self_signed

        made = self_signed(props["dns_names"], props["ip_addresses"], _now(), int(props["validity_days"]))
        return CreateResult(
            f"{made.serial_number:x}",
            {
                **props,
                "key_pem": made.key_pem,
                "certificate_pem": made.certificate_pem,
                "not_after": made.not_after.isoformat(),
            },
        )


class SelfSignedCertificate(Resource, module="generated", name="SelfSignedCertificate"):
    """A certificate for a server, signed by its own key (ECDSA P-256).

    It is made anew when a name changes, and by the first update in the last 30 days of its life.
    """

    certificate_pem: Output[str]
    """The certificate; who has it as an authority trusts the server."""
    key_pem: Output[str]
    """The private key (PKCS 8), a secret."""
    not_after: Output[str]
    """End of its life, ISO 8601 in UTC."""

    def __init__(
        self,
        resource_name: str,
        *,
        dns_names: Input[Sequence[Input[str]]] = (),
        ip_addresses: Input[Sequence[Input[str]]] = (),
        validity_days: Input[int] = 397,
        opts: ResourceOptions | None = None,
    ) -> None:
        """Declares the certificate; browsers refuse one that lives longer than 397 days (the default)."""
        super().__init__(
            SelfSignedCertificateProvider(),
            resource_name,
            {
                "dns_names": dns_names,
                "ip_addresses": ip_addresses,
                "validity_days": validity_days,
                "certificate_pem": None,
                "key_pem": None,
                "not_after": None,
            },
            ResourceOptions.merge(ResourceOptions(additional_secret_outputs=["key_pem"]), opts),
        )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
