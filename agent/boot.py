"""This boot and this machine: what tells their records from those of others."""

import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from net.address import IPAddress

_ELSEWHERE = ("192.0.2.1:9", "[2001:db8::1]:9")  # for documentation (RFC 5737, RFC 3849)


def boot_id() -> str:
    """The kernel's random id of this boot (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def now_ns() -> int:
    """CLOCK_BOOTTIME in nanoseconds: steady, and it counts suspended time."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def machine_id() -> str:
    """Something that two hosts do not share; empty where there is no such thing."""
    try:
        return Path("/etc/machine-id").read_text().strip()
    except OSError:
        return ""


def own_addresses(endpoints: Iterable[str]) -> tuple[IPAddress, ...]:
    """The addresses, one of each family, from which this host would reach *endpoints*.

    Where none of a family is among them, from which it would reach the world.  Nothing is sent.
    """
    found: dict[int, IPAddress] = {}
    for endpoint in (*endpoints, *_ELSEWHERE):
        host, _, port = endpoint.rpartition(":")
        with suppress(OSError):
            for family, kind, _, _, place in socket.getaddrinfo(
                host.strip("[]"), int(port), type=socket.SOCK_DGRAM
            ):
                with suppress(OSError), socket.socket(family, kind) as probe:
                    probe.connect(place)
                    own = ip_address(probe.getsockname()[0].partition("%")[0])
                    if not own.is_loopback and not own.is_link_local:
                        found.setdefault(own.version, own)
    return tuple(found[version] for version in sorted(found))
