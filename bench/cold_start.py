"""How long the first answer takes with `shadowcat forward stdio` in place of a command, beside the command alone."""

from __future__ import annotations

import sys
import time

from bench.rounds import Spread, in_turn, print_table
from bench.stdio_way import INITIALIZE, SERVER, behind_shadowcat, talking

ROUNDS = 15
BAR_MS = 100.0
SDK_SERVER = (sys.executable, "-m", "tests.e2e.server", "--stdio")


def run() -> None:
    for name, command in {"a server that starts at once": SERVER, "the official SDK's": SDK_SERVER}.items():
        rounds = ROUNDS if command is SERVER else 5
        ways = {"direct": command, "shadowcat": behind_shadowcat(command)}
        found = in_turn(
            {way: lambda started=started: _first_answer_ms(started) for way, started in ways.items()}, rounds
        )
        added = Spread.of([a - b for a, b in zip(found["shadowcat"], found["direct"], strict=True)])
        print_table(
            [name, "ms to the first answer"], [[way, Spread.of(ms).text(".0f")] for way, ms in found.items()]
        )
        print(f"added {added.text('.0f')} ms")
        print_table(["RATIO", "added"], [[f"added : bar of {BAR_MS:.0f} ms", f"{added.median / BAR_MS:.2f}"]])
        print()


def _first_answer_ms(command: tuple[str, ...]) -> float:
    started = time.perf_counter()
    with talking(command) as talk:
        talk.ask(INITIALIZE, 0)
        return (time.perf_counter() - started) * 1e3
