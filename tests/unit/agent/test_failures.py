import json
from typing import Any

import pytest

from agent.failures import told
from cni.request import Request, Response
from kube.events import About, Severity, Told

POD = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=p-1"
ABOUT = About(kind="Pod", name="web", namespace="shop", uid="p-1")


def event(status: int = 1, answer: Any = None, **environment: str) -> Told | None:
    said = {"CNI_COMMAND": "ADD", "CNI_ARGS": POD, "CNI_CONTAINERID": "c" * 64, **environment}
    request = Request(program="isthmus", environment=said, stdin=b"", started_ns=0, boot_id="b")
    document = {"code": 100, "msg": "no free address in 10.0.0.0/24"} if answer is None else answer
    out = document if isinstance(document, bytes) else json.dumps(document).encode()
    return told(request, Response(status, out))


def test_an_add_that_failed_is_told_with_its_reason() -> None:
    assert event() == Told(
        about=ABOUT, reason="NoFreeAddress", message="no free address in 10.0.0.0/24"
    )
    assert event() == event(CNI_CONTAINERID="d" * 64)


def test_the_next_attempt_of_a_kubelet_says_the_same() -> None:
    answer = {"code": 11, "msg": f"shop/{'c' * 64}/eth0 is being worked on", "details": "wait"}
    found = event(answer=answer)

    assert found is not None
    assert found.message == "shop/(sandbox)/eth0 is being worked on: wait"
    assert (found.reason, found.severity) == ("NetworkNotReady", Severity.WARNING)


@pytest.mark.parametrize(
    ("status", "answer", "environment"),
    [
        (0, None, {}),
        (1, None, {"CNI_COMMAND": "DEL"}),
        (1, None, {"CNI_ARGS": ""}),
        (1, None, {"CNI_ARGS": "nonsense"}),
        (1, None, {"CNI_ARGS": "K8S_POD_NAME=web"}),
        (1, {"code": 999, "msg": "internal"}, {}),
        (1, {"code": 4711}, {}),
        (1, b"not JSON", {}),
        (1, [], {}),
    ],
)
def test_what_is_no_failure_of_a_pod_is_not_told(
    status: int, answer: Any, environment: dict[str, str]
) -> None:
    assert event(status, answer, **environment) is None
