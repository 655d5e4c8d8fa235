"""A call and its answer are plain values that keep secrets out of logs."""

from dataclasses import FrozenInstanceError

import pytest

from cni.request import Request, Response

ASKED = Request(
    program="isthmus",
    environment={"CNI_COMMAND": "ADD", "TOKEN": "secret"},
    stdin=b'{"password": "secret"}',
    started_ns=7,
    boot_id="b",
)


def test_a_plain_call_has_no_namespace() -> None:
    assert (ASKED.netns_fd, ASKED.netns_errno, ASKED.caller_netns) == (None, 0, (0, 0))


def test_what_a_runtime_sent_is_not_shown() -> None:
    assert "secret" not in repr(ASKED)


def test_calls_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        ASKED.started_ns = 8  # type: ignore[misc]


def test_an_answer_may_say_nothing() -> None:
    assert Response(0) == Response(0, b"")
