"""Plugins from files and modules: found, given their options, loaded anew; and what is said of what is wrong."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shadowcat.app.plugin_settings import PluginSettings
from shadowcat.app.plugins import Plugins, load_plugins
from shadowcat.errors import Fault, PluginError
from shadowcat.proxy.pipeline import Pipeline
from shadowcat.wire import jsonrpc
from tests.proxy.test_pipeline import CONTEXT

CALL = jsonrpc.request(1, "tools/call", {"name": "t"})

PLUGIN = """
    from __future__ import annotations

    import msgspec
    from shadowcat import Context, Interceptor, Message, Reject, Verdict


    class Options(msgspec.Struct, forbid_unknown_fields=True):
        says: str = "no"


    class Refusing(Interceptor):
        Options = Options

        def __init__(self, options: Options) -> None:
            self.says = options.says

        def on_request(self, message: Message, context: Context) -> Verdict:
            return Reject.because(self.says + "VERSION")
"""


def write(path: Path, text: str) -> None:
    """As an editor does; the time of the file differs whatever the clock's grain."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(textwrap.dedent(text))
    os.utime(path, ns=(before + 10**9, before + 10**9))


def load(use: str | Path, **options: Any) -> Plugins:
    return load_plugins([PluginSettings(use=str(use), options=options)])


async def said(pipeline: Pipeline) -> str:
    try:
        await pipeline.run(CALL, CONTEXT)
    except Fault as fault:
        return fault.message
    return "passed"


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "refusing.py"
    write(path, PLUGIN)
    return path


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    write(tmp_path / "some_plugin.py", PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    yield "some_plugin"
    sys.modules.pop("some_plugin", None)


async def test_a_file_with_options(plugin: Path) -> None:
    for use in (str(plugin), f"{plugin}:Refusing"):
        assert await said(Pipeline(load(use, says="never").interceptors)) == "neverVERSION"


async def test_a_module(module: str) -> None:
    assert await said(Pipeline(load(f"{module}:Refusing").interceptors)) == "noVERSION"


WRONG = {
    "no class": (PLUGIN, ":Nobody", {}, "there is no Nobody in it"),
    "another class": (PLUGIN, ":Options", {}, "Options is no shadowcat.Interceptor"),
    "several": (PLUGIN + "\n    class Another(Refusing): pass", "", {}, "Refusing, Another"),
    "none": ("x = 1", "", {}, "several or none: none"),
    "unknown option": (PLUGIN, "", {"sais": "x"}, "options: Object contains unknown field `sais`"),
    "wrong option": (PLUGIN, "", {"says": 1}, "options: Expected `str`, got `int` - at `$.says`"),
    "no options": (
        PLUGIN.replace("Options = Options", "Options = None"),
        "",
        {"says": ""},
        "takes no options",
    ),
    "syntax": ("x = 1\ndef (", "", {}, ", line 2: SyntaxError"),
    "raises": ("x = 1\n\nraise ValueError('oh\\nno')", "", {}, ", line 3: ValueError: oh no"),
    "exits": ("import sys\nsys.exit(3)", "", {}, ", line 2: SystemExit: 3"),
    "cannot be made": (
        PLUGIN.replace("options.says", "options.sais"),
        "",
        {},
        ", line 16: Refusing cannot be made: AttributeError",
    ),
    "misspelt hook": (
        PLUGIN.replace("on_request", "on_requests"),
        "",
        {},
        "TypeError: Refusing.on_requests is no hook; did you mean on_request?",
    ),
    "imports what is broken": (
        "import os\n\nimport broken_module",
        "",
        {},
        ", line 3: SyntaxError: invalid syntax (broken_module.py, line 2)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_a_line(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    text, name, options, what = WRONG[case]
    (tmp_path / "broken_module.py").write_text("\ndef (")
    path = tmp_path / "wrong.py"
    write(path, text)
    with pytest.raises(PluginError) as caught:
        load(f"{path}{name}", **options)
    assert str(caught.value).startswith(f"plugin {path}{name}")
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("use", "what"),
    [
        ("nothing-like-it", "a plugin is module:Class"),
        ("no_such_module_here:X", "there is no module no_such_module_here"),
        ("no_such_package.x:X", "ModuleNotFoundError: No module named"),
        ("/nowhere/x.py", "there is no file /nowhere/x.py"),
        ("rules", "missing required field `file`"),
        ("redact", ""),
    ],
)
def test_what_is_not_there(use: str, what: str) -> None:
    if not what:
        assert len(load(use).interceptors) == 1
        return
    with pytest.raises(PluginError, match=what):
        load(use)


async def test_a_change_is_loaded_whole_once_it_is_settled(
    plugin: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    plugins = load(plugin)
    pipeline = Pipeline(plugins.interceptors)
    plugins.look(pipeline)
    assert await said(pipeline) == "noVERSION"
    write(plugin, PLUGIN.replace("VERSION", "2"))
    plugins.look(pipeline)
    assert await said(pipeline) == "noVERSION"
    plugins.look(pipeline)
    assert await said(pipeline) == "no2"
    assert [record.getMessage() for record in caplog.records] == [f"plugin {plugin} was reloaded"]


async def test_a_module_is_loaded_anew_too(module: str, tmp_path: Path) -> None:
    plugins = load(f"{module}:Refusing")
    pipeline = Pipeline(plugins.interceptors)
    write(tmp_path / "some_plugin.py", PLUGIN.replace("VERSION", "2"))
    plugins.look(pipeline)
    plugins.look(pipeline)
    assert await said(pipeline) == "no2"


WANTS_NO_LIST = PLUGIN.replace("Options = Options", "Options = Options\n        methods = 'tools/call'")


@pytest.mark.parametrize("broken", ["x = (", "raise ValueError", WANTS_NO_LIST])
async def test_what_cannot_be_loaded_changes_nothing(
    broken: str, plugin: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plugins = load(plugin)
    pipeline = Pipeline(plugins.interceptors)
    write(plugin, broken)
    for _ in range(4):
        plugins.look(pipeline)
    assert await said(pipeline) == "noVERSION"
    assert len(caplog.records) == 1
    assert caplog.messages[0].endswith("keeping what was loaded before")
    os.unlink(plugin)
    plugins.look(pipeline)
    plugins.look(pipeline)
    write(plugin, PLUGIN.replace("VERSION", "3"))
    plugins.look(pipeline)
    plugins.look(pipeline)
    assert await said(pipeline) == "no3"


RULE = '[[rule]]\nname = "r"\ntool = "t"\nblock = "WHY"\n'


async def test_rules_are_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "rules.toml"
    write(path, RULE)
    plugins = load("rules", file=str(path))
    pipeline = Pipeline(plugins.interceptors)
    assert await said(pipeline) == "WHY"
    for text, outcome in (
        (RULE.replace("WHY", "2"), "2"),
        (RULE.replace("block", "blok"), "2"),
        (RULE.replace('"t"', '"u"'), "passed"),
    ):
        write(path, text)
        plugins.look(pipeline)
        plugins.look(pipeline)
        assert await said(pipeline) == outcome
    assert "rule 'r': there is no key 'blok'; did you mean block?" in caplog.text


async def test_rules_whose_file_is_gone_stay_until_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rules.toml"
    write(path, RULE)
    plugins = load("rules", file=str(path))
    pipeline = Pipeline(plugins.interceptors)
    aside = path.rename(tmp_path / "aside")
    plugins.look(pipeline)
    assert caplog.records == [], "it may be on its way"
    for _ in range(3):
        plugins.look(pipeline)
    assert caplog.messages == [f"rules {path}: the file is gone; keeping what was loaded before"]
    assert await said(pipeline) == "WHY"
    write(aside, RULE.replace("WHY", "2"))
    aside.rename(path)
    plugins.look(pipeline)
    plugins.look(pipeline)
    assert await said(pipeline) == "2"


def test_a_bad_file_of_rules_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    with pytest.raises(PluginError, match=f"rules {path} cannot be read: No such file"):
        load("rules", file=str(path))
    with pytest.raises(PluginError, match="cannot be read: embedded null"):
        load("rules", file="a\0b")
    path.write_bytes(b"\xff")
    with pytest.raises(PluginError, match="not UTF-8"):
        load("rules", file=str(path))
    write(path, RULE + RULE)
    with pytest.raises(PluginError, match=rf"rules {path}: line 5: rule 'r'"):
        load("rules", file=str(path))


def test_a_method_that_looks_misspelt_is_said(plugin: Path, caplog: pytest.LogCaptureFixture) -> None:
    methods = '("tool/call", "tools/list", "mine/own")'
    write(plugin, PLUGIN.replace("Options = Options\n", f"Options = Options\n        methods = {methods}\n"))
    load(plugin)
    assert caplog.messages == [f"plugin {plugin}: MCP has no method tool/call; did you mean tools/call?"]


def test_a_method_that_looks_misspelt_in_a_rule_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rules = tmp_path / "rules.toml"
    write(rules, "[[rule]]\nname = 'a'\nmethod = ['resource/read', 'resources/*']\nblock = 'no'\n")
    load("rules", file=str(rules))
    assert caplog.messages == [
        f"rules {rules}: MCP has no method resource/read; did you mean resources/read?"
    ]
