"""Kubeconfig files: which cluster is meant, and the credentials for it. None of their text is in an error."""

from __future__ import annotations

import base64
import binascii
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sandbox.plugins.loopback import is_loopback


class KubeconfigError(Exception):
    """A kubeconfig that cannot be used; says what is wrong with it and shows nothing of it."""


@dataclass(frozen=True)
class Access:
    """How to reach a cluster as one user."""

    server: str
    namespace: str
    """Namespace of objects that name none: the context's, else `default`."""
    authority: bytes | None
    """Certificates (PEM) the server's one must come from; None trusts the system's."""
    certificate: bytes = field(repr=False)
    """Client certificate (PEM)."""
    key: bytes = field(repr=False)
    """Its private key (PEM)."""

    def ssl_context(self) -> ssl.SSLContext:
        """A TLS context with the client certificate; the key touches memory only."""
        try:
            authority = self.authority.decode() if self.authority else None
            context = ssl.create_default_context(cadata=authority)
        except (ssl.SSLError, ValueError):
            raise KubeconfigError("its certificate-authority holds no certificate") from None
        descriptor = os.memfd_create("client-certificate")
        try:
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                file.write(self.key + b"\n" + self.certificate)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        except ssl.SSLError as error:
            raise KubeconfigError("the client certificate and key do not fit together") from error
        finally:
            os.close(descriptor)
        return context


def load(path_or_contents: str) -> dict[str, Any]:
    """The kubeconfig in a string, or in the file whose path the string is."""
    text = path_or_contents
    if "\n" not in text and len(text) < 4096 and Path(text).expanduser().is_file():
        text = Path(text).expanduser().read_text()
    try:
        config = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise KubeconfigError(f"it is not YAML (line {line}: {error.problem})") from None
    if not isinstance(config, dict):
        raise KubeconfigError("it is neither the path of a file nor the contents of a kubeconfig")
    return config


def active_cluster(config: dict[str, Any], context: str | None, cluster: str | None) -> dict[str, Any] | None:
    """The cluster (`server`, `certificate-authority-data`, …) that a kubeconfig selects, if any.

    `context` and `cluster` override what the file says, as the provider's arguments of these names do.
    """
    chosen = _named(config, "contexts", "context", context or config.get("current-context"))
    if chosen is None:
        return None
    return _named(config, "clusters", "cluster", cluster or chosen.get("cluster"))


def access(config: dict[str, Any], context: str | None = None, cluster: str | None = None) -> Access:
    """How to reach the cluster that the kubeconfig selects."""
    chosen = _named(config, "contexts", "context", context or config.get("current-context"))
    if chosen is None:
        raise KubeconfigError("its current context does not exist")
    target = active_cluster(config, context, cluster)
    if target is None:
        raise KubeconfigError("the cluster of its context does not exist")
    user = _named(config, "users", "user", chosen.get("user"))
    if user is None:
        raise KubeconfigError("the user of its context does not exist")
    server = str(target.get("server", ""))
    if not is_loopback(server):
        raise KubeconfigError(
            f"its server {server!r} is not on this machine, and the sandbox's stand-in talks to no other"
        )
    authority = _data(target, "certificate-authority") if _has(target, "certificate-authority") else None
    return Access(
        server=server.rstrip("/"),
        namespace=str(chosen.get("namespace") or "default"),
        authority=authority,
        certificate=_data(user, "client-certificate"),
        key=_data(user, "client-key"),
    )


def _named(config: dict[str, Any], section: str, key: str, name: Any) -> dict[str, Any] | None:
    for entry in config.get(section) or []:
        if entry.get("name") == name:
            found: dict[str, Any] = entry.get(key) or {}
            return found
    return None


def _has(entry: dict[str, Any], key: str) -> bool:
    return key in entry or f"{key}-data" in entry


def _data(entry: dict[str, Any], key: str) -> bytes:
    """PEM out of `<key>-data` (base64) or the file `<key>`."""
    if encoded := entry.get(f"{key}-data"):
        try:
            return base64.b64decode("".join(str(encoded).split()), validate=True)
        except binascii.Error:
            raise KubeconfigError(f"its {key}-data is not base64") from None
    if path := entry.get(key):
        try:
            return Path(str(path)).read_bytes()
        except OSError as error:
            raise KubeconfigError(f"its {key} {path!r} cannot be read: {error.strerror}") from None
    raise KubeconfigError(f"it has no {key}-data")
