"""A tree with one of each kind, which no command is run from."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from msgspec import Meta, Struct, field

from shadowcat.secret import Secret


class Colour(str):
    def __new__(cls, text: str) -> Self:
        if not text.startswith("#"):
            raise ValueError(f"{text!r} is not a colour, for example #fff")
        return super().__new__(cls, text.lower())


class Wall(Struct, frozen=True):
    colour: Annotated[Colour, Meta(description="What it is painted with.")]
    height_m: Annotated[float, Meta(gt=0, description="Above the floor.")] = 2.5
    words: Annotated[tuple[str, ...], Meta(description="Written on it.")] = ()
    notes: Annotated[dict[str, Secret], Meta(description="Hidden under it.")] = {}


class Door(Struct, frozen=True):
    width_cm: Annotated[int, Meta(ge=60, le=200, description="Of its frame.")]
    code: Annotated[Secret, Meta(description="Opens it.")]
    kind: Annotated[Literal["swing", "slide"], Meta(description="How it moves.")] = "swing"

    def __post_init__(self) -> None:
        if self.kind == "slide" and self.width_cm > 150:
            raise ValueError("a door that slides has 150 cm or less")


class Rail(Struct, frozen=True):
    length_m: Annotated[float, Meta(ge=0, description="From end to end.")] = 1.0
    is_firm: Annotated[bool, Meta(description="Whether it holds.")] = True


class House(Struct, frozen=True, kw_only=True):
    owner: Annotated[
        str, Meta(title="a name", pattern="^[A-Z]", examples=["Ann"], description="Whose it is.")
    ] = "Ann"
    floors: Annotated[int, Meta(ge=1, description="One above the other.")] = 1
    tags: Annotated[frozenset[str], Meta(description="What it is known for.")] = frozenset()
    sizes: Annotated[list[int], Meta(description="Of its rooms.")] = field(default_factory=list)
    walls: Annotated[dict[str, Wall], Meta(description="By where they stand.")] = {}
    rails: Annotated[list[Rail], Meta(description="Along the stairs.")] = field(default_factory=list)
    door: Door | None = None
    rail: Rail = field(default_factory=lambda: Rail(length_m=3.0))
