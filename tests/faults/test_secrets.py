"""Thirty secrets, wherever a peer may put one and however it is spelled: none is on the tape or in the log."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.recorded import recorded_proxy
from tests.rig.children import SPEAKER, tool
from tests.rig.client import client_of, rpc

SPELLINGS: dict[str, Callable[[str], Any]] = {
    "plain": lambda secret: {"password": secret},
    "in a text": lambda secret: {"text": f"log in with password={secret} please"},
    "base64": lambda secret: {"data": base64.b64encode(f"api_key={secret}".encode()).decode()},
    "in JSON in a text": lambda secret: {"body": json.dumps({"auth": {"accessToken": secret}})},
    "as a header": lambda secret: {"headers": [{"name": "Authorization", "value": f"Bearer {secret}"}]},
}
PLACES = ("argument", "result", "error", "notification")


class Canaries:
    def __init__(self) -> None:
        self.all: list[str] = []

    def one(self) -> str:
        """A word that stands nowhere else."""
        secret = f"canary{len(self.all):02}Zq7w9Xk3"
        self.all.append(secret)
        return secret

    def found_in(self, text: str) -> list[str]:
        """Also in base64, at any of its three alignments, and with its letters spelled as escapes."""
        return [secret for secret in self.all if any(form in text for form in _forms(secret))]


def _forms(secret: str) -> list[str]:
    forms = [secret, "".join(f"\\u{ord(letter):04x}" for letter in secret)]
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + secret.encode()).decode()
        forms.append(encoded[4 if shift else 0 : len(encoded) // 4 * 4 - 8])
    return forms


def test_a_canary_is_found() -> None:
    canaries = Canaries()
    secret = canaries.one()
    for shift in range(3):
        assert canaries.found_in(base64.b64encode(b"x" * shift + f"{secret} and more".encode()).decode())
    assert canaries.found_in(f'"{secret}"')
    assert not canaries.found_in("canary")


async def test_thirty_canaries(tmp_path: Path) -> None:
    canaries = Canaries()
    env = [canaries.one(), canaries.one()]
    command = (
        *("--env", f"MY_API_KEY={env[0]}", "--env", f"DATABASE_URL=postgres://u:{env[1]}@db/x"),
        *("--", sys.executable, SPEAKER),
    )
    async with (
        recorded_proxy(tmp_path, "forward", "http", "--log-level", "debug", *command) as proxy,
        client_of(proxy.port) as client,
    ):
        await client.initialize()
        id = 0
        for place in PLACES:
            for spelling in SPELLINGS.values():
                id += 1
                await _send(client, place, spelling(canaries.one()), id)
        # An escape in the key, and one in the value.
        escaped = "".join(f"\\u{ord(letter):04x}" for letter in canaries.one())
        for arguments in (f'{{"pass\\u0077ord":"{canaries.one()}"}}', f'{{"token":"{escaped}"}}'):
            id += 1
            params = f'{{"name":"echo","arguments":{arguments}}}'
            body = f'{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{params}}}'
            await (await client.post(body.encode(), *client.in_session())).json()
        for name, value in (("Authorization", "Bearer "), ("X-Api-Key", ""), ("Cookie", "session=")):
            await (
                await client.send(rpc("tools/list", {}, f"h{name}"), (name, value + canaries.one()))
            ).json()
        path = f"/mcp?access_token={canaries.one()}"
        await (await client.post(rpc("tools/list", {}, "q"), *client.in_session(), path=path)).body()
        await client.call(params=tool("env"), id="env")
        for text in (f"connecting with password={canaries.one()}", f"token: {canaries.one()}"):
            await client.call(params=tool("stderr", text=text + "\n"), id=f"stderr {len(canaries.all)}")
        log = await proxy.end()
    assert len(canaries.all) >= 30
    assert "connecting with password=[redacted]" in log
    assert canaries.found_in(log) == []
    _check_files(tmp_path, canaries)


def _check_files(directory: Path, canaries: Canaries) -> None:
    files = {path.suffix: path.read_text() for path in directory.iterdir()}
    assert set(files) == {".tape", ".json"}
    assert {name: canaries.found_in(text) for name, text in files.items()} == {".tape": [], ".json": []}
    assert files[".tape"].count("[redacted]") >= 40


async def _send(client: Any, place: str, holds: Any, id: int) -> None:
    """Something that holds the secret, there."""
    match place:
        case "argument" | "result":
            # What is sent comes back, as a text in the result.
            await client.call(params=tool("echo", **holds), id=id)
        case "error":
            error = {"code": -32000, "message": "no", "data": holds}
            raw = json.dumps({"jsonrpc": "2.0", "error": error})[:-1] + ',"id":ID}'
            await client.call(params=tool("garble", raw=raw), id=id)
        case _:
            await client.notify("notifications/vendor", holds)
