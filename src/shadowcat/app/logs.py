"""How the log is written: one line per record, whatever is in it.

What a template calls `session %s` or `upstream %s` is a field of that name in the JSON form.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from shadowcat.downstream.stderr import StderrLog, StderrWriter
from shadowcat.wire.text import on_one_line

log = logging.getLogger("shadowcat")

_FIELD = re.compile(r"\b(session|exchange|upstream|node|interceptor) %s")
_SPECIFIER = re.compile(r"%%|%")
_COLOURS = {"DEBUG": "\x1b[2m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m"}
_PLAIN = "\x1b[0m"


class LogOptions(Struct, frozen=True):
    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="The lowest level to log; debug logs every message."),
    ] = "info"
    format: Annotated[
        Literal["text", "json"], Meta(description="Lines for people to read, or JSON objects for programs.")
    ] = "text"


class TextFormatter(logging.Formatter):
    def __init__(self, *, has_colours: bool = False, is_short: bool = False) -> None:
        """`is_short` leaves out the time and the logger: for a stderr that others write to as well."""
        super().__init__()
        self._has_colours = has_colours
        self._is_short = is_short

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname
        if self._has_colours and level in _COLOURS:
            level = f"{_COLOURS[level]}{level}{_PLAIN}"
        message = on_one_line(_whole(self, record))
        if self._is_short:
            return f"{level}: {message}"
        return f"{self.formatTime(record)} {level} {record.name}: {message}"


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, str] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": on_one_line(record.getMessage()),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = on_one_line(self.formatException(record.exc_info))
        return msgspec.json.encode(line).decode()


def formatter(options: LogOptions, *, has_colours: bool = False, is_short: bool = False) -> logging.Formatter:
    if options.format == "json":
        return JsonFormatter()
    return TextFormatter(has_colours=has_colours, is_short=is_short)


def as_printed(options: LogOptions, line: str) -> str:
    """What a program prints of itself, in the form of its log: whoever collects both reads one form."""
    if options.format == "text":
        return line
    return formatter(options).format(
        logging.makeLogRecord({"name": log.name, "levelname": "INFO", "msg": line})
    )


def set_up(options: LogOptions) -> None:
    """May be called again, with other options."""
    root = logging.getLogger()
    root.setLevel(options.level.upper())
    ours = next((handler for handler in root.handlers if isinstance(handler, _Stderr)), None)
    if ours is None:
        ours = _Stderr()
        root.addHandler(ours)
    ours.setFormatter(formatter(options, has_colours=_shows_colours()))


def share(stderr: StderrWriter, options: LogOptions) -> None:
    """The log, for a process whose stderr others write to as well, and that no reader of it may hold up."""
    told = StderrLog(stderr, formatter(options, is_short=True), marks=options.format == "text")
    logging.basicConfig(level=options.level.upper(), handlers=[told])


class _Stderr(logging.StreamHandler[Any]):
    """Ours, among the handlers that somebody else may have set."""


def _shows_colours() -> bool:
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _whole(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    message = record.getMessage()
    return f"{message}\n{formatter.formatException(record.exc_info)}" if record.exc_info else message


def _fields(record: logging.LogRecord) -> dict[str, str]:
    args = record.args
    if not isinstance(args, tuple):
        return {}
    return {
        name: on_one_line(str(args[place])) for name, place in _places(str(record.msg)) if place < len(args)
    }


@lru_cache(maxsize=256)
def _places(template: str) -> tuple[tuple[str, int], ...]:
    """The fields of a template, and which of its arguments each is."""
    return tuple((found[1], _arguments(template[: found.end() - 2])) for found in _FIELD.finditer(template))


def _arguments(template: str) -> int:
    return sum(sign == "%" for sign in _SPECIFIER.findall(template))
