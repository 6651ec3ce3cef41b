"""Settings from the environment: `SHADOWCAT_SESSIONS_IDLE_S` is `sessions.idle_s`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from msgspec import Struct

from shadowcat.config.fields import ANY, Setting, called, settings_of
from shadowcat.config.given import Given, Origin, Tables, put
from shadowcat.config.problem import FILE_SUFFIX, did_you_mean

PREFIX = "SHADOWCAT_"
_LIKENESS = 0.9
"""Of whole names, which all begin alike."""
_OF_OTHERS = re.compile(
    r"SHADOWCAT_(CONFIG|SERVICE_HOST|(SERVICE_)?PORT(_[A-Z0-9_]+)?|TEST_ALL|SOAK(_S)?|FUZZ_EXAMPLES)"
)
"""The file itself; what Kubernetes sets for a service that is called shadowcat; and what our own tests are told."""


def variable_of(path: str) -> str:
    return PREFIX + path.upper().replace(".", "_")


class Known(NamedTuple):
    pattern: re.Pattern[str]
    path: tuple[str, ...]


class FromEnvironment(NamedTuple):
    tables: Tables
    warnings: list[str]


def from_environment(tree: type[Struct], environment: Mapping[str, str]) -> FromEnvironment:
    """Lists are words with spaces between. What is not known is left alone, with a warning."""
    known = list(_known(tree))
    plain = [variable_of(".".join(found.path)) for found in known]
    tables: Tables = {}
    warnings: list[str] = []
    for name, value in environment.items():
        if not name.startswith(PREFIX):
            continue
        if (path := _path_of(name, known)) is not None:
            put(tables, path, Given(value, Origin(name), is_text=True))
        elif not _OF_OTHERS.fullmatch(name):
            elsewhere = [variable_of(path) for path in called(tree, name.removeprefix(PREFIX).lower())]
            meant = did_you_mean(name, plain, _LIKENESS, elsewhere)
            warnings.append(f"{name}: there is no such setting{meant}")
    return FromEnvironment(tables, warnings)


def _known(tree: type[Struct]) -> Iterator[Known]:
    for setting in settings_of(tree):
        for path in _ways(setting):
            pattern = variable_of(".".join(path)).replace(ANY, "([A-Z0-9_]+)")
            yield Known(re.compile(pattern), path)


def _ways(setting: Setting) -> Iterator[tuple[str, ...]]:
    if setting.shape.is_table:
        return  # its names are not ours to fold to capitals
    yield setting.path
    if setting.shape.is_secret:
        yield (*setting.path[:-1], setting.path[-1] + FILE_SUFFIX)


def _path_of(name: str, known: list[Known]) -> tuple[str, ...] | None:
    for found in known:
        if (match := found.pattern.fullmatch(name)) is not None:
            chosen = iter(match.groups())
            return tuple(next(chosen).lower() if part == ANY else part for part in found.path)
    return None
