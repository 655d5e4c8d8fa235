"""What goes over the agent's socket, and into a spool entry.  Everything here is pure.

A request is a header of 92 bytes and a body, little endian; the launcher (launcher/frame.c)
writes the same bytes:

    offset  size  what
         0     4  magic "isth"
         4     2  protocol version
         6     2  kind: 1 a CNI call, 2 an operator's question (stdin is its JSON)
         8     4  length of the body
        12     4  flags; bit 0: a descriptor of CNI_NETNS rides with the first bytes (SCM_RIGHTS)
        16     8  CLOCK_BOOTTIME in nanoseconds at the caller's start
        24  8, 8  st_dev and st_ino of the caller's own network namespace
        40    36  boot id
        76     4  errno of opening CNI_NETNS (0: opened, or not set)
        80 4,4,4  lengths of program name, environment, stdin: the body, in that order

The environment is NUL-terminated strings.  An answer is the magic, the exit status and the
length of what follows for stdout: four bytes each.  That form is the same in every protocol
version, so that a launcher of another version can read a refusal.  The launcher sends ACK when
stdout has taken all of the answer; a socket that closes without it means nobody got it.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from cni.request import Request, Response

MAGIC = b"isth"
PROTOCOL = 1
ACK = b"\x06"
# Exit status of an answer that means "not begun": the launcher spools a DEL, reports others.
REFUSED = 75
MAX_BODY = (1024 + 512) * 1024
MAX_ANSWER = 2 * 1024 * 1024

_HEADER = struct.Struct("<4sHHIIQQQ36sIIII")
_ANSWER = struct.Struct("<4sII")
HEADER_SIZE = _HEADER.size
ANSWER_HEADER_SIZE = _ANSWER.size

_FLAG_NETNS = 1


class FrameError(Exception):
    """Bytes that are no frame: the message says what was found and what is allowed."""


class UnknownProtocol(FrameError):
    """A frame of another protocol version; it can still be refused in the common form."""


class Kind(IntEnum):
    """Who asks: a runtime through the launcher, or an operator through the command line."""

    CNI = 1
    ADMIN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What must be known before the body is read."""

    kind: Kind
    body_length: int
    has_netns: bool
    started_ns: int
    caller_netns: tuple[int, int]
    boot_id: str
    netns_errno: int
    program_length: int
    environment_length: int


def parse_header(data: bytes) -> Header:
    """Read the first HEADER_SIZE bytes of a request.  Raises FrameError, UnknownProtocol."""
    if len(data) != HEADER_SIZE:
        raise FrameError(f"header of {len(data)} bytes, not {HEADER_SIZE}")
    magic, protocol, kind, body, flags, started, device, inode, boot, number, *lengths = (
        _HEADER.unpack(data)
    )
    if magic != MAGIC:
        raise FrameError(f"starts with {magic!r}, not {MAGIC!r}")
    if protocol != PROTOCOL:
        raise UnknownProtocol(f"protocol version {protocol} is not supported, only {PROTOCOL} is")
    if kind not in (Kind.CNI, Kind.ADMIN):
        raise FrameError(f"kind {kind} is neither {Kind.CNI:d} nor {Kind.ADMIN:d}")
    if body > MAX_BODY:
        raise FrameError(f"body of {body} bytes, more than {MAX_BODY}")
    program_length, environment_length, stdin_length = lengths
    if program_length + environment_length + stdin_length != body:
        raise FrameError(
            f"parts of {program_length}, {environment_length} and {stdin_length} bytes"
            f" do not make a body of {body}"
        )
    return Header(
        kind=Kind(kind),
        body_length=body,
        has_netns=bool(flags & _FLAG_NETNS),
        started_ns=started,
        caller_netns=(device, inode),
        boot_id=boot.rstrip(b"\0").decode("ascii", "replace"),
        netns_errno=number,
        program_length=program_length,
        environment_length=environment_length,
    )


def parse_body(header: Header, body: bytes, *, netns_fd: int | None = None) -> Request:
    """Complete *header* with its body and the descriptor that came along.  Raises FrameError."""
    if len(body) != header.body_length:
        raise FrameError(f"body of {len(body)} bytes, not {header.body_length}")
    environment_at = header.program_length
    stdin_at = environment_at + header.environment_length
    return Request(
        program=body[:environment_at].decode("utf-8", "surrogateescape"),
        environment=_parse_environment(body[environment_at:stdin_at]),
        stdin=body[stdin_at:],
        started_ns=header.started_ns,
        boot_id=header.boot_id,
        netns_fd=netns_fd,
        netns_errno=header.netns_errno,
        caller_netns=header.caller_netns,
    )


def _parse_environment(block: bytes) -> dict[str, str]:
    environment = {}
    # Backwards, so that of a name given twice the first counts, as for getenv(3).
    for variable in reversed(block.decode("utf-8", "surrogateescape").split("\0")):
        name, equals, value = variable.partition("=")
        if name and equals:
            environment[name] = value
    return environment


def encode_request(request: Request, kind: Kind = Kind.CNI) -> bytes:
    """Write *request* as header and body; its descriptor is for the caller to send.

    Raises FrameError where the receiver would.
    """
    program = request.program.encode("utf-8", "surrogateescape")
    environment = "".join(f"{name}={value}\0" for name, value in request.environment.items())
    block = environment.encode("utf-8", "surrogateescape")
    length = len(program) + len(block) + len(request.stdin)
    if length > MAX_BODY:
        raise FrameError(f"body of {length} bytes, more than {MAX_BODY}")
    header = _HEADER.pack(
        MAGIC,
        PROTOCOL,
        kind,
        length,
        0 if request.netns_fd is None else _FLAG_NETNS,
        request.started_ns,
        *request.caller_netns,
        request.boot_id.encode("ascii", "replace"),
        request.netns_errno,
        len(program),
        len(block),
        len(request.stdin),
    )
    return b"".join((header, program, block, request.stdin))


def encode_response(response: Response) -> bytes:
    """Write an answer.  Raises FrameError if no launcher would take it."""
    if len(response.stdout) > MAX_ANSWER:
        raise FrameError(f"answer of {len(response.stdout)} bytes, more than {MAX_ANSWER}")
    if not 0 <= response.status <= 255:
        raise FrameError(f"exit status {response.status} is not between 0 and 255")
    return _ANSWER.pack(MAGIC, response.status, len(response.stdout)) + response.stdout


def parse_answer_header(data: bytes) -> tuple[int, int]:
    """Read exit status and length from the first ANSWER_HEADER_SIZE bytes.  Raises FrameError."""
    if len(data) != ANSWER_HEADER_SIZE:
        raise FrameError(f"answer header of {len(data)} bytes, not {ANSWER_HEADER_SIZE}")
    magic, status, length = _ANSWER.unpack(data)
    if magic != MAGIC:
        raise FrameError(f"starts with {magic!r}, not {MAGIC!r}")
    if length > MAX_ANSWER or status > 255:
        raise FrameError(f"exit status {status} with {length} bytes, more than 255 or {MAX_ANSWER}")
    return status, length


def decode_response(data: bytes) -> Response:
    """Read a whole answer.  Raises FrameError."""
    status, length = parse_answer_header(data[:ANSWER_HEADER_SIZE])
    stdout = data[ANSWER_HEADER_SIZE:]
    if len(stdout) != length:
        raise FrameError(f"answer of {len(stdout)} bytes, not {length}")
    return Response(status, stdout)
