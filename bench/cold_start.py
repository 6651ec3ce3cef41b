"""How long the first answer takes with `shadowcat forward stdio` in place of a command, beside the command alone; and
how long `shadowcat --help`."""

from __future__ import annotations

import os
import sys
import time

from bench.machine import CannotMeasure
from bench.rounds import Spread, in_turn, print_table
from bench.stdio_way import INITIALIZE, SERVER, SHADOWCAT, behind_shadowcat, talking

ROUNDS = 15
BAR_MS = 100.0
SDK_SERVER = (sys.executable, "-m", "tests.e2e.server", "--stdio")


HELP_BAR_MS = 80.0


def run() -> None:
    _show_help()
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


def _show_help() -> None:
    """In CPU time, which what else the machine does changes little."""
    ways = {"python": (sys.executable, "-c", "pass"), "shadowcat --help": (SHADOWCAT, "--help")}
    found = in_turn({way: lambda words=words: _cpu_ms(words) for way, words in ways.items()}, ROUNDS)
    print_table(["a command", "ms of CPU"], [[way, Spread.of(ms).text(".0f")] for way, ms in found.items()])
    share = Spread.of(found["shadowcat --help"]).median / HELP_BAR_MS
    print_table(["RATIO", "shadowcat"], [[f"--help : bar of {HELP_BAR_MS:.0f} ms", f"{share:.2f}"]])
    print()


def _cpu_ms(words: tuple[str, ...]) -> float:
    # What was compiled once is kept, as it is on the machine of a user.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    _, status, used = os.wait4(os.posix_spawn(words[0], words, environment, file_actions=quiet), 0)
    if status:
        raise CannotMeasure(f"{' '.join(words)} failed")
    return (used.ru_utime + used.ru_stime) * 1e3


def _first_answer_ms(command: tuple[str, ...]) -> float:
    started = time.perf_counter()
    with talking(command) as talk:
        talk.ask(INITIALIZE, 0)
        return (time.perf_counter() - started) * 1e3
