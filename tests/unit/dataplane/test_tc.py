"""What Shaper does to a kernel is in tests/kernel/test_tc.py."""

import errno
from collections.abc import Callable, Sequence

import pytest

from dataplane.errors import NetlinkError
from dataplane.model import Bandwidth
from dataplane.tc import Shaper, ShapingUnavailable, buckets, ifb_name


class Refusing:
    """Netlink that finds every link and refuses whatever kind of message the test names."""

    def __init__(self, kind: int, number: int) -> None:
        self.kind, self.number = kind, number

    def get(self, request: bytes) -> memoryview:
        return memoryview(b"\0" * 4 + b"\7\0\0\0" + b"\0" * 8 + b"\x0a\0\3\0veth0\0\0\0")

    def transact(
        self,
        messages: Sequence[bytes],
        *,
        tolerate: Callable[[NetlinkError], bool] = lambda _: False,
    ) -> None:
        for message in messages:
            refused = NetlinkError(self.number, "message")
            if int.from_bytes(message[4:6], "little") == self.kind and not tolerate(refused):
                raise refused


LIMITS = Bandwidth(egress_rate=8000, egress_burst=8000)


@pytest.mark.parametrize(
    ("kind", "number", "missing"),
    [
        (16, errno.EOPNOTSUPP, "ifb devices"),
        (36, errno.ENOENT, "the qdisc tbf"),
        (44, errno.ENOENT, "the filter u32 or the action mirred"),
    ],
)
def test_what_the_kernel_lacks_is_named(kind: int, number: int, missing: str) -> None:
    with pytest.raises(ShapingUnavailable, match=missing):
        Shaper(Refusing(kind, number)).shape("veth0", LIMITS)  # type: ignore[arg-type]


def test_a_missing_veth_is_not_a_missing_feature() -> None:
    with pytest.raises(NetlinkError) as refused:
        Shaper(Refusing(36, errno.ENODEV)).shape("veth0", LIMITS)  # type: ignore[arg-type]

    assert refused.value.absent


def test_an_ifb_that_is_there_already_is_used() -> None:
    Shaper(Refusing(16, errno.EEXIST)).shape("veth0", LIMITS)  # type: ignore[arg-type]


def test_a_limit_that_cannot_be_is_refused_before_anything_is_done() -> None:
    half = Bandwidth(ingress_rate=8000, ingress_burst=8000, egress_rate=8000)

    with pytest.raises(ValueError, match="bursts of 0 bits"):
        Shaper(Refusing(0, 0)).shape("veth0", half)  # type: ignore[arg-type]


def test_no_rate_is_no_limit() -> None:
    assert buckets(Bandwidth()) == (None, None)


def test_each_veth_has_an_ifb_of_its_own_and_always_the_same() -> None:
    names = {ifb_name(f"veth{number}") for number in range(100)}

    assert len(names) == 100
    assert max(map(len, names)) == 15
    assert ifb_name("veth0") == "ifb2d9407abb926"
