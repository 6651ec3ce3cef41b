"""Each thing that can be wrong, word for word, from each source."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowcat.config.load import Flag, load
from shadowcat.config.problem import ConfigError
from tests.config.tree import House

NO_PLACE = "a secret has no place here; write it to a file and its path to door.code_file, or set SHADOWCAT_DOOR_CODE"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("owner = 1", ["owner: 1 is not a name, for example Ann"]),
        ("owner = 'ann'", ["owner: 'ann' is not a name, for example Ann"]),
        ("owner = ['Ann']", ["owner: a list is not a name, for example Ann"]),
        ("owner = {}", ["owner: a table is not a name, for example Ann"]),
        (f"owner = '{'x' * 90}'", [f"owner: '{'x' * 59}… is not a name, for example Ann"]),
        ("floors = 0", ["floors: 0 is not a whole number of 1 or more"]),
        ("floors = 1.5", ["floors: 1.5 is not a whole number of 1 or more"]),
        ("floors = '2'", ["floors: '2' is not a whole number of 1 or more"]),
        ("floors = true", ["floors: true is not a whole number of 1 or more"]),
        ("tags = 'new'", ["tags: 'new' is not a list"]),
        ("tags = ['new', 3]", ["tags[1]: 3 is not a text"]),
        ("sizes = [1, 'a', true]", ["sizes[1]: 'a' is not a whole number", "sizes[2]: true is not a whole number"]),
        ("walls = 1", ["walls: 1 is not a table"]),
        ("walls.north = 1", ["walls.north: 1 is not a table with settings such as colour"]),
        ("walls.north.height_m = nan", [
            "walls.north.colour is missing: give a text there",
            "walls.north.height_m: nan is not a number above 0",
        ]),
        ("walls.north.colour = 'red'", ["walls.north.colour: 'red' is not a colour, for example #fff"]),
        ("rails = [{ is_firm = 'yes' }, { lenght_m = 1 }]", [
            "rails[0].is_firm: 'yes' is not true or false",
            "rails[1].lenght_m: there is no such setting; did you mean length_m?",
        ]),
        ("rails = [1]", ["rails[0]: 1 is not a table with settings such as length_m"]),
        (f"rail.length_m = {'1' * 400}", [f"rail.length_m: {'1' * 60}… is not a number of 0 or more"]),
        ("rail.length_m = -1", ["rail.length_m: -1 is not a number of 0 or more"]),
        ("door.width_cm = 300", [
            "door.width_cm: 300 is not a whole number from 60 to 200",
            "door.code is missing: give it in SHADOWCAT_DOOR_CODE, or the path of a file with it in door.code_file",
        ]),
        ("door = { width_cm = 80, code = 'hush' }", [f"door.code: {NO_PLACE}"]),
        ("door = { width_cm = 80, code = ['hush'] }", [f"door.code: {NO_PLACE}"]),
        ("door = { width_cm = 80, code_file = 5 }", ["door.code_file: this is not the path of a file"]),
        ("door = { width_cm = 80, code_file = '/no/such' }", [
            "door.code_file: /no/such cannot be read: No such file or directory"
        ]),
        (r'door = { width_cm = 80, code_file = "a\u0000b" }', [r"door.code_file: 'a\x00b' is no path"]),
        ("onwer = 'Ann'\nattic = 1", [
            "onwer: there is no such setting; did you mean owner?",
            "attic: there is no such setting",
        ]),
        ("width_cm = 80\nrail.height_m = 1\ndoor_kind = 'slide'", [
            "width_cm: there is no such setting; did you mean door.width_cm?",
            "door_kind: there is no such setting; did you mean door.kind?",
            "rail.height_m: there is no such setting; did you mean walls.NAME.height_m?",
        ]),
        ("owner = 'https://ann:hush@a.example/x?key=hush'", [
            "owner: 'https://a.example/x' is not a name, for example Ann"
        ]),
    ],
)  # fmt: skip
def test_a_file(tmp_path: Path, text: str, problems: list[str]) -> None:
    file = tmp_path / "house.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load(House, file=file)
    assert list(error.value.problems) == [f"{file}: {problem}" for problem in problems]
    assert "hush" not in str(error.value)


def test_what_fields_must_not_be_together(tmp_path: Path) -> None:
    (tmp_path / "code").write_text("hush\n")
    file = tmp_path / "house.toml"
    file.write_text(f"door = {{ width_cm = 180, kind = 'slide', code_file = '{tmp_path / 'code'}' }}")
    with pytest.raises(ConfigError) as error:
        load(House, file=file)
    assert error.value.problems == (f"{file}: door: a door that slides has 150 cm or less",)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"floors = ", "this is not TOML: Invalid value (at end of document)"),
        (b"floors = 1\nfloors = 2\n", "this is not TOML: Cannot overwrite a value (at line 2, column 11)"),
        (b"owner = '\xff'", "this is not a text in UTF-8"),
        (b"#" * (4 * 1024 * 1024 + 1), "this is larger than 4194304 bytes"),
        (b"tags = " + b"[" * 5_000 + b"]" * 5_000, "this is nested too deeply"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_no_file(tmp_path: Path, content: bytes | None, told: str) -> None:
    file = tmp_path / "house.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load(House, file=file)
    assert error.value.problems == (f"{file}: {told}",)


def test_a_number_that_is_too_long_to_read(tmp_path: Path) -> None:
    file = tmp_path / "house.toml"
    file.write_text(f"floors = {'1' * 5_000}")
    with pytest.raises(ConfigError, match="this is not TOML: Exceeds the limit"):
        load(House, file=file)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(House, file=tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("FLOORS", "two", "'two' is not a whole number of 1 or more"),
        ("FLOORS", "1e3", "'1e3' is not a whole number of 1 or more"),
        ("RAIL_LENGTH_M", "inf", "'inf' is not a number of 0 or more"),
        ("RAIL_IS_FIRM", "yes", "'yes' is not true or false"),
        ("WALLS_NORTH_COLOUR", "red", "'red' is not a colour, for example #fff"),
    ],
)
def test_a_variable(name: str, value: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(House, environment={f"SHADOWCAT_{name}": value})
    assert error.value.problems == (f"SHADOWCAT_{name}: {told}",)


def test_a_secret_of_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "code").write_bytes(b"\xff")
    environment = {"SHADOWCAT_DOOR_CODE_FILE": str(tmp_path / "code"), "SHADOWCAT_DOOR_WIDTH_CM": "80"}
    with pytest.raises(ConfigError) as error:
        load(House, environment=environment)
    assert error.value.problems == (f"SHADOWCAT_DOOR_CODE_FILE: {tmp_path / 'code'} is not a text in UTF-8",)


def test_a_flag() -> None:
    flags = [Flag("--floor", "floors", "x"), Flag("--door", "door", {"width_cm": 80, "kind": "hinge"})]
    with pytest.raises(ConfigError) as error:
        load(House, flags=flags, environment={"SHADOWCAT_DOOR_CODE": "hush"})
    assert error.value.problems == (
        "--floor: 'x' is not a whole number of 1 or more",
        "door.code is missing: give it in SHADOWCAT_DOOR_CODE, or the path of a file with it in door.code_file",
        "--door: 'hinge' is not one of swing, slide",
    )
