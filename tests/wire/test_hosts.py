"""Which names are this machine's."""

from __future__ import annotations

import pytest

from shadowcat.wire.hosts import Address, host_of, is_loopback, is_reached_by


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "10.0.0.1", "127.0.0.1.example.com", "localhost.evil.com", "127.1"]
)
def test_somebody_else(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("listen", "host", "is_reached"),
    [
        ("127.0.0.1:80", "127.0.0.1", True),
        ("127.0.0.1:80", "localhost", True),
        ("[::1]:80", "localhost", True),
        ("localhost:80", "::1", True),
        ("0.0.0.0:80", "127.0.0.1", True),
        ("0.0.0.0:80", "localhost", True),
        ("[::]:80", "::1", True),
        ("0.0.0.0:80", "0.0.0.0", True),
        ("MCP.example.com:80", "mcp.example.com", True),
        ("10.0.0.5:80", "10.0.0.5", True),
        # Two servers may share the port.
        ("127.0.0.1:80", "127.0.0.2", False),
        ("127.0.0.1:80", "::1", False),
        ("10.0.0.5:80", "localhost", False),
        ("0.0.0.0:80", "10.0.0.5", False),
        ("127.0.0.1:80", "mcp.example.com", False),
        ("127.0.0.1:81", "127.0.0.1", False),
    ],
)
def test_who_listens_there(listen: str, host: str, is_reached: bool) -> None:
    assert is_reached_by(Address(listen), host, 80) == is_reached


@pytest.mark.parametrize(
    ("url", "host"),
    [
        (b"//127.0.0.1:8080", "127.0.0.1"),
        (b"http://[::1]:8080", "::1"),
        (b"http://Example.COM", "example.com"),
        (b"http://user@example.com", None),
        (b"//example.com:port", None),
        (b"//[::1", None),
        (b"null", None),
        (b"", None),
    ],
)
def test_the_host_of_a_url(url: bytes, host: str | None) -> None:
    assert host_of(url) == host


@pytest.mark.parametrize(
    "text", ["", "8080", "h:", "h:port", "h:-1", "h:65536", "h:+80", "h:٨٠", f"h:{'9' * 5_000}", "::1:80"]
)
def test_no_address_to_listen_on(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not HOST:PORT|in brackets"):
        Address(text)
