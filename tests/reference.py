"""Makes the pages of docs/reference that list settings and commands: `python -m tests.reference`.

Above its mark a page is written by hand. What is below it comes from the code, and a test holds the page to that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
from msgspec import NODEFAULT

from shadowcat.app.settings import Settings
from shadowcat.cli import main
from shadowcat.cli.options import ALLOW_TARGET, SERVING, STORING, UPSTREAM
from shadowcat.config.fields import ANY, Setting, settings_of
from shadowcat.config.shape import expected

MARK = "<!-- From here on `make docs` writes. -->"
REFERENCE = Path(__file__).parent.parent / "docs/reference"

FLAGS = {flag.path: flag.name for flag in (UPSTREAM, ALLOW_TARGET, *STORING, *SERVING)}


def configuration() -> str:
    sections: dict[str, list[Setting]] = {}
    for setting in settings_of(Settings):
        sections.setdefault(".".join(setting.path[:-1]), []).append(setting)
    return "\n".join(line for name, settings in sections.items() for line in _section(name, settings))


def _section(name: str, settings: list[Setting]) -> Iterator[str]:
    shown = name.replace(ANY, "NAME")
    yield f"## `[{shown}]`" if name else "## At the top"
    yield ""
    yield "| Setting | Default | Flag | |"
    yield "|---|---|---|---|"
    for setting in settings:
        key = setting.path[-1] + ("_file" if setting.shape.is_secret else "")
        path = setting.name.removesuffix(f".{ANY}")
        flag = FLAGS.get(path)
        yield f"| `{key}` | {_default(setting)} | {f'`{flag}`' if flag else ''} | {_told(setting)} |"
    yield ""


def _default(setting: Setting) -> str:
    value: Any = setting.default
    if value is NODEFAULT:
        return "needed" if len(setting.path) == 1 or ANY not in setting.path else ""
    if value is None or value == () or value == {} or value == frozenset():
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _told(setting: Setting) -> str:
    """The description, with what values there are where that is not plain."""
    text = setting.shape.description
    if setting.shape.choices:
        text += f" One of {', '.join(f'`{choice}`' for choice in setting.shape.choices)}."
    elif setting.shape.meta("examples"):
        text += f" It is {expected(setting.shape)}."
    return text.replace("|", "\\|")


def commands() -> str:
    # Names of settings in the environment would be asked for their values.
    with patch.dict(os.environ, {}, clear=True):
        return "\n".join(
            _helps(
                main, click.Context(main, info_name="shadowcat", terminal_width=100, **main.context_settings)
            )
        )


def _helps(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## `{context.command_path}`"
    yield ""
    yield "```"
    yield command.get_help(context)
    yield "```"
    yield ""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _helps(inner, click.Context(inner, context, name, terminal_width=100))


PAGES = {"configuration.md": configuration, "cli.md": commands}


def whole(page: str) -> str:
    """The page as it is to be."""
    by_hand, mark, _ = (REFERENCE / page).read_text("utf-8").partition(MARK)
    assert mark, f"{page} has no mark"
    return f"{by_hand}{MARK}\n\n{PAGES[page]().rstrip()}\n"


if __name__ == "__main__":
    for name in PAGES:
        (REFERENCE / name).write_text(whole(name), "utf-8")
