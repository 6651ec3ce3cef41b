"""What a program that serves gives back of its memory, looked at from a process of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from shadowcat.app import memory

MIB = 1024 * 1024

GIVES_BACK = """
import asyncio, ctypes, os
from shadowcat.app.memory import give_back_after_floods, keep_freed_memory

def resident():
    with open("/proc/self/statm") as found:
        return int(found.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

async def main():
    held = []
    looks = asyncio.Queue()

    def look():
        looks.put_nowait(None)
        return sum(map(len, held))

    giving = asyncio.create_task(give_back_after_floods(look, 0.001))
    before = resident()
    held += [bytes(20_000) for _ in range(5_000)]
    # Something always lies above all that is free.
    above = held[-1]
    await looks.get()
    full = resident()
    held.clear()
    for _ in range(looks.qsize() + 2):
        await looks.get()
    print(full - before, resident() - before)
    giving.cancel()

keep_freed_memory()
asyncio.run(main())
"""


def test_what_a_flood_took_is_given_back() -> None:
    told = subprocess.run(
        [sys.executable, "-c", GIVES_BACK], capture_output=True, text=True, check=True, timeout=60
    )
    full, after = map(int, told.stdout.split())
    assert full > 90 * MIB
    assert after < 30 * MIB


async def test_one_flood_is_given_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    held = iter([0, 100, 0, 0, 0, 40, 39, 0])

    def look() -> int:
        now = next(held, None)
        if now is None:
            looked.set()
            return 0
        return now * MIB

    monkeypatch.setattr(memory, "_give_back", lambda: given.append(1))
    looked = asyncio.Event()
    giving = asyncio.create_task(memory.give_back_after_floods(look, 0.001))
    await looked.wait()
    giving.cancel()
    assert len(given) == 2
