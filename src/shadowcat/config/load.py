"""Merges all sources: the file, then the environment, then flags; later ones win."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec import Struct

from shadowcat.config.decode import BAD, Decoder
from shadowcat.config.given import DEFAULT, Given, Origin, Tables, merged, put, tables_of
from shadowcat.config.problem import ConfigError
from shadowcat.config.variables import from_environment

T = TypeVar("T", bound=Struct)

_MAX_FILE_BYTES = 4 * 1024 * 1024


class Flag(NamedTuple):
    """What a command line says of the setting at `path`."""

    name: str
    path: str
    value: Any


class Loaded(NamedTuple, Generic[T]):
    settings: T
    origins: Mapping[str, Origin]
    """By path; what is not in there is a default."""
    files: Mapping[str, str]
    """Of each secret that was read from a file, which."""
    warnings: tuple[str, ...]
    file: Path | None = None

    def origin(self, path: str) -> Origin:
        return self.origins.get(path, DEFAULT)

    def given(self, section: str) -> Iterator[str]:
        """The paths in a section that are no defaults."""
        return (
            path
            for path, origin in self.origins.items()
            if path.startswith(f"{section}.") and origin is not DEFAULT
        )


def load(
    tree: type[T],
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Iterable[Flag] = (),
    profile: Mapping[str, Any] | None = None,
) -> Loaded[T]:
    """`profile` are defaults of who asks, in the form of a file. Raises `ConfigError` with all that is wrong."""
    given = tables_of(profile or {}, DEFAULT)
    if file is not None:
        given = merged(given, read(file))
    variables = from_environment(tree, environment or {})
    given = merged(merged(given, variables.tables), from_flags(flags))
    decoder = Decoder(tree)
    settings = decoder.section(tree, given)
    if settings is BAD or decoder.problems:
        raise ConfigError(decoder.problems)
    return Loaded(settings, decoder.origins, decoder.files, (*variables.warnings, *decoder.warnings), file)


def read(file: Path) -> Tables:
    try:
        with file.open("rb") as opened:
            data = opened.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES:
            raise ConfigError([f"{file}: this is larger than {_MAX_FILE_BYTES} bytes"])
        return tables_of(tomllib.loads(data.decode()), Origin(str(file), is_file=True))
    except OSError as error:
        raise ConfigError([f"{file}: cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{file}: this is not a text in UTF-8"]) from error
    except RecursionError as error:
        raise ConfigError([f"{file}: this is nested too deeply"]) from error
    except ValueError as error:
        # Also a number with too many digits, and a path with a zero byte.
        raise ConfigError([f"{file}: this is not TOML: {error}"]) from error


def from_flags(flags: Iterable[Flag]) -> Tables:
    tables: Tables = {}
    for flag in flags:
        put(tables, tuple(flag.path.split(".")), Given(flag.value, Origin(flag.name), is_text=True))
    return tables
