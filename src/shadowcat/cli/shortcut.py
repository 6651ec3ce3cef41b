"""Shortcuts in place of a command, and the one command line that is parsed without click.

Loading click takes longer than all the rest of what `forward stdio` loads before it can start its command.
"""

from __future__ import annotations

from typing import NamedTuple

from shadowcat.secret import shown_url

TAPE_SUFFIX = ".tape"
"""Not from wire.tape, which takes longer to load than all of this."""


class WrittenOut(NamedTuple):
    args: list[str]
    told: str
    """For a person. It goes to where programs keep logs: what may be a secret is left out."""


def command_of(args: list[str]) -> list[str] | None:
    """The command of `forward stdio -- COMMAND [ARGS]`, if it is just that."""
    return args[3:] if args[:3] == ["forward", "stdio", "--"] and len(args) > 3 else None


def written_out(args: list[str], *, is_terminal: bool, is_pipe: bool = False) -> WrittenOut | None:
    """`-- COMMAND`, `URL` and `TAPE`, as the command that they stand for, by what our stdin is."""
    if len(args) > 1 and args[0] == "--":
        mode = "http" if is_terminal else "stdio"
        dots = " …" if len(args) > 2 else ""
        return WrittenOut(["forward", mode, *args], f"shadowcat forward {mode} -- {args[1]}{dots}")
    if args and (_is_url(args[0]) or (args[0].startswith("--") and _is_url(args[-1]))):
        # Options stand on either side. In their midst, a URL may be what one of them is given.
        url, options = (args[0], args[1:]) if _is_url(args[0]) else (args[-1], args[:-1])
        # What serves without a client of its own has a terminal or /dev/null for stdin, or says where it is to listen.
        mode = "stdio" if is_pipe and "--listen" not in args else "http"
        told = f"shadowcat forward {mode} --upstream {shown_url(url)}"
        return WrittenOut(["forward", mode, "--upstream", url, *options], told)
    if args and args[0].endswith(TAPE_SUFFIX):
        return played(args, is_terminal=is_terminal)
    return None


def _is_url(word: str) -> bool:
    return word.startswith(("http://", "https://"))


def url_without_scheme(word: str) -> str | None:
    """What `HOST:PORT` was most likely meant to be, for a person."""
    host, _, port = word.partition("/")[0].rpartition(":")
    return shown_url(f"http://{word}") if host and port.isdecimal() else None


def played(args: list[str], *, is_terminal: bool) -> WrittenOut:
    """The same of a tape, or a directory with one."""
    # Something that starts us with pipes wants the server that it would otherwise have started.
    mode = ["--listen", "127.0.0.1:8080"] if is_terminal else ["--stdio"]
    return WrittenOut(["replay", args[0], *mode, *args[1:]], f"shadowcat replay {args[0]} {' '.join(mode)}")
