"""Lists the settings of a tree one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo
from msgspec.structs import fields as struct_fields

from shadowcat.config.shape import Shape, shape_of

ANY = "*"
"""In a path: a name that whoever writes the file chooses."""


class Setting(NamedTuple):
    path: tuple[str, ...]
    shape: Shape
    default: Any = NODEFAULT
    """`NODEFAULT` where one must be given."""

    @property
    def name(self) -> str:
        return ".".join(self.path)


def settings_of(
    tree: type[Struct], path: tuple[str, ...] = (), defaults: Struct | None = None
) -> Iterator[Setting]:
    """In the order of the structs; sections of lists are not gone into.

    `defaults` stands before those of the struct.
    """
    for field in struct_fields(tree):
        yield from _within(_setting(field, path, defaults))


def setting_at(tree: type[Struct], name: str) -> Setting:
    """Also of a table as a whole. Raises `KeyError`."""
    found = Setting((), Shape(tree))
    for part in name.split("."):
        defaults = found.default if isinstance(found.default, Struct) else None
        fields = struct_fields(found.shape.base) if found.shape.is_section else ()
        field = next((field for field in fields if field.encode_name == part), None)
        if field is None:
            raise KeyError(name)
        found = _setting(field, found.path, defaults)
    return found


def _setting(field: FieldInfo, path: tuple[str, ...], defaults: Struct | None) -> Setting:
    default = default_of(field) if defaults is None else getattr(defaults, field.name)
    return Setting((*path, field.encode_name), shape_of(field.type), default)


def called(tree: type[Struct], name: str) -> list[str]:
    """The settings that are called so in one section or another, or with all of their path written as one name."""
    return [
        setting.name.replace(ANY, "NAME")
        for setting in settings_of(tree)
        if name in (setting.path[-1], "_".join(setting.path))
    ]


def default_of(field: FieldInfo) -> Any:
    return field.default_factory() if field.default_factory is not NODEFAULT else field.default


def _within(setting: Setting) -> Iterator[Setting]:
    shape = setting.shape
    if shape.is_section:
        defaults = setting.default if isinstance(setting.default, Struct) else None
        yield from settings_of(shape.base, setting.path, defaults)
    elif shape.is_table and (inner := shape_of(shape.inner[1])).is_section:
        yield from settings_of(inner.base, (*setting.path, ANY))
    else:
        yield setting


def struct_types(tree: type[Struct]) -> Iterator[type[Struct]]:
    """Of the tree and all that is in it, also in lists."""
    yield tree
    for field in struct_fields(tree):
        shape = shape_of(field.type)
        for inner in (
            shape,
            *(shape_of(kind) for kind in shape.inner if kind is not ... and not shape.choices),
        ):
            if inner.is_section:
                yield from struct_types(inner.base)
