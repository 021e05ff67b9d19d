"""Certificates of servers: made, read, and held against a private key. Pure, and without Pulumi.

`cryptography` takes 30 ms to import, in every preview and in the process of the providers, and few of them
need it: this module is imported inside the functions that do. The sandbox has an authority of its own.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_CLOCK_SKEW = datetime.timedelta(hours=1)


@dataclass(frozen=True)
class SelfSigned:
    """A certificate that its own key has signed."""

    serial_number: int
    certificate_pem: str
    key_pem: str = field(repr=False)
    """The private key (PKCS 8)."""
    not_after: datetime.datetime
    """End of its life, in UTC and whole seconds."""


def self_signed(
    dns_names: Sequence[str], ip_addresses: Sequence[str], now: datetime.datetime, days: int
) -> SelfSigned:
    """A new key (ECDSA P-256) and the certificate of a server with these names, at least one in all.

    It is valid from an hour before `now`, for clients whose clocks are slow, to `days` after it.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in dns_names]
    alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in ip_addresses]
    # A common name has room for 64 characters; clients look at the alternative names only.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, [*dns_names, *ip_addresses][0][:64])])
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return SelfSigned(
        certificate.serial_number,
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key_pem.decode(),
        certificate.not_valid_after_utc,
    )


def check_chain(pem: str) -> None:
    """Raises ValueError when a text is no certificate, the server's first, with those that vouch for it."""
    _first_public_key(pem)


def is_key_of(key_pem: str, chain_pem: str) -> bool:
    """Whether a private key is that of a chain's first certificate.

    Raises ValueError when one of the texts is not what it should be, or the key has a passphrase.
    """
    try:
        key = serialization.load_pem_private_key(key_pem.encode(), password=None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(str(error)) from None
    return key.public_key() == _first_public_key(chain_pem)


def _first_public_key(chain_pem: str) -> object:
    try:
        return x509.load_pem_x509_certificates(chain_pem.encode())[0].public_key()
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
