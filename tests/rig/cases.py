"""Binding tests to the cases of `tests/protocol/cases.toml`, and what every refusal has to be."""

from __future__ import annotations

from typing import Any

import pytest

from tests.rig.client import Reply


def case(id: str, *values: Any, note: str = "") -> Any:
    """A row of a table that shows one case."""
    return pytest.param(*values, marks=pytest.mark.case(id), id=f"{id}-{note}" if note else id)


async def refused(reply: Reply, status: int, code: int, id: Any = None) -> dict[str, Any]:
    """Checks a refusal to the letter and returns its error."""
    answer = await reply.json()
    assert (reply.status, answer["error"]["code"]) == (status, code), answer
    assert answer["jsonrpc"] == "2.0"
    found = answer.get("id")
    assert (found, type(found)) == (id, type(id)), answer
    assert answer["error"]["message"]
    return answer["error"]
