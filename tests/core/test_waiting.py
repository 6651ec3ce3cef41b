"""Who waits for an answer."""

from __future__ import annotations

import pytest

from shadowcat.core import waiting
from shadowcat.core.waiting import Waiting
from shadowcat.errors import Fault


def test_ids_keep_their_type() -> None:
    found: Waiting[str] = Waiting()
    found.ask(1, "number")
    found.ask("1", "text")
    assert (found.answered("1"), found.answered("1"), 1 in found, "1" in found) == ("text", None, True, False)
    assert (found.only(), found.close(), len(found)) == (1, [(1, "number")], 0)


def test_what_has_happened() -> None:
    found: Waiting[None] = Waiting()
    assert (found.has_been_asked, found.has_answered, found.only()) == (False, False, None)
    found.ask(1, None)
    found.ask(2, None)
    found.forget(1)
    assert (found.has_been_asked, found.has_answered, found.only()) == (True, False, 2)
    found.answered(2)
    assert found.has_answered


def test_there_is_an_end_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MAX_WAITING", 2)
    found: Waiting[None] = Waiting()
    found.ask(1, None)
    found.ask(2, None)
    with pytest.raises(Fault) as caught:
        found.ask(3, None)
    assert (caught.value.reason, len(found)) == ("too_many_requests_in_flight", 2)
