"""`--tls-cert`, `--tls-key` and `--upstream-ca`: a proxy that speaks TLS, and one before it."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from shadowcat.http.tls import ServerTls
from tests.rig.client import client_of
from tests.rig.program import program
from tests.rig.server import mcp_server
from tests.rig.wait import soon


def issue(authority: trustme.CA, directory: Path) -> tuple[str, str]:
    issued = authority.issue_cert("127.0.0.1")
    pair = directory / "cert.pem", directory / "key.pem"
    issued.private_key_pem.write_to_path(pair[1])
    issued.cert_chain_pems[0].write_to_path(pair[0])
    return str(pair[0]), str(pair[1])


async def serial(port: int, authority: Path) -> str:
    trusting = ssl.create_default_context(cafile=str(authority))
    async with soon():
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
    try:
        return writer.get_extra_info("peercert")["serialNumber"]
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_call_over_tls_and_a_certificate_that_is_renewed(tmp_path: Path) -> None:
    authority = trustme.CA()
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    cert, key = issue(authority, tmp_path)
    file = tmp_path / "shadowcat.toml"
    async with mcp_server() as server:
        file.write_text(f"upstreams.main.url = '{server.url}'\nlog.level = 'debug'\nlog.format = 'json'\n")
        inner = program("reverse", "--config", str(file), "--tls-cert", cert, "--tls-key", key)
        async with inner as proxy:
            url = f"https://127.0.0.1:{proxy.port}/mcp"
            async with (
                program("reverse", "--upstream", url, "--upstream-ca", str(ca_file)) as before,
                client_of(before.port) as client,
            ):
                await client.initialize()
                assert await client.call()
            first = await serial(proxy.port, ca_file)
            issue(authority, tmp_path)
            proxy.process.send_signal(signal.SIGHUP)
            assert proxy.process.stderr is not None
            lines: list[dict[str, str]] = []
            async with soon():
                while not lines or "read again" not in lines[-1]["message"]:
                    lines.append(json.loads(await proxy.process.stderr.readline()))
            assert await serial(proxy.port, ca_file) != first
    calls = [
        line for line in lines if line["logger"] == "shadowcat.message" and "tools/call" in line["message"]
    ]
    assert calls
    assert {"session", "exchange", "upstream"} <= set(calls[0])
    assert calls[0]["upstream"] == "main"


async def test_a_certificate_is_renewed_without_a_file_of_settings(tmp_path: Path) -> None:
    authority = trustme.CA()
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    cert, key = issue(authority, tmp_path)
    async with program("forward", "http", "--tls-cert", cert, "--tls-key", key) as proxy:
        first = await serial(proxy.port, ca_file)
        issue(authority, tmp_path)
        proxy.process.send_signal(signal.SIGHUP)
        assert (await proxy.says("settings file")).endswith("--config names none; the certificate was\n")
        assert await serial(proxy.port, ca_file) != first


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    cert, key = issue(trustme.CA(), tmp_path)
    made = load_pem_private_key(Path(key).read_bytes(), None)
    locked = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hush"))
    Path(key).write_bytes(locked)
    with pytest.raises(ValueError, match=f"{key}: the key has a password; write it there without one"):
        ServerTls(cert, key).context()


def test_a_key_of_another_certificate_is_told_as_that(tmp_path: Path) -> None:
    cert, _ = issue(trustme.CA(), tmp_path)
    (tmp_path / "other").mkdir()
    _, other = issue(trustme.CA(), tmp_path / "other")
    with pytest.raises(ValueError, match=f"in {cert} and {other} do not belong together"):
        ServerTls(cert, other).context()


def test_a_key_in_place_of_the_certificate_is_told_as_that(tmp_path: Path) -> None:
    cert, key = issue(trustme.CA(), tmp_path)
    with pytest.raises(ValueError, match=f"no certificate in PEM in {key}; are the two swapped"):
        ServerTls(key, cert).context()
    with pytest.raises(ValueError, match=f"no key in PEM in {cert}"):
        ServerTls(cert, cert).context()
