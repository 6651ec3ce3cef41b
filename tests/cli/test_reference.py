"""The pages that list settings and commands say what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from shadowcat.app.loading import load_settings
from tests import reference
from tests.docs.pages import blocks, commands

LIMITS = (reference.REFERENCE / "limits.md").read_text("utf-8")


@pytest.mark.parametrize("page", sorted(reference.PAGES))
def test_a_page_is_as_the_code_is(page: str) -> None:
    assert (reference.REFERENCE / page).read_text("utf-8") == reference.whole(page), "run: make docs"


def test_every_flag_of_the_limits_exists() -> None:
    named = set(re.findall(r"`(--[a-z-]+)`", LIMITS))
    assert named
    assert named <= set(reference.FLAGS.values())


def test_the_commands_of_the_page(tmp_path: Path) -> None:
    """Of configuration.md, where a file is; what they say is looked at in test_config.py."""
    (tmp_path / "shadowcat.toml").write_text(
        "upstreams.main.url = 'http://127.0.0.1:9/mcp'\n[sessions]\nidle_s = 5\n"
    )
    for words in commands(reference.REFERENCE / "configuration.md"):
        program, *arguments = words[: words.index(">")] if ">" in words else words
        assert program == "shadowcat"
        run = subprocess.run(
            [sys.executable, "-m", "shadowcat", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (run.returncode, run.stderr) == (0, "")


def test_the_file_for_production(tmp_path: Path) -> None:
    (text,) = blocks(reference.REFERENCE.parent / "howto/production.md", "toml")
    file = tmp_path / "shadowcat.toml"
    file.write_text(text)
    assert load_settings("reverse", file=file, environment={}).warnings == ()


def test_the_example_of_a_file(tmp_path: Path) -> None:
    page = (reference.REFERENCE / "configuration.md").read_text("utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    settings = tomllib.loads(example)
    assert settings.pop("tls").keys() == {"cert_file", "key_file"}, "its files are on no machine of ours"
    file = tmp_path / "shadowcat.toml"
    without_tls = re.sub(r"\[tls\]\n.*?\n\n", "", example, flags=re.DOTALL).replace('"python"', '"python3"')
    file.write_text(without_tls)
    loaded = load_settings("reverse", file=file, environment={})
    assert set(loaded.settings.upstreams) == {"main", "files"}
    assert loaded.warnings == ()
