"""Sockets that the service manager holds and passes on, as systemd does: `LISTEN_FDS` of them, from 3 on.

They stay with it when we end: who connects meanwhile waits for the process after us, and is not refused.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import ExitStack
from typing import NamedTuple

from shadowcat.config.load import Flag
from shadowcat.config.problem import ConfigError

_FIRST_FD = 3
_COUNT = "LISTEN_FDS"
_VARIABLES = ("LISTEN_PID", _COUNT, "LISTEN_FDNAMES")
_ADMIN = "admin"


class Inherited(NamedTuple):
    front: socket.socket | None = None
    admin: socket.socket | None = None

    def flags(self) -> list[Flag]:
        """Their addresses as settings: all that depends on an address is decided by that of the socket."""
        sockets = {"listen": self.front, "admin.listen": self.admin}
        return [Flag(_COUNT, path, _address_of(sock)) for path, sock in sockets.items() if sock is not None]


def inherited_sockets(environment: MutableMapping[str, str], first_fd: int = _FIRST_FD) -> Inherited:
    """What is meant for this process. Whatever we start gets neither the sockets nor the variables.

    One is the clients' port, and one that is named `admin` the admin listener's. Raises `ConfigError`.
    """
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return Inherited()
    _, count, names = (environment.pop(name, "") for name in _VARIABLES)
    if not (count.isascii() and count.isdecimal()):
        raise ConfigError([f"{_COUNT} is {count!r}, and no number"])
    with ExitStack() as refused:
        sockets = [refused.enter_context(_socket(fd)) for fd in range(first_fd, first_fd + int(count))]
        for sock in sockets:
            _check(sock)
        # Where there are no names, all are called nothing.
        named = [*zip(sockets, names.split(":") + len(sockets) * [""], strict=False)]
        found = Inherited(
            _only([sock for sock, name in named if name != _ADMIN], "for clients"),
            _only([sock for sock, name in named if name == _ADMIN], f"named {_ADMIN}"),
        )
        refused.pop_all()
    return found


def _socket(fd: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise ConfigError([f"{_COUNT}: {fd} is no socket: {error.strerror}"]) from error
    sock.set_inheritable(False)
    return sock


def _check(sock: socket.socket) -> None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        raise ConfigError(
            [f"{_COUNT}: {sock.fileno()} is no socket of TCP: ListenStream= with a port makes one"]
        )
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ConfigError([f"{_COUNT}: {sock.fileno()} does not listen: with Accept=no it does"])


def _only(sockets: list[socket.socket], which: str) -> socket.socket | None:
    if len(sockets) > 1:
        addresses = ", ".join(map(_address_of, sockets))
        raise ConfigError([f"{_COUNT}: there is one socket {which} at most, and here are {addresses}"])
    return sockets[0] if sockets else None


def _address_of(sock: socket.socket) -> str:
    host, port, *_ = sock.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
