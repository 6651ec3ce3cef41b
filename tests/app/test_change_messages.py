"""docs/howto/change-messages.md: its commands run, its rules and plugins do what it says, its tables are accepted."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shadowcat.app.loading import load_settings
from shadowcat.app.plugin_settings import PluginSettings
from shadowcat.app.plugins import load_plugins
from shadowcat.app.settings import Settings
from shadowcat.core.rule_file import RuleTable, read_rules
from shadowcat.plugins.faults import FaultOptions
from shadowcat.proxy.pipeline import Pipeline
from shadowcat.wire import jsonrpc
from tests.proxy.test_pipeline import CONTEXT
from tests.rig.children import SPEAKER
from tests.stdio.editor import call

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = (DOCS / "howto/change-messages.md").read_text("utf-8")
REFERENCE = (DOCS / "reference/rules.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


COMMANDS = [text for block in blocks("sh") for text in block.splitlines()]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Holds the files that the page tells to write."""
    (tmp_path / "rules.toml").write_text(blocks("toml")[0])
    (tmp_path / "shout.py").write_text(blocks("python")[0])
    (tmp_path / "small_answers.py").write_text(blocks("python")[1])
    shutil.copy(SPEAKER, tmp_path / "my_server.py")
    return tmp_path


def in_this_environment(text: str) -> list[str]:
    words = [sys.executable if word == "python" else word for word in shlex.split(text)]
    assert words[0] == "shadowcat"
    return [sys.executable, "-m", *words]


@pytest.mark.parametrize("text", [text for text in COMMANDS if "forward stdio" in text])
def test_in_place_of_a_command(text: str, directory: Path) -> None:
    asked = call(1, "delete_all") if "--rules" in text else call(1, "echo", text="a")
    words = in_this_environment(text)
    run = subprocess.run(words, input=asked, cwd=directory, capture_output=True, timeout=60)
    answer = json.loads(run.stdout)
    if "--rules" in text:
        assert answer["error"]["message"] == "Nothing is deleted here", run.stderr
    else:
        assert json.loads(answer["result"]["content"][0]["text"]) == {"text": "A"}, run.stderr


@pytest.mark.parametrize("text", [text for text in COMMANDS if "forward stdio" not in text])
def test_over_http(text: str, directory: Path) -> None:
    words = in_this_environment(text)
    at = words.index("--rules")
    words[at:at] = ["--listen", "127.0.0.1:0"]
    with subprocess.Popen(words, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"serving http://")
        finally:
            process.terminate()
            process.wait(30)


def test_the_rules_are_those_that_are_described() -> None:
    names = [[rule.name for rule in read_rules(block).rules] for block in blocks("toml")[:2]]
    assert names == [
        ["nothing is deleted", "not too much at once", "no addresses"],
        ["somebody looks at payments"],
    ]


async def test_the_plugin_refuses_and_replaces(directory: Path) -> None:
    plugins = load_plugins([PluginSettings(use=str(directory / "shout.py"))])
    pipeline = Pipeline(plugins.interceptors)
    shouted = await pipeline.run(
        jsonrpc.request(1, "tools/call", {"name": "t", "arguments": {"text": "a"}}), CONTEXT
    )
    assert isinstance(shouted, jsonrpc.Message)
    assert shouted.params() == {"name": "t", "arguments": {"text": "A"}}
    with pytest.raises(Exception, match="No passwords"):
        await pipeline.run(jsonrpc.request(1, "tools/call", {"arguments": {"text": "password"}}), CONTEXT)


def test_the_tables_are_accepted(directory: Path) -> None:
    for block in blocks("toml")[2:]:
        file = directory / "shadowcat.toml"
        file.write_text('upstreams.main.url = "http://127.0.0.1:1/"\n' + block)
        settings: Settings = load_settings("reverse", file=file, environment={}).settings
        for plugin in settings.plugins.values():
            options: dict[str, Any] = dict(plugin.options)
            assert load_plugins([PluginSettings(use=str(directory / plugin.use), options=options)])
    assert settings.faults is not None
    assert settings.faults.cut_after == 5


def test_every_key_is_in_the_reference() -> None:
    keys = {*RuleTable.__struct_fields__, *FaultOptions.__struct_fields__}
    assert {key for key in keys if f"`{key}`" not in REFERENCE} == set()
