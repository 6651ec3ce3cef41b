"""The project's files agree with one another: documents with commands, the lock with what it locks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

CODE = re.compile(r"```sh\n(.*?)```|`([^`\n]+)`", re.DOTALL)
COMMAND = re.compile(r"(?:^|[\s/])(make|shadowcat) ([a-z][\w-]*)", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:]+)\)")


def commands(program: str) -> list[str]:
    """What the pages tell a reader to run, as `make test` or `shadowcat demo`."""
    code = (block or span for page in PAGES for block, span in CODE.findall(page.read_text("utf-8")))
    return sorted({word for text in code for name, word in COMMAND.findall(text) if name == program})


def test_every_make_target_in_the_pages_exists() -> None:
    targets = re.findall(r"^([a-z]+):", makefile(), re.MULTILINE)
    assert {"demo", "test"} <= set(commands("make")) <= set(targets)


def test_every_command_in_the_pages_and_the_makefile_exists() -> None:
    code = "import sys; from shadowcat.cli import main; sys.argv[0] = 'shadowcat'; main()"
    for command in {*commands("shadowcat"), *re.findall(r"/shadowcat (\w+)", makefile())}:
        run = subprocess.run([sys.executable, "-c", code, command, "--help"], capture_output=True, text=True)
        assert run.returncode == 0, f"shadowcat {command}: {run.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = LINK.findall(page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_lock_meets_every_requirement() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    project, dev = pyproject["project"], pyproject["dependency-groups"]["dev"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values()), *dev]
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", lock(), re.MULTILINE))
    unmet = [
        text
        for text in wanted
        if (need := Requirement(text)).name not in pins or Version(pins[need.name]) not in need.specifier
    ]
    assert unmet == []


def test_the_lock_names_packages_and_hashes_only() -> None:
    """No server and no path of the machine that made it: the lock must work behind any mirror."""
    pin = r"[\w.-]+==\S+( ; [^\\]+)? \\"
    digest = r"    --hash=sha256:[0-9a-f]{64}( \\)?"
    comment = r" *# [^:/]*(\(pyproject\.toml:dev\)|:)?| *#"
    allowed = re.compile(f"{pin}|{digest}|{comment}")
    assert [line for line in lock().splitlines() if not allowed.fullmatch(line)] == []


def test_the_npm_lock_pins_hashes_and_names_no_server() -> None:
    text = (ROOT / "tests/peers/package-lock.json").read_text("utf-8")
    assert re.findall(r"\S*://\S*|resolved", text) == []
    packages = json.loads(text)["packages"]
    wanted = json.loads((ROOT / "tests/peers/package.json").read_text("utf-8"))["dependencies"]
    assert packages.pop("")["dependencies"] == wanted
    assert [name for name, package in packages.items() if "integrity" not in package] == []


def test_the_npm_packages_of_the_tests_are_pinned_exactly() -> None:
    wanted = json.loads((ROOT / "tests/peers/package.json").read_text("utf-8"))["dependencies"]
    exact = re.compile(r"(npm:[\w@/.-]+@)?\d+\.\d+\.\d+(-[\w.]+)?")
    assert [name for name, version in wanted.items() if not exact.fullmatch(version)] == []


def makefile() -> str:
    return (ROOT / "Makefile").read_text("utf-8")


def lock() -> str:
    return (ROOT / "requirements.lock").read_text("utf-8")
