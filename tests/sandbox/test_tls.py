"""Clients that trust the sandbox's authority, and nothing else, accept its servers."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from sandbox.tls import Authority, server_context


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_a_strict_client_accepts_a_server_certificate(name: str, tmp_path: Path) -> None:
    authority = Authority()
    context = server_context(authority.server(["127.0.0.1", "localhost"]), tmp_path)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    client = ssl.create_default_context(cadata=authority.certificate.decode())
    # The default from Python 3.13 on.
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    async with server:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=name)
        writer.close()


async def test_a_client_that_trusts_another_authority_refuses(tmp_path: Path) -> None:
    context = server_context(Authority().server(["127.0.0.1"]), tmp_path)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    client = ssl.create_default_context(cadata=Authority().certificate.decode())
    async with server:
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="127.0.0.1")


def test_a_private_key_does_not_stay_on_disk(tmp_path: Path) -> None:
    server_context(Authority().server(["localhost"]), tmp_path)
    assert list(tmp_path.iterdir()) == []
