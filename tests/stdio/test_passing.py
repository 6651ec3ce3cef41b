"""What goes through `shadowcat forward stdio`: everything, as it came."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from shadowcat.wire.lines import MAX_LINE_BYTES
from tests.rig.children import tool
from tests.stdio.editor import call, editor, forwarded, forwarding, line

# Whatever a message may look like that nobody should rewrite.
ODD = (
    b'{ "id":1 ,"jsonrpc":"2.0","params":{"name":"echo","arguments":{"n":1e2,"big":9007199254740993}},'
    b'"method":"tools/call"}'
)
ECHOES = (
    "import sys\nfor line in sys.stdin.buffer:\n    sys.stdout.buffer.write(line); sys.stdout.buffer.flush()"
)


async def test_lines_pass_to_the_byte() -> None:
    lines = [
        ODD,
        b'{"jsonrpc":"2.0","id":"\xc3\xb8","result":{"text":"\xe7\x8c\xab \\u2028 \\ud83d"}}',
        b'{"jsonrpc":"2.0","method":"notifications/x","unknown":[1, 2.50]}',
        b'{"jsonrpc":"2.0","id":1,"result":[NaN]}',
        b'[{"jsonrpc":"2.0","id":1,"result":{}},  {"jsonrpc":"2.0","method":"a"}]',
        b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"?"}}',
        b'{"jsonrpc":"2.0","id":2,"result":"' + b"x" * (MAX_LINE_BYTES // 4) + b'"}',
    ]
    async with editor(*forwarding(sys.executable, "-c", ECHOES)) as client:
        for sent in lines:
            await client.send(sent + b"\n")
            assert await client.line() == sent + b"\n"
        assert await client.end() == (0, b"", b"")


async def test_what_is_no_json_reaches_the_server_which_says_what_it_thinks_of_it() -> None:
    answers = 'print(\'{"jsonrpc":"2.0","id":1,"result":%d}\' % len(line), flush=True)'
    code = f"import sys\nfor line in sys.stdin.buffer:\n  {answers}"
    async with editor(*forwarding(sys.executable, "-c", code)) as client:
        await client.send(b"what?\n")
        assert (await client.message())["result"] == 6
        # The last line may lack its end.
        await client.send(b"no end")
        _, out, _ = await client.end()
        assert json.loads(out)["result"] == 7


async def test_the_command_gets_what_was_meant_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("API_KEY", "from the editor")
    ours = ("--env", "MORE=given", "--cwd", str(tmp_path))
    async with forwarded("--banner", ours=ours) as client:
        got = json.loads((await client.call(1, "env"))["result"]["content"][0]["text"])
    assert (got["env"]["API_KEY"], got["env"]["MORE"], got["cwd"]) == (
        "from the editor",
        "given",
        str(tmp_path),
    )
    assert got["argv"] == ["--banner"]


async def test_stderr_is_as_it_came_and_ours_can_be_told_apart() -> None:
    words = "\x1b[31mred\x1b[0m \r half a line\nø\n"
    async with forwarded("--banner") as client:
        await client.call(1, "stderr", text=words)
        await client.call(2, "stderr", text="flood ", times=100_000)
        code, out, err = await client.end()
    assert (code, out) == (0, b"")
    ours = b"shadowcat: WARNING: a line on the command's stdout is dropped (no MCP message): Welcome to my server!\n"
    assert err.count(b"shadowcat: ") == 1
    assert err.replace(ours, b"") == words.encode() + b"flood " * 100_000


async def test_what_is_no_message_does_not_reach_the_client() -> None:
    noise = 'hello, password=hunter2\n{"level":"info"}\n[]\n[1]\n{"jsonrpc":"1.0","id":99,"result":1}\n\n3\n'
    async with forwarded() as client:
        assert (await client.call(1, "say_raw", raw=noise))["id"] == 1
        await client.call(2, "say_raw", raw="again\n", times=1000)
        _, out, err = await client.end()
    assert out == b""
    told = err.splitlines()
    assert len(told) == 20
    assert b"hello, password=[redacted]" in told[0]
    assert told[-1].endswith(b"; no more of them are told")


@pytest.mark.parametrize(
    ("garbage", "id"),
    [
        ('{"jsonrpc":"2.0","id":ID,"result":{"n":Infinity', 7),
        ('{"result":{},"jsonrpc":"1.0","id":ID}', 7),
        ('{"jsonrpc":"2.0","id":ID,"result":[}', "seven"),
    ],
)
async def test_a_broken_answer_is_told_to_who_waits_for_it(garbage: str, id: Any) -> None:
    async with forwarded() as client:
        answer = await client.call(id, "garble", raw=garbage.replace("ID", json.dumps(id)))
        assert answer["id"] == id
        assert (answer["error"]["code"], answer["error"]["data"]) == (
            -31003,
            {"reason": "upstream_sent_garbage"},
        )
        assert "result" in await client.call(8, "echo")


@pytest.mark.parametrize("head", ['{"jsonrpc":"2.0","id":ID,"result":"', '{"result":"'])
async def test_an_answer_that_is_too_long(head: str) -> None:
    # Written by the child itself: a call that asked for it in full would be too long too.
    code = (
        "import sys, json\nfor line in sys.stdin:\n  id = json.loads(line)['id']\n"
        f"  n = {MAX_LINE_BYTES} if id == 1 else 10\n"
        f"  print({head!r}.replace('ID', str(id)) + 'x' * n + '\"'"
        f" + ('}}' if 'ID' in {head!r} else ',\"jsonrpc\":\"2.0\",\"id\":%d}}' % id), flush=True)"
    )
    async with editor(*forwarding(sys.executable, "-c", code)) as client:
        await client.send(line({"id": 1, "method": "a"}))
        assert (await client.message())["error"] == {
            "code": -31003,
            "message": "The answer is larger than 16 MiB",
            "data": {"reason": "answer_too_large"},
        }
        await client.send(line({"id": 2, "method": "a"}))
        assert (await client.message())["result"] == "x" * 10
        _, _, err = await client.end()
    assert b"bytes, larger than 16 MiB): {" in err


async def test_a_request_that_is_too_long() -> None:
    async with forwarded() as client:
        await client.send(call(1, "echo", text="x" * MAX_LINE_BYTES), call(2, "pid"))
        answers = {answer["id"]: answer for answer in (await client.message(), await client.message())}
        assert answers[1]["error"]["data"] == {"reason": "body_too_large"}
        assert "result" in answers[2]


async def test_a_modern_server() -> None:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    async with forwarded() as client:
        await client.send(line({"id": "d", "method": "server/discover", "params": {"_meta": meta}}))
        assert (await client.message())["result"]["supportedVersions"] == ["2026-07-28"]
        wanted = {"_meta": meta, "notifications": {"toolsListChanged": True}}
        await client.send(line({"id": "l", "method": "subscriptions/listen", "params": wanted}))
        assert (await client.message())["method"] == "notifications/subscriptions/acknowledged"
        await client.send(
            line({"id": 1, "method": "tools/call", "params": {**tool("change"), "_meta": meta}})
        )
        assert (await client.message())["method"] == "notifications/tools/list_changed"
        assert (await client.message())["id"] == 1


async def test_questions_of_the_server() -> None:
    async with forwarded() as client:
        await client.initialize()
        await client.send(call(1, "ask", id="q"))
        assert await client.message() == {"jsonrpc": "2.0", "id": "q", "method": "roots/list"}
        await client.send(line({"id": "q", "result": {"roots": []}}))
        assert json.loads((await client.message())["result"]["content"][0]["text"]) == {
            "result": {"roots": []}
        }
