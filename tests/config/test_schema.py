"""The schema says of a file what the decoder does."""

from __future__ import annotations

from shadowcat.config.schema import schema_of
from tests.config.tree import House


def test_the_schema() -> None:
    schema = schema_of(House)
    tables = schema["$defs"]
    assert {name: table["additionalProperties"] for name, table in tables.items()} == dict.fromkeys(
        ("House", "Wall", "Door", "Rail"), False
    )
    assert tables["House"]["properties"]["owner"] == {
        "title": "a name", "description": "Whose it is.", "examples": ["Ann"], "type": "string",
        "pattern": "^[A-Z]", "default": "Ann",
    }  # fmt: skip
    assert tables["Wall"]["required"] == ["colour"]
    assert tables["Wall"]["properties"]["colour"]["type"] == "string"
    door = tables["Door"]
    assert set(door["properties"]) == {"width_cm", "code_file", "kind"}
    assert door["required"] == ["width_cm"]
    assert door["properties"]["code_file"]["description"] == "The path of a file with it. Opens it."
