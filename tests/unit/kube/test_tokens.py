import asyncio
from typing import Any

import pytest

from kube.client import Client
from kube.errors import Away, KubeError
from kube.tokens import Bearer, NotAuthenticated, review
from tests.kube_api import FakeAPI

NODE = "authentication.kubernetes.io/node-name"
UID = "authentication.kubernetes.io/node-uid"
GOOD: dict[str, Any] = {
    "audiences": ["isthmus-ipamd"],
    "user": {
        "username": "system:serviceaccount:isthmus:agent",
        "extra": {NODE: ["node-1"], UID: ["u-1"]},
    },
}


def reviewed(known: dict[str, Any] | None, token: str = "good") -> Bearer:
    async def ask() -> Bearer:
        async with FakeAPI(reviews={"good": known} if known else {}) as api:
            client = Client(api.access)
            try:
                return await review(client, token, "isthmus-ipamd")
            finally:
                client.close()

    return asyncio.run(ask())


def test_a_token_of_a_pod_says_account_and_node() -> None:
    assert reviewed(GOOD) == Bearer(account="isthmus/agent", node="node-1", node_uid="u-1")


def test_a_token_of_no_pod_has_no_node() -> None:
    user = {"username": "system:serviceaccount:isthmus:agent"}

    assert reviewed({**GOOD, "user": user}).node == ""


def test_a_token_that_is_expired_or_forged_is_refused() -> None:
    with pytest.raises(NotAuthenticated, match="invalid bearer token"):
        reviewed(None)


def test_a_token_for_another_audience_is_refused() -> None:
    with pytest.raises(NotAuthenticated, match="audiences"):
        reviewed({**GOOD, "audiences": ["https://kubernetes.default.svc"]})


@pytest.mark.parametrize("name", ["admin", "system:node:a", "system:serviceaccount:a", ""])
def test_who_is_no_service_account_is_refused(name: str) -> None:
    with pytest.raises(NotAuthenticated, match="no service account"):
        reviewed({**GOOD, "user": {"username": name}})


@pytest.mark.parametrize("token", ["", "a\nb", "é", "a" * 20_000])
def test_what_is_no_token_is_not_even_asked(token: str) -> None:
    with pytest.raises(NotAuthenticated, match="no token"):
        reviewed(GOOD, token)


def test_a_node_that_is_named_twice_is_none() -> None:
    user = {**GOOD["user"], "extra": {NODE: ["node-1", "node-2"], UID: ["u-1"]}}

    assert reviewed({**GOOD, "user": user}).node == ""


def test_a_server_that_cannot_say_is_no_refusal() -> None:
    async def ask() -> KubeError:
        async with FakeAPI(trouble=lambda asked: 503) as api:
            client = Client(api.access)
            with pytest.raises(Away) as caught:
                await review(client, "good", "isthmus-ipamd")
            client.close()
            return caught.value

    assert "trouble" in str(asyncio.run(ask()))
