"""Every number a CNI error can carry, and the exceptions that carry them.

Codes 1 to 99 are the specification's (SPEC.md 1.1.0, "Error"), 8 and 999 its Go library's;
those from 100 on are ours.
"""

import json
from enum import IntEnum


class ErrorCode(IntEnum):
    """What went wrong, as a runtime or an operator reads it."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    DECODING_FAILURE = 6
    INVALID_CONFIG = 7
    OWN_NAMESPACE = 8
    TRY_AGAIN_LATER = 11
    NOT_AVAILABLE = 50
    LIMITED_CONNECTIVITY = 51
    NO_FREE_ADDRESS = 100
    ADDRESS_IN_USE = 101
    DATAPLANE = 102
    INTERFACE_EXISTS = 103
    CHECK_FAILED = 104
    INTERNAL = 999


class CNIError(Exception):
    """An answer other than success: *code*, one line of *msg*, and optional *details*.

    *code* is a plain integer because a delegate's error is passed on with its own number.
    """

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg if not details else f"{msg}: {details}")
        self.code = int(code)
        self.msg = msg
        self.details = details


def error_document(error: CNIError, cni_version: str) -> bytes:
    """Render *error* for standard output (SPEC.md 1.1.0, "Error"), in ASCII, whatever it holds."""
    document = {"cniVersion": cni_version, "code": error.code, "msg": error.msg}
    if error.details:
        document["details"] = error.details
    return json.dumps(document, separators=(",", ":")).encode()
