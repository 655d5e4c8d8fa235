"""What a refusal of the kernel says, and what a caller may ask it."""

import errno

import pytest

from dataplane.errors import DataplaneError, NetlinkError, NftError


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV, errno.ESRCH, errno.EADDRNOTAVAIL])
def test_what_is_not_there_is_absent(number: int) -> None:
    refused = NetlinkError(number, "netlink message 17")

    assert refused.absent
    assert not refused.exists


def test_what_is_there_exists() -> None:
    refused = NetlinkError(errno.EEXIST, "netlink message 16")

    assert refused.exists
    assert not refused.absent


def test_the_kernels_own_words_come_before_the_errnos() -> None:
    plain = NetlinkError(errno.EINVAL, "netlink message 16")
    explained = NetlinkError(errno.EINVAL, "netlink message 16", index=3, text="Bad MAC")

    assert str(plain) == "netlink message 16: Invalid argument"
    assert (str(explained), explained.index) == ("netlink message 16: Bad MAC", 3)


def test_a_refused_ruleset_is_kept_with_the_complaint() -> None:
    refused = NftError("syntax error", "add table x")

    assert isinstance(refused, DataplaneError)
    assert (str(refused), refused.script) == ("syntax error", "add table x")
