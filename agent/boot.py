"""This boot and this machine: what tells their records from those of others."""

import time
from pathlib import Path


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
