"""A record is one line, whatever is in it, and tells whose it is."""

from __future__ import annotations

import json
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.app.logs import LogOptions, as_printed, formatter

TEXT = formatter(LogOptions())
JSON = formatter(LogOptions(format="json"))


def record(template: str, *args: object, failed: bool = False) -> logging.LogRecord:
    exc_info = None
    if failed:
        try:
            raise ValueError("it\nbroke")
        except ValueError:
            exc_info = sys.exc_info()
    return logging.LogRecord("shadowcat.session", logging.WARNING, __file__, 1, template, args, exc_info)


def test_a_line_for_a_person() -> None:
    line = TEXT.format(record("session %s: %s", "5f2c81aa", "a\r\n\x1b[31mb\u202e"))
    assert line.endswith(" WARNING shadowcat.session: session 5f2c81aa: a\\r\\n\\x1b[31mb\\u202e")


def test_a_line_for_a_program() -> None:
    line = json.loads(JSON.format(record("session %s: opened on upstream %s (%s)", "5f2c81aa", "main", "v")))
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "warning",
        "logger": "shadowcat.session",
        "message": "session 5f2c81aa: opened on upstream main (v)",
        "session": "5f2c81aa",
        "upstream": "main",
    }


def test_which_argument_a_field_is() -> None:
    line = json.loads(JSON.format(record("%d%% of %5.1f on upstream %s", 5, 2.0, "main")))
    assert line["upstream"] == "main"
    assert "session" not in line


def test_what_failed_is_on_the_line_too() -> None:
    failure = record("it failed", failed=True)
    assert TEXT.format(failure).count("\\n") > 3
    assert "ValueError: it\\nbroke" in json.loads(JSON.format(failure))["exception"]


@given(st.text(st.characters(), max_size=50), st.text(st.characters(exclude_categories=[]), max_size=50))
@pytest.mark.parametrize("form", [TEXT, JSON], ids=["text", "json"])
def test_anything_is_one_line(form: logging.Formatter, template: str, said: str) -> None:
    plain = template.replace("%", "%%")
    line = form.format(record(f"session %s: {plain} %r", said, said))
    assert len(line.splitlines()) == 1
    assert not set(line) & {"\r", "\n", "\x1b", "\x9b", "\u2028"}
    line.encode()
    if form is JSON:
        assert json.loads(line)["session"] is not None


def test_colours_are_of_the_level_only() -> None:
    coloured = formatter(LogOptions(), has_colours=True).format(record("\x1b[31mred"))
    assert "\x1b[33mWARNING\x1b[0m" in coloured
    assert coloured.count("\x1b") == 2


def test_what_is_printed_has_the_form_of_the_log() -> None:
    line = "serving http://127.0.0.1:1/mcp (Ctrl-C stops it)"
    assert as_printed(LogOptions(), line) == line
    told = json.loads(as_printed(LogOptions(format="json"), line))
    assert (told["level"], told["logger"], told["message"]) == ("info", "shadowcat", line)
