"""Freed memory goes back to the system."""

from pathlib import Path

from dataplane.memory import give_back


def resident_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def test_what_a_burst_left_behind_is_given_back() -> None:
    # Small blocks, so that the heap holds them; one that stays keeps its top from shrinking.
    burst = [bytes(1000) for _ in range(60_000)]
    stays = bytes(1000)
    full = resident_kib()
    del burst

    give_back()

    assert len(stays) == 1000
    assert resident_kib() < full - 30_000
