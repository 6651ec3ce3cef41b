"""What a Redis URL means, and what is said of one that cannot be meant."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection

from shadowcat.errors import StoreUnusable
from shadowcat.stores.redis.address import Address

LOCAL = {"host": "localhost", "port": 6379, "db": 0}


@pytest.mark.parametrize(
    ("url", "where", "arguments"),
    [
        ("redis://localhost", "localhost:6379", LOCAL),
        ("redis://localhost/", "localhost:6379", LOCAL),
        ("redis://localhost:1234/7", "localhost:1234", LOCAL | {"port": 1234, "db": 7}),
        ("redis://:p%40ss@localhost", "localhost:6379", LOCAL | {"password": "p@ss"}),
        ("redis://me:pw@localhost", "localhost:6379", LOCAL | {"username": "me", "password": "pw"}),
        ("redis://[::1]:7000", "[::1]:7000", {"host": "::1", "port": 7000, "db": 0}),
    ],
)
def test_a_host(url: str, where: str, arguments: dict[str, Any]) -> None:
    address = Address.parse(url)
    assert address.connection_class is Connection
    assert address.where == where
    assert address.arguments == arguments
    assert address.namespace == "shadowcat"


def test_a_socket() -> None:
    address = Address.parse("redis+unix://:pw@/run/my%20redis.sock?db=3&namespace=other")
    assert address.connection_class is UnixDomainSocketConnection
    assert address.where == "/run/my redis.sock"
    assert address.namespace == "other"
    assert address.arguments == {"path": "/run/my redis.sock", "db": 3, "password": "pw"}


def test_tls(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    address = Address.parse(f"rediss://localhost?ca_file={tmp_path}/ca.pem")
    assert address.connection_class is SSLConnection
    assert address.arguments == LOCAL | {
        "ssl_min_version": ssl.TLSVersion.TLSv1_2,
        "ssl_ca_certs": f"{tmp_path}/ca.pem",
    }


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("memcached://:secret@localhost", "begins with redis://"),
        (":secret@localhost", "begins with redis://"),
        ("redis://:secret@", "names no host"),
        ("redis://:secret@/7", "names no host"),
        ("redis://:secret@localhost:port", "cannot be read"),
        ("redis://:secret@localhost:99999", "cannot be read"),
        ("redis://:secret@[::1", "cannot be read"),
        ("redis://:sec#ret@localhost", "cannot be read"),
        ("redis://:secret@localhost#here", "write %23"),
        ("redis://:secret@localhost/first", "is not a number"),
        ("redis://:secret@localhost/1/2", "is not a number"),
        ("redis://:secret@localhost?namespace=", "the namespace"),
        ("redis://:secret@localhost?namespace=a%20b", "the namespace"),
        ("redis://:secret@localhost?ca_file=/x", "no option 'ca_file'"),
        ("redis://:secret@localhost?password=secret", "no option 'password'"),
        ("rediss://:secret@localhost?ca_file=/no/such/file", "no file '/no/such/file'"),
        ("redis+unix://:secret@host/redis.sock", "absolute path"),
        ("redis+unix://:secret@", "absolute path"),
        ("redis+unix://:secret@/redis.sock?db=x", "is not a number"),
    ],
)
def test_what_cannot_be_meant(url: str, why: str) -> None:
    with pytest.raises(StoreUnusable, match=why) as raised:
        Address.parse(url)
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)


def test_an_address_does_not_tell_its_password() -> None:
    assert "secret" not in repr(Address.parse("redis://:secret@localhost"))
