"""Decodes what was given into the tree's types. Finds every mistake, not only the first."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final, cast

from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo
from msgspec.structs import fields as struct_fields

from shadowcat.config.fields import called, default_of
from shadowcat.config.given import DEFAULT, Given, Origin, Tables, origin_in, plain, tables_of
from shadowcat.config.problem import FILE_SUFFIX, did_you_mean, quoted, told
from shadowcat.config.shape import Shape, expected, fits, shape_of
from shadowcat.config.variables import variable_of
from shadowcat.secret import Secret

_MAX_SECRET_BYTES = 64 * 1024


class _Bad:
    """Stands where a problem has been noted."""


BAD: Final = _Bad()


class Decoder:
    """`origins` tells of each value where it came from, by its path; what is not in there is a default."""

    def __init__(self, tree: type[Struct]) -> None:
        self._tree = tree
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.origins: dict[str, Origin] = {}
        self.files: dict[str, str] = {}
        """Of each secret that was read from a file, which."""

    def section(
        self,
        kind: type[Struct],
        given: Tables,
        path: str = "",
        defaults: Struct | None = None,
        origin: Origin = DEFAULT,
    ) -> Any:
        """A struct of that kind, or `BAD`; what is not given is as in `defaults`. `origin`: where the table stands."""
        fields = {field.encode_name: field for field in struct_fields(kind)}
        secrets = {name for name, field in fields.items() if shape_of(field.type).is_secret}
        self._find_unknown(given, path, [*fields, *(name + FILE_SUFFIX for name in secrets)])
        values = {
            field.name: self._field(field, given, f"{path}.{name}" if path else name, defaults)
            for name, field in fields.items()
        }
        if BAD in values.values():
            return BAD
        try:
            return kind(**values)
        except ValueError as error:
            origin = origin_in(given) or origin
            where = origin.where(path) if origin.is_file else path
            return self._bad(f"{where}: {error}")

    def _find_unknown(self, given: Tables, path: str, known: list[str]) -> None:
        for name, node in given.items():
            if name not in known:
                origin = origin_in(node) or DEFAULT
                full = f"{path}.{name}" if path else name
                meant = did_you_mean(name, known, elsewhere=called(self._tree, name))
                self._bad(f"{origin.where(full)}: there is no such setting{meant}")

    def _field(self, field: FieldInfo, given: Tables, path: str, defaults: Struct | None) -> Any:
        shape = shape_of(field.type)
        default = default_of(field) if defaults is None else getattr(defaults, field.name)
        name = field.encode_name
        node = self._secret(name, given, path) if shape.is_secret else given.get(name)
        if node is BAD:
            return BAD
        if node is None:
            return self._absent(shape, path, given) if default is NODEFAULT else default
        if shape.is_optional and shape.is_section and self._is_idle(shape.base, node, path):
            return default
        return self.value(shape, node, path, default if isinstance(default, Struct) else None)

    def _absent(self, shape: Shape, path: str, beside: Tables) -> Any:
        if shape.is_secret:
            how = f"give it in {variable_of(path)}, or the path of a file with it in {path}{FILE_SUFFIX}"
        else:
            how = f"give {expected(shape)} there"
        origin = origin_in(beside)
        where = path if origin is None or not origin.is_file else origin.where(path)
        return self._bad(f"{where} is missing: {how}")

    def _is_idle(self, kind: type[Struct], node: Tables | Given, path: str) -> bool:
        """A section that nobody asked for: variables that were set for it must not bring it into being."""
        if isinstance(node, Given) or not all(_is_variable(inner) for inner in node.values()):
            return False
        missing = [
            field.encode_name
            for field in struct_fields(kind)
            if field.required and not {field.encode_name, field.encode_name + FILE_SUFFIX} & set(node)
        ]
        for inner in node.values() if missing else ():
            origin = origin_in(inner) or DEFAULT
            self.warnings.append(f"{origin.name} has no effect without {path}.{missing[0]}")
        return bool(missing)

    def value(self, shape: Shape, node: Tables | Given, path: str, defaults: Struct | None = None) -> Any:
        if shape.is_section or shape.is_table:
            return self._tables(shape, node, path, defaults)
        if shape.base is Any:
            # Whoever it is for looks at it.
            self.origins[path] = origin_in(node) or DEFAULT
            return plain(node)
        if isinstance(node, dict):
            origin = origin_in(node) or DEFAULT
            return self._bad(f"{origin.where(path)}: a table is not {expected(shape)}")
        if shape.is_list:
            return self._list(shape, node, path)
        self.origins[path] = node.origin
        return self._leaf(shape, node, path)

    def _tables(self, shape: Shape, node: Tables | Given, path: str, defaults: Struct | None) -> Any:
        origin = DEFAULT
        if isinstance(node, Given):
            value: Any = node.value
            origin = node.origin
            if not isinstance(value, dict):
                return self._bad(told(node, path, f"{quoted(value)} is not {expected(shape)}"))
            node = tables_of(cast(dict[str, Any], value), node.origin)
        if shape.is_section:
            return self.section(shape.base, node, path, defaults, origin)
        inner = shape_of(shape.inner[1])
        values = {name: self.value(inner, value, f"{path}.{name}") for name, value in node.items()}
        return BAD if BAD in values.values() else values

    def _list(self, shape: Shape, node: Given, path: str) -> Any:
        self.origins[path] = node.origin
        items: Any = node.value.split() if node.is_text and isinstance(node.value, str) else node.value
        if not isinstance(items, list | tuple):
            return self._bad(told(node, path, f"{quoted(items)} is not a list"))
        inner = shape_of(shape.inner[0])
        values = [
            self.value(inner, _inner(item, node), f"{path}[{index}]")
            for index, item in enumerate(cast(list[Any], items))
        ]
        return BAD if BAD in values else shape.base(values)

    def _leaf(self, shape: Shape, node: Given, path: str) -> Any:
        value = node.value
        if isinstance(value, Secret):
            return value
        if shape.choices:
            if value in shape.choices:
                return value
        elif shape.base is bool:
            value = {"true": True, "false": False}.get(value, value) if node.is_text else value
            if isinstance(value, bool):
                return value
        elif shape.base in (int, float):
            number = _number(value, shape.base, node.is_text)
            if number is not None and fits(number, shape):
                return number
        elif not isinstance(value, str):
            pass
        elif shape.base is not str:
            return self._made(shape, node, path)
        elif fits(value, shape):
            return value
        return self._bad(told(node, path, f"{quoted(value)} is not {expected(shape)}"))

    def _made(self, shape: Shape, node: Given, path: str) -> Any:
        try:
            return shape.base(node.value)
        except ValueError as error:
            return self._bad(told(node, path, str(error)))

    # Secrets.

    def _secret(self, name: str, given: Tables, path: str) -> Any:
        node = given.get(name)
        if isinstance(node, Given) and not node.origin.is_file:
            return Given(Secret(node.value), node.origin)
        if node is not None:
            origin = origin_in(node) or DEFAULT
            return self._bad(
                f"{origin.where(path)}: a secret has no place here; write it to a file and its path to "
                f"{path}{FILE_SUFFIX}, or set {variable_of(path)}"
            )
        node = given.get(name + FILE_SUFFIX)
        return None if node is None else self._read(node, path)

    def _read(self, node: Tables | Given, secret: str) -> Any:
        path = secret + FILE_SUFFIX
        if not isinstance(node, Given) or not isinstance(node.value, str):
            origin = origin_in(node) or DEFAULT
            return self._bad(f"{origin.where(path)}: this is not the path of a file")
        self.files[secret] = node.value
        try:
            with Path(node.value).open("rb") as file:
                text = file.read(_MAX_SECRET_BYTES).decode().strip()
        except OSError as error:
            return self._bad(told(node, path, f"{node.value} cannot be read: {error.strerror}"))
        except UnicodeDecodeError:
            return self._bad(told(node, path, f"{node.value} is not a text in UTF-8"))
        except ValueError:
            return self._bad(told(node, path, f"{node.value!r} is no path"))
        return Given(Secret(text), node.origin)

    def _bad(self, problem: str) -> _Bad:
        self.problems.append(problem)
        return BAD


def _is_variable(node: Tables | Given) -> bool:
    return isinstance(node, Given) and node.is_text and node.origin.name.startswith("SHADOWCAT_")


def _inner(item: Any, node: Given) -> Tables | Given:
    if isinstance(item, dict):
        return tables_of(cast(dict[str, Any], item), node.origin)
    return node._replace(value=item)


def _number(value: Any, kind: type[int] | type[float], is_text: bool) -> int | float | None:
    if is_text and isinstance(value, str):
        try:
            value = kind(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if kind is int:
        return value if isinstance(value, int) else None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number in a file may have any number of digits
        return None
