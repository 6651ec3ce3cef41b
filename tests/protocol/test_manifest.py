"""Every case that applies has a test, and every test that claims a case claims one that applies.

Read from the source of all tests, so that it says the same whichever of them are run.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
CASES: dict[str, dict[str, str]] = tomllib.loads((Path(__file__).parent / "cases.toml").read_text())


def bound(source: str) -> Iterator[str]:
    """The ids in `pytest.mark.case("…")` and in rows made by `case("…", …)`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and _binds(node.func):
            id = node.args[0]
            assert isinstance(id, ast.Constant), f"line {node.lineno}: a case is named by a literal"
            assert isinstance(id.value, str)
            yield id.value


def _binds(function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute):
        mark = function.value
        return function.attr == "case" and isinstance(mark, ast.Attribute) and mark.attr == "mark"
    return isinstance(function, ast.Name) and function.id == "case"


@pytest.fixture(scope="module")
def claims() -> dict[str, set[str]]:
    """Case ids, and the files that bind them."""
    found: dict[str, set[str]] = {}
    for path in TESTS.rglob("*.py"):
        # The helper that makes rows takes the id as an argument.
        if path != TESTS / "rig" / "cases.py":
            for id in bound(path.read_text()):
                found.setdefault(id, set()).add(path.name)
    return found


def test_every_case_says_what_is_expected() -> None:
    for id, entry in CASES.items():
        assert set(entry) - {"later"} == {"group", "expect"}, id
        assert all(entry.values()), id


def test_every_case_that_applies_has_a_test(claims: dict[str, set[str]]) -> None:
    assert [id for id, entry in CASES.items() if "later" not in entry and id not in claims] == []


def test_every_claimed_case_exists(claims: dict[str, set[str]]) -> None:
    assert {id: files for id, files in claims.items() if id not in CASES} == {}


def test_no_case_is_claimed_before_its_time(claims: dict[str, set[str]]) -> None:
    early = {id: files for id, files in claims.items() if "later" in CASES.get(id, {})}
    assert early == {}, "take `later` out of cases.toml"


@pytest.mark.parametrize(
    ("source", "ids"),
    [
        ('@pytest.mark.case("X1")\ndef f(): ...', ["X1"]),
        ('ROWS = [case("X2", 1, note="a"), case("X3")]', ["X2", "X3"]),
        ('pytest.param(1, marks=pytest.mark.case("X4"))', ["X4"]),
        ('match.case("X5"); mark.other("X6")', []),
    ],
)
def test_bindings_are_found(source: str, ids: list[str]) -> None:
    assert list(bound(source)) == ids
