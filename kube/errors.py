"""What can go wrong with the API server; a subclass is what a caller does differently about."""


class KubeError(Exception):
    """Root of these errors; the message names the server and what it said."""


class BadAccess(KubeError):
    """A kubeconfig, token or certificate that cannot be used; the message names the file."""


class Away(KubeError):
    """No answer: not reached, ended in the middle, too slow, or too busy (429, 5xx)."""


class Unauthorized(KubeError):
    """401: the server does not know our token or certificate."""


class Denied(KubeError):
    """403: we are known, and may not do this; mostly a missing rule of RBAC."""


class NotFound(KubeError):
    """404."""


class Conflict(KubeError):
    """409: it was changed since we looked, or is there already."""


class Expired(KubeError):
    """410: what we want to go on from is forgotten: list anew."""


class Rejected(KubeError):
    """400, 422 and the rest: the server understood, and will never accept it."""


class Malformed(KubeError):
    """An answer that is not what the API promises, or larger than we take."""


_BY_STATUS: dict[int, type[KubeError]] = {
    401: Unauthorized,
    403: Denied,
    404: NotFound,
    409: Conflict,
    410: Expired,
    429: Away,
}


def error_for(status: int, text: str) -> KubeError:
    """The error that an answer of *status* means."""
    kind = _BY_STATUS.get(status, Away if status >= 500 else Rejected)
    return kind(text)
