"""`shadowcat tape` and `shadowcat replay`: what they print, and the exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from shadowcat.cli import main
from shadowcat.cli.shortcut import written_out
from shadowcat.wire import jsonrpc
from tests.plugins.recording.kit import Traffic, answer, call, recording
from tests.rig.children import SPEAKER, tool
from tests.stdio.editor import INITIALIZE, line

SHADOWCAT = (sys.executable, "-m", "shadowcat")


def run(*args: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, args)
    return done.exit_code, done.output


def greet(traffic: Traffic, text: str = "Hello") -> None:
    opening = traffic.ask(jsonrpc.request(0, "initialize", INITIALIZE))
    traffic.tell(answer(opening, protocolVersion="2025-11-25", capabilities={}, serverInfo={}), opening)
    request = traffic.ask(call(1))
    traffic.tell(answer(request, text=text), request)


@pytest.fixture
def tape(tmp_path: Path) -> str:
    with recording(tmp_path / "tapes") as traffic:
        greet(traffic)
    return str(tmp_path / "tapes")


def test_list(tape: str) -> None:
    code, out = run("tape", "list", tape)
    assert (code, "messages=4  requests=2  errors=0" in out) == (0, True)
    code, out = run("tape", "list", "--json", tape)
    assert json.loads(out)["messages"] == 4


def test_show(tape: str) -> None:
    code, out = run("tape", "show", tape, "--method", "tools/call")
    assert code == 0
    assert [text.split()[3:5] for text in out.splitlines()[1:]] == [["->", "tools/call"], ["<-", "result"]]


def test_the_newest_of_several_is_shown(tape: str) -> None:
    with recording(Path(tape)) as traffic:
        greet(traffic, "again")
    newest = sorted(Path(tape).glob("*.tape"))[-1]
    done = CliRunner().invoke(main, ["tape", "show", tape])
    assert done.exit_code == 0
    assert done.stderr == f"the newest of 2 recordings in {tape}: {str(newest).removesuffix('-0001.tape')}\n"
    assert done.stdout == run("tape", "show", str(newest))[1]


def test_a_directory_that_cannot_be_looked_into() -> None:
    """As somebody else, where we are root, to whom nothing is closed."""
    is_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0)
        if is_root:
            os.seteuid(65_534)
        try:
            for command in ("show", "list", "verify"):
                assert run("tape", command, place) == (2, f"Error: {place}: Permission denied\n")
        finally:
            if is_root:
                os.seteuid(0)
            os.chmod(place, 0o700)


@pytest.mark.parametrize(
    ("server", "told"),
    [
        (
            ("--against", "http://127.0.0.1:9/mcp?key=hush"),
            "The upstream is unavailable; nothing was sent (connection refused); "
            "`shadowcat doctor http://127.0.0.1:9/mcp` says more",
        ),
        (
            ("--", __file__, "hush"),
            "The upstream's command cannot be started (Permission denied; it is not an executable program: put its "
            f"interpreter before it, or chmod +x it); `shadowcat doctor -- {__file__} …` says more",
        ),
        (
            ("--", "false"),
            "The upstream's command ended before it answered initialize (exit code 1) (command ended); "
            "`shadowcat doctor -- false` says more",
        ),
    ],
)
def test_a_server_that_cannot_be_asked(tape: str, server: tuple[str, ...], told: str) -> None:
    code, out = run("replay", tape, *server)
    assert (code, out) == (2, f"Error: the server cannot be asked: {told}\n")


def test_verify(tape: str) -> None:
    assert run("tape", "verify", tape) == (0, "4 messages, 0 of them redacted\n")
    [path] = Path(tape).glob("*.tape")
    path.write_bytes(path.read_bytes()[:-5])
    code, out = run("tape", "verify", tape)
    assert (code, out.splitlines()[1:]) == (1, [f"{path.name}: its last line is torn"])


def test_diff(tape: str, tmp_path: Path) -> None:
    assert run("tape", "diff", tape, tape) == (0, "no differences\n")
    with recording(tmp_path / "other") as traffic:
        greet(traffic, "Bye")
    code, out = run("tape", "diff", tape, str(tmp_path / "other"))
    told = 'session 1 tools/call t /result/text: first "Hello", second "Bye"'
    assert (code, out) == (1, f"{told}\n1 difference\n")
    assert run("tape", "diff", tape, str(tmp_path / "other"), "--ignore", "/result/text")[0] == 0


def test_export(tape: str) -> None:
    done = subprocess.run([*SHADOWCAT, "tape", "export", tape], capture_output=True, timeout=30, check=True)
    assert len(json.loads(done.stdout)["log"]["entries"]) == 2


@pytest.mark.parametrize("command", ["list", "show", "verify", "diff", "export", "replay"])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "there is no tape"),
        (b"\x00\xff" * 99, "no tape"),
        (b'{"format":"shadowcat tape","version":"9.0","started":0}\n', "9.0"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_line(
    tmp_path: Path, command: str, content: bytes | None, told: str
) -> None:
    path = tmp_path / "x.tape"
    if content is not None:
        path.write_bytes(content)
    args = ("tape", command, str(path), *([str(path)] if command == "diff" else []))
    code, out = run(*(args if command != "replay" else ("replay", str(path), "--stdio")))
    if command == "list" and content is not None:
        assert (code, told in out) == (0, True)
        return
    assert (code, out.count("\n"), told in out) == (2, 1, True)


def test_a_pointer_that_is_none(tape: str) -> None:
    code, out = run("tape", "diff", tape, tape, "--ignore", "text")
    assert code == 2
    assert "'text' is no JSON pointer" in out


@pytest.mark.parametrize("args", [(), ("--stdio", "--listen", ":0"), ("--stdio", "--", "cat")])
def test_one_part_is_played(tape: str, args: tuple[str, ...]) -> None:
    code, out = run("replay", tape, *args)
    assert (code, "give one of --listen, --stdio, --against" in out) == (2, True)


@pytest.mark.parametrize("what", ["a file", "a directory"])
def test_a_tape_in_place_of_a_command(tape: str, what: str) -> None:
    [path] = Path(tape).glob("*.tape")
    if what == "a directory":
        path = path.parent
    sent = line({"id": 5, "method": "initialize", "params": INITIALIZE}) + line(
        {"id": "x", "method": "tools/call", "params": {"name": "t", "arguments": {}}}
    )
    done = subprocess.run([*SHADOWCAT, str(path)], input=sent, capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr
    answers = {json.loads(text)["id"]: json.loads(text)["result"] for text in done.stdout.splitlines()}
    assert answers["x"] == {"text": "Hello"}
    assert answers[5]["protocolVersion"] == "2025-11-25"
    assert f"this is short for: shadowcat replay {path} --stdio" in done.stderr.decode()


def test_a_directory_without_a_tape(tmp_path: Path) -> None:
    done = subprocess.run(
        [*SHADOWCAT, str(tmp_path)], stdin=subprocess.DEVNULL, capture_output=True, timeout=30
    )
    assert done.returncode == 2
    assert f"there is no tape in {tmp_path}" in done.stderr.decode()


def test_what_a_tape_stands_for() -> None:
    found = written_out(["a.tape", "--speed", "1"], is_terminal=True)
    assert found is not None
    assert found.args == ["replay", "a.tape", "--listen", "127.0.0.1:8080", "--speed", "1"]
    assert found.told == "shadowcat replay a.tape --listen 127.0.0.1:8080"


def test_against_a_command(tmp_path: Path) -> None:
    with recording(tmp_path) as traffic:
        opening = traffic.ask(jsonrpc.request(0, "initialize", INITIALIZE))
        traffic.tell(answer(opening), opening)
        request = traffic.ask(jsonrpc.request(1, "tools/call", tool("echo", n=1)))
        traffic.tell(answer(request, content=[{"type": "text", "text": '{"n": 2}'}]), request)
    args = (
        *SHADOWCAT,
        "replay",
        str(tmp_path),
        "--ignore",
        "/result/serverInfo",
        "--",
        sys.executable,
        SPEAKER,
    )
    done = subprocess.run(args, capture_output=True, timeout=60, text=True)
    assert (
        'tools/call echo /result/content/0/text: expected "{\\"n\\": 2}", got "{\\"n\\": 1}"' in done.stdout
    )
    assert done.stdout.splitlines()[-1].startswith("2 requests, ")
    assert done.returncode == 1, done.stderr


def test_a_server_that_cannot_be_reached(tape: str) -> None:
    code, out = run("replay", tape, "--against", "http://127.0.0.1:1/mcp")
    assert (code, "the server cannot be asked" in out) == (2, True)
    code, out = run("replay", tape, "--", "/no/such/program")
    assert (code, "the server cannot be asked" in out) == (2, True)
