"""`shadowcat session` on a real store, beside a proxy that runs and without one; the page about it is held to it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from shadowcat.cli import main
from shadowcat.cli.session import _in_a_line
from shadowcat.clock import SystemClock
from shadowcat.core.ledger import SessionChange
from shadowcat.stores.urls import store_of
from tests.faults.caller import Caller, Hearing, Tally, caller
from tests.faults.child import NumbersChild, numbers
from tests.faults.numbers import CallPlan
from tests.faults.restarts import Restarting, kept_proxy_before
from tests.rig.redis_server import redis_server
from tests.rig.wait import soon

PAGE = (Path(__file__).parents[2] / "docs/howto/look-at-sessions.md").read_text("utf-8")
EXAMPLES = [
    text for kind, text in re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE) if not kind
]


@pytest.fixture
async def counting() -> AsyncIterator[NumbersChild]:
    async with numbers() as found:
        yield found


@pytest.fixture(params=["sqlite", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'sessions.db'}"
    else:
        async with redis_server(tmp_path, appendonly="yes") as server:
            yield server.url


@pytest.fixture
async def proxy(counting: NumbersChild, store: str) -> AsyncIterator[Restarting]:
    async with kept_proxy_before(counting.url, store) as found:
        yield found


async def session(*arguments: str, stdout: int = asyncio.subprocess.PIPE) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shadowcat", "session", *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with soon():
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, (out or b"").decode(), err.decode()


async def told(*arguments: str) -> str:
    code, out, err = await session(*arguments)
    assert (code, err) == (0, "")
    return out


async def under_way(client: Caller, counting: NumbersChild) -> Hearing:
    """A call in its middle, beside a standalone stream with an event."""
    await client.begun(await client.listen())
    await counting.control("emit", count=1)
    plan = CallPlan(label=client.session_id, count=40, hold_after=20)
    tally = Tally(plan.label)
    hearing = await client.begun(await client.call(plan))
    await client.follow(hearing, tally, lambda: tally.number == 20)
    return hearing


def names(line: str) -> list[str]:
    return re.findall(r"(?:^|  )([a-z ]+)=", line)


async def test_it_tells_what_the_page_says(proxy: Restarting, counting: NumbersChild, store: str) -> None:
    listed, shown, ended = EXAMPLES
    async with caller(proxy.port) as client:
        await under_way(client, counting)
        await proxy.written()
        line = await told("list", "--store", store)
        assert names(line) == names(listed)
        assert line.startswith(f"session={client.session_id}  upstream=numbers  version=2025-11-25  opened=2")
        (row,) = (json.loads(line) for line in (await told("list", "--json", "--store", store)).splitlines())
        assert list(row) == names(listed)
        assert (row["streams"], row["events"]) == (2, 21)

        said = (await told("show", client.session_id[:8], "--store", store)).splitlines()
        like = shown.splitlines()
        assert [line.partition(":")[0] for line in said[:10]] == [
            line.partition(":")[0] for line in like[:10]
        ]
        assert [names(line) for line in said[10:]] == [names(line) for line in like[10:]]
        assert said[11].startswith("stream=1  answers=")
        assert said[11].endswith("finished=False  resumable=True")
        assert "progress" not in "".join(said), "a message is shown"
        found = json.loads(await told("show", client.session_id, "--json", "--store", store))
        assert [stream["events"] for stream in found["streams"]] == [1, 20]

        code, out, err = await session("end", client.session_id[:8], "--store", store)
        assert code == 0
        expected = ended.replace("5f2c81aa90d14c7e8b6f33a1c0de4477", client.session_id)
        expected = expected.replace("2b7d10c9e4f65a38", row["node"]).replace(
            "5f2c81aa90d1", client.session_id[:12]
        )
        assert out + err == expected


async def test_a_session_that_is_ended_ends_in_the_proxy_too(
    proxy: Restarting, counting: NumbersChild, store: str
) -> None:
    async with caller(proxy.port) as client:
        hearing = await under_way(client, counting)
        await proxy.written()
        assert (await session("end", client.session_id, "--store", store))[0] == 0
        assert (await session("list", "--store", store))[:2] == (0, "")
        assert await client.ask("tools/list")
        async with soon():
            while await hearing.event() is not None:
                pass
        await counting.says(lambda told: told["counts"].get("DELETE", 0) == 1)
        answer = await client.post(client.request("tools/list"))
        async with soon():
            await answer.head()
        assert answer.status == 404


async def test_no_proxy_needs_to_run(proxy: Restarting, counting: NumbersChild, store: str) -> None:
    async with caller(proxy.port) as client:
        await under_way(client, counting)
        await proxy.written()
        await proxy.kill()
        assert client.session_id in await told("list", "--store", store)
        assert "taken over: 0" in await told("show", client.session_id, "--store", store)
        assert (await session("end", client.session_id, "--store", store))[0] == 0
        await proxy.start()
        answer = await client.post(client.request("tools/list"))
        async with soon():
            await answer.head()
        assert answer.status == 404


@pytest.fixture
async def two_alike(store: str) -> str:
    """A store with two sessions whose ids begin alike, and one of another version."""
    found = store_of(store, SystemClock())
    assert found is not None
    ids = ("ab" + "0" * 30, "ab" + "1" * 30, "c" * 32)
    await found.write([SessionChange(id, 1, is_whole=True, record=b"\xc1") for id in ids])
    await found.aclose()
    return store


@pytest.mark.parametrize("command", [("list",), ("list", "--json"), ("end", "cc")])
async def test_nobody_reads_what_is_said(two_alike: str, command: tuple[str, ...]) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    try:
        assert await session(*command, "--store", two_alike, stdout=writes) == (0, "", "")
    finally:
        os.close(writes)


@pytest.mark.parametrize("command", ["show", "end"])
async def test_what_names_no_session_or_more_than_one(two_alike: str, command: str) -> None:
    several = "several sessions have an id that begins with {!r}; write more of it"
    none = "no session has an id that begins with {!r}; `shadowcat session list` has them all"
    for id in ("ab", "zz", "ab" + "0" * 31, "", "\N{SNOWMAN}", "*"):
        code, out, err = await session(command, id, "--store", two_alike)
        assert (code, out) == (1, "")
        assert err == f"Error: {(several if id in ('ab', '') else none).format(id)}\n"


async def test_nothing_to_list_is_said(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    url = f"sqlite:///{path}"
    code, out, err = await session("list", "--store", url)
    assert (code, out) == (0, "")
    assert err == f"there is no store at {path} yet: a proxy makes it when it opens its first session\n"
    assert not path.exists()
    store = store_of(url, SystemClock())
    assert store is not None
    await store.write([SessionChange("c" * 32, 1, is_whole=True, record=b"\xc1")])
    await store.remove("c" * 32)
    await store.aclose()
    assert await session("list", "--json", "--store", url) == (0, "", f"there are no sessions in {url}\n")


async def test_one_of_another_version_is_listed_and_can_be_ended(two_alike: str) -> None:
    lines = (await told("list", "--store", two_alike)).splitlines()
    assert len(lines) == 3
    assert "upstream=(written by another version)" in lines[2]
    code, out, err = await session("show", "cc", "--store", two_alike)
    assert (code, out) == (1, "")
    assert err == "Error: another version of Shadowcat has written it; this one can list it and end it\n"
    await told("end", "cc", "--store", two_alike)
    assert len((await told("list", "--store", two_alike)).splitlines()) == 2


@pytest.mark.parametrize(
    ("store", "because"),
    [
        ("redis://127.0.0.1:1", "Connection refused"),
        ("memory:", "sessions in memory are seen by their proxy alone"),
        ("elsewhere:", "no store has such a URL"),
        ("sqlite:///", "names no file"),
    ],
)
async def test_a_store_that_cannot_be_used(store: str, because: str) -> None:
    for command in (["list"], ["show", "ab"], ["end", "ab"]):
        code, out, err = await session(*command, "--store", store)
        assert (code, out) == (2, "")
        assert err.startswith("Error: the store cannot be used: ")
        assert because in err
        assert err.count("\n") == 1


async def test_a_file_that_is_no_store_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.tape"
    path.write_text("somebody's", "utf-8")
    code, out, err = await session("list", "--store", f"sqlite:///{path}")
    assert (code, out) == (2, "")
    assert err == f"Error: the store cannot be used: {path} is no database; name the file of a store\n"
    assert path.read_text("utf-8") == "somebody's"
    assert os.listdir(tmp_path) == ["x.tape"]


def test_an_interrupt_is_said_as_a_shell_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shadowcat.app.stored.list_sessions", interrupted)
    run = CliRunner().invoke(main, ["session", "list"])
    assert (run.exit_code, run.output) == (130, "")


def test_a_row_steers_no_terminal() -> None:
    assert _in_a_line({"level": "\x1b[2J", "method": "a\nb"}) == r"level=\x1b[2J  method=a\nb"
