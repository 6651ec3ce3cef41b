"""What is shown says the same as what it was made from, and no secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct, structs

from shadowcat.config.load import Loaded, load
from shadowcat.config.show import shown
from shadowcat.secret import Secret
from tests.config.tree import Colour, Door, House, Rail, Wall


class Loose(Struct):
    extra: dict[str, Any] = {}


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
number = st.floats(min_value=0.001, allow_nan=False, allow_infinity=False)
rails = st.builds(Rail, number, st.booleans())
walls = st.builds(Wall, st.just(Colour("#fff")), number, st.lists(text, max_size=3).map(tuple))
houses = st.builds(
    House,
    owner=text.map(lambda name: "A" + name),
    floors=st.integers(1, 10**12),
    tags=st.frozensets(text, max_size=3),
    sizes=st.lists(st.integers(-(10**12), 10**12), max_size=3),
    walls=st.dictionaries(text, walls, max_size=3),
    rails=st.lists(rails, max_size=3),
    rail=rails,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(houses)
def test_it_loads_back(tmp_path: Path, house: House) -> None:
    file = tmp_path / "house.toml"
    file.write_text(shown(Loaded(house, {}, {}, ())), encoding="utf-8", newline="")
    assert load(House, file=file).settings == house


def test_a_file_of_a_secret_loads_back(tmp_path: Path) -> None:
    (tmp_path / "code").write_text("hush")
    file = tmp_path / "house.toml"
    file.write_text(f"door = {{ width_cm = 80, code_file = '{tmp_path / 'code'}' }}")
    loaded = load(House, file=file)
    told = shown(loaded)
    assert "hush" not in told
    file.write_text(told)
    assert load(House, file=file).settings == loaded.settings


def test_where_each_comes_from() -> None:
    house = House(walls={"a b": Wall(Colour("#fff"), notes={"key": Secret("hush")})})
    house = structs.replace(house, door=Door(80, Secret("hush")))
    loaded = load(House, environment={"SHADOWCAT_FLOORS": "2"})
    told = shown(loaded._replace(settings=structs.replace(house, floors=2)))
    assert (
        told
        == """\
owner = "Ann"                                 # default
floors = 2                                    # SHADOWCAT_FLOORS
tags = []                                     # default
sizes = []                                    # default
rails = []                                    # default

[walls."a b"]
colour = "#fff"                               # default
height_m = 2.5                                # default
words = []                                    # default

[walls."a b".notes]
# key is secret                               # default

[door]
width_cm = 80                                 # default
# code is secret                              # default
kind = "swing"                                # default

[rail]
length_m = 3.0                                # default
is_firm = true                                # default
"""
    )


def test_what_a_part_takes_as_written(tmp_path: Path) -> None:
    """All that TOML has, in a table of which the tree knows nothing."""
    text = "[extra.a]\nday = 2026-11-28\nat = 10:20:30\nwhen = 2026-11-28T10:20:30+00:00\nmore = [{ b = [1, 'x'] }]\n"
    file = tmp_path / "loose.toml"
    file.write_text(text)
    first = load(Loose, file=file)
    file.write_text(shown(first))
    assert load(Loose, file=file).settings == first.settings


def test_secrets_show_nowhere() -> None:
    secret = Secret("hush")
    assert "hush" not in f"{secret} {secret!r} {secret!s} {[secret]} {Door(80, secret)}"
    with pytest.raises(AttributeError):
        secret.text  # type: ignore[attr-defined]  # noqa: B018
