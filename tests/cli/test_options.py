"""What is wrong with a command line is said in a line, before anything is started."""

from __future__ import annotations

import socket

import pytest
from click.testing import CliRunner

from shadowcat.app.upstreams import named_url
from shadowcat.cli import main
from shadowcat.wire.hosts import Address

SERVER = ["--upstream", "http://127.0.0.1:3000/mcp"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "there is no server: give --upstream URL"),
        (["--upstream", "127.0.0.1:3000"], "is not a URL"),
        (["--upstream", "ftp://a/mcp"], "is not a URL"),
        (["--upstream", "http://127.0.0.1:99999/mcp"], "is not a URL: Port out of range"),
        (["--upstream", "http://[::1/mcp"], "is not a URL"),
        (["--upstream", "http://a/m cp"], "write spaces and other letters as %XX"),
        (["--upstream", "http://u:p@a/mcp"], "credentials do not belong in a URL"),
        ([*SERVER, *SERVER], "two upstreams have one name"),
        ([*SERVER, "--listen", "8080"], "is not HOST:PORT"),
        ([*SERVER, "--listen", "::1:8080"], "in brackets"),
        ([*SERVER, "--path", "mcp"], "--path: 'mcp' is not a path that begins with a slash"),
        ([*SERVER, "--sse-path", "sse"], "--sse-path: 'sse' is not a path that begins with a slash"),
        ([*SERVER, "--sse-path", "/sse?x"], "with spaces and other letters written as %XX"),
        ([*SERVER, "--path", "/sse"], "get in each other's way"),
        ([*SERVER, "--path", "/sse/messages"], "get in each other's way"),
        ([*SERVER, "--allow-origin", "*"], "is not an origin"),
        ([*SERVER, "--allow-origin", "app.example.com"], "is not an origin"),
        ([*SERVER, "--allow-host", "https://a.example"], "is not a host name"),
        ([*SERVER, "--session-idle", "nan"], "is not a number above 0"),
        ([*SERVER, "--call-deadline", "inf"], "is not a number above 0"),
        ([*SERVER, "--upstream", "b=http://b:x/mcp?key=hush"], "'http://b:x/mcp' is not a URL"),
        (
            [*SERVER, "--admin", "0.0.0.0:0"],
            "set SHADOWCAT_ADMIN_TOKEN, or name a file with it in admin.token_file",
        ),
        (
            [*SERVER, "--tls-cert", "/no/cert", "--tls-key", "/no/key"],
            "tls: /no/cert cannot be read: No such file",
        ),
        (
            [*SERVER, "--tls-cert", __file__, "--tls-key", "/no/key"],
            "tls: /no/key cannot be read: No such file",
        ),
        (
            [*SERVER, "--tls-cert", __file__, "--tls-key", __file__],
            f"there is no certificate in PEM in {__file__}",
        ),
        ([*SERVER, "--upstream-ca", "/no/ca"], "upstream_tls: /no/ca cannot be read: No such file"),
        ([*SERVER, "--upstream-ca", __file__], f"there is no certificate in PEM in {__file__}"),
        ([*SERVER, "--listen", "127.0.0.1:9901", "--admin", "127.0.0.1:9901"], "choose another with --admin"),
        ([*SERVER, "--port", "9901"], "No such option '--port'. Did you mean '--listen'?"),
        (["--", "python", "server.py"], "did you mean shadowcat forward http -- python …?"),
        (["http://127.0.0.1:3000/mcp"], "did you mean --upstream http://127.0.0.1:3000/mcp?"),
        ([*SERVER, "--max-body", "0"], "--max-body: '0' is not a whole number of 1 or more"),
    ],
)
def test_a_wrong_option(arguments: list[str], told: str) -> None:
    run = CliRunner().invoke(main, ["reverse", *arguments])
    assert (run.exit_code, run.output.splitlines()[-1].startswith("Error: ")) == (2, True), run.output
    assert told in run.output
    assert "hush" not in run.output


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
    assert (Address(":80").host, Address(":80").port) == ("127.0.0.1", 80)
    assert (Address("[::1]:80").host, Address("[::1]:80").port) == ("::1", 80)
    assert named_url("a=http://b/mcp?x=y") == ("a", "http://b/mcp?x=y")
    assert named_url("http://b:1/mcp?x=y") == ("b:1", "http://b:1/mcp?x=y")
