"""Sums up in one line what became of the numbers that a client should see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verdict:
    is_good: bool
    told: str


def verdict_on(seen: Sequence[int], last: int, answers: int, connections: int) -> Verdict:
    """The client was to see each of 1 … `last` once and in order, and one answer after them."""
    counts = Counter(seen)
    lost = [number for number in range(1, last + 1) if not counts[number]]
    doubled = [number for number, count in counts.items() if count > 1]
    wrong: list[str] = []
    if lost:
        wrong.append(f"lost {_listed(lost)}")
    if doubled:
        wrong.append(f"doubled {_listed(doubled)}")
    if not wrong and list(seen) != list(range(1, last + 1)):
        wrong.append("out of order")
    if answers != 1:
        wrong.append("no answer" if not answers else f"{answers} answers")
    if wrong:
        return Verdict(False, f"FAILED: {'; '.join(wrong)}")
    told = f"OK: {last} of {last} events and the answer, over {connections} connections of the client"
    return Verdict(True, f"{told}; nothing lost, nothing doubled")


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
