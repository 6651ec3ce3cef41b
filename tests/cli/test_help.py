"""What every command says of itself, how soon, and with which code it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from shadowcat.cli import main

SHADOWCAT = (sys.executable, "-m", "shadowcat")
LOADED = """
import sys, atexit
atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr))
sys.argv = ["shadowcat", *sys.argv[1:]]
from shadowcat.cli import run
run()
"""
HEAVY = {
    "asyncio",
    "httptools",
    "logging",
    "msgspec",
    "sqlite3",
    "ssl",
    "starlette",
    "tomllib",
    "uvloop",
    "urllib.parse",
}


def every(command: click.Command = main, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from every(inner, (*words, name))


def shadowcat(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SHADOWCAT, *words], capture_output=True, text=True, timeout=60, env=os.environ | variables
    )


def help_of(words: tuple[str, ...]) -> str:
    command: click.Command | None = main
    context = click.Context(main, info_name="shadowcat", **main.context_settings)
    for word in words:
        assert isinstance(command, click.Group)
        command = command.get_command(context, word)
        assert command is not None
        context = click.Context(command, context, word)
    assert command is not None
    return command.get_help(context)


@pytest.mark.parametrize("words", list(every()), ids=" ".join)
def test_every_command_has_an_example(words: tuple[str, ...]) -> None:
    told = help_of(words)
    _, found, examples = told.partition("Example")
    assert found
    assert " ".join(("shadowcat", *words)) in examples
    assert "..." not in told.replace("[ARGS]...", "").replace("]...", ""), "a sentence is cut short"


def test_the_list_of_commands_loads_none_of_them() -> None:
    run = subprocess.run([sys.executable, "-c", LOADED, "--help"], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0
    loaded = set(run.stderr.split())
    assert loaded & HEAVY == set()
    assert {name for name in loaded if name.startswith("shadowcat.")} == {
        "shadowcat.cli", "shadowcat.cli.group", "shadowcat.cli.shortcut", "shadowcat.secret",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--version",), 0),
        (("reverse", "--help"), 0),
        (("no-such-command",), 2),
        (("reverse",), 2),
        (("reverse", "--no-such-option"), 2),
        (("reverse", "--config", "/no/such/file"), 2),
        (("reverse", "--upstream", "http://127.0.0.1:9/mcp", "--store", "elsewhere:"), 2),
        (("forward", "http", "--", "no-such-program"), 2),
        (("forward", "stdio", "--", "sh", "-c", "exit 7"), 7),
        (("forward", "stdio", "--", "no-such-program"), 127),
    ],
)
def test_exit_codes(words: tuple[str, ...], code: int) -> None:
    run = subprocess.run(
        [*SHADOWCAT, *words], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert run.returncode == code, run.stderr
    if code == 2:
        assert run.stderr.splitlines()[-1].startswith("Error: ")
        assert "Traceback" not in run.stderr


def test_an_address_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        run = shadowcat(
            "reverse", "--listen", address, "--upstream", "http://127.0.0.1:9/mcp", "--store", "memory:"
        )
    assert (run.returncode, run.stdout) == (1, "")
    assert f"Error: cannot listen on {address}" in run.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_being_told_to_end(number: signal.Signals) -> None:
    words = ("reverse", "--listen", "127.0.0.1:0", "--upstream", "http://127.0.0.1:9/mcp")
    with subprocess.Popen([*SHADOWCAT, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"serving http://")
        process.send_signal(number)
        assert process.wait(60) == 0
        assert b"stopping" in process.stdout.read()


def test_a_second_signal_ends_it_at_once() -> None:
    """A call runs meanwhile, which the first one would wait for."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/mcp"
        words = ("reverse", "--listen", "127.0.0.1:0", "--upstream", url)
        with subprocess.Popen(
            [*SHADOWCAT, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            announced = re.match(rb"serving http://127\.0\.0\.1:(\d+)/", process.stdout.readline())
            assert announced
            with socket.create_connection(("127.0.0.1", int(announced[1]))) as client:
                body = (
                    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25",'
                    b'"capabilities":{},"clientInfo":{"name":"a","version":"1"}}}'
                )
                client.sendall(
                    b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                    b"Accept: application/json, text/event-stream\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(body), body)
                )
                asked, _ = silent.accept()
                with asked:
                    process.send_signal(signal.SIGINT)
                    assert process.stdout.readline().startswith(b"stopping")
                    process.send_signal(signal.SIGINT)
                    assert process.wait(60) == 128 + signal.SIGINT


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    program = Path(sys.executable).parent / "shadowcat"

    def asked(instruction: str, words: str = "", at: str = "") -> str:
        variables = {"_SHADOWCAT_COMPLETE": f"{shell}_{instruction}", "COMP_WORDS": words, "COMP_CWORD": at}
        run = subprocess.run(
            [program], capture_output=True, text=True, timeout=60, env=os.environ | variables
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    page = (Path(__file__).parents[2] / "docs/reference/cli.md").read_text("utf-8")
    assert f"_SHADOWCAT_COMPLETE={shell}_source shadowcat" in page
    assert "_SHADOWCAT_COMPLETE" in asked("source")
    last = {"fish": "rev"}.get(shell, "1")
    assert "reverse" in asked("complete", "shadowcat rev", last)
    last = {"fish": "j"}.get(shell, "3")
    assert "json" in asked("complete", "shadowcat reverse --log-format j", last)
