"""Which namespaces are refused, and in whose words."""

import errno
import os
from dataclasses import replace

import pytest

from cni.environment import Call, Verb
from cni.errors import CNIError
from cni.sandbox import open_sandbox, refuse_own_namespace
from dataplane.netns import own_identity
from tests.unit.cni.fakes import BLUE, World

OWN = "/proc/thread-self/ns/net"


def call(netns: str) -> Call:
    return Call(command=Verb.ADD, container_id="c1", ifname="eth0", netns=netns)


def test_a_namespace_of_another_is_nobodys_own(world: World) -> None:
    own = own_identity()
    node = replace(world.node, namespace=own)
    for netns in ("", BLUE, "/etc/hostname", "a\0b"):
        refuse_own_namespace(world.request("ADD", {}, netns=netns), call(netns), node)

    with pytest.raises(CNIError):
        refuse_own_namespace(world.request("ADD", {}, netns=OWN), call(OWN), node)


def test_the_descriptor_counts_where_the_launcher_sent_one(world: World) -> None:
    node = replace(world.node, namespace=own_identity())
    fd = os.open(OWN, os.O_PATH)
    try:
        request = world.request("ADD", {}, netns_fd=fd)
        with pytest.raises(CNIError) as caught:
            refuse_own_namespace(request, call(BLUE), node)
    finally:
        os.close(fd)

    assert caught.value.code == 8
    assert caught.value.msg == "plugin's netns and netns from CNI_NETNS should not be the same"


def test_what_cannot_be_stated_is_not_our_own(world: World) -> None:
    node = replace(world.node, namespace=own_identity())

    refuse_own_namespace(world.request("ADD", {}, netns_fd=1 << 20), call(BLUE), node)

    assert world.kernel.steps == []


def test_a_sandbox_is_opened_by_path(world: World) -> None:
    with open_sandbox(world.request("ADD", {}), call(BLUE), world.node) as pod:
        assert pod.cookie == 11


def test_what_the_launcher_could_not_open_is_told_in_its_words(world: World) -> None:
    request = world.request("ADD", {}, netns_errno=errno.EACCES)

    with pytest.raises(CNIError) as caught:
        open_sandbox(request, call(BLUE), world.node)

    assert (caught.value.code, caught.value.msg) == (
        4,
        f'failed to open netns "{BLUE}": Permission denied',
    )
    assert caught.value.details == "CNI_NETNS must be the path of a network namespace"


def test_what_we_could_not_open_is_told_too(world: World) -> None:
    with pytest.raises(CNIError, match="no-such-red") as caught:
        open_sandbox(world.request("ADD", {}), call("/run/netns/no-such-red"), world.node)

    assert caught.value.code == 4
