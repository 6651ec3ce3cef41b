"""`shadowcat config`: what it says and how it exits, as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest


def config(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SHADOWCAT_")}
    return subprocess.run(
        [sys.executable, "-m", "shadowcat", "config", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=ours | variables,
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shadowcat.toml"
    path.write_text(
        "listen = '127.0.0.1:0'\nupstreams.main.url = 'http://127.0.0.1:3000/mcp'\nsessions.idle_s = 60\n"
    )
    return path


def test_a_good_file(file: Path) -> None:
    run = config("check", str(file))
    assert (run.returncode, run.stdout, run.stderr) == (0, f"{file}: good\n", "")


def test_a_file_with_warnings(file: Path) -> None:
    run = config("check", "--for", "forward http", str(file), SHADOWCAT_DURABILITY_STRICT="true")
    assert (run.returncode, run.stdout) == (0, f"{file}: good\n")
    assert run.stderr == "Warning: durability.strict has no effect: with store memory: nothing is written\n"


def test_a_file_without_a_server(file: Path) -> None:
    """It may be for a flag to name it."""
    file.write_text("")
    run = config("check", str(file))
    assert (run.returncode, run.stdout) == (0, f"{file}: good\n")
    assert run.stderr == "Warning: it names no server: `reverse` needs upstreams there, or --upstream URL\n"
    assert config("check", "--for", "forward http", str(file)).stderr == ""


def test_what_is_missing_is_said_with_its_file(file: Path) -> None:
    file.write_text("record.queue_bytes = 4096\n")
    run = config("check", str(file))
    assert run.stderr == f"Error: {file}: record.directory is missing: give the path of a directory there\n"


def test_a_bad_file(file: Path) -> None:
    file.write_text("lisen = 1\nsessions = { idle_s = 'x' }\n")
    run = config("check", str(file))
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.splitlines() == [
        f"Error: {file}: lisen: there is no such setting; did you mean listen?",
        f"Error: {file}: sessions.idle_s: 'x' is not a number above 0",
    ]


def test_what_is_shown_loads_back(file: Path, tmp_path: Path) -> None:
    variables = {
        "SHADOWCAT_CONFIG": str(file),
        "SHADOWCAT_STORE": "redis://somebody:hush@127.0.0.1",
        "SHADOWCAT_CLUSTER_ADVERTISE": "http://10.0.0.5:8080",
        "SHADOWCAT_CLUSTER_KEY": "hush, and more of it",
    }
    first = config("show", **variables)
    assert (first.returncode, first.stderr) == (0, "")
    assert "hush" not in first.stdout
    assert f"idle_s = 60.0                                 # {file}\n" in first.stdout
    assert "# key is secret                               # SHADOWCAT_CLUSTER_KEY\n" in first.stdout
    told = tmp_path / "told.toml"
    told.write_text(first.stdout)
    again = config("show", **variables | {"SHADOWCAT_CONFIG": str(told)})
    assert tomllib.loads(again.stdout) == tomllib.loads(first.stdout)


def test_what_may_be_a_secret_is_not_shown(file: Path) -> None:
    file.write_text(
        """
        upstreams.main.url = "http://127.0.0.1:3000/mcp?key=hush"
        upstreams.files.command = ["cat", "--key", "hush"]
        [plugins.mine]
        use = "mine.py"
        options = { token = "hush", more = { b = ["hush"] } }
        """
    )
    run = config("show", "--config", str(file))
    assert (run.returncode, run.stderr) == (0, "")
    assert "hush" not in run.stdout
    lines = [line.split("  ")[0] for line in run.stdout.splitlines()]
    assert '# url = "http://127.0.0.1:3000/mcp" and what may be secret' in lines
    assert '# command = ["cat"] and what may be secret' in lines
    assert lines[lines.index("[plugins.mine.options]") :][1:3] == ["# token is secret", "# more is secret"]


def test_a_schema(file: Path) -> None:
    run = config("schema")
    assert (run.returncode, run.stderr) == (0, "")
    schema = json.loads(run.stdout)
    assert set(schema["$defs"]["Cluster"]["properties"]) == {"advertise", "key_file", "lease_s"}
    assert schema["$defs"]["UpstreamOptions"]["properties"]["env"]["additionalProperties"] == {
        "type": "string"
    }
