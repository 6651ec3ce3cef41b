"""A real redis-server of the test's own: stopped, killed, started again on the same port, filled up, made to forget."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from tests import needs
from tests.rig.wait import soon

START_S = 20.0


class RedisServer:
    """`settings` are lines of its configuration; a list gives several arguments."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.directory = directory
        self.port = _free_port()
        self.socket = directory / "redis.sock"
        self._settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "unixsocket": str(self.socket),
            "dir": str(directory),
            "save": "",
            "loglevel": "warning",
        } | {name.replace("_", "-"): value for name, value in settings.items()}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def socket_url(self) -> str:
        return f"redis+unix://{self.socket}"

    async def start(self) -> None:
        """Returns when it answers."""
        file = self.directory / "redis.conf"
        # An empty value has to be written as one.
        file.write_text("".join(f"{name} {value or chr(34) * 2}\n" for name, value in self._settings.items()))
        with (self.directory / "redis.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                needs.redis_server(), file, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )
        async with soon(START_S):
            while not await self._answers():
                assert self._process.returncode is None, (self.directory / "redis.log").read_text()
                await asyncio.sleep(0.01)

    async def _answers(self) -> bool:
        """Not while it still reads what it kept on disk."""
        try:
            reader, writer = await asyncio.open_unix_connection(self.socket)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            line = await reader.readline()
            return line != b"" and not line.startswith(b"-LOADING")
        except OSError:
            return False
        finally:
            writer.close()

    async def kill(self) -> None:
        """SIGKILL: what is not on disk is gone."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def restart(self) -> None:
        await self.kill()
        await self.start()

    def stop(self) -> None:
        """SIGSTOP: the kernel still takes connections and bytes for it, and it does nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def ask(self, *command: str | bytes | int) -> Any:
        """One command by redis-py's own client, beside whatever the store does."""
        async with Redis(
            unix_socket_path=str(self.socket), password=self._settings.get("requirepass")
        ) as client:
            return await client.execute_command(*command)


@asynccontextmanager
async def redis_server(directory: Path, **settings: str) -> AsyncIterator[RedisServer]:
    server = RedisServer(directory, **settings)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
