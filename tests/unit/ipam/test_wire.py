"""Values and messages say the same, and what a message says wrongly is named."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam import calls
from ipam.cluster import BlockState, NodeState, Pool, PoolState, Settings
from ipam.kv import KVUnavailable
from ipam.refusals import Frozen, Invalid
from ipam.rpc import ipamd_pb2 as pb
from ipam.wire import given_in, parse, parse_some, refusal, render

HELD = calls.Held(cidr=ip_network("10.0.0.0/26"), pool="p", epoch=1, revision=3)
POOL = calls.PoolRow(name="p", cidr=ip_network("10.0.0.0/16"), masquerade=True)
ROW = calls.TableRow(
    cidr=ip_network("fd00::/122"),
    node="a",
    epoch=2,
    addresses=(ip_address("192.0.2.1"), ip_address("fd01::1")),
    state=BlockState.DRAINING,
)
LEASE = calls.MirroredLease(
    network="n", container_id="c", ifname="eth0", addresses=(ip_address("10.0.0.1"),), pod="a/b"
)

PAIRS: list[tuple[Any, Any]] = [
    (
        pb.RegisterRequest,
        calls.Register(
            node="n",
            uid="u",
            boot_id="b",
            instance="i",
            epoch=1,
            generation="g",
            counter=7,
            addresses=ROW.addresses,
            labels={"zone": "a"},
            blocks=(HELD,),
            table=(ROW,),
        ),
    ),
    (
        pb.RegisterReply,
        calls.Registered(
            epoch=2,
            generation="g",
            counter=9,
            node_state=NodeState.DRAINING,
            blocks=(HELD,),
            lost=(ROW.cidr,),
            unconfirmed_boots=True,
            frozen="why",
        ),
    ),
    (pb.ClaimRequest, calls.Claim(node="n", uid="u", epoch=1, nonce="x", families=(6,), pool="p")),
    (pb.ClaimReply, calls.Claimed(blocks=(HELD,), counter=1)),
    (
        pb.ReleaseRequest,
        calls.Release(node="n", uid="u", epoch=1, generation="g", blocks=(HELD,)),
    ),
    (pb.LeaveRequest, calls.Leave(node="n", uid="u", instance="i")),
    (
        pb.MirrorRequest,
        calls.Mirror(node="n", uid="u", epoch=1, sequence=4, whole=True, leases=(LEASE,)),
    ),
    (pb.WatchReply, calls.Update(revision=1, whole=True, rows=(ROW,), gone=(HELD.cidr,))),
    (pb.WatchReply, calls.Update(revision=1, with_pools=True, pools=(POOL,))),
    (pb.InitRequest, calls.Init(if_new=True)),
    (pb.InitReply, calls.Initialized(generation="g", made=True)),
    (pb.DrainReply, calls.Drained(state=NodeState.FENCED, blocks=(HELD.cidr,))),
    (
        pb.Finding,
        calls.Finding(kind=calls.FindingKind.LEAK, subject="s", text="t", mend="m", mod_revision=3),
    ),
    (
        pb.PoolSpec,
        Pool(
            name="p",
            cidr=ip_network("10.0.0.0/16"),
            block_length=26,
            selector={"zone": "a"},
            reservations=(ip_network("10.0.1.0/24"),),
            state=PoolState.DISABLED,
            order=-3,
        ),
    ),
]


@pytest.mark.parametrize(("kind", "value"), PAIRS)
def test_what_goes_over_the_wire_comes_back(kind: Any, value: Any) -> None:
    sent = render(kind, value).SerializeToString()

    assert parse(type(value), kind.FromString(sent)) == value


@given(
    st.builds(
        Settings,
        blocks_per_node=st.integers(0, 1000),
        silence_s=st.floats(0, 1e6),
        quarantine_s=st.floats(0, 1e6),
    )
)
def test_a_zero_that_was_said_is_no_default(settings: Settings) -> None:
    assert parse(Settings, render(pb.SettingsSpec, settings)) == settings


def test_what_is_not_said_is_the_default() -> None:
    assert parse(Settings, pb.SettingsSpec()) == Settings()
    assert parse(calls.Held, pb.HeldBlock(cidr="10.0.0.0/26")).state is BlockState.ACTIVE


WRONG: list[tuple[Any, Any, str]] = [
    (calls.Register, pb.RegisterRequest(addresses=["10.0.0"]), "addresses: '10.0.0' does not"),
    (calls.Register, pb.RegisterRequest(addresses=["fe80::1%e"]), "addresses: .* has a zone"),
    (calls.Register, pb.RegisterRequest(node="a\nb"), r"node: 'a\\nb' has characters that cannot"),
    (calls.Register, pb.RegisterRequest(node="a" * 1025), "node: a text of 1025 characters"),
    (calls.Register, pb.RegisterRequest(labels={"a": "\0"}), "labels: .* cannot be printed"),
    (calls.Held, pb.HeldBlock(), "cidr: '' is no network: give ADDRESS/LENGTH"),
    (
        calls.Held,
        pb.HeldBlock(cidr="10.0.0.1/26"),
        "cidr: 10.0.0.1/26 has host bits set; its network is 10.0.0.0/26",
    ),
    (calls.Held, pb.HeldBlock(cidr="10.0.0.0"), "cidr: '10.0.0.0' is no network"),
    (
        calls.Held,
        pb.HeldBlock(cidr="10.0.0.0/26", state="x"),
        "state: 'x' is none of active, draining, quarantined",
    ),
]


@pytest.mark.parametrize(("kind", "message", "complaint"), WRONG)
def test_a_wrong_field_is_named(kind: Any, message: Any, complaint: str) -> None:
    with pytest.raises(Invalid, match=complaint):
        parse(kind, message)


def test_a_refusal_is_known_again_by_its_name() -> None:
    found = [refusal("Frozen", "f"), refusal("KVUnavailable", "k"), refusal("Exception", "e")]

    assert [type(one) for one in found] == [Frozen, KVUnavailable, type(None)]
    assert [str(one) for one in found] == ["f", "k", "None"]


def test_some_fields_are_read_and_an_unknown_one_is_named() -> None:
    spec = pb.PoolSpec(name="p", order=3)

    assert parse_some(Pool, spec, ["order", "selector"]) == {"order": 3, "selector": {}}
    assert given_in(pb.SettingsSpec(silence_s=0)) == ["silence_s"]
    with pytest.raises(Invalid, match="no field colour; there are name, cidr"):
        parse_some(Pool, spec, ["order", "colour"])
    with pytest.raises(Invalid, match="state: 'odd' is none of active, disabled, draining"):
        parse_some(Pool, pb.PoolSpec(state="odd"), ["state"])
