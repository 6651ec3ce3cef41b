"""What `shadowcat doctor` refuses, in a line."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from shadowcat.cli import main

URL = "http://127.0.0.1:9/mcp"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "Missing argument"),
        (["ftp://a/b"], "is not a URL"),
        (["http://user:password@a/b"], "credentials do not belong in a URL"),
        (["--call", "x", "--", "cat"], "are for a URL"),
        (["--arguments", "{}", URL], "--arguments are those of --call"),
        (["--call", "x", "--arguments", "{", URL], "--arguments is not JSON"),
        (["--call", "x", "--arguments", "[]", URL], "--arguments is an object"),
        (["--token-from", "SHADOWCAT_NO_SUCH_VARIABLE", URL], "there is no token in the variable"),
        (["--deadline", "0", URL], "0"),
    ],
)
def test_a_wrong_command_line(arguments: list[str], told: str) -> None:
    run = CliRunner().invoke(main, ["doctor", *arguments])
    assert (run.exit_code, run.output.splitlines()[-1].startswith("Error: ")) == (2, True), run.output
    assert told in run.output
