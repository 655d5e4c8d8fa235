"""Whose token this is, by the API server's word (TokenReview, authentication.k8s.io/v1)."""

import re
from dataclasses import dataclass

from kube.client import Client
from kube.errors import KubeError
from kube.objects import TokenReview

REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
NODE_NAME = "authentication.kubernetes.io/node-name"
NODE_UID = "authentication.kubernetes.io/node-uid"
_TOKEN = re.compile(r"[!-~]{1,16384}")


class NotAuthenticated(KubeError):
    """The token is none, of another audience, expired, or its pod is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """*account*: namespace/name of the service account; the node is that of its pod, or ""."""

    account: str
    node: str
    node_uid: str


async def review(client: Client, token: str, audience: str) -> Bearer:
    """Ask whose *token* is, which must have been made for *audience*.

    Raises NotAuthenticated, and KubeError where the API server cannot say.  A server that knows
    nothing of audiences names none, and vouches for nothing (its own audience is another).
    """
    if not _TOKEN.fullmatch(token):
        raise NotAuthenticated("this is no token")
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": [audience]},
    }
    status = (await client.create(REVIEWS, body, TokenReview)).status
    if not status.authenticated:
        raise NotAuthenticated(f"the API server refuses the token: {status.error or 'no reason'}")
    if audience not in (status.audiences or ()):
        raise NotAuthenticated(f"the token is not for audience {audience}")
    kind, _, account = status.user.username.partition(":serviceaccount:")
    if kind != "system" or account.count(":") != 1:
        raise NotAuthenticated(f"{status.user.username!r} is no service account")
    extra = status.user.extra or {}
    return Bearer(
        account=account.replace(":", "/"),
        node=_only(extra.get(NODE_NAME, ())),
        node_uid=_only(extra.get(NODE_UID, ())),
    )


def _only(values: tuple[str, ...]) -> str:
    return values[0] if len(values) == 1 else ""
