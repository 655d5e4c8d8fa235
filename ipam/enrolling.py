"""How an agent gets its certificate of ipamd, which it knows by the authority alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc import aio

from ipam.channel import IpamdAway, name_options, translated
from ipam.errors import IPAMError
from ipam.refusals import NotReady
from ipam.rpc import ipamd_pb2 as pb
from ipam.rpc.ipamd_pb2_grpc import EnrolmentStub
from ipam.tls import BadCredentials

_WITHIN_S = 15.0
_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """*node* is who ipamd says we are."""

    certificate: bytes
    node: str
    renew_after_s: float


async def enroll(
    endpoints: Sequence[str], request: bytes, *, token: Path, ca: Path, server_name: str
) -> Enrolled:
    """Ask one ipamd after another to certify the key of *request*.

    Raises IPAMError: IpamdAway and NotReady pass, NotAllowed does not by itself.
    """
    message = pb.EnrollRequest(token=_text(token), request=request)
    trusted = grpc.ssl_channel_credentials(_text(ca).encode())
    errors: list[IPAMError] = []
    for endpoint in endpoints:
        options = [*_OPTIONS, *name_options(server_name)]
        async with aio.secure_channel(endpoint, trusted, options=options) as channel:
            try:
                reply = await EnrolmentStub(channel).Enroll(message, timeout=_WITHIN_S)
            except aio.AioRpcError as exc:
                errors.append(translated(exc, endpoint))
                if not isinstance(errors[-1], IpamdAway | NotReady):
                    raise errors[-1] from exc
                continue
        return Enrolled(
            certificate=reply.certificate,
            node=reply.node,
            renew_after_s=float(reply.renew_after_s),
        )
    kind = NotReady if any(isinstance(error, NotReady) for error in errors) else IpamdAway
    raise kind("; ".join(map(str, errors)) or "it is not known yet where ipamd is")


def _text(path: Path) -> str:
    """Raises BadCredentials."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise BadCredentials(f"{path}: {getattr(exc, 'strerror', None) or 'not text'}") from exc
