"""`--config FILE`, `SHADOWCAT_*` and flags: which of them wins, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from shadowcat.app.loading import load_settings
from shadowcat.cli import main
from shadowcat.config.load import Flag
from shadowcat.config.problem import ConfigError

FILE = """
listen = "127.0.0.1:0"

[upstreams.main]
url = "http://127.0.0.1:3000/mcp"

[sessions]
idle_s = 60
max_sessions = 5
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shadowcat.toml"
    path.write_text(FILE)
    return path


def test_later_ones_win(file: Path) -> None:
    environment = {"SHADOWCAT_SESSIONS_IDLE_S": "50", "SHADOWCAT_UPSTREAMS_OTHER_URL": "http://b/mcp"}
    flags = [Flag("--max-sessions", "sessions.max_sessions", "7")]
    loaded = load_settings("reverse", file=file, environment=environment, flags=flags)
    settings, origins = loaded.settings, loaded.origins
    assert (settings.sessions.idle_s, settings.sessions.max_sessions) == (50.0, 7)
    assert set(settings.upstreams) == {"main", "other"}
    assert origins["sessions.idle_s"].name == "SHADOWCAT_SESSIONS_IDLE_S"
    assert origins["sessions.max_sessions"].name == "--max-sessions"
    assert origins["listen"].name == str(file)
    assert loaded.warnings == ()


def test_all_that_is_wrong_is_told(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(
        'listen = "here"\nlisen = 1\n[sessions]\nidle_s = "long"\n[cluster]\nadvertise = "x"\nkey = "hush hush"\n'
    )
    with pytest.raises(ConfigError) as error:
        load_settings("reverse", file=file, environment={})
    assert error.value.problems == (
        f"{file}: lisen: there is no such setting; did you mean listen?",
        f"{file}: listen: 'here' is not HOST:PORT, for example 127.0.0.1:8080",
        f"{file}: sessions.idle_s: 'long' is not a number above 0",
        f"{file}: cluster.advertise: 'x' is not a node's URL, for example http://10.0.0.5:8080",
        f"{file}: cluster.key: a secret has no place here; write it to a file and its path to cluster.key_file, "
        "or set SHADOWCAT_CLUSTER_KEY",
    )


def test_a_command_says_all_that_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("sesions = 1\n[sessions]\nidle_s = 0\n")
    run = CliRunner().invoke(main, ["reverse", "--config", str(file)])
    assert run.exit_code == 2
    assert run.output.splitlines() == [
        f"Error: {file}: sesions: there is no such setting; did you mean sessions?",
        f"Error: {file}: sessions.idle_s: 0 is not a number above 0",
    ]
