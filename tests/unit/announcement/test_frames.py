from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from announcement.frames import MOST_BYTES, Session, Unreadable, session_of
from announcement.model import Heartbeat, Relayed, State

STATE = State(
    frozenset({ip_address("192.0.2.1"), ip_address("2001:db8::1")}),
    frozenset({"02:00:00:00:00:01"}),
)
SAID = Heartbeat(
    state=STATE,
    hears=frozenset({"a", "b"}),
    knows=frozenset({"a", "b", "c"}),
    misses=frozenset({"d"}),
    relayed=(Relayed("c", 0.25, State()),),
    is_settled=False,
)


def pair(key: bytes = b"k" * 32) -> tuple[Session, Session]:
    """The two ends of one session."""
    return tuple(
        Session(peer=peer, session=b"s" * 8, key=key, began=began, made_at=0.0)
        for peer, began in (("b", True), ("a", False))
    )  # type: ignore[return-value]


def test_what_one_says_the_other_reads() -> None:
    here, there = pair()

    assert there.open(here.seal(SAID)) == SAID
    assert here.open(there.seal(SAID)) == SAID


def test_what_was_said_once_is_not_taken_twice_nor_what_came_before_it() -> None:
    here, there = pair()
    first, second = here.seal(SAID), here.seal(SAID)
    there.open(second)

    for datagram in (first, second):
        with pytest.raises(Unreadable, match="said before"):
            there.open(datagram)


def test_our_own_words_sent_back_are_not_taken() -> None:
    here, _ = pair()

    with pytest.raises(Unreadable, match="our own words"):
        here.open(here.seal(SAID))


@given(st.data())
def test_one_changed_byte_anywhere_is_noticed(data: st.DataObject) -> None:
    here, there = pair()
    datagram = bytearray(here.seal(SAID))
    at = data.draw(st.integers(0, len(datagram) - 1))
    datagram[at] ^= data.draw(st.integers(1, 255))

    with pytest.raises(Unreadable):
        there.open(bytes(datagram))


def test_who_has_another_key_says_nothing() -> None:
    here, _ = pair()
    _, there = pair(b"x" * 32)

    with pytest.raises(Unreadable, match="another key"):
        there.open(here.seal(SAID))


@given(st.binary(max_size=100))
def test_any_bytes_are_a_datagram_of_some_session_or_unreadable(datagram: bytes) -> None:
    try:
        found = session_of(datagram)
    except Unreadable:
        return
    assert len(found) == 8


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"[]",
        b'{"state":{}}',
        b'{"state":{"bids":["x"],"macs":[]},"hears":[],"knows":[],"misses":[],"relayed":[]}',
        b'{"state":{"bids":[],"macs":[]},"hears":[],"knows":[],"misses":[],'
        b'"relayed":[{"node":"c","age_s":NaN,"state":{"bids":[],"macs":[]}}]}',
    ],
)
def test_what_a_node_says_wrongly_is_unreadable(said: bytes) -> None:
    import hmac
    from hashlib import sha256

    here, there = pair()
    body = here.seal(SAID)[:18] + said

    with pytest.raises(Unreadable, match="no heartbeat"):
        there.open(body + hmac.digest(b"k" * 32, body, sha256))


def test_two_thousand_addresses_fit_and_what_does_not_is_refused() -> None:
    here, there = pair()

    def of(number: int) -> Heartbeat:
        first = ip_address("198.18.0.0")
        return Heartbeat(state=State(frozenset(first + one for one in range(number))))

    assert there.open(here.seal(of(2000))) == of(2000)
    with pytest.raises(ValueError, match=f"{MOST_BYTES} at most"):
        here.seal(of(8000))
