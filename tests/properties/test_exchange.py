"""Any order of events is answered or refused with ProtocolError: never another exception."""

import re

from hypothesis import given
from hypothesis import strategies as st

from extproc.exchange import actions
from extproc.exchange.events import AttemptHeaders, Event, RequestBody, RequestHeaders
from extproc.exchange.machine import Exchange
from extproc.exchange.phases import AFTER, LEGAL, Phase, ProtocolError, check
from extproc.policy.budgets import Balance, Denied, Reserve, Reserved, Unavailable
from tests.scenarios.harness import Bare, headers_of
from tests.scenarios.table import SCENARIOS, Call, chat

BARE = Bare()
BUDGETED = Call(chat(max_tokens=5), tenant="per-minute")

EVENT: dict[str, Event] = {
    "h": headers_of(BUDGETED),
    "a": AttemptHeaders({"x-llm-model": "gpt-4"}, "p;n;spare-adapter;v1;K", "10.0.0.1:80"),
    "b": RequestBody(BUDGETED.body),
    "r": Reserved("0" * 32, (), (0.0,)),
    "d": Denied((Balance("hour", "tokens", 300, 0, 5.0, 3600.0),)),
    "u": Unavailable("gone"),
}
# A call of a tenant with one budget that refuses: headers, body, one answer of the ledger.
# Or an attempt at a host that serves another model: its headers, its body.
LEGAL_ORDER = re.compile("(h(b([rdu])?)?|ab?)?")


def new_exchange() -> Exchange:
    return BARE.new_exchange()


@given(st.text(alphabet="ahbrdu", max_size=6))
def test_the_tables_accept_exactly_the_legal_orders(letters: str) -> None:
    exchange, accepted = new_exchange(), ""
    for letter in letters:
        try:
            exchange.receive(EVENT[letter])
        except ProtocolError:
            break
        accepted += letter

    assert LEGAL_ORDER.fullmatch(accepted)
    if accepted != letters:
        assert not LEGAL_ORDER.fullmatch(letters[: len(accepted) + 1])


EVENTS = st.one_of(
    st.sampled_from([headers_of(scenario.call) for scenario in SCENARIOS]),
    st.sampled_from([RequestBody(scenario.call.body) for scenario in SCENARIOS]),
    st.builds(RequestBody, st.binary(max_size=50)),
    st.builds(
        RequestHeaders,
        st.dictionaries(
            st.sampled_from(
                [
                    ":method",
                    ":path",
                    "x-tenant-id",
                    "content-length",
                    "upgrade",
                    "content-type",
                    "authorization",
                    "content-encoding",
                ]
            ),
            st.text(max_size=30) | st.sampled_from(["POST", "/v1/chat", "acme", "Bearer x", "٣"]),
        ),
        st.booleans(),
        st.dictionaries(st.text(), st.none() | st.dictionaries(st.text(), st.text())),
        st.text(),
    ),
    st.sampled_from(list(EVENT.values())),
)


@given(st.lists(EVENTS, max_size=5))
def test_any_events_in_any_order_are_answered_or_refused(events: list[Event]) -> None:
    exchange = new_exchange()
    for event in events:
        try:
            action = exchange.receive(event)
        except ProtocolError:
            continue
        assert isinstance(action, actions.Final | actions.ReadBody | Reserve)


def test_a_refused_event_changes_nothing() -> None:
    exchange = new_exchange()
    exchange.receive(EVENT["h"])

    for letter in "ahrdu":
        try:
            exchange.receive(EVENT[letter])
        except ProtocolError as error:
            assert "is not allowed in phase BODY" in str(error)  # noqa: PT017
    assert isinstance(exchange.receive(EVENT["b"]), Reserve)


def test_nothing_is_legal_once_an_exchange_is_over() -> None:
    assert not [phase for phase, _ in LEGAL if phase is Phase.DONE]
    assert {kind for kind, phase in AFTER.items() if phase is Phase.DONE} == {
        actions.PassThrough,
        actions.Route,
        actions.Reject,
        actions.Keep,
        actions.Replace,
    }
    for event in EVENT.values():
        try:
            check(Phase.DONE, event)
        except ProtocolError:
            continue
        raise AssertionError(event)
