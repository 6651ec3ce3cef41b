"""`shadowcat demo --crash`, as it is."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.rig.wait import soon


@pytest.mark.timeout(360)
async def test_nothing_is_lost_and_nothing_doubled(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shadowcat", "demo", "--crash",
        stdout=PIPE,
        stderr=PIPE,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    try:
        async with soon(330):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    *told, verdict = out.decode().splitlines()
    assert process.returncode == 0, out.decode() + err.decode()
    assert re.match(
        r"OK: 50 of 50 events and the answer, over \d connections .*nothing lost, nothing doubled", verdict
    )
    assert len([line for line in told if "is killed (SIGKILL)" in line]) == 4
    assert any("lost its connection" in line for line in told)
    events = [int(found[1]) for line in told if (found := re.search(r"event (\d+) of 50", line))]
    assert events == list(range(1, 51))
    assert err == b""
    assert os.listdir(tmp_path) == []
