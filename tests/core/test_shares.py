"""Who has how many, and who counts as one."""

from __future__ import annotations

import pytest

from shadowcat.core.shares import Shares, client_at


def test_what_is_given_back_is_forgotten() -> None:
    shares = Shares()
    shares.take("a")
    shares.take("a")
    shares.take("b")
    assert (shares["a"], shares["b"], shares["c"]) == (2, 1, 0)
    for client in ("a", "b", "a"):
        shares.give_back(client)
    assert len(shares) == 0


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("10.0.0.5", "10.0.0.5"),
        ("::ffff:10.0.0.5", "10.0.0.5"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::9", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
    ],
)
def test_who_counts_as_one(address: str, client: str) -> None:
    assert client_at(address) == client
