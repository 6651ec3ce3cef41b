"""What a program hands to a proxy by mistake is said where it does."""

from __future__ import annotations

from typing import Any

import pytest

from shadowcat import ReverseProxy

URL = "http://127.0.0.1:1/mcp"


@pytest.mark.parametrize(
    ("upstreams", "options", "told"),
    [
        ({}, {}, "there is no upstream"),
        (URL, {}, "there is no upstream: give names and servers"),
        ({"main": "127.0.0.1:1"}, {}, "upstream main: '127.0.0.1:1' is not a URL"),
        (
            {"main": ["python", "x.py"]},
            {},
            r"upstream main: \['python', 'x.py'\] is no URL, Command or Upstream",
        ),
        ({"main": URL}, {"store": "sqlite:///x.db"}, "a URL is no store"),
    ],
)
async def test_a_wrong_argument(upstreams: Any, options: Any, told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        ReverseProxy(upstreams, **options)
