"""resolv.conf(5), as far as a CNI result has room for it."""

import os
import stat

from cni.errors import CNIError, ErrorCode
from cni.result import DNS


def read_resolv_conf(path: str) -> DNS:
    """Read the file at *path*; CNIError 7 if it cannot be."""
    try:
        with open(path, encoding="utf-8", errors="replace", opener=_regular) as file:
            return parse_resolv_conf(file.read(1 << 20))
    except (OSError, ValueError) as exc:
        raise CNIError(
            ErrorCode.INVALID_CONFIG, f"cannot read resolvConf {path}", str(exc)
        ) from exc


def _regular(path: str, flags: int) -> int:
    # A FIFO in its place must not hang a worker.
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(f"{path} is a FIFO")
    return fd


def parse_resolv_conf(text: str) -> DNS:
    """Of `domain` and `search` the last line counts, as for the resolver."""
    nameservers: list[str] = []
    options: list[str] = []
    domain = ""
    search: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        match words:
            case ["nameserver", address, *_]:
                nameservers.append(address)
            case ["domain", name, *_]:
                domain = name
            case ["search", *names]:
                search = tuple(names)
            case ["options", *names]:
                options += names
    return DNS(nameservers=tuple(nameservers), domain=domain, search=search, options=tuple(options))
