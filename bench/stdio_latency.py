"""What `shadowcat forward stdio` adds to a small call, one at a time, beside the same server alone."""

from __future__ import annotations

from bench.rounds import Spread, in_turn, print_table
from bench.stdio_way import INITIALIZE, SERVER, Talk, behind_shadowcat, talking

ROUNDS = 9
CALLS = 2_000
BAR_US = 100.0


def run() -> None:
    with talking(SERVER) as direct, talking(behind_shadowcat(SERVER)) as forwarded:
        ways = {"direct": direct, "shadowcat": forwarded}
        for talk in ways.values():
            talk.ask(INITIALIZE, 0)
        in_turn(_measures(ways), 1)
        found = in_turn(_measures(ways), ROUNDS)
    added = Spread.of([a - b for a, b in zip(found["shadowcat"], found["direct"], strict=True)])
    print_table(
        [f"{CALLS:,} calls", "p50 µs"], [[way, Spread.of(us).text(".0f")] for way, us in found.items()]
    )
    print(f"added {added.text('.0f')} µs")
    print_table(["RATIO", "added"], [[f"added : bar of {BAR_US:.0f} µs", f"{added.median / BAR_US:.2f}"]])


def _measures(ways: dict[str, Talk]):
    return {way: lambda talk=talk: talk.p50_us(CALLS) for way, talk in ways.items()}
