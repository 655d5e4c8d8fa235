"""An ADD whose answer nobody got is undone at once: its runtime may be dead and send no DEL."""

import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.kernel.agents import Machine, Pod, addresses, until

pytestmark = pytest.mark.kernel


@contextmanager
def full_pipe() -> Iterator[int]:
    """The writing end of a pipe that takes no more, its reader asleep."""
    reader, writer = os.pipe()
    try:
        size = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        assert os.write(writer, bytes(size)) == size
        yield writer
    finally:
        os.close(reader)
        os.close(writer)


def answer_unread(machine: Machine, web: Pod) -> None:
    """A launcher that dies before it reads the answer."""
    with machine.connect() as launcher:
        launcher.sendall(machine.frame("ADD", web))
        until(lambda: len(web.addresses()) == 1, "the attachment is made")


def answer_unconfirmed(machine: Machine, web: Pod) -> None:
    """A launcher that dies while its runtime does not take the answer."""
    with full_pipe() as stdout, machine.calling("ADD", web, stdout=stdout) as launcher:
        until(lambda: len(web.addresses()) == 1, "the attachment is made")
        launcher.kill()


def nobody_reads(machine: Machine, web: Pod) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with machine.calling("ADD", web, stdout=writer) as launcher:
        os.close(writer)
        status = launcher.wait(60)

    assert status == 1


def stdout_closed(machine: Machine, web: Pod) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" >&-', machine.launcher.binary],
        env=machine.environment("ADD", web),
        input=machine.stdin(None, None),
        timeout=60,
        check=False,
    )

    assert done.returncode == 1


WAYS = [answer_unread, answer_unconfirmed, nobody_reads, stdout_closed]


@pytest.mark.parametrize("fail", WAYS, ids=lambda way: way.__name__)
def test_undelivered_add_is_undone_and_its_address_waits_for_the_next(
    machine: Machine, fail: Callable[[Machine, Pod], None]
) -> None:
    machine.settings = {"grace_s": 3600, "cooldown_s": 3600}
    machine.start()
    web, other = machine.pod("web"), machine.pod("other")
    fail(machine, web)
    until(lambda: machine.records().get("web", ("",))[0] == "reserved", "the lease is reserved")

    _, reserved = machine.records()["web"]
    assert web.addresses() == []
    assert machine.leftovers() == []
    assert machine.problems() == []
    assert addresses(machine.add(other)) != reserved
    assert addresses(machine.add(web)) == reserved
    assert machine.records()["web"] == ("held", reserved)


@pytest.mark.parametrize("fail", WAYS, ids=lambda way: way.__name__)
def test_reservation_that_nobody_comes_back_for_ends_with_the_cool_down(
    machine: Machine, fail: Callable[[Machine, Pod], None]
) -> None:
    machine.settings = {"grace_s": 3600, "cooldown_s": 0.5}
    machine.start()
    fail(machine, machine.pod("web"))
    until(lambda: machine.records() == {}, "the reservation ends")

    assert machine.leftovers() == []
    assert machine.problems() == []
    assert machine.ask("ipam-show")["usage"][0]["held"] == 0


def test_delivered_add_stays(machine: Machine) -> None:
    machine.settings = {"grace_s": 0, "cooldown_s": 0, "reconcile_interval_s": 0.1}
    machine.start()
    web = machine.pod("web")
    given = addresses(machine.add(web))
    machine.stop()
    machine.start()

    assert machine.records() == {"web": ("held", given)}
    assert web.addresses() == list(given)
