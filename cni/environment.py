"""The environment of one call: what each verb needs, and what the values may look like.

The launcher applies the same rules before it looks for the agent; these hold for the
standalone program, and for an agent that is newer than its launcher.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from cni.errors import CNIError, ErrorCode


class Verb(StrEnum):
    """CNI_COMMAND."""

    ADD = "ADD"
    DEL = "DEL"
    CHECK = "CHECK"
    GC = "GC"
    STATUS = "STATUS"
    VERSION = "VERSION"


_ATTACHMENT = ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")

# In the order in which an error lists them.  CNI_PATH serves a delegate alone; DEL, CHECK and
# STATUS ask for it only when there is one, since a deletion must not fail for want of it.
REQUIRED: Mapping[Verb, tuple[str, ...]] = {
    Verb.ADD: (*_ATTACHMENT, "CNI_PATH"),
    Verb.DEL: ("CNI_CONTAINERID", "CNI_IFNAME"),
    Verb.CHECK: _ATTACHMENT,
    Verb.GC: ("CNI_PATH",),
    Verb.STATUS: (),
    Verb.VERSION: (),
}

MAX_IFNAME = 15  # bytes: IFNAMSIZ without its NUL

IDENTIFIER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")

# unicode.IsSpace of Go; Python's str.isspace has four control characters more.
_SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_FORBIDDEN_IN_IFNAME = re.compile(f"[/:{_SPACES}]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A checked environment.  GC and STATUS have no attachment: its three fields are empty.

    *netns* is CNI_NETNS verbatim, empty where a DEL came without; *args* is CNI_ARGS unparsed.
    """

    command: Verb
    container_id: str = ""
    netns: str = ""
    ifname: str = ""
    args: str = ""
    path: tuple[str, ...] = ()
    netns_override: bool = False


def check(environment: Mapping[str, str]) -> Call:
    """Make a Call of *environment*; CNIError 4 names every missing variable at once.

    For GC and STATUS runtimes set the variables of an attachment to nothing or to anything:
    they are not looked at, and for VERSION nothing but CNI_COMMAND is.
    """
    verb = _verb(environment.get("CNI_COMMAND", ""))
    missing = [name for name in REQUIRED[verb] if not environment.get(name)]
    if missing:
        raise _invalid(
            f"required env variables [{','.join(missing)}] missing", f"{verb} cannot do without"
        )
    if verb is Verb.VERSION:
        return Call(command=verb)
    path = tuple(filter(None, _text(environment, "CNI_PATH").split(":")))
    if verb in (Verb.GC, Verb.STATUS):
        return Call(command=verb, path=path)
    return Call(
        command=verb,
        container_id=_container_id(_text(environment, "CNI_CONTAINERID")),
        netns=_text(environment, "CNI_NETNS"),
        ifname=_ifname(_text(environment, "CNI_IFNAME"), verb),
        args=_text(environment, "CNI_ARGS"),
        path=path,
        netns_override=environment.get("CNI_NETNS_OVERRIDE") in ("TRUE", "true", "1"),
    )


def ifname_fault(name: str) -> str:
    """Why *name*, not empty, can be no interface's, or nothing (the Go library's rules)."""
    if len(name.encode(errors="surrogateescape")) > MAX_IFNAME:
        return f"is longer than {MAX_IFNAME} bytes"
    if name in (".", ".."):
        return "must not be . or .."
    if _FORBIDDEN_IN_IFNAME.search(name):
        return "must not contain / or : or white space"
    return ""


def kernel_fault(name: str) -> str:
    """Why Linux makes no interface *name*, or nothing: settings of all are kept under two such
    names (net/core/sysctl_net_core.c), and % asks for a number (dev_alloc_name)."""
    if name in ("all", "default"):
        return "must not be all or default, which stand for every interface"
    return "must not contain %" if "%" in name else ""


def _verb(command: str) -> Verb:
    if not command:
        raise _invalid("required env variables [CNI_COMMAND] missing")
    try:
        return Verb(command)
    except ValueError:
        raise _invalid(f"unknown CNI_COMMAND: {command}") from None


def _text(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    # Undecodable bytes arrive as lone surrogates, which neither JSON nor the store can hold.
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise _invalid(f"{name} is not valid UTF-8")
    return value


def _container_id(value: str) -> str:
    if not IDENTIFIER.fullmatch(value):
        raise _invalid("invalid characters in containerID", value)
    return value


def _ifname(value: str, verb: Verb) -> str:
    # A DEL of what could never be made succeeds.
    fault = ifname_fault(value) or (kernel_fault(value) if verb is Verb.ADD else "")
    if fault:
        raise _invalid(f"interface name in CNI_IFNAME {fault}", value)
    return value


def _invalid(msg: str, details: str = "") -> CNIError:
    return CNIError(ErrorCode.INVALID_ENVIRONMENT, msg, details)
