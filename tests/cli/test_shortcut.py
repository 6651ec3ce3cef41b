"""`shadowcat -- CMD` and `shadowcat URL`: which command they stand for."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from shadowcat.cli import main
from shadowcat.cli.shortcut import command_of, written_out
from tests.rig.children import SPEAKER
from tests.stdio.editor import call

SHADOWCAT = (sys.executable, "-m", "shadowcat")


@pytest.mark.parametrize(
    ("words", "is_terminal", "args", "told"),
    [
        ("-- cat", False, "forward stdio -- cat", "shadowcat forward stdio -- cat"),
        (
            "-- cat --key secret",
            False,
            "forward stdio -- cat --key secret",
            "shadowcat forward stdio -- cat …",
        ),
        ("-- cat -n", True, "forward http -- cat -n", "shadowcat forward http -- cat …"),
        (
            "http://u:secret@h:1/@a/mcp?key=secret --listen :1",
            False,
            "forward http --upstream http://u:secret@h:1/@a/mcp?key=secret --listen :1",
            "shadowcat forward http --upstream http://h:1/@a/mcp",
        ),
    ],
)
def test_what_stands_for_a_command(words: str, is_terminal: bool, args: str, told: str) -> None:
    found = written_out(words.split(), is_terminal=is_terminal)
    assert found is not None
    assert (found.args, found.told) == (args.split(), told)


@pytest.mark.parametrize(
    ("words", "is_pipe", "mode"),
    [
        ("https://h/mcp", True, "stdio"),
        ("https://h/mcp --log-level info", True, "stdio"),
        ("https://h/mcp", False, "http"),
        ("https://h/mcp --listen :1", True, "http"),
    ],
)
def test_what_a_url_stands_for(words: str, is_pipe: bool, mode: str) -> None:
    found = written_out(words.split(), is_terminal=False, is_pipe=is_pipe)
    assert found is not None
    assert found.args == f"forward {mode} --upstream {words}".split()
    assert found.told == f"shadowcat forward {mode} --upstream https://h/mcp"


@pytest.mark.parametrize(
    ("options", "mode"), [("--listen :1 --allow-origin http://a", "http"), ("--log-level info", "stdio")]
)
def test_options_before_a_url(options: str, mode: str) -> None:
    words = f"{options} https://h/mcp?key=secret"
    found = written_out(words.split(), is_terminal=False, is_pipe=True)
    assert found is not None
    assert found.args == f"forward {mode} --upstream https://h/mcp?key=secret {options}".split()
    assert found.told == f"shadowcat forward {mode} --upstream https://h/mcp"


@pytest.mark.parametrize(
    "words", ["", "--", "cat", "--help", "--listen :1", "ftp://a", "forward stdio -- cat"]
)
def test_what_stands_for_itself(words: str) -> None:
    assert written_out(words.split(), is_terminal=False) is None


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("forward stdio -- cat -n", ["cat", "-n"]),
        ("forward stdio --", None),
        ("forward stdio --env A=b -- cat", None),
        ("forward http -- cat", None),
    ],
)
def test_what_is_understood_without_click(words: str, command: list[str] | None) -> None:
    assert command_of(words.split()) == command


@pytest.mark.parametrize(
    "words",
    [
        ("--",),
        ("forward", "stdio", "--"),
        ("forward", "stdio"),
        ("forward", "stdio", "--log-level", "info", "--"),
    ],
)
def test_it_runs(words: tuple[str, ...]) -> None:
    run = subprocess.run(
        [*SHADOWCAT, *words, sys.executable, SPEAKER, "--banner"],
        input=call(1, "pid"),
        capture_output=True,
        timeout=30,
    )
    assert (run.returncode, run.stdout.count(b'"id": 1')) == (0, 1), run.stderr
    assert (b"this is short for: shadowcat forward stdio -- " in run.stderr) == (words == ("--",))


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("localhost:3000", "http://localhost:3000"),
        ("127.0.0.1:3000/mcp", "http://127.0.0.1:3000/mcp"),
        ("[::1]:3000/mcp?key=secret", "http://[::1]:3000/mcp"),
    ],
)
def test_a_url_without_its_scheme(word: str, meant: str) -> None:
    result = CliRunner().invoke(main, [word])
    assert result.exit_code == 2
    assert f"a URL begins with http:// or https://; did you mean {meant}?" in result.output


@pytest.mark.parametrize("word", ["revers", "a:b", ":3000", "x.tape/1:1/"])
def test_what_is_no_url_without_its_scheme(word: str) -> None:
    assert "No such command" in CliRunner().invoke(main, [word]).output


def test_a_url_is_served_over_http() -> None:
    run = subprocess.run(
        [*SHADOWCAT, "http://127.0.0.1:9/mcp", "--path", "bad"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert run.returncode == 2
    assert "this is short for: shadowcat forward http --upstream http://127.0.0.1:9/mcp" in run.stderr
    assert "--path: 'bad' is not a path that begins with a slash" in run.stderr


def test_a_url_for_a_program_that_starts_us() -> None:
    run = subprocess.run(
        [*SHADOWCAT, "http://127.0.0.1:9/mcp?key=secret"],
        input=call(1, "pid"),
        capture_output=True,
        timeout=30,
    )
    assert (run.returncode, run.stdout.count(b'"initialize comes first"')) == (0, 1), run.stderr
    assert b"this is short for: shadowcat forward stdio --upstream http://127.0.0.1:9/mcp\n" in run.stderr


@pytest.mark.parametrize(("word", "told"), [("forwrd", "forward"), ("revers", "reverse")])
def test_an_unknown_word_gets_a_suggestion(word: str, told: str) -> None:
    run = CliRunner().invoke(main, [word])
    assert run.exit_code == 2
    assert f"No such command '{word}'." in run.output
    assert told in run.output.splitlines()[-1]


def test_a_command_is_needed() -> None:
    run = CliRunner().invoke(main, ["forward", "stdio"])
    assert run.exit_code == 2
    assert "give either --upstream or, after --, a command" in run.output
