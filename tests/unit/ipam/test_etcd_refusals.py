"""What etcd's and gRPC's failures mean, and what is said of them."""

import pytest
from grpc import StatusCode

from ipam.etcd_refusals import LONGEST_REASON, Failure, Meaning
from ipam.kv import Denied, KVError, LeaseGone, OutOfSpace

ENDPOINT = "10.0.0.1:2379"


def failure(code: StatusCode, details: str = "") -> Failure:
    return Failure(ENDPOINT, code, details)


@pytest.mark.parametrize(
    ("code", "details", "meaning"),
    [
        (StatusCode.UNAVAILABLE, "failed to connect to all addresses; last …", Meaning.UNSENT),
        (StatusCode.UNAVAILABLE, "etcdserver: no leader", Meaning.UNSENT),
        (StatusCode.RESOURCE_EXHAUSTED, "etcdserver: too many requests", Meaning.UNSENT),
        (StatusCode.UNAVAILABLE, "etcdserver: rpc not supported for learner", Meaning.UNSENT),
        (StatusCode.DATA_LOSS, "etcdserver: corrupt cluster", Meaning.UNSENT),
        (StatusCode.UNAVAILABLE, "Socket closed", Meaning.LOST),
        (StatusCode.UNAVAILABLE, "etcdserver: request timed out", Meaning.LOST),
        (StatusCode.UNAVAILABLE, "etcdserver: leader changed", Meaning.LOST),
        (StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", Meaning.LOST),
        (StatusCode.CANCELLED, "", Meaning.LOST),
        (StatusCode.UNKNOWN, "what nobody foresaw", Meaning.LOST),
        (StatusCode.INTERNAL, "", Meaning.LOST),
        (StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token", Meaning.TOKEN),
        (
            StatusCode.INVALID_ARGUMENT,
            "etcdserver: revision of auth store is old",
            Meaning.TOKEN,
        ),
        (StatusCode.INVALID_ARGUMENT, "etcdserver: user name is empty", Meaning.TOKEN),
        (StatusCode.PERMISSION_DENIED, "etcdserver: permission denied", Meaning.FINAL),
        (
            StatusCode.RESOURCE_EXHAUSTED,
            "etcdserver: mvcc: database space exceeded",
            Meaning.FINAL,
        ),
    ],
)
def test_only_what_surely_did_nothing_is_not_lost(
    code: StatusCode, details: str, meaning: Meaning
) -> None:
    assert failure(code, details).meaning is meaning


def test_call_that_never_left_did_nothing_whatever_the_code() -> None:
    unsent = Failure(ENDPOINT, StatusCode.DEADLINE_EXCEEDED, "", is_sent=False)

    assert unsent.meaning is Meaning.UNSENT


@pytest.mark.parametrize(
    ("code", "details", "error", "words"),
    [
        (
            StatusCode.PERMISSION_DENIED,
            "etcdserver: permission denied",
            Denied,
            "has no right to these keys",
        ),
        (
            StatusCode.INVALID_ARGUMENT,
            "etcdserver: authentication failed, invalid user ID or password",
            Denied,
            "does not know this user and password",
        ),
        (StatusCode.INVALID_ARGUMENT, "etcdserver: user name is empty", Denied, "none is config"),
        (
            StatusCode.RESOURCE_EXHAUSTED,
            "etcdserver: mvcc: database space exceeded",
            OutOfSpace,
            "disarm the alarm",
        ),
        (StatusCode.NOT_FOUND, "etcdserver: requested lease not found", LeaseGone, "lease"),
        (StatusCode.INVALID_ARGUMENT, "etcdserver: request is too large", KVError, "too large"),
    ],
)
def test_final_refusal_becomes_an_error_that_names_the_member(
    code: StatusCode, details: str, error: type[KVError], words: str
) -> None:
    made = failure(code, details).error()

    assert type(made) is error
    assert ENDPOINT in str(made)
    assert words in str(made)


def test_long_details_are_cut_and_brought_to_one_line() -> None:
    reason = failure(StatusCode.UNKNOWN, "x\n" * 10_000).reason

    assert "\n" not in reason
    assert len(reason) < LONGEST_REASON + 50


def test_failure_without_details_says_its_code() -> None:
    assert failure(StatusCode.UNKNOWN).reason == f"{ENDPOINT}: UNKNOWN"


def test_elections_and_bursts_pass_and_dead_members_do_not() -> None:
    passing = failure(StatusCode.UNAVAILABLE, "etcdserver: no leader")
    dead = failure(StatusCode.UNAVAILABLE, "failed to connect to all addresses")

    assert (passing.is_passing, dead.is_passing) == (True, False)
