"""A recording whose writer is killed, whose disk is full: what was written is readable, and the traffic goes on."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
from pathlib import Path

import pytest

from shadowcat.app.tapes import list_tapes, verify_tape
from shadowcat.replay.files import TapeFile, tapes_in
from shadowcat.wire.tape import Frame
from tests.faults.recorded import RecordedProxy, recorded_proxy
from tests.rig.client import Client, client_of
from tests.rig.stand import server_process
from tests.rig.wait import until
from tests.size import sized

pytestmark = pytest.mark.timeout(sized(300, 1200))


class Talk:
    """Calls one after the other, until they are enough or the proxy is gone."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.answered = 0

    async def calls(self, count: int) -> None:
        for _ in range(count):
            answer = await self._client.call(params={"name": "t", "arguments": {"n": self.answered}})
            assert "result" in answer
            self.answered += 1

    async def until_gone(self) -> None:
        try:
            while True:
                await self.calls(1)
        except (OSError, asyncio.IncompleteReadError):
            pass


def _frames(directory: Path) -> list[Frame]:
    found: list[Frame] = []
    for path in tapes_in(directory):
        with TapeFile(path) as file:
            found += file
    return found


async def _answered(talk: Talk, count: int) -> None:
    await until(lambda: talk.answered >= count)


@pytest.mark.parametrize("whom", ["the proxy", "both"])
async def test_whatever_a_killed_writer_left_can_be_read(tmp_path: Path, whom: str) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    async with server_process() as (_, url):
        for round_number in range(sized(6, 60)):
            directory = tmp_path / str(round_number)
            async with (
                recorded_proxy(directory, "reverse", "--store", "memory:", "--upstream", url) as proxy,
                client_of(proxy.port) as client,
            ):
                await client.initialize()
                talk = Talk(client)
                talking = asyncio.create_task(talk.until_gone())
                await _answered(talk, chance.randrange(1, 120))
                if whom == "both":
                    os.kill(proxy.writer_pid, signal.SIGKILL)
                await proxy.kill()
                await talking
            # The process that writes ends by itself, once it has written what it was handed.
            await until(lambda directory=directory: _end(directory) != "being written")
            assert _end(directory) in (("torn", "not ended") if whom == "both" else ("not ended",)), seed
            frames = _frames(directory)
            assert [frame.seq for frame in frames] == list(range(1, len(frames) + 1)), seed
            told = verify_tape(str(directory)).complaints
            assert all("torn" in line for line in told), (seed, told)


def _end(directory: Path) -> str:
    [row] = list_tapes(str(directory))
    return row["end"]


async def _limit(proxy: RecordedProxy, size: int) -> None:
    """Files of the process may grow no further than this; to a writer that is a full disk by another name."""
    _, most = resource.prlimit(proxy.writer_pid, resource.RLIMIT_FSIZE)
    resource.prlimit(proxy.writer_pid, resource.RLIMIT_FSIZE, (size, most))


async def test_a_full_disk_stops_the_recording_and_nothing_else(tmp_path: Path) -> None:
    async with (
        server_process() as (_, url),
        recorded_proxy(tmp_path, "reverse", "--store", "memory:", "--upstream", url) as proxy,
        client_of(proxy.port) as client,
    ):
        await client.initialize()
        talk = Talk(client)
        await talk.calls(20)
        await until(lambda: len(_frames(tmp_path)) == 43)
        await _limit(proxy, 0)
        await talk.calls(50)
        await proxy.log_has("cannot record to")
        await _limit(proxy, resource.RLIM_INFINITY)

        async def goes_on() -> None:
            while len(_frames(tmp_path)) == 43:
                await talk.calls(1)
                await asyncio.sleep(0.02)

        await asyncio.wait_for(goes_on(), 60)
        log = await proxy.end()
    assert log.count("cannot record to") == 1
    assert log.count("recording goes on: ") == 1
    frames = _frames(tmp_path)
    missing = frames[-1].seq - len(frames)
    assert missing >= 100
    assert f"recording goes on: {missing} messages are missing from the tape" in log
    assert verify_tape(str(tmp_path)).complaints == [f"{missing} messages are missing"]
