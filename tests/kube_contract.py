"""What any API server does for us: asserted of the fake in unit tests, of a real one elsewhere.

A site has a client that may do everything, and tells what it cannot do by HTTP alone.
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from kube.client import Client, EventKind, PatchKind
from kube.errors import Conflict, Denied, Expired, NotFound, Rejected, Unauthorized
from kube.objects import Node, Object, TokenReview
from kube.reflector import Reflector, Selection

NODES, NAMESPACES = "/api/v1/nodes", "/api/v1/namespaces"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """*stranger* has a token that nobody knows, *guest* one that may do nothing.

    *oldest*: a revision of which the server knows nothing any more.
    """

    client: Client
    stranger: Client
    guest: Client
    oldest: str = "1"


async def node(site: Site, name: str) -> Node:
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
    return await site.client.create(NODES, body, Node)


async def namespace(site: Site, name: str) -> Object:
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    return await site.client.create(NAMESPACES, body, Object)


async def listed(site: Site, path: str = NODES, **params: str) -> tuple[list[str], set[str], str]:
    """Names, revisions of the pages, and the last of these."""
    names: list[str] = []
    revisions: list[str] = []
    async with aclosing(site.client.pages(path, Object, params=params)) as pages:
        async for page in pages:
            names += [item.metadata.name for item in page.items or ()]
            revisions.append(page.metadata.version)
    return names, set(revisions), revisions[-1]


async def pages_are_all_of_one_revision(site: Site) -> None:
    for at in range(1003):
        await namespace(site, f"page-{at:04}")

    names, revisions, _ = await listed(site, NAMESPACES)

    assert [name for name in names if name.startswith("page-")] == [
        f"page-{at:04}" for at in range(1003)
    ]
    assert len(revisions) == 1


async def a_watch_goes_on_from_a_list(site: Site) -> None:
    await node(site, "watched-a")
    _, _, revision = await listed(site)
    made = await node(site, "watched-b")
    labels = {"metadata": {"labels": {"zone": "east"}}}
    await site.client.patch(f"{NODES}/watched-b", labels, Node)
    events: list[tuple[EventKind, str, Any]] = []
    watch = site.client.watch(NODES, Node, after=revision, for_s=30)

    async with asyncio.timeout(20), aclosing(watch) as stream:
        async for kind, item in stream:
            events.append((kind, item.metadata.name, item.metadata.labels))
            if len(events) == 2:
                break

    assert made.metadata.uid
    assert [event[:2] for event in events] == [
        (EventKind.ADDED, "watched-b"),
        (EventKind.MODIFIED, "watched-b"),
    ]
    assert events[1][2]["zone"] == "east"


async def a_watch_ends_when_its_time_is_over(site: Site) -> None:
    _, _, revision = await listed(site)

    async with asyncio.timeout(20):
        async for kind, _ in site.client.watch(NODES, Node, after=revision, for_s=1):
            assert kind is EventKind.BOOKMARK


async def one_node_alone_is_selected_by_its_name(site: Site) -> None:
    for name in ("field-a", "field-b"):
        await node(site, name)

    names, _, _ = await listed(site, fieldSelector="metadata.name=field-b")

    assert names == ["field-b"]


async def an_old_revision_is_expired(site: Site) -> None:
    await node(site, "some")

    with pytest.raises(Expired):
        await anext(site.client.watch(NODES, Node, after=site.oldest, for_s=5))


async def a_patch_of_an_older_object_is_a_conflict(site: Site) -> None:
    made = await node(site, "patched")
    old = made.metadata.resource_version
    await site.client.patch(f"{NODES}/patched", {"metadata": {"labels": {"a": "b"}}}, Node)

    with pytest.raises(Conflict):
        await site.client.patch(
            f"{NODES}/patched", {"metadata": {"resourceVersion": old}, "spec": {}}, Node
        )


async def conditions_are_merged_by_type(site: Site) -> None:
    await node(site, "condition")

    for kind, status in (("A", "True"), ("B", "False"), ("A", "False")):
        patch = {"status": {"conditions": [{"type": kind, "status": status}]}}
        found = await site.client.patch(
            f"{NODES}/condition/status", patch, Node, by=PatchKind.STRATEGIC
        )

    assert sorted((one.type, one.status) for one in found.status.conditions or ()) == [
        ("A", "False"),
        ("B", "False"),
    ]


async def taints_are_replaced_as_a_whole(site: Site) -> None:
    await node(site, "tainted")
    taints = [{"key": key, "effect": "NoSchedule"} for key in ("a", "b")]
    await site.client.patch(f"{NODES}/tainted", {"spec": {"taints": taints}}, Node)

    found = await site.client.patch(f"{NODES}/tainted", {"spec": {"taints": taints[1:]}}, Node)

    assert [taint.key for taint in found.spec.taints or ()] == ["b"]


async def pod_cidrs_are_set_once(site: Site) -> None:
    await node(site, "cidrs")
    first = {"spec": {"podCIDR": "10.9.0.0/24", "podCIDRs": ["10.9.0.0/24", "fd09::/64"]}}
    other = {"spec": {"podCIDR": "10.8.0.0/24", "podCIDRs": ["10.8.0.0/24"]}}

    found = await site.client.patch(f"{NODES}/cidrs", first, Node)

    assert found.spec.pod_cidrs == ("10.9.0.0/24", "fd09::/64")
    with pytest.raises(Rejected, match="podCIDR"):
        await site.client.patch(f"{NODES}/cidrs", other, Node)


async def what_is_not_there_is_not_found(site: Site) -> None:
    with pytest.raises(NotFound, match="nobody"):
        await site.client.get(f"{NODES}/nobody", Node)


async def what_is_there_already_is_a_conflict(site: Site) -> None:
    await node(site, "twice")

    with pytest.raises(Conflict):
        await node(site, "twice")


async def a_stranger_is_unauthorized_and_a_guest_denied(site: Site) -> None:
    with pytest.raises(Unauthorized):
        await site.stranger.get(f"{NODES}/some", Node)
    with pytest.raises(Denied):
        await site.guest.get(f"{NODES}/some", Node)


async def a_token_that_is_none_is_not_authenticated(site: Site) -> None:
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": "none", "audiences": ["isthmus-ipamd"]},
    }

    found = await site.client.create(
        "/apis/authentication.k8s.io/v1/tokenreviews", body, TokenReview
    )

    assert not found.status.authenticated


async def a_reflector_has_what_there_is(site: Site) -> None:
    await node(site, "there")
    reflector = Reflector(
        site.client,
        Selection(path=NODES, kind=Node, keep=lambda node: node.metadata.name),
        random=Random(1),
        changed=lambda key, kept: news.put_nowait((key, kept)),
    )
    news: asyncio.Queue[tuple[str, str | None]] = asyncio.Queue()

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        following = tasks.create_task(reflector.run())
        await reflector.synced.wait()
        await node(site, "later")
        while await news.get() != ("later", "later"):
            pass
        following.cancel()

    assert {"there", "later"} <= set(reflector.objects)


CONTRACT: tuple[Callable[[Site], Any], ...] = (
    pages_are_all_of_one_revision,
    a_watch_goes_on_from_a_list,
    a_watch_ends_when_its_time_is_over,
    one_node_alone_is_selected_by_its_name,
    an_old_revision_is_expired,
    a_patch_of_an_older_object_is_a_conflict,
    conditions_are_merged_by_type,
    taints_are_replaced_as_a_whole,
    pod_cidrs_are_set_once,
    what_is_not_there_is_not_found,
    what_is_there_already_is_a_conflict,
    a_stranger_is_unauthorized_and_a_guest_denied,
    a_token_that_is_none_is_not_authenticated,
    a_reflector_has_what_there_is,
)
