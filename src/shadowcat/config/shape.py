"""What an annotation asks for."""

from __future__ import annotations

import re
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from msgspec import Meta, Struct
from msgspec.structs import fields

from shadowcat.secret import Secret

SCALARS = (bool, int, float, str)


class Shape(NamedTuple):
    base: Any
    """The type without what is annotated, or the origin of a generic one."""
    inner: tuple[Any, ...] = ()
    metas: tuple[Meta, ...] = ()
    is_optional: bool = False

    @property
    def is_section(self) -> bool:
        return isinstance(self.base, type) and issubclass(self.base, Struct)

    @property
    def is_secret(self) -> bool:
        return self.base is Secret

    @property
    def is_table(self) -> bool:
        return self.base is dict

    @property
    def is_list(self) -> bool:
        return self.base in (list, tuple, frozenset)

    @property
    def choices(self) -> tuple[Any, ...]:
        return self.inner if self.base is Literal else ()

    @property
    def description(self) -> str:
        return next((meta.description for meta in reversed(self.metas) if meta.description), "")

    def meta(self, name: str) -> Any:
        """The last that is said with this name, such as `ge`."""
        return next(
            (value for meta in reversed(self.metas) if (value := getattr(meta, name)) is not None), None
        )


def shape_of(annotation: Any) -> Shape:
    metas: list[Meta] = []
    is_optional = False
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation, *more = get_args(annotation)
            metas[:0] = [meta for meta in more if isinstance(meta, Meta)]
        elif origin in (Union, UnionType):
            rest = [kind for kind in get_args(annotation) if kind is not NoneType]
            if len(rest) != 1:
                raise TypeError(f"a setting has one type: {annotation}")
            is_optional = True
            annotation = rest[0]
        else:
            inner = get_args(annotation)
            return Shape(origin or annotation, inner, tuple(metas), is_optional)


def expected(shape: Shape) -> str:
    """In words, after "is not"."""
    if shape.choices:
        return "one of " + ", ".join(map(str, shape.choices))
    if shape.is_section:
        return f"a table with settings such as {fields(shape.base)[0].encode_name}"
    if shape.is_table:
        return "a table"
    if shape.is_list:
        return "a list"
    if shape.base is bool:
        return "true or false"
    if shape.base in (int, float):
        return ("a whole number" if shape.base is int else "a number") + _range(shape)
    title, examples = shape.meta("title"), shape.meta("examples")
    return (title or "a text") + (f", for example {examples[0]}" if examples else "")


def _range(shape: Shape) -> str:
    low, above, high = shape.meta("ge"), shape.meta("gt"), shape.meta("le")
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}"
    if low is not None:
        return f" of {low:g} or more"
    if above is not None:
        return f" above {above:g}"
    return "" if high is None else f" of {high:g} or less"


def fits(value: Any, shape: Shape) -> bool:
    """Whether a value of the right type is within its bounds."""
    ge, gt, le = shape.meta("ge"), shape.meta("gt"), shape.meta("le")
    pattern = shape.meta("pattern")
    return (
        (ge is None or value >= ge)
        and (gt is None or value > gt)
        and (le is None or value <= le)
        and (pattern is None or re.search(pattern, value) is not None)
    )
