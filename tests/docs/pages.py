"""What stands in the pages: blocks of code, and the commands in those that are for a shell."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests import needs

PAGES = sorted([*needs.ROOT.glob("*.md"), *needs.ROOT.glob("docs/**/*.md")])

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def name_of(page: Path) -> str:
    return page.relative_to(needs.ROOT).as_posix()


def blocks(page: Path, kind: str) -> list[str]:
    return [text for found, text in _BLOCK.findall(page.read_text("utf-8")) if found == kind]


def commands(page: Path) -> list[list[str]]:
    """The words of each command line, comments left out, lines that go on joined."""
    lines = [
        line
        for block in blocks(page, "sh")
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip()
    ]
    return [words for line in lines if (words := shlex.split(line, comments=True))]
