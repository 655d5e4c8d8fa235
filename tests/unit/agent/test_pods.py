from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest

from agent.known import Annotations, Known, KnownPod
from agent.pods import CannotSay, Pods, known_pod, wanted
from cni.args import Pod
from cni.errors import CNIError
from cni.wishes import ADDRESS, POOL, Wishes
from kube import objects

WEB = Pod(namespace="shop", name="web", uid="p-1")
BLUE = {POOL: "blue"}


class API:
    """What is asked of the API server; *away* is why it cannot say."""

    def __init__(
        self, pod: KnownPod | None = None, of_namespace: Annotations | None = None
    ) -> None:
        self.pod, self.of_namespace = pod, of_namespace
        self.away = ""
        self.asked: list[str] = []

    def ask_pod(self, namespace: str, name: str, within_s: float) -> KnownPod | None:
        return self._ask(f"{namespace}/{name}", self.pod)

    def ask_namespace(self, name: str, within_s: float) -> Annotations | None:
        return self._ask(name, self.of_namespace)

    def _ask(self, what: str, answer: Any) -> Any:
        self.asked.append(what)
        if self.away:
            raise CannotSay(self.away)
        return answer


def wishes(
    api: API,
    *,
    pods: dict[str, KnownPod] | None = None,
    namespaces: dict[str, Annotations] | None = None,
    kept: Known | None = None,
    pod: Pod = WEB,
) -> Wishes:
    known = Pods(pods or {}, namespaces or {}, kept or Known(), api.ask_pod, api.ask_namespace)
    return known.wishes(pod, within_s=1.0)


def seen(uid: str = "p-1", **annotations: str) -> dict[str, KnownPod]:
    return {"shop/web": KnownPod(uids=(uid,), annotations=annotations or BLUE)}


def test_what_the_copies_know_is_not_asked_for() -> None:
    api = API()
    api.away = "not reached"

    assert wishes(api, pods=seen(), namespaces={"shop": {}}) == Wishes(pools=("blue",))
    assert api.asked == []


def test_a_pod_that_they_do_not_know_yet_is_asked_for() -> None:
    api = API(KnownPod(uids=("p-1",), annotations={ADDRESS: "10.0.0.5"}), BLUE)

    assert wishes(api) == Wishes(pools=("blue",), addresses=(ip_address("10.0.0.5"),))
    assert api.asked == ["shop/web", "shop"]


def test_one_that_had_the_name_before_is_not_taken_for_it() -> None:
    api = API(KnownPod(uids=("p-1",), annotations={POOL: "red"}))

    assert wishes(api, pods=seen("p-0"), namespaces={"shop": {}}).pools == ("red",)


@pytest.mark.parametrize("there", [None, KnownPod(uids=("p-9",), annotations=BLUE)])
def test_a_pod_that_there_is_not_asks_for_nothing(there: KnownPod | None) -> None:
    assert wishes(API(there), namespaces={"shop": {}}) == Wishes()


def test_a_runtime_that_tells_no_uid_means_whoever_has_the_name() -> None:
    pod = Pod(namespace="shop", name="web")

    assert wishes(API(), pods=seen(), namespaces={"shop": {}}, pod=pod).pools == ("blue",)


def test_while_the_server_is_away_what_was_kept_counts() -> None:
    api = API()
    api.away = "not reached"
    kept = Known(pods=seen(), namespaces={"shop": {ADDRESS: "ignored"}})

    assert wishes(api, kept=kept).pools == ("blue",)


def nobody(api: API) -> None:
    wishes(api)


def namespace_alone(api: API) -> None:
    wishes(api, pods=seen())


def another(api: API) -> None:
    wishes(api, kept=Known(pods=seen("p-0"), namespaces={"shop": {}}))


@pytest.mark.parametrize("ask", [nobody, namespace_alone, another])
def test_where_nobody_can_say_the_kubelet_tries_again(ask: Callable[[API], None]) -> None:
    api = API()
    api.away = "https://10.0.0.1:6443: not reached"

    with pytest.raises(CNIError, match="what pod shop/web asks for is not known") as caught:
        ask(api)
    assert (caught.value.code, caught.value.details) == (11, api.away)


def test_of_a_pod_what_is_for_us_is_kept_and_both_uids_of_a_static_one() -> None:
    said = {POOL: "blue", "other": "x" * 1000, "kubernetes.io/config.hash": "h-1"}
    pod = objects.Pod(metadata=objects.Meta(name="a", uid="u-1", annotations=said))

    assert known_pod(pod) == KnownPod(uids=("u-1", "h-1"), annotations=BLUE)
    assert known_pod(objects.Pod(metadata=objects.Meta(uid="u-2"))).uids == ("u-2",)
    assert wanted(None) is wanted({})


def test_a_pods_user_is_told_what_is_not_heeded_and_the_rest_is() -> None:
    said: list[str] = []
    unknown = {"isthmus.dev/pol": "x", POOL: "blue"}
    known = Pods(
        {"shop/web": KnownPod(uids=("p-1",), annotations=unknown)},
        {"shop": {}},
        Known(),
        API().ask_pod,
        API().ask_namespace,
        tell=lambda pod, message: said.append(f"{pod.name}: {message}"),
    )

    found = known.wishes(WEB, within_s=1.0)

    assert found.pools == ("blue",)
    assert said == [
        "web: annotation isthmus.dev/pol of pod shop/web is not known: did you mean "
        "isthmus.dev/pool?"
    ]


def test_annotations_that_may_be_meant_for_us_are_kept() -> None:
    assert wanted({"isthmus.dev/pol": "x", "other": "y"}) == {"isthmus.dev/pol": "x"}
