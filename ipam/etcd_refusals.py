"""What a failed call to etcd means: whether it was carried out, and what to do about it.  Pure.

The texts are those of etcd's rpctypes (3.4 to 3.6) and of gRPC's core.
"""

from dataclasses import dataclass
from enum import StrEnum

from grpc import StatusCode

from ipam.kv import Denied, Identity, KVError, LeaseGone, OutOfSpace

LONGEST_REASON = 400


class Meaning(StrEnum):
    """UNSENT: this member did nothing, another may.  LOST: it may have been carried out.

    TOKEN: nothing was done, and a new token may help.  FINAL: nothing was done, and every member
    would say the same.
    """

    UNSENT = "unsent"
    LOST = "lost"
    TOKEN = "token"
    FINAL = "final"


@dataclass(frozen=True, slots=True)
class Failure:
    """What one member answered, or gRPC in its place; *is_sent* False: it never got the call.

    *foreign*: it is a member of that cluster, and not of ours; whatever it did, it did there.
    """

    endpoint: str
    code: StatusCode
    details: str
    is_sent: bool = True
    foreign: Identity | None = None

    @property
    def meaning(self) -> Meaning:
        if not self.is_sent or self.foreign:
            return Meaning.UNSENT
        if self.code is StatusCode.UNAUTHENTICATED or any(
            text in self.details for text in _STALE_TOKEN
        ):
            return Meaning.TOKEN
        if any(text in self.details for text in _UNSENT):
            return Meaning.UNSENT
        return Meaning.FINAL if self.code in _FINAL else Meaning.LOST

    @property
    def is_passing(self) -> bool:
        """Whether the same member may well do it in a moment: an election, a burst."""
        return any(text in self.details for text in _PASSING)

    @property
    def reason(self) -> str:
        """For a person: which member, what was wrong, what was expected."""
        for text, explanation in _EXPLAINED:
            if text.lower() in self.details.lower():
                return f"{self.endpoint}: {explanation} ({_short(self.details)})"
        return f"{self.endpoint}: {_short(self.details) or self.code.name}"

    def error(self) -> KVError:
        """For FINAL and TOKEN: what to raise."""
        if self.code in _DENIED or any(text in self.details for text in _DENIED_TEXTS):
            return Denied(f"etcd at {self.reason}")
        if "database space exceeded" in self.details:
            return OutOfSpace(f"etcd at {self.reason}")
        if "requested lease not found" in self.details:
            return LeaseGone(f"etcd at {self.reason}")
        return KVError(f"etcd at {self.reason}")


def is_compacted(failure: Failure) -> bool:
    return "required revision has been compacted" in failure.details


def is_of_the_future(failure: Failure) -> bool:
    return "required revision is a future revision" in failure.details


_FINAL = frozenset(
    {
        StatusCode.INVALID_ARGUMENT,
        StatusCode.NOT_FOUND,
        StatusCode.PERMISSION_DENIED,
        StatusCode.FAILED_PRECONDITION,
        StatusCode.OUT_OF_RANGE,
        StatusCode.RESOURCE_EXHAUSTED,
        StatusCode.UNAUTHENTICATED,
        StatusCode.UNIMPLEMENTED,
    }
)

_DENIED = frozenset({StatusCode.PERMISSION_DENIED, StatusCode.UNAUTHENTICATED})
_DENIED_TEXTS = (
    "authentication failed",
    "user name is empty",
    "user name not found",
    "revision of auth store is old",
)

# The second: users or roles changed since the token was made.  The third: authentication was
# enabled since then.  Both come as INVALID_ARGUMENT.
_STALE_TOKEN = ("invalid auth token", "revision of auth store is old", "user name is empty")

_PASSING = ("etcdserver: no leader", "etcdserver: too many requests")

# Refused by the transport before the request left, or by the member before it was proposed.
_UNSENT = (
    *_PASSING,
    "failed to connect to all addresses",
    "etcdserver: rpc not supported for learner",
    "etcdserver: corrupt cluster",
)

# The first that fits.  Parts of TLS errors are gRPC's and BoringSSL's words.
_EXPLAINED = (
    ("Connection refused", "nothing listens there"),
    ("DNS resolution failed", "its name is not known"),
    ("errors resolving", "its name is not known"),
    (
        "CERTIFICATE_VERIFY_FAILED: certificate has expired",
        "its certificate has expired, by this machine's clock",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "its certificate is not signed by an authority in the configured CA file",
    ),
    (
        "Hostname Verification Check failed",
        "its certificate is for another name than the endpoint's",
    ),
    ("Unwrap failed", "it refuses our client certificate, or wants one and none is configured"),
    ("Failed to create security handshaker", "the CA file, certificate or key is not usable PEM"),
    ("Handshake read failed (Socket closed)", "it does not speak TLS; is it an http:// endpoint"),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS; is it an http:// endpoint"),
    ("Handshake read failed", "it takes no connection in time"),
    ("before receiving SETTINGS", "it takes no connection in time"),
    ("Socket closed", "it closed the connection, as a member with TLS does to http:// endpoints"),
    ("authentication failed", "it does not know this user and password"),
    ("user name is empty", "it wants a user and a password, and none is configured"),
    ("permission denied", "the user, or the client certificate, has no right to these keys"),
    ("database space exceeded", "its database is full: compact, defragment, disarm the alarm"),
    ("etcdserver: no leader", "it has no leader: fewer than half of the members are reachable"),
    ("too many requests", "it is overloaded"),
    ("request timed out", "it did not reach enough of the other members in time"),
)


def _short(details: str) -> str:
    text = " ".join(details.split())
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"
