"""Who wants which message: hooks that are there, methods that are named, and those whose method nobody knows."""

from __future__ import annotations

import pytest

from shadowcat import PASS, Context, Interceptor, Message, Verdict
from shadowcat.core.chain import Chain
from shadowcat.core.exchange import Direction
from shadowcat.core.interceptor import Phase
from shadowcat.wire.jsonrpc import Kind

UP, DOWN = Direction.TO_SERVER, Direction.TO_CLIENT
WHERE = {
    Phase.REQUEST: (Kind.REQUEST, UP),
    Phase.RESPONSE: (Kind.RESULT, DOWN),
    Phase.NOTIFICATION: (Kind.NOTIFICATION, UP),
    Phase.SERVER_REQUEST: (Kind.REQUEST, DOWN),
    Phase.SERVER_RESPONSE: (Kind.ERROR, UP),
    Phase.SERVER_NOTIFICATION: (Kind.NOTIFICATION, DOWN),
}


def hooked(*phases: Phase, methods: tuple[str, ...] | None = None) -> Interceptor:
    def hook(self: Interceptor, message: Message, context: Context) -> Verdict:
        return PASS

    members = {f"on_{phase.value}": hook for phase in phases}
    return type("Hooked", (Interceptor,), {**members, "methods": methods})()


def names(chain: Chain, phase: Phase, method: str) -> list[int]:
    kind, direction = WHERE[phase]
    assert direction is phase.direction
    return [step.place for step in chain.steps(kind, method, direction)]


@pytest.mark.parametrize("phase", Phase)
def test_a_hook_is_asked_in_its_phase_and_in_no_other(phase: Phase) -> None:
    chain = Chain([hooked(phase)])
    assert [other for other in Phase if names(chain, other, "tools/call")] == [phase]


def test_methods_are_wanted_by_name_and_order_is_kept() -> None:
    chain = Chain(
        [
            hooked(Phase.REQUEST, methods=("tools/call", "tools/list")),
            hooked(Phase.REQUEST),
            hooked(Phase.RESPONSE),
            hooked(Phase.REQUEST, methods=("tools/call",)),
        ]
    )
    assert names(chain, Phase.REQUEST, "tools/call") == [0, 1, 3]
    assert names(chain, Phase.REQUEST, "tools/list") == [0, 1]
    assert names(chain, Phase.REQUEST, "ping") == [1]


def test_a_response_to_nobody_knows_what_is_shown_to_all_that_want_responses() -> None:
    chain = Chain([hooked(Phase.RESPONSE, methods=("tools/call",)), hooked(Phase.REQUEST)])
    assert names(chain, Phase.RESPONSE, "") == [0]


def test_no_methods_at_all_want_nothing() -> None:
    assert names(Chain([hooked(Phase.REQUEST, methods=())]), Phase.REQUEST, "tools/call") == []


def test_a_method_in_place_of_a_list_of_them_is_refused() -> None:
    with pytest.raises(TypeError, match="'tools/call'"):
        Chain([hooked(Phase.REQUEST, methods="tools/call")])  # type: ignore[arg-type]


def test_a_hook_that_nothing_would_call_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Hooked\.on_respons is no hook; did you mean on_response\?"):
        type("Hooked", (Interceptor,), {"on_respons": lambda *_: PASS})


def test_a_class_in_place_of_an_interceptor_is_refused() -> None:
    with pytest.raises(TypeError, match=r"hand over Interceptor\(\)"):
        Chain([Interceptor])  # type: ignore[list-item]
