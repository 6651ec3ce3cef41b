"""What is said of the numbers that a client saw."""

from __future__ import annotations

import pytest

from shadowcat.demo.verdict import verdict_on


def test_all_is_well() -> None:
    verdict = verdict_on([1, 2, 3], 3, answers=1, connections=2)
    assert verdict.is_good
    assert verdict.told == (
        "OK: 3 of 3 events and the answer, over 2 connections of the client; nothing lost, nothing doubled"
    )


@pytest.mark.parametrize(
    ("seen", "answers", "told"),
    [
        ([1, 3], 1, "FAILED: lost 2"),
        ([1, 2, 2, 3], 1, "FAILED: doubled 2"),
        ([3, 3, 1], 1, "FAILED: lost 2; doubled 3"),
        ([2, 1, 3], 1, "FAILED: out of order"),
        ([1, 2, 3, 4], 1, "FAILED: out of order"),
        ([1, 2, 3], 0, "FAILED: no answer"),
        ([1, 2, 3], 2, "FAILED: 2 answers"),
        ([], 0, "FAILED: lost 1, 2, 3; no answer"),
    ],
)
def test_anything_else_is_named(seen: list[int], answers: int, told: str) -> None:
    verdict = verdict_on(seen, 3, answers, connections=1)
    assert (verdict.is_good, verdict.told) == (False, told)
