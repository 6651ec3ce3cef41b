"""The JSON Schema of a settings file, for editors that support it."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from shadowcat.config.fields import default_of, struct_types
from shadowcat.config.problem import FILE_SUFFIX
from shadowcat.config.shape import shape_of
from shadowcat.secret import Secret

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_of(tree: type[Struct]) -> dict[str, Any]:
    schema: dict[str, Any] = msgspec.json.schema(tree, schema_hook=_of_text, ref_template="#/$defs/{name}")
    for kind in struct_types(tree):
        _as_in_a_file(schema["$defs"][kind.__name__], kind)
    return {"$schema": _DIALECT, **schema}


def _of_text(kind: type) -> dict[str, Any]:
    """A class of our own is made of text."""
    return {"type": "string"}


def _as_in_a_file(table: dict[str, Any], kind: type[Struct]) -> None:
    """What is not known is refused, and a secret stands in a file of its own."""
    table["additionalProperties"] = False
    for field in msgspec.structs.fields(kind):
        name = field.encode_name
        default = default_of(field)
        if type(default) is not str and isinstance(default, str):
            table["properties"][name]["default"] = str(default)
        if shape_of(field.type).base is Secret:
            inner = table["properties"].pop(name)
            table["properties"][name + FILE_SUFFIX] = {
                **inner,
                "description": f"The path of a file with it. {inner.get('description', '')}".strip(),
            }
            # It may come from the environment.
            table["required"] = [required for required in table["required"] if required != name]
