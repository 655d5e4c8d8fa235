"""The operator's end of the agent's socket: one question, one answer."""

import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cni.frames import (
    ANSWER_HEADER_SIZE,
    FrameError,
    Kind,
    encode_request,
    parse_answer_header,
)
from cni.request import Request

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class AgentAway(Exception):
    """No agent answers at the socket; the message says why, in one line."""


def ask(path: Path, op: Mapping[str, Any], *, timeout: float = 30.0) -> dict[str, Any]:
    """The answer of the agent at *path* to *op*; a refusal is an answer with the key `error`.

    *timeout*, in seconds, is for each step.  Raises AgentAway.
    """
    request = encode_request(
        Request(
            program="isthmus",
            environment={},
            stdin=json.dumps(op).encode(),
            started_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
            boot_id=_boot_id(),
        ),
        Kind.ADMIN,
    )
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
            agent.settimeout(timeout)
            agent.connect(str(path))
            agent.sendall(request)
            status, length = parse_answer_header(_receive(agent, ANSWER_HEADER_SIZE))
            body = _receive(agent, length)
        return _answer(status, body)
    except FileNotFoundError as exc:
        raise AgentAway(f"no agent runs: there is no socket {path}") from exc
    except ConnectionRefusedError as exc:
        raise AgentAway(f"no agent runs: nobody listens at {path}") from exc
    except PermissionError as exc:
        raise AgentAway(f"the agent at {path} answers only to root: use sudo") from exc
    except TimeoutError as exc:
        raise AgentAway(f"the agent at {path} did not answer within {timeout:g} s") from exc
    except (OSError, FrameError, ValueError) as exc:
        raise AgentAway(f"the agent at {path} does not answer as it should: {exc}") from exc


def _answer(status: int, body: bytes) -> dict[str, Any]:
    document = json.loads(body) if body else {}
    if not isinstance(document, dict):
        raise ValueError(f"a JSON object was expected, not {body[:80]!r}")
    if status and "error" not in document:
        # The form in which the agent refuses what it did not begin is a CNI error.
        parts = [str(document[key]) for key in ("msg", "details") if document.get(key)]
        return {"error": ": ".join(parts) or f"the agent answered with status {status}"}
    return document


def _receive(agent: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        some = agent.recv(min(length - len(data), 1 << 16))
        if not some:
            raise ConnectionError("it closed the connection")
        data += some
    return bytes(data)


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
