"""Rules: what a file may say, what is refused at load, which rule applies, and what it makes of a message."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.core.exchange import Caller, Context, Direction
from shadowcat.core.interceptor import Phase
from shadowcat.core.patterns import Pattern, Patterns
from shadowcat.core.rule_file import RuleFileError, RuleTable, read_rules
from shadowcat.core.rules import Rule, RuleSet
from shadowcat.errors import Fault
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Era

UP, DOWN = Direction.TO_SERVER, Direction.TO_CLIENT
WHO = b'{"clientInfo":{"name":"claude-code","version":"1"}}'


def rules(text: str, **options: Any) -> RuleSet:
    return read_rules(text, **options)


def context(request: Message | None = None, *, era: Era = Era.LEGACY, direction: Direction = UP) -> Context:
    return Context(era, direction, Caller(), "files", "s", request, introduction=WHO)


def call(tool: str = "t", **arguments: Any) -> Message:
    return jsonrpc.request(1, "tools/call", {"name": tool, "arguments": arguments})


def applying(
    text: str, message: Message, about: Context | None = None, phase: Phase = Phase.REQUEST
) -> str | None:
    rule = rules(text).applying(phase, message, about or context())
    return rule and rule.name


@pytest.mark.parametrize(
    ("match", "does"),
    [
        ('method = "tools/call"', True),
        ('method = "tools/*"', True),
        ('method = ["ping", "tools/call"]', True),
        ('method = "tools/list"', False),
        ('tool = "t"', True),
        ('tool = ["x*", "t*"]', True),
        ('tool = "u"', False),
        ('client = "claude-*"', True),
        ('client = "cursor"', False),
        ('upstream = "files"', True),
        ('upstream = "f"', False),
        ('era = "legacy"', True),
        ('era = "modern"', False),
        ('where = { "/params/arguments/n" = 1 }', True),
        ('where = { "/params/arguments/n" = 1.0 }', True),
        ('where = { "/params/arguments/n" = true }', False),
        ('where = { "/params/arguments/n" = [2, 1] }', True),
        ('where = { "/params/arguments/n" = { over = 0, under = 2 } }', True),
        ('where = { "/params/arguments/n" = { over = 1 } }', False),
        ('where = { "/params/arguments/n" = { like = "*" } }', False),
        ('where = { "/params/arguments/path" = { like = "/etc/*" } }', True),
        ('where = { "/params/arguments/path" = "/etc/*" }', False),
        ('where = { "/params/arguments/flag" = true }', True),
        ('where = { "/params/arguments/flag" = 1 }', False),
        ('where = { "/params/arguments/gone" = { present = false } }', True),
        ('where = { "/params/arguments/n" = { present = true } }', True),
        ('where = { "/params/arguments/gone" = { present = true } }', False),
        ('where = { "/params/arguments/gone" = { over = 1 } }', False),
        ('where = { "/params/arguments/big" = 9007199254740993 }', True),
        ('where = { "/params/arguments/big" = 9007199254740992 }', False),
        ('direction = "to_client"', False),
    ],
)
def test_what_matches(match: str, does: bool) -> None:
    message = call(n=1, path="/etc/passwd", flag=True, big=9007199254740993)
    found = applying(f'[[rule]]\nname = "r"\n{match}\nlog = true', message)
    assert (found == "r") is does


def test_a_response_is_known_by_what_was_asked() -> None:
    text = """
        [[rule]]
        name = "r"
        direction = "to_client"
        tool = "read"
        where = { "/params/arguments/path" = "a", "/result/isError" = true }
        block = true
    """
    answer = jsonrpc.result(1, {"isError": True})
    about = context(call("read", path="a"), direction=DOWN)
    assert applying(text, answer, about, Phase.RESPONSE) == "r"
    assert applying(text, jsonrpc.result(1, {}), about, Phase.RESPONSE) is None
    assert applying(text, answer, context(call("read", path="b"), direction=DOWN), Phase.RESPONSE) is None
    assert applying(text, answer, context(direction=DOWN), Phase.RESPONSE) is None


LADDER = [
    'where = { "/params/arguments/n" = 1, "/params/name" = "t" }',
    'where = { "/params/arguments/n" = 1 }\ntool = "t"',
    'where = { "/params/arguments/n" = 1 }',
    'tool = "t"',
    'tool = ["t", "te*"]',
    'tool = "*"',
    'method = "tools/call"\nclient = "claude-code"',
    'method = "tools/call"\nupstream = "files"',
    'method = "tools/call"\nera = "legacy"',
    'method = "tools/call"',
    'method = "tools/*"\nclient = "*"',
    'method = "tools/*"',
    'method = "to*"',
    'method = "*"',
]


def test_the_most_specific_wins_wherever_it_stands() -> None:
    """Each step of the ladder is taken away in turn: the next one applies."""
    for order in (list, reversed):
        for top in range(len(LADDER)):
            steps = list(order(list(enumerate(LADDER))[top:]))
            text = "\n".join(f'[[rule]]\nname = "{at}"\n{match}\nlog = true' for at, match in steps)
            assert applying(text, call(n=1)) == str(top)


def test_of_equals_the_first_applies() -> None:
    text = "\n".join(
        f'[[rule]]\nname = "{name}"\ntool = "{tool}"\nlog = true' for name, tool in (("a", "*t"), ("b", "t*"))
    )
    assert applying(text, call("tt")) == "a"


WRONG = {
    "no TOML": ("rule = ", "no TOML"),
    "another table": ('[rules]\nname = "r"', "unknown key 'rules'"),
    "one bracket": ('[rule]\nname = "r"', "two brackets"),
    "no name": ("[[rule]]\nlog = true", "`name`"),
    "a name twice": (
        '[[rule]]\nname = "r"\nlog = true\n[[rule]]\nname = "r"\ntool = "x"\nlog = true',
        "line 4: rule 'r': there is a rule of that name",
    ),
    "unknown key": ("log = true\nmetod = 'ping'", "line 5: rule 'r': there is no key 'metod'; did you mean method?"),
    "wrong type": ("tool = 1\nlog = true", "tool"),
    "nothing to do": ("tool = 'x'", "does nothing"),
    "two things to do": ("block = true\nset = { '/params/a' = 1 }", "cannot block and set"),
    "hold and block": ("block = true\nhold = true", "block and hold"),
    "no pointer": ("set = { 'params/a' = 1 }", "JSON pointer"),
    "no pointer in remove": ("remove = ['/params']", "points to nothing inside"),
    "no pointer in where": ("log = true\nwhere = { 'a' = 1 }", "where a"),
    "a date": ("set = { '/params/a' = 1979-05-27 }", "JSON has no value like"),
    "not a number": ("set = { '/params/a' = [nan] }", "JSON has no value like nan"),
    "a reply of nothing": ("reply = {}", "either a result or an error"),
    "a reply of both": ("reply = { result = {}, error = { code = 1, message = '' } }", "either a result or an error"),
    "a delay without end": ("delay_s = 1e9", "delay_s"),
    "a test that is none": ("log = true\nwhere = { '/params/a' = { above = 1 } }", "above"),
    "an empty test": ("log = true\nwhere = { '/params/a' = {} }", "nothing is tested"),
    "compared with a table": ("log = true\nwhere = { '/params/a' = [{}] }", "compared with"),
    # Those that can never match.
    "no methods": ("log = true\nmethod = []", "names nothing"),
    "a tool of something else": ("log = true\nmethod = 'tools/list'\ntool = 'x'", "only tools/call"),
    "an upstream that is not there": ("log = true\nupstream = 'nowhere'", "no upstream is called 'nowhere'"),
    "no such number": ("log = true\nwhere = { '/params/a' = { over = 2, under = 1 } }", "over 2 and under 1"),
    "number and text": ("log = true\nwhere = { '/params/a' = { over = 2, like = 'x' } }", "both a number and a string"),
    "gone and more": ("log = true\nwhere = { '/params/a' = { present = false, over = 1 } }", "no other test"),
    "one of none": ("log = true\nwhere = { '/params/a' = [] }", "an empty list"),
    "not in that era": ("log = true\nmethod = 'initialize'\nera = 'modern'", "never match"),
    "asked by servers only in sessions": ("log = true\nmethod = 'roots/list'\nera = 'modern'", "never match"),
    "a result of a request": ("log = true\nmethod = 'tools/call'\nwhere = { '/result/a' = 1 }", "no response"),
    "result and error": ("log = true\nwhere = { '/result/a' = 1, '/error/code' = 1 }", "a result or an error"),
    "no key that comes near": ("log = true\nzzz = 1", "line 5: rule 'r': there is no key 'zzz'; there are name,"),
    "a value of another kind": ("log = true\ntool = 5", "line 5: rule 'r': tool: Expected `str | array | null`"),
    "parameters of a response": (
        "direction = 'to_client'\nmethod = 'tools/call'\nset = { '/params/a' = 1 }",
        "cannot be done",
    ),
    "a reply to a notification": ("method = 'notifications/cancelled'\nreply = { result = {} }", "cannot be done"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_a_line(case: str) -> None:
    text, said = WRONG[case]
    if "rule" not in text:
        text = f'# a comment\n[[rule]]\nname = "r"\n{text}'
        said_where = r"line \d: rule 'r': "
    else:
        said_where = ""
    with pytest.raises(RuleFileError) as caught:
        rules(text, upstreams=["files"])
    assert said in str(caught.value)
    assert re.match(said_where, str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('tool = "a"', 'tool = "a"'),
        ('tool = ["a", "b"]', 'tool = "b"'),
        ('method = "tools/call"', 'method = "tools/call"'),
        ("", ""),
        ('where = { "/params/a" = 1 }', 'where = { "/params/a" = 1 }'),
    ],
)
def test_a_rule_that_another_one_stands_before_is_refused(first: str, second: str) -> None:
    text = f'[[rule]]\nname = "a"\n{first}\nlog = true\n\n[[rule]]\nname = "b"\n{second}\nblock = true'
    with pytest.raises(RuleFileError, match=r"line \d: rule 'b' can never apply: rule 'a'"):
        rules(text)


def test_edits() -> None:
    text = """
        [[rule]]
        name = "r"
        tool = "t"
        set = { "/params/arguments/limit" = 10, "/params/_meta/by" = "us" }
        remove = ["/params/arguments/secret", "/params/arguments/not-there"]
    """
    raw = (
        b'{"jsonrpc":"2.0","id":"x","method":"tools/call","params":'
        b'{"name":"t","arguments":{"n":9007199254740993,"one":1.0,"limit":99,"secret":"s"}}}'
    )
    message = jsonrpc.parse(raw)
    rule = rules(text).applying(Phase.REQUEST, message, context())
    assert rule is not None
    assert rule.edited(message).raw == (
        b'{"jsonrpc":"2.0","id":"x","method":"tools/call","params":'
        b'{"name":"t","arguments":{"n":9007199254740993,"one":1.0,"limit":10},"_meta":{"by":"us"}}}'
    )


def test_what_cannot_be_edited_does_not_pass() -> None:
    rule = rules('[[rule]]\nname = "r"\ntool = "t"\nset = { "/params/arguments/n/x" = 1 }').rules[0]
    with pytest.raises(Fault) as caught:
        rule.edited(call(n=1))
    assert caught.value.reason == "rule_cannot_be_applied"


def test_an_edit_of_results_leaves_errors_alone() -> None:
    text = '[[rule]]\nname = "r"\ndirection = "to_client"\ntool = "t"\nset = { "/result/seen" = true }'
    about = context(call(), direction=DOWN)
    assert applying(text, jsonrpc.result(1, {}), about, Phase.RESPONSE) == "r"
    assert applying(text, jsonrpc.error(1, {"code": 1, "message": ""}), about, Phase.RESPONSE) is None


@pytest.mark.parametrize(
    "params", [b'{"Name":"t"}', b'{"name":"u","NAME":"t"}', b'{"name":"u","n\\u0041me":"t"}']
)
def test_a_tool_that_some_servers_would_read_elsewhere_is_refused(params: bytes) -> None:
    message = jsonrpc.parse(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":%b}' % params)
    with pytest.raises(Fault, match="taken for name"):
        applying('[[rule]]\nname = "a"\ntool = "t"\nblock = true', message)


def test_arguments_that_can_be_read_in_two_ways_are_refused() -> None:
    twice = jsonrpc.parse(
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":{"p":"/etc","p":"/tmp"}}}'
    )
    found = rules('[[rule]]\nname = "r"\nwhere = { "/params/arguments/p" = "/etc" }\nblock = true')
    with pytest.raises(Fault):
        found.applying(Phase.REQUEST, twice, context())


# Properties.

texts = st.text(alphabet="ab*", max_size=6)


@given(texts, st.text(alphabet="ab", max_size=8))
def test_a_pattern_matches_what_it_says(pattern: str, name: str) -> None:
    def slowly(pattern: str, name: str) -> bool:
        if not pattern:
            return not name
        if pattern[0] == "*":
            return slowly(pattern[1:], name) or (bool(name) and slowly(pattern, name[1:]))
        return bool(name) and name[0] == pattern[0] and slowly(pattern[1:], name[1:])

    assert Pattern(pattern).matches(name) is slowly(pattern, name)


@given(st.lists(texts, max_size=3), st.lists(texts, max_size=3), st.text(alphabet="ab", max_size=6))
def test_what_covers_matches_all_that_the_other_does(some: list[str], others: list[str], name: str) -> None:
    one, other = Patterns.of(some), Patterns.of(others)
    if one.cover(other) and other.match(name):
        assert one.match(name)


names = st.sampled_from(["tools/call", "tools/*", "*", "notifications/x", "vendor/a", "prompts/get"])
tables = st.builds(
    RuleTable,
    name=st.just("r"),
    method=st.none() | names | st.lists(names, min_size=1, max_size=2),
    direction=st.sampled_from(["to_server", "to_client"]),
    client=st.none() | st.sampled_from(["claude-code", "c*"]),
    era=st.none() | st.sampled_from(["legacy", "modern"]),
    where=st.dictionaries(st.sampled_from(["/params/a", "/result/a"]), st.integers(0, 1), max_size=2),
    log=st.just(True),
)
messages = st.tuples(
    st.sampled_from(Phase), st.sampled_from(["tools/call", "vendor/a", "notifications/x"]), st.integers(0, 1)
)


def rule_of(table: RuleTable, name: str) -> Rule | None:
    plain = {**msgspec.to_builtins(table), "name": name}
    lines = [f"{key} = {toml(value)}" for key, value in plain.items()]
    try:
        return read_rules("[[rule]]\n" + "\n".join(lines)).rules[0]
    except RuleFileError:
        return None  # it can never match


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f'"{key}"={toml(inner)}' for key, inner in value.items()) + "}"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)


@given(st.lists(tables, min_size=1, max_size=4), messages)
def test_the_one_that_applies_matches_and_none_that_matches_ranks_higher(
    given_tables: list[RuleTable], about: tuple[Phase, str, int]
) -> None:
    found = [rule for at, table in enumerate(given_tables) if (rule := rule_of(table, str(at)))]
    phase, method, value = about
    asked = jsonrpc.request(1, method, {"a": value})
    if phase in (Phase.RESPONSE, Phase.SERVER_RESPONSE):
        message = jsonrpc.result(1, {"a": value})
    else:
        message = asked if "request" in phase.value else jsonrpc.notification(method, {"a": value})
    where = context(asked, direction=phase.direction)
    ruleset = RuleSet(tuple(found))
    matching = [rule for rule in found if phase in rule.match.phases and rule.match.holds(message, where)]
    applied = ruleset.applying(phase, message, where)
    assert (applied in matching) if matching else applied is None
    if applied is not None:
        best = max(rule.match.rank for rule in matching)
        assert applied == next(rule for rule in matching if rule.match.rank == best)
        wanted = ruleset.wanted(phase)
        assert wanted is None or method in wanted
