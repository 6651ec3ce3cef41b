"""What `shadowcat demo` refuses, in a line."""

from __future__ import annotations

import socket

import pytest
from click.testing import CliRunner

from shadowcat.cli import main


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--crash", "--listen", ":0"], "--crash takes no other option"),
        (["--crash", "--server", "http"], "--crash takes no other option"),
        (["--server", "stdio", "--listen", ":0"], "--listen and --state are for a server that speaks HTTP"),
        (["--server", "ftp"], "is not one of 'http', 'stdio'"),
        (["--listen", "8080"], "is not HOST:PORT"),
        (["--state", __file__], "is a file"),
    ],
)
def test_a_wrong_command_line(arguments: list[str], told: str) -> None:
    run = CliRunner().invoke(main, ["demo", *arguments])
    assert (run.exit_code, run.output.splitlines()[-1].startswith("Error: ")) == (2, True), run.output
    assert told in run.output


@pytest.mark.parametrize("options", [[], ["--server", "http"]])
def test_a_place_for_its_state_that_is_none(options: list[str]) -> None:
    """It was the address of the admin listener that was blamed."""
    state = f"{__file__}/state"
    run = CliRunner().invoke(main, ["demo", *options, "--listen", "127.0.0.1:0", "--state", state])
    assert run.exit_code == 2
    assert run.output == f"Error: the store cannot be used: {__file__} is not a directory\n"


@pytest.mark.parametrize("options", [[], ["--server", "http"]])
def test_a_port_that_was_asked_for_and_is_taken(options: list[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        run = CliRunner().invoke(main, ["demo", *options, "--listen", f"127.0.0.1:{port}"])
    assert run.exit_code == 1
    assert run.output == (
        f"Error: cannot listen on 127.0.0.1:{port}: Address already in use; choose another with --listen\n"
    )
