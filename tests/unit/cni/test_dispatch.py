"""One raw request in, one raw answer out, whatever happens; and the order of checks."""

import json
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from ipaddress import ip_address

import pytest

from cni.dispatch import LIMITS, as_cni_error, failure, serve
from cni.environment import Verb
from cni.errors import CNIError
from cni.request import Response
from dataplane.errors import (
    DataplaneError,
    DumpInterrupted,
    InvalidNamespace,
    NetlinkError,
    NftError,
    NftUnavailable,
)
from dataplane.links import InterfaceExists
from ipam.errors import (
    AddressUnavailable,
    Conflict,
    InvalidRange,
    NoFreeAddress,
    StoreDamaged,
    StoreUnavailable,
)
from tests.unit.cni.fakes import World, answer

CODES = [
    (NoFreeAddress("no free address in 10.9.0.0/30"), 100),
    (AddressUnavailable(ip_address("10.9.0.2"), "is held by b"), 101),
    (StoreUnavailable("disk full"), 11),
    (StoreDamaged("not ours"), 11),
    (Conflict("another's"), 11),
    (InvalidRange("empty"), 7),
    (InterfaceExists("eth0"), 103),
    (DumpInterrupted("too fast"), 11),
    (NftUnavailable("no nft"), 102),
    (NftError("syntax"), 102),
    (NetlinkError(1, "netlink message 16"), 102),
    (InvalidNamespace("no"), 102),
    (DataplaneError("no"), 102),
    (FutureTimeout("the disk"), 11),
    (OSError(24, "Too many open files"), 11),
    (CNIError(42, "the delegate's own"), 42),
]


@pytest.mark.parametrize(("raised", "code"), CODES, ids=[type(e).__name__ for e, _ in CODES])
def test_every_error_has_its_number_and_keeps_its_words(raised: Exception, code: int) -> None:
    found = as_cni_error(raised)

    assert found.code == code
    assert found.msg == (raised.msg if isinstance(raised, CNIError) else str(raised))


def test_a_wait_that_ended_says_so() -> None:
    assert as_cni_error(FutureTimeout()).msg == "out of time"


def test_a_bug_is_999_and_tells_the_runtime_nothing(caplog: pytest.LogCaptureFixture) -> None:
    found = answer(failure(KeyError("secret")))

    assert (found.status, found.code, found.msg) == (1, 999, "internal error")
    assert "secret" not in json.dumps(found.document)
    assert caplog.records[0].exc_info is not None


def test_a_bug_in_a_verb_is_still_one_answer(world: World) -> None:
    world.node = replace(world.node, open_sandbox=lambda path, handle: 1 / 0)  # type: ignore[arg-type,return-value]

    found = world.add()

    assert found.code == 999


@pytest.mark.parametrize("version", ["0.1.0", "0.4.0", "1.0.0", "1.1.0"])
def test_an_error_is_in_the_configurations_version(world: World, version: str) -> None:
    found = world.add(world.conf(cniVersion=version), netns="/run/netns/no-such-red")

    assert found.document is not None
    assert found.document["cniVersion"] == version


@pytest.mark.parametrize("version", ["9.9.9", "1.0", "abc"])
def test_a_version_that_is_not_ours_is_1_whatever_the_verb(world: World, version: str) -> None:
    for verb in ("ADD", "DEL", "CHECK", "GC", "STATUS"):
        found = world.call(verb, world.conf(cniVersion=version))

        assert (found.code, found.msg) == (1, "incompatible CNI versions")
        assert found.details.startswith(f'config is "{version}", plugin supports ["0.1.0" ')


def test_version_needs_neither_stdin_nor_environment(world: World) -> None:
    request = replace(world.request("VERSION", b"not json"), environment={"CNI_COMMAND": "VERSION"})

    found = answer(serve(request, world.node))

    assert found.status == 0
    assert found.document == {
        "cniVersion": "1.1.0",
        "supportedVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
    }


def test_the_environment_is_judged_before_stdin(world: World) -> None:
    found = world.call("ADD", b"{", container_id="", ifname="")

    assert (found.code, found.msg) == (
        4,
        "required env variables [CNI_CONTAINERID,CNI_IFNAME] missing",
    )


def test_json_is_judged_before_the_name_and_the_name_before_the_version(world: World) -> None:
    assert world.add(b"{").code == 6
    nameless = world.add(world.conf(name="", cniVersion="9.9.9"))
    assert (nameless.code, nameless.msg) == (7, "missing network name")
    odd = world.add(world.conf(name="te%%st", cniVersion="9.9.9"))
    assert (odd.code, odd.msg) == (7, "invalid characters found in network name")
    assert world.call("CHECK", world.conf(cniVersion="9.9.9", mtu="wide")).code == 1


def test_each_program_has_its_own_verbs(world: World) -> None:
    as_ipam = world.call("ADD", program="isthmus-ipam")
    as_link = world.call("ADD", container_id="c2", program="isthmus")
    renamed = world.call("ADD", container_id="c3", ifname="net1", program="isthmus.old")

    for found, has_links in ((as_ipam, False), (as_link, True), (renamed, True)):
        assert found.document is not None
        assert ("interfaces" in found.document) is has_links


def test_every_verb_with_work_has_a_limit_below_the_launchers() -> None:
    waits = {Verb.ADD: 25, Verb.DEL: 12, Verb.CHECK: 25, Verb.GC: 25, Verb.STATUS: 2.5}

    assert set(LIMITS) == set(Verb) - {Verb.VERSION}
    assert all(limit < waits[verb] for verb, limit in LIMITS.items())


def test_a_success_without_a_document_is_nothing_at_all(world: World) -> None:
    assert serve(world.request("DEL", world.conf()), world.node) == Response(0, b"")
