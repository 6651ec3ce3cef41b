"""Random JSON as text, since two spellings of one value are the point: white space, escapes, forms of numbers."""

from __future__ import annotations

import time
from collections.abc import Callable

from hypothesis import strategies as st

_spaces = st.sampled_from(["", "", "", " ", "\n", "\r\n", "\t "])
_plain = st.text(st.characters(exclude_characters='"\\', exclude_categories=["Cs", "Cc"]), max_size=4)
_escapes = st.sampled_from(
    ["\\\\", '\\"', "\\/", "\\n", "\\b", "\\u0041", "\\u00e9", "\\u2028", "\\ud83d\\ude00", "\\u0000"]
)
_brackets = st.text("{}[],: 0123456789eE+-.", max_size=6)

strings = st.lists(st.one_of(_plain, _escapes, _brackets), max_size=5).map(
    lambda parts: f'"{"".join(parts)}"'
)
numbers = st.one_of(
    st.integers().map(str),
    st.from_regex(r"-?(0|[1-9][0-9]{0,5})(\.[0-9]{1,6})?([eE][+-]?[0-9]{1,4})?", fullmatch=True),
    st.integers(190, 320).map(lambda digits: "9" * digits),
    st.sampled_from(
        ["1e308", "1e309", "-1e309", "1e-999", "0e999", "0.01e310", "9" * 308 + ".5", "9" * 309 + ".5"]
    ),
)
_leaves = st.one_of(strings, numbers, st.sampled_from(["true", "false", "null", "{}", "[]"]))


def _arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    items = st.lists(st.builds("{}{}{}".format, _spaces, inner, _spaces), max_size=4)
    return items.map(lambda found: f"[{','.join(found)}]")


def objects(
    inner: st.SearchStrategy[str],
    keys: st.SearchStrategy[str] = strings,
    spaces: st.SearchStrategy[str] = _spaces,
) -> st.SearchStrategy[str]:
    member = st.builds("{}{}{}:{}{}{}".format, spaces, keys, spaces, spaces, inner, spaces)
    return st.lists(member, max_size=5).map(lambda found: f"{{{','.join(found)}}}")


values = st.recursive(_leaves, lambda inner: st.one_of(_arrays(inner), objects(inner)), max_leaves=12)


def nested(depth: int, core: str = "0") -> str:
    """Objects and arrays in turn, `depth` of them around `core`."""
    pairs, odd = divmod(depth, 2)
    return "[" * odd + '{"k":[' * pairs + core + "]}" * pairs + "]" * odd


def depth(text: str) -> int:
    """How deep objects and arrays nest, a character at a time."""
    deepest = level = 0
    inside = escaped = False
    for char in text:
        if escaped:
            escaped = False
        elif inside:
            escaped = char == "\\"
            inside = char != '"'
        elif char == '"':
            inside = True
        elif char in "[{":
            level += 1
            deepest = max(deepest, level)
        elif char in "]}":
            level -= 1
    return deepest


def cpu_seconds(work: Callable[[], object]) -> float:
    """The processor time of the best of three runs: other processes of the machine do not count."""
    times: list[float] = []
    for _ in range(3):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)
