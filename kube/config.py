"""The `[kubernetes]` table of a configuration file: how the API server is reached."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from net import settings

if TYPE_CHECKING:
    from kube.access import Access

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Of *kubeconfig* the whole, or a service account's *token* and *ca*.

    The address is *address*, else the one in the kubeconfig file *address_from* (the kubelet's),
    else kubeconfig's or the one of the Service, which leads somewhere only where a kube-proxy
    runs.  *server_name*: what stands in the server's certificate, "": where it is reached.
    """

    address: str = ""
    address_from: Path | None = None
    kubeconfig: Path | None = None
    token: Path = _ACCOUNT / "token"
    ca: Path = _ACCOUNT / "ca.crt"
    server_name: str = ""

    def access(self, environment: Mapping[str, str] = os.environ) -> "Callable[[], Access]":
        """What `kube.client.Client` asks; files are read again once they changed.

        What it returns raises BadAccess.
        """
        remembered: tuple[object, Access] | None = None

        def find() -> "Access":
            nonlocal remembered
            stamp = tuple(map(_stamp, (self.address_from, self.kubeconfig)))
            if remembered is None or remembered[0] != stamp:
                remembered = stamp, self._access(environment)
            return remembered[1]

        return find

    def _access(self, environment: Mapping[str, str]) -> "Access":
        from kube.access import from_kubeconfig, in_cluster, server_of

        server = self.address
        if not server and self.address_from:
            server = server_of(self.address_from)
        if self.kubeconfig:
            return from_kubeconfig(self.kubeconfig, server=server)
        return in_cluster(
            environment,
            server=server,
            server_name=self.server_name,
            token=self.token,
            ca=self.ca,
        )


def _stamp(path: Path | None) -> tuple[int, int]:
    try:
        status = path.stat() if path else None
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_ino) if status else (0, 0)


def _address(value: object) -> str:
    from kube.access import check_server
    from kube.errors import BadAccess

    text = str(settings.of_type(str, "a text")(value))
    if text:
        try:
            check_server(text)
        except BadAccess as exc:
            raise ValueError("must be as https://10.0.0.1:6443, or empty") from exc
    return text


CHECKS: Mapping[str, settings.Check] = {
    "address": _address,
    "address_from": settings.path_or_nothing,
    "kubeconfig": settings.path_or_nothing,
    "token": settings.absolute_path,
    "ca": settings.absolute_path,
    "server_name": settings.of_type(str, "a text"),
}
