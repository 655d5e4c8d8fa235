"""Verbs of one attachment exclude each other."""

import threading
from dataclasses import replace

from cni.locks import KeyLocks
from tests.unit.cni.fakes import WHO

PATIENCE_S = 10.0


def test_a_key_that_is_held_is_not_given_again() -> None:
    locks = KeyLocks()

    with locks.hold(WHO) as first, locks.hold(WHO, timeout=0) as second:
        held = first, second
    with locks.hold(WHO, timeout=0) as third:
        assert (*held, third) == (True, False, True)


def test_other_keys_are_free() -> None:
    locks = KeyLocks()

    with locks.hold(WHO), locks.hold(replace(WHO, ifname="net1"), timeout=0) as other:
        assert other


def test_whoever_waits_gets_it_when_the_holder_is_done() -> None:
    locks, got, done = KeyLocks(), threading.Event(), threading.Event()

    def wait() -> None:
        with locks.hold(WHO, timeout=PATIENCE_S) as held:
            if held:
                got.set()
        done.set()

    with locks.hold(WHO):
        waiter = threading.Thread(target=wait)
        waiter.start()
        before = got.is_set()
    waiter.join(PATIENCE_S)

    assert (before, got.is_set(), done.is_set()) == (False, True, True)


def test_nothing_is_kept_of_keys_that_nobody_wants() -> None:
    locks = KeyLocks()

    with locks.hold(WHO), locks.hold(WHO, timeout=0):
        pass

    assert locks._locks == {}


def test_a_failure_inside_gives_the_key_back() -> None:
    locks = KeyLocks()
    try:
        with locks.hold(WHO):
            raise ValueError
    except ValueError:
        pass

    with locks.hold(WHO, timeout=0) as held:
        assert held
