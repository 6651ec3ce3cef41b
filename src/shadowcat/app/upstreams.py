"""A server as the configuration names it: a URL, or a command."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from shadowcat.secret import Secret, shown_url
from shadowcat.upstream.command import Command
from shadowcat.wire.hosts import Address, is_reached_by


class ServerUrl(str):
    """A server's MCP endpoint."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        shown = shown_url(text)
        try:
            parts = urlsplit(text)
            parts.port  # noqa: B018 - raises for a port that is none
        except ValueError as error:
            raise ValueError(f"{shown!r} is not a URL: {error}") from error
        if parts.username is not None or parts.password is not None:
            raise ValueError("credentials do not belong in a URL")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{shown!r} is not a URL, for example http://127.0.0.1:3000/mcp")
        if not text.isascii() or len(text.split()) != 1:
            raise ValueError(f"{shown!r}: write spaces and other letters as %XX")
        return super().__new__(cls, text)

    def shown(self) -> str:
        return shown_url(self)

    def leads_to(self, listen: Address) -> bool:
        """Whether who listens there is plainly the one that is meant."""
        parts = urlsplit(self)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return is_reached_by(listen, parts.hostname or "", port)


class UpstreamOptions(Struct, frozen=True):
    url: Annotated[ServerUrl | None, Meta(description="The server's MCP endpoint, if it speaks HTTP.")] = None
    command: Annotated[
        tuple[str, ...],
        Meta(description="The command that starts the server, word by word, if it speaks stdio."),
    ] = ()
    env: Annotated[dict[str, Secret], Meta(description="Environment variables for the command.")] = {}
    cwd: Annotated[str | None, Meta(description="The directory to run the command in.")] = None
    shared: Annotated[
        bool,
        Meta(description="Use one process for all sessions; for a command that keeps no state per session."),
    ] = False
    spares: Annotated[
        int,
        Meta(
            ge=0,
            description="How many processes to keep ready for new sessions, once the first session has "
            "opened.",
        ),
    ] = 0

    def __post_init__(self) -> None:
        if (self.url is None) == (not self.command):
            raise ValueError(
                'it has either a url, for example "http://127.0.0.1:3000/mcp", '
                'or a command, for example ["python", "my_server.py"]'
            )
        if self.url is not None and (self.env or self.cwd or self.shared or self.spares):
            raise ValueError(
                "shared, spares, env and cwd are for a command; a server with a url has none of them"
            )
        if self.shared and self.spares:
            raise ValueError("spares are for sessions with a process each, and these share one")
        if self.command:
            self._look_for_it()

    def _look_for_it(self) -> None:
        """As the operating system will: from its directory, or along its PATH."""
        program = self.command[0]
        if self.cwd is not None and not Path(self.cwd).is_dir():
            raise ValueError(f"there is no directory {self.cwd!r} for its command to run in")
        where = str(Path(self.cwd or ".") / program) if "/" in program else program
        path = self.env.get("PATH")
        if shutil.which(where, path=None if path is None else path.reveal()) is None:
            if "/" in program and Path(where).exists():
                raise ValueError(
                    f"{program!r} is not an executable program; put its interpreter before it, or chmod +x it"
                )
            raise ValueError(f"there is no program {program!r}; is it installed, and on the PATH?")

    def shown(self) -> dict[str, Any]:
        """Some take secrets as arguments."""
        return {"command": self.command[:1]}

    def server(self) -> str | Command:
        if self.url is not None:
            return self.url
        env = {name: value.reveal() for name, value in self.env.items()}
        return Command(self.command, env, self.cwd)


def named_url(text: str) -> tuple[str, str]:
    """`NAME=URL`, or a URL, of which the host and port is the name."""
    if named := re.fullmatch(r"([A-Za-z0-9_.-]+)=(.*)", text):
        return named[1], named[2]
    try:
        return urlsplit(text).netloc or text, text
    except ValueError:
        return text, text  # what is wrong with it is told where the URL is looked at
