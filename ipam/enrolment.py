"""A node's first certificate, and its next: a token of its pod for a signature.

    agent ── token, request ──► ipamd ── TokenReview, Node ──► API server
          ◄── certificate ──────       (who are you, and is that Node still the one?)

The token is a projected one of the agents' service account, made for ipamd alone; the API server
says of which node's pod it is, and the token's word on that node's uid must be true of the Node
that there is.  What is asked of the API server by strangers is bounded.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from grpc import aio

from ipam import signing
from ipam.refusals import Contended, Invalid, NotAllowed, NotReady
from ipam.rpc import ipamd_pb2 as pb
from ipam.server import reader, refusing
from kube.client import Client
from kube.errors import KubeError, NotFound
from kube.nodes import NODES
from kube.objects import Node
from kube.tokens import Bearer, NotAuthenticated, review
from net.settings import word

LONGEST_S = 10.0
MOST_AT_ONCE = 8
MOST_WAITING = 256

_OPTIONS = (
    ("grpc.max_receive_message_length", 64 << 10),
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.max_concurrent_streams", 4),
    ("grpc.max_connection_age_ms", 30_000),  # nobody has more than one thing to ask here
    ("grpc.max_connection_age_grace_ms", 10_000),
    ("grpc.so_reuseport", 0),
)

log = logging.getLogger(__name__)


class Nodes(Protocol):
    """Who vouches for a token, see Kubernetes below."""

    async def bearer(self, token: str) -> Bearer: ...
    async def uid_of(self, node: str) -> str: ...


class Kubernetes:
    """The API server's word; both methods raise NotAllowed, or NotReady where it has none."""

    def __init__(self, client: Client, audience: str) -> None:
        self._client = client
        self._audience = audience

    async def bearer(self, token: str) -> Bearer:
        try:
            return await review(self._client, token, self._audience)
        except NotAuthenticated as exc:
            raise NotAllowed(str(exc)) from exc
        except KubeError as exc:
            raise NotReady(f"the API server cannot say whose token this is: {exc}") from exc

    async def uid_of(self, node: str) -> str:
        try:
            return (await self._client.get(f"{NODES}/{node}", Node)).metadata.uid
        except NotFound as exc:
            raise NotAllowed(f"there is no Node {node}") from exc
        except KubeError as exc:
            raise NotReady(f"the API server cannot say which Node this is: {exc}") from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """For whom is signed: pods of *account* (namespace/name); and for how long."""

    account: str
    life: timedelta = timedelta(days=3)

    @property
    def renew_after_s(self) -> int:
        """A third of it: for the other two the API server may be away."""
        return int(self.life.total_seconds() / 3)


class Enrolment:
    """The one call of the port that needs no certificate."""

    def __init__(
        self,
        nodes: Nodes,
        signer: Callable[[], signing.Signer],
        terms: Terms,
        *,
        now: Callable[[], datetime] = signing.now,
    ) -> None:
        self._nodes = nodes
        self._signer = signer
        self._terms = terms
        self._now = now
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)

    async def Enroll(self, request: pb.EnrollRequest, context: Any) -> pb.EnrollReply:
        async with refusing(context):
            if request is None:
                raise Invalid("the request is no message of this protocol")
            return await self._enroll(request.token, request.request)

    async def _enroll(self, token: str, request: bytes) -> pb.EnrollReply:
        try:
            async with asyncio.timeout(LONGEST_S), self._turns:
                node = await self._node_of(token)
        except TimeoutError:
            raise Contended("too many ask at once, or the API server is slow") from None
        certificate = await asyncio.to_thread(
            lambda: self._signer().node(request, node, now=self._now(), life=self._terms.life)
        )
        log.info("certificate signed", extra={"node": node})
        return pb.EnrollReply(
            certificate=certificate, node=node, renew_after_s=self._terms.renew_after_s
        )

    async def _node_of(self, token: str) -> str:
        """Raises NotAllowed, NotReady."""
        bearer = await self._nodes.bearer(token)
        if bearer.account != self._terms.account:
            raise NotAllowed(
                f"the token is of service account {bearer.account}, not {self._terms.account}"
            )
        if not bearer.node or not bearer.node_uid:
            raise NotAllowed(
                "the token names no node: it must be a projected one of a pod, and the API "
                "server one of Kubernetes 1.30 or newer"
            )
        node = _checked(bearer.node)
        if await self._nodes.uid_of(node) != bearer.node_uid:
            raise NotAllowed(f"Node {node} was deleted and made anew since the token's pod began")
        return node

    def handlers(self) -> Any:
        import grpc

        service = pb.DESCRIPTOR.services_by_name["Enrolment"]
        handler = grpc.unary_unary_rpc_method_handler(
            self.Enroll,
            request_deserializer=reader(pb.EnrollRequest),
            response_serializer=lambda reply: reply.SerializeToString(),
        )
        return grpc.method_handlers_generic_handler(service.full_name, {"Enroll": handler})


def make_server(enrolment: Enrolment) -> aio.Server:
    """A server that has yet to be bound to an address."""
    server = aio.server(options=_OPTIONS, maximum_concurrent_rpcs=MOST_WAITING)
    server.add_generic_rpc_handlers((enrolment.handlers(),))
    return server


def _checked(node: str) -> str:
    try:
        return word(node)
    except ValueError as exc:
        raise NotAllowed(f"the name of node {node!r} {exc}") from exc
