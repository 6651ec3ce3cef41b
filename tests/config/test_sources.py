"""Where values come from, which of them wins, and what a variable is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shadowcat.config.given import DEFAULT
from shadowcat.config.load import Flag, load
from shadowcat.secret import Secret
from tests.config.tree import Colour, Door, House, Rail, Wall

FILE = """
floors = 2
owner = "Bob"
tags = ["old", "big"]
walls.north = { colour = "#FFF", words = ["a", "b"] }
rails = [{ length_m = 2 }, {}]
rail.is_firm = false
"""


def house(tmp_path: Path, text: str = FILE, **sources: Any) -> Any:
    file = tmp_path / "house.toml"
    file.write_text(text)
    return load(House, file=file, **sources)


def test_a_file(tmp_path: Path) -> None:
    loaded = house(tmp_path)
    assert loaded.settings == House(
        owner="Bob",
        floors=2,
        tags=frozenset({"old", "big"}),
        walls={"north": Wall(colour=Colour("#fff"), words=("a", "b"))},
        rails=[Rail(length_m=2.0), Rail()],
        # What is not given of a section is as in the default for the section, not in its struct.
        rail=Rail(length_m=3.0, is_firm=False),
    )
    assert loaded.origin("floors").name == str(tmp_path / "house.toml")
    assert loaded.origin("rail.length_m") is DEFAULT


def test_later_ones_win_and_values_are_replaced_whole(tmp_path: Path) -> None:
    loaded = house(
        tmp_path,
        environment={
            "SHADOWCAT_FLOORS": "3",
            "SHADOWCAT_TAGS": "new  small",
            "SHADOWCAT_RAIL_IS_FIRM": "true",
        },
        flags=[Flag("--floors", "floors", "4"), Flag("--wall", "walls", {"south": {"colour": "#000"}})],
        profile={"owner": "Cid", "sizes": [1]},
    )
    settings = loaded.settings
    assert (settings.floors, settings.owner, settings.sizes) == (4, "Bob", [1])
    assert settings.tags == {"new", "small"}
    assert set(settings.walls) == {"south"}
    assert settings.rail.is_firm
    assert [loaded.origin(path).name for path in ("floors", "tags", "walls.south.colour", "sizes")] == [
        "--floors", "SHADOWCAT_TAGS", "--wall", "default",
    ]  # fmt: skip


def test_tables_are_put_together(tmp_path: Path) -> None:
    variables = {"SHADOWCAT_WALLS_SOUTH_COLOUR": "#000", "SHADOWCAT_WALLS_NORTH_HEIGHT_M": "3"}
    walls = house(tmp_path, environment=variables).settings.walls
    assert walls == {
        "north": Wall(colour=Colour("#fff"), words=("a", "b"), height_m=3.0),
        "south": Wall(colour=Colour("#000")),
    }


def test_a_secret_from_a_variable_stands_before_one_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "code").write_text("from a file\n")
    text = f"door = {{ width_cm = 80, code_file = '{tmp_path / 'code'}' }}"
    loaded = house(tmp_path, text)
    assert loaded.settings.door == Door(80, Secret("from a file"))
    assert loaded.files == {"door.code": str(tmp_path / "code")}
    loaded = house(tmp_path, text, environment={"SHADOWCAT_DOOR_CODE": "from a variable"})
    assert loaded.settings.door.code.reveal() == "from a variable"
    assert "from" not in repr(loaded.settings)
    assert loaded.files == {}


def test_a_variable_alone_brings_no_section_into_being() -> None:
    loaded = load(House, environment={"SHADOWCAT_DOOR_CODE": "hush"})
    assert loaded.settings.door is None
    assert loaded.warnings == ("SHADOWCAT_DOOR_CODE has no effect without door.width_cm",)


def test_variables_that_are_not_ours() -> None:
    """Kubernetes sets most of these for a service that is called shadowcat."""
    variables: dict[str, str] = dict.fromkeys(
        ("PATH", "SHADOWCAT_CONFIG", "SHADOWCAT_TEST_ALL", "SHADOWCAT_PORT", "SHADOWCAT_PORT_8080_TCP_ADDR",
         "SHADOWCAT_SERVICE_HOST", "SHADOWCAT_SERVICE_PORT_HTTP"), "3",
    )  # fmt: skip
    loaded = load(House, environment=variables)
    assert (loaded.settings, loaded.warnings) == (House(), ())


def test_variables_that_are_meant_for_us_and_mean_nothing() -> None:
    variables: dict[str, str] = dict.fromkeys(
        ("SHADOWCAT_FLOOR", "SHADOWCAT_WIDTH_CM", "SHADOWCAT_BOGUS"), "3"
    )
    loaded = load(House, environment=variables)
    assert loaded.settings == House()
    assert loaded.warnings == (
        "SHADOWCAT_FLOOR: there is no such setting; did you mean SHADOWCAT_FLOORS?",
        "SHADOWCAT_WIDTH_CM: there is no such setting; did you mean SHADOWCAT_DOOR_WIDTH_CM?",
        "SHADOWCAT_BOGUS: there is no such setting",
    )
