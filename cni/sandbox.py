"""The sandbox a call names: refused when it is our own, opened when it is one."""

import os

from cni.environment import Call
from cni.errors import CNIError, ErrorCode
from cni.node import Node
from cni.request import Request
from dataplane import netns
from dataplane.errors import InvalidNamespace


def refuse_own_namespace(request: Request, call: Call, node: Node) -> None:
    """Raise CNIError 8 if CNI_NETNS is the host's namespace, or the launcher's.

    Before any work: the reference checks last, and deletes the host's own eth0 on the way.
    CNI_NETNS_OVERRIDE does not help: there is nothing we could do in the host's namespace.
    """
    identity = _identity(request, call)
    if identity and (identity == node.namespace or identity == _caller(request)):
        raise CNIError(
            ErrorCode.OWN_NAMESPACE,
            "plugin's netns and netns from CNI_NETNS should not be the same",
            f"CNI_NETNS={call.netns}",
        )


def open_sandbox(request: Request, call: Call, node: Node) -> netns.Sandbox:
    """Open CNI_NETNS; CNIError 4 says why it cannot be."""
    if request.netns_errno:
        raise _invalid(f'failed to open netns "{call.netns}": {os.strerror(request.netns_errno)}')
    try:
        return node.open_sandbox(call.netns, request.netns_fd)
    except InvalidNamespace as exc:
        raise _invalid(str(exc)) from exc


def leads_to(path: str, fd: int) -> bool:
    """Whether *path*, in our mount namespace, is the namespace that *fd* is open on."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except (OSError, ValueError):
        return False


def _invalid(reason: str) -> CNIError:
    return CNIError(
        ErrorCode.INVALID_ENVIRONMENT,
        reason,
        "CNI_NETNS must be the path of a network namespace",
    )


def _identity(request: Request, call: Call) -> netns.Identity | None:
    try:
        if request.netns_fd is not None:
            return netns.Identity.of_descriptor(request.netns_fd)
        return netns.Identity.of_path(call.netns) if call.netns else None
    except (OSError, ValueError):
        return None  # a DEL may name what is gone


def _caller(request: Request) -> netns.Identity:
    return netns.Identity(*request.caller_netns)
