"""What ipamd refuses, as an administrator and a node see it, over a real etcd: nothing changes."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from ipam.channel import IpamdAway
from ipam.refusals import NotAllowed, Refused, SecondBoot, Stale
from ipam.rpc import ipamd_pb2 as pb
from ipam.tls import TLSFiles
from ipam.wire import MAX_REQUEST
from tests.certificates import Authority
from tests.kernel.etcd import running
from tests.kernel.ipamds import Site, site
from tests.kernel.test_ipamd import claim, join, register

pytestmark = pytest.mark.kernel

PREFIX = "/isthmus/v1/default/"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One ipamd with a pool of each family; node a has a block of both."""
    directory = tmp_path_factory.mktemp("bad")
    with running(directory / "etcd") as etcd, site(directory, etcd) as made:
        made.begin(("four", "10.9.0.0/16"), ("six", "fd09::/112"))
        asyncio.run(join(made, "a"))
        yield made


def stored(place: Site) -> str:
    """All that stands in etcd, but for who is alive."""
    lines = place.etcd.ctl("get", "--prefix", PREFIX).stdout.splitlines()
    return "\n".join(line for line in lines if "/alive/" not in line and "instance" not in line)


def refused(place: Site, *words: str) -> str:
    """What an administrator is told who asks for what cannot be; the store stays as it is."""
    before = stored(place)
    done = place.isthmus("ipam", *words)

    assert done.returncode in {1, 2}, done.stdout
    assert stored(place) == before
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("cidr", "options", "complaint"),
    [
        ("10.9.128.0/17", [], "pool new (10.9.128.0/17) overlaps pool four (10.9.0.0/16)"),
        ("10.0.0.0/8", [], "overlaps pool four"),
        ("fd09::/100", [], "overlaps pool six"),
        ("10.8.0.1/16", [], "10.8.0.1/16 has host bits set"),
        ("10.8.0.0/28", ["--block-length", "33"], "blocks of /33"),
        ("10.8.0.0/28", [], "is smaller than one block of /26; blocks of /28 to /30 would fit"),
        ("10.8.0.0", [], "10.8.0.0/32 is smaller than one block of /26; /30 is the smallest pool"),
        ("10.8.0.0/16", ["--block-length", "31"], "/30 at most"),
        ("fd08::/64", ["--block-length", "127"], "/126 at most"),
        ("10.8.0.0/16", ["--reserve", "10.7.0.0/24"], "10.7.0.0/24 is not in 10.8.0.0/16"),
        ("127.0.0.0/16", [], "which is loopback"),
        ("224.0.0.0/8", [], "which is multicast"),
        ("169.254.0.0/16", [], "of which links are made"),
        ("fe80::/64", [], "which is link-local"),
        ("tomato", [], "'tomato' does not appear to be"),
    ],
)
def test_a_pool_that_cannot_be_is_refused_with_the_reason(
    place: Site, cidr: str, options: list[str], complaint: str
) -> None:
    assert complaint in refused(place, "pools", "create", "new", cidr, *options)


def test_a_pool_with_blocks_in_use_keeps_their_length_and_their_ground(place: Site) -> None:
    files = place.signer.admin()
    spec = pb.PoolSpec(name="four", block_length=27)
    change = pb.ChangePoolRequest(pool=spec, fields=["block_length"])
    before = stored(place)
    with pytest.raises(Refused, match=r"blocks of /26 in use .* make another pool"):
        asyncio.run(place.ask(files, "ChangePool", change))
    again = pb.ChangePoolRequest(pool=spec, fields=["colour"])
    with pytest.raises(Refused, match="no field colour; there are name, cidr"):
        asyncio.run(place.ask(files, "ChangePool", again))

    assert stored(place) == before
    assert "make another pool" in refused(place, "pools", "set", "four", "--block-length", "27")
    assert "drain it first" in refused(place, "pools", "delete", "four")
    assert "which is not in 10.10.0.0/16" in refused(
        place, "pools", "set", "four", "--cidr", "10.10.0.0/16"
    )


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("drain", "nobody"), "no node nobody"),
        (("drain", "nobody", "--fenced"), "no node nobody"),
        (("drain", "a/b", "--fenced"), "no node a/b"),
        (("pools", "set", "five", "--order", "1"), "no pool five; there are: four, six"),
        (("pools", "delete", "five"), "no pool five"),
        (("release", "10.9.255.0/26"), "no node has a block 10.9.255.0/26"),
        (("show", "10.9.0.999"), "'10.9.0.999' is not an address"),
        (("settings", "--blocks-per-node", "0"), "1 to 50 are allowed"),
        (("settings", "--silence-s", "-1"), "seconds, not negative"),
        (("settings", "--quarantine-s", "nan"), "seconds, not negative"),
        (("settings", "--quarantine-s", "1e300"), "1,000,000,000 at most"),
    ],
)
def test_what_is_not_there_or_out_of_bounds_is_named(
    place: Site, words: tuple[str, ...], complaint: str
) -> None:
    assert complaint in refused(place, *words)


def test_a_node_that_never_registered_gets_nothing(place: Site) -> None:
    before = stored(place)
    with pytest.raises(Stale, match="node new is not registered"):
        asyncio.run(place.ask(place.signer.node("new"), "Claim", claim("new")))

    assert stored(place) == before


def test_malformed_and_oversized_messages_end_alone(place: Site) -> None:
    before = stored(place)

    async def send(*bodies: bytes) -> list[grpc.StatusCode]:
        pem = place.signer.node("a").read()
        credentials = grpc.ssl_channel_credentials(pem.ca, pem.key, pem.certificate)
        codes = []
        async with aio.secure_channel(place.endpoints[0], credentials) as channel:
            for method in ("Register", "Claim", "Mirror", "Audit"):
                call = channel.unary_unary(f"/isthmus.ipam.v1.IPAM/{method}")
                for body in bodies:
                    with pytest.raises(aio.AioRpcError) as failed:
                        await call(body, timeout=20)
                    codes.append(failed.value.code())
        return codes

    codes = asyncio.run(send(b"\xff\xff\xff", b"\x0a" + b"a" * (MAX_REQUEST + 1)))

    malformed, oversized = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED
    assert codes == [malformed, oversized] * 4
    assert stored(place) == before
    assert len(asyncio.run(join(place, "a"))) == 2


def test_forged_expired_and_borrowed_certificates_are_refused(place: Site, tmp_path: Path) -> None:
    before = stored(place)
    forger = Authority(tmp_path / "forger")  # of the same name as ours
    forged = forger.node("a")
    as_ours = TLSFiles(certificate=forged.certificate, key=forged.key, ca=place.signer.file)
    expired = place.signer.issue("old", uris=["isthmus:node:a"], days=-1)
    node, other = place.signer.node("a"), place.signer.node("b")
    attempts: list[tuple[TLSFiles, str, Any, type[Exception]]] = [
        (as_ours, "Register", register("a"), IpamdAway),
        (expired, "Register", register("a"), IpamdAway),
        (other, "Register", register("a"), NotAllowed),
        (other, "Claim", claim("a", "y"), NotAllowed),
        (node, "DeletePool", pb.DeletePoolRequest(name="four"), NotAllowed),
        (node, "Drain", pb.DrainRequest(node="b"), NotAllowed),
    ]
    for files, method, request, kind in attempts:
        with pytest.raises(kind):
            asyncio.run(place.ask(files, method, request))

    assert stored(place) == before


def test_a_certificate_replayed_from_another_machine_is_a_second_boot(place: Site) -> None:
    before = stored(place)
    elsewhere = pb.RegisterRequest(node="a", uid="another", boot_id="another", instance="two")
    with pytest.raises(SecondBoot):
        asyncio.run(place.ask(place.signer.node("a"), "Register", elsewhere))

    assert stored(place) == before


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        (f"{PREFIX}state/tomato", "x", "no such kind of key"),
        (f"{PREFIX}state/node/x", "{", "unreadable"),
        (f"{PREFIX}state/node/x", '{"name": "y"}', "unreadable"),
        (f"{PREFIX}state/block/4/0000000000000000000000000a09ff00-26", "mine", "unreadable"),
        (f"{PREFIX}lease/x/y", "[]", "not a JSON object"),
        (f"{PREFIX}mirror/x", '{"schema": 99}', "schema 99, not 1"),
    ],
)
def test_a_foreign_or_edited_key_is_reported_and_left_alone(
    place: Site, key: str, value: str, why: str
) -> None:
    place.etcd.ctl("put", key, "--", value)
    try:
        done = place.isthmus("ipam", "check", "--json", "--fix")
        found = json.loads(done.stdout)["findings"]
        left = place.etcd.ctl("get", key, "--print-value-only").stdout.strip()

        assert done.returncode == 1
        assert [(one["kind"], one["mend"]) for one in found if one["subject"] == key] == [
            ("foreign", "")
        ]
        assert why in next(one["text"] for one in found if one["subject"] == key)
        assert left == value
    finally:
        place.etcd.ctl("del", key)


def test_a_configuration_edited_by_hand_stops_changes_and_claims_and_nothing_else(
    place: Site,
) -> None:
    key = f"{PREFIX}state/config"
    good = place.etcd.ctl("get", key, "--print-value-only").stdout.strip()
    place.etcd.ctl("put", key, "--", good.replace("10.9.0.0/16", "10.9.0.1/16"))
    try:
        assert "edited by hand" in refused(place, "settings", "--silence-s", "5")
        assert f"{key} cannot be read" in refused(place, "pools")
        found = json.loads(place.isthmus("ipam", "check", "--json").stdout)["findings"]
        assert {"orphan", "overlap"}.isdisjoint(one["kind"] for one in found)
        with pytest.raises(Refused, match="configuration in the store cannot be read"):
            asyncio.run(place.ask(place.signer.node("a"), "Claim", claim("a", "z")))
        asyncio.run(place.ask(place.signer.node("a"), "Register", register("a")))
    finally:
        place.etcd.ctl("put", key, "--", good)
    assert len(asyncio.run(join(place, "b"))) == 2
