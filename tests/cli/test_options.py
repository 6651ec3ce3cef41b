"""What is wrong with a command line is said in a line, before anything is started."""

from __future__ import annotations

import socket

import pytest
from click.testing import CliRunner

from shadowcat.cli import main
from shadowcat.cli.params import HOST, HOST_PORT, ORIGIN, UPSTREAM

SERVER = ["--upstream", "http://127.0.0.1:3000/mcp"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "Missing option '--upstream'"),
        (["--upstream", "127.0.0.1:3000"], "is not a URL"),
        (["--upstream", "ftp://a/mcp"], "is not a URL"),
        (["--upstream", "http://127.0.0.1:99999/mcp"], "is not a URL: Port out of range"),
        (["--upstream", "http://[::1/mcp"], "is not a URL"),
        (["--upstream", "http://a/m cp"], "write spaces and other letters as %XX"),
        (["--upstream", "http://u:p@a/mcp"], "credentials do not belong into a URL"),
        ([*SERVER, *SERVER], "two upstreams have one name"),
        ([*SERVER, "--listen", "8080"], "is not HOST:PORT"),
        ([*SERVER, "--listen", "::1:8080"], "in brackets"),
        ([*SERVER, "--path", "mcp"], "--path begins with a slash"),
        ([*SERVER, "--sse-path", "sse"], "--sse-path begins with a slash"),
        ([*SERVER, "--sse-path", "/sse?x"], "--sse-path is a path only"),
        ([*SERVER, "--path", "/sse"], "get in each other's way"),
        ([*SERVER, "--path", "/sse/messages"], "get in each other's way"),
        ([*SERVER, "--allow-origin", "*"], "is not an origin"),
        ([*SERVER, "--allow-origin", "app.example.com"], "is not an origin"),
        ([*SERVER, "--allow-host", "https://a.example"], "is not a host name"),
        ([*SERVER, "--session-idle", "nan"], "is not a number of seconds"),
        ([*SERVER, "--call-deadline", "inf"], "is not a number of seconds"),
        ([*SERVER, "--max-body", "0"], "0 is not in the range"),
    ],
)
def test_a_wrong_option(arguments: list[str], told: str) -> None:
    run = CliRunner().invoke(main, ["reverse", *arguments])
    assert (run.exit_code, run.output.splitlines()[-1].startswith("Error: ")) == (2, True), run.output
    assert told in run.output


def test_a_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        run = CliRunner().invoke(main, ["reverse", "--listen", f"127.0.0.1:{port}", *SERVER])
    assert run.exit_code == 1
    assert run.output == (
        f"Error: cannot listen on 127.0.0.1:{port}: Address already in use; choose another with --listen\n"
    )


def test_what_options_become() -> None:
    assert HOST_PORT.convert(":80", None, None) == ("127.0.0.1", 80)
    assert HOST_PORT.convert("[::1]:80", None, None) == ("::1", 80)
    assert UPSTREAM.convert("a=http://b/mcp?x=y", None, None) == ("a", "http://b/mcp?x=y")
    assert UPSTREAM.convert("http://b:1/mcp?x=y", None, None) == ("b:1", "http://b:1/mcp?x=y")
    assert ORIGIN.convert("HTTPS://App.example.com/", None, None) == "https://app.example.com"
    assert HOST.convert("[::1]", None, None) == "::1"
