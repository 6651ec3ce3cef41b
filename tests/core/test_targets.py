"""Which servers a forward proxy goes to: by what is written, and by where that leads."""

from __future__ import annotations

import pytest

from shadowcat.core.targets import Target, TargetName, TargetRules, target_of
from shadowcat.errors import Fault

LOCAL = TargetRules(loopback=True)
NAMED = TargetRules(
    [TargetName(text) for text in ("MCP.example", "ported.example:3000", "10.0.0.5", "[0::5]:80")],
    loopback=False,
)


@pytest.mark.parametrize(
    ("authority", "target"),
    [
        (b"a", Target("a", 80)),
        (b"A.Example:3000", Target("a.example", 3000)),
        (b"a:", Target("a", 80)),
        (b"[::1]", Target("::1", 80)),
        (b"[0:0:0:0:0:0:0:1]:81", Target("::1", 81)),
        (b"[::ffff:127.0.0.1]:81", Target("127.0.0.1", 81)),
        (b"127.1", Target("127.1", 80)),
    ],
)
def test_what_is_named(authority: bytes, target: Target) -> None:
    assert target_of(authority) == target


@pytest.mark.parametrize("authority", [b"a:0", b"a:65536", b"a:99999", b"a:b", b"a:80x", b"a:-1"])
def test_a_port_that_is_none(authority: bytes) -> None:
    with pytest.raises(Fault, match="port"):
        target_of(authority)


def test_the_authority_is_as_short_as_it_can_be() -> None:
    assert [target_of(name).authority for name in (b"a:80", b"a:81", b"[::1]:80", b"[::1]:81")] == [
        "a", "a:81", "[::1]", "[::1]:81",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "allowed", "refused"),
    [
        (
            LOCAL,
            [
                b"127.0.0.1",
                b"127.9.9.9:1",
                b"[::1]:3000",
                b"localhost",
                b"LOCALHOST:5",
                b"[::ffff:127.0.0.1]",
            ],
            [b"a", b"localhost.", b"127.1", b"0.0.0.0", b"[::]", b"x.localhost", b"127.0.0.1.a", b"10.0.0.1"],
        ),
        (
            NAMED,
            [b"mcp.example", b"mcp.EXAMPLE:99", b"ported.example:3000", b"10.0.0.5:1", b"[::5]"],
            [b"localhost", b"127.0.0.1", b"ported.example", b"x.mcp.example", b"mcp.example.", b"[::5]:81"],
        ),
        (TargetRules([TargetName("localhost")], loopback=False), [b"localhost:1"], [b"127.0.0.1:1"]),
    ],
    ids=["loopback", "named", "localhost alone"],
)
def test_what_is_allowed(rules: TargetRules, allowed: list[bytes], refused: list[bytes]) -> None:
    assert [name for name in allowed if not rules.allows(target_of(name))] == []
    assert [name for name in refused if rules.allows(target_of(name))] == []


@pytest.mark.parametrize(
    ("rules", "host", "good", "bad"),
    [
        (LOCAL, "localhost", ["127.0.0.1", "::1"], ["10.0.0.1", "93.184.216.34", "fe80::1%eth0"]),
        (LOCAL, "mcp.example", ["127.0.0.1", "10.0.0.1"], ["169.254.169.254", "0.0.0.0", "nonsense"]),
        (
            NAMED,
            "mcp.example",
            ["10.0.0.1", "93.184.216.34", "2606:2800::1"],
            ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1%eth0", "::", "224.0.0.1"],
        ),
        (
            LOCAL,
            "mcp.example",
            ["64:ff9c::1", "2003::1", "2001:1::1", "100.100.100.201", "fd00:ec2::253"],
            [
                "64:ff9b::169.254.169.254",
                "64:ff9b::10.0.0.1",
                "64:ff9b:1::7f00:1",
                "2002:7f00:1::1",
                "2001::1",
                "::127.0.0.1",
                "fd00:ec2::254",
                "fd20:ce::254",
                "100.100.100.200",
                "::ffff:100.100.100.200",
                "168.63.129.16",
                "192.0.0.192",
            ],
        ),
        (NAMED, "10.0.0.5", ["10.0.0.5"], []),
        (NAMED, "100.100.100.200", ["100.100.100.200"], []),
    ],
    ids=[
        "localhost",
        "a name beside loopback",
        "a name",
        "what hides another",
        "an address",
        "metadata by address",
    ],
)
def test_where_a_name_may_lead(rules: TargetRules, host: str, good: list[str], bad: list[str]) -> None:
    assert [address for address in good if not rules.admits(host, address)] == []
    assert [address for address in bad if rules.admits(host, address)] == []


@pytest.mark.parametrize(
    "text", ["", "a/b", "a:0", "a:65536", "a:b", "http://a", "u@a", "::1", "[::1", "a b"]
)
def test_what_can_be_no_target(text: str) -> None:
    with pytest.raises(ValueError, match="is not HOST or HOST:PORT"):
        TargetName(text)
