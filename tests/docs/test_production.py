"""docs/howto/production.md: each file on it is what its program takes, and its commands are ones that we have."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from tests import needs
from tests.conformance.suite import serving
from tests.docs.pages import blocks, commands
from tests.doctor.test_doctor import doctor
from tests.rig.nginx import free_port, nginx

PAGE = needs.ROOT / "docs/howto/production.md"
SHADOWCAT = str(Path(sys.executable).parent / "shadowcat")

INSTRUCTIONS = {"FROM", "COPY", "RUN", "USER", "VOLUME", "EXPOSE", "ENV", "STOPSIGNAL", "ENTRYPOINT", "CMD"}


def units() -> list[str]:
    """The service, and its socket."""
    service, sock = blocks(PAGE, "ini")
    return [service, sock]


def settings_of(text: str) -> dict[str, list[str]]:
    lines = [line for line in text.splitlines() if line and line[0] not in "[#"]
    found: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition("=")
        found.setdefault(name, []).append(value)
    return found


def unit() -> dict[str, list[str]]:
    return settings_of(units()[0])


def container() -> dict[str, list[str]]:
    [text] = blocks(PAGE, "dockerfile")
    found: dict[str, list[str]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        if line:
            name, _, value = line.partition(" ")
            found.setdefault(name, []).append(value)
    return found


def command_lines() -> list[list[str]]:
    """Everything that the page has somebody run of ours, wherever it stands there."""
    [exec_start] = unit()["ExecStart"]
    [entry], [arguments] = container()["ENTRYPOINT"], container()["CMD"]
    ours = [words for words in commands(PAGE) if words[0] == "shadowcat"]
    return [shlex.split(exec_start), [*json.loads(entry), *json.loads(arguments)], *ours]


@pytest.mark.parametrize("words", command_lines(), ids=" ".join)
def test_our_options_exist(words: list[str]) -> None:
    """All of the line is read before --help is: a wrong option or value is an error first."""
    assert Path(words[0]).name == "shadowcat"
    run = subprocess.run([SHADOWCAT, *words[1:], "--help"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("kind", ["unit", "container"])
async def test_it_starts_and_keeps_sessions_where_it_says(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the page has it, but for the port and the directory."""
    if kind == "unit":
        _, *arguments = shlex.split(unit()["ExecStart"][0])
    else:
        arguments = json.loads(container()["CMD"][0])
        [(name, _, value)] = [variable.partition("=") for variable in container()["ENV"]]
        monkeypatch.setenv(name, value.replace("/var/lib/shadowcat", str(tmp_path)))
    words = [re.sub(r"^(127\.0\.0\.1|0\.0\.0\.0):8080$", "127.0.0.1:0", word) for word in arguments]
    words = [word.replace("/var/lib/shadowcat", str(tmp_path)) for word in words]
    async with serving(("shadowcat", *words), tmp_path / "log") as url:
        assert url.startswith("http://127.0.0.1:")
    assert f"sessions are kept in sqlite:///{tmp_path}/sessions.db" in (tmp_path / "log").read_text()


def test_the_socket_is_where_the_service_would_listen() -> None:
    [exec_start] = unit()["ExecStart"]
    words = shlex.split(exec_start)
    assert settings_of(units()[1])["ListenStream"] == [words[words.index("--listen") + 1]]


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    assert unit()["TimeoutStopSec"] == ["20"], "longer than the proxy takes to end"
    program = needs.find("systemd-analyze")
    if program is None:
        # Not every system that tests this has it; what is above and below does not depend on it.
        return
    files = [tmp_path / "shadowcat.service", tmp_path / "shadowcat.socket"]
    for file, text in zip(files, units(), strict=True):
        file.write_text(text.replace("/opt/shadowcat/bin/shadowcat", SHADOWCAT))
    run = subprocess.run([program, "verify", *map(str, files)], capture_output=True, text=True)
    said = [line for line in run.stderr.splitlines() if "shadowcat." in line]
    assert said == []


def test_the_containerfile_has_no_instruction_that_there_is_not() -> None:
    found = container()
    assert set(found) <= INSTRUCTIONS
    for line in found["COPY"]:
        *sources, _ = [word for word in line.split() if not word.startswith("--")]
        if "--from" not in line:
            assert [source for source in sources if not (needs.ROOT / source).exists()] == []


async def test_events_pass_the_nginx_of_the_page(tmp_path: Path) -> None:
    """With a certificate of the test's; the settings in `location` are as they stand."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "certificate")
    authority.cert_pem.write_to_path(tmp_path / "authority")
    port = free_port()
    command = ("shadowcat", "demo", "--server", "http", "--listen", "127.0.0.1:0")
    async with serving(command, tmp_path / "log") as upstream:
        [block] = blocks(PAGE, "nginx")
        for written, ours in (
            ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
            ("/etc/ssl/mcp.example.com.pem", str(tmp_path / "certificate")),
            ("/etc/ssl/mcp.example.com.key", str(tmp_path / "key")),
            ("server_name mcp.example.com;", "server_name 127.0.0.1;"),
            ("http://127.0.0.1:8080", upstream.removesuffix("/mcp")),
        ):
            assert written in block
            block = block.replace(written, ours)
        async with nginx(block, port, tmp_path):
            trusted = str(tmp_path / "authority")
            call = ("--call", "count", "--arguments", '{"to": 4, "pause_ms": 300}')
            report = await doctor(*call, f"https://127.0.0.1:{port}/mcp", SSL_CERT_FILE=trusted)
    assert report.problems == []
    assert report.has("ok", "tls")
    assert report.has("ok", "buffering", "one by one")
    assert report.has("ok", "resuming")
