"""One call of a CNI plugin, as it reached us, and its answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Raw environment and raw stdin of one execution of the launcher.

    *program* is the base name of argv[0]: a delegate's stdin names another type than ours.
    *started_ns* is CLOCK_BOOTTIME in nanoseconds when the launcher started, *boot_id* the
    kernel's of that boot: together they order calls even when one waited in a queue.
    *netns_fd* is an open (possibly O_PATH) descriptor of CNI_NETNS or None, *netns_errno* why
    it could not be opened (0: opened, or not set).
    *caller_netns* is (st_dev, st_ino) of the launcher's own network namespace.
    """

    program: str
    environment: Mapping[str, str] = field(repr=False)
    stdin: bytes = field(repr=False)
    started_ns: int
    boot_id: str
    netns_fd: int | None = None
    netns_errno: int = 0
    caller_netns: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Response:
    """Exit status and what goes to standard output: one JSON document or nothing."""

    status: int
    stdout: bytes = b""
