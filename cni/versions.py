"""The protocol versions we speak, and which verb came with which."""

import json

from cni.environment import Verb
from cni.errors import CNIError, ErrorCode

SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
OLDEST, NEWEST = SUPPORTED[0], SUPPORTED[-1]

# What VERSION prints.  It ignores its input as the Go library does: some runtimes send none.
VERSION_DOCUMENT = json.dumps(
    {"cniVersion": NEWEST, "supportedVersions": SUPPORTED}, separators=(",", ":")
).encode()

_SINCE = {Verb.CHECK: "0.4.0", Verb.GC: "1.1.0", Verb.STATUS: "1.1.0"}


def at_least(version: str, floor: str) -> bool:
    """Say whether *version* is *floor* or newer; both are of SUPPORTED."""
    return SUPPORTED.index(version) >= SUPPORTED.index(floor)


def check_version(version: str, verb: Verb) -> None:
    """Raise CNIError 1 for a version that is not ours, or one that has no such verb.

    A version is looked up, never compared: "1.0" is no version (SPEC.md, "Version").
    """
    if version not in SUPPORTED:
        ours = " ".join(f'"{known}"' for known in SUPPORTED)
        raise CNIError(
            ErrorCode.INCOMPATIBLE_VERSION,
            "incompatible CNI versions",
            f"config is {json.dumps(version)}, plugin supports [{ours}]",
        )
    since = _SINCE.get(verb, OLDEST)
    if not at_least(version, since):
        raise CNIError(
            ErrorCode.INCOMPATIBLE_VERSION,
            f"config version does not allow {verb}",
            f'config is "{version}", {verb} came with "{since}"',
        )
