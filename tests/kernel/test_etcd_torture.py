"""Twenty nodes, replicas of ipamd and three members of etcd, while everything goes wrong.

ISTHMUS_TORTURE_SEED repeats a run's choices, though not its timing; ISTHMUS_ETCD_TORTURE_S is how
long the long run is, ISTHMUS_ETCD_SHORT_S the other, in seconds.
"""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.kernel.agents import made_machine, until
from tests.kernel.conftest import Namespace
from tests.kernel.etcd import V36, running
from tests.kernel.ipamds import Site, site
from tests.kernel.switch import switched
from tests.kernel.torture import Torture
from tests.kernel.torture_ledger import Place
from tests.kernel.torture_nodes import LightNode, Node, WholeNode

pytestmark = pytest.mark.kernel

SHORT_S = float(os.environ.get("ISTHMUS_ETCD_SHORT_S", "45"))
LONG_S = float(os.environ.get("ISTHMUS_ETCD_TORTURE_S", "1800"))
POOLS = (
    ("four", "10.60.0.0/23", "--block-length", "29"),
    ("six", "fd60::/119", "--block-length", "125"),
)


def tell_of(place: Site) -> None:
    """Print the ends of the replicas' logs, which are shown when the test failed."""
    for replica in place.replicas:
        tail = replica.log.read_text(errors="replace").splitlines()[-40:]
        print(f"---- {replica.log}", *tail, sep="\n")  # noqa: T201


@contextmanager
def tortured(
    folder: Path,
    binary: str,
    namespaces: Callable[[str], Namespace],
    *,
    whole: int,
    light: int,
    replicas: int,
    programs: str = "",
) -> Iterator[Torture]:
    """All of it, at peace."""
    seed = os.environ.get("ISTHMUS_TORTURE_SEED") or secrets.token_hex(4)
    print(f"ISTHMUS_TORTURE_SEED={seed}")  # noqa: T201 - shown with a failure
    with ExitStack() as undo:
        switch = switched(namespaces("switch"))
        hosts = [switch.plug(namespaces(f"etcd{number}")) for number in range(3)]
        etcd = undo.enter_context(
            running(folder / "etcd", hosts=hosts, observer=switch.host, programs=programs)
        )
        place = undo.enter_context(site(folder, etcd, 0))
        place.observer = switch.host
        undo.callback(tell_of, place)
        for number in range(replicas):
            host = switch.plug(namespaces(f"ipamd{number}"))
            place.add("etcd_timeout_s = 1.0", host=host).start()
        place.begin(*POOLS)
        place.must("ipam", "settings", "--quarantine-s", "1", "--blocks-per-node", "4")
        run = Torture(seed, switch, etcd, place)
        dice = run.dice("endpoints")

        def ipamd(name: str, address: str) -> dict[str, object]:
            files = place.signer.node(name)
            return {
                "endpoints": dice.sample(place.endpoints, replicas),
                "ca": str(files.ca),
                "certificate": str(files.certificate),
                "key": str(files.key),
                "node": name,
                "addresses": [address],
            }

        nodes: list[Node] = []
        for number in range(whole):
            machine = undo.enter_context(made_machine(folder / f"whole{number}", binary))
            host = switch.plug(machine.host)
            machine.settings = {
                "ipamd": ipamd(f"whole{number}", host.address),
                "reconcile_interval_s": 5.0,
            }
            nodes.append(WholeNode(f"whole{number}", machine))
        for number in range(light):
            name = f"light{number}"
            host = switch.plug(namespaces(name))
            one = LightNode(name, host, folder / name, ipamd(name, host.address))
            undo.callback(one.kill)
            nodes.append(one)
        for node in nodes:
            count = 2 if isinstance(node, WholeNode) else 5
            names = tuple(f"{node.name}-c{number}" for number in range(count))
            run.places.append(Place(node, names))
        for node in nodes:
            node.start()  # the light ones are not waited for: they claim at the same moment
        run.settle()
        yield run


def torture(run: Torture, seconds: float, *, restores: int, bump: int = 0) -> None:
    """Let it go on for *seconds*; nothing is ever held twice, and nothing is left."""
    with run.churning():
        with run.troubled():
            run.resting.wait(seconds)
        assert not run.ledger.wrong, "\n".join(run.ledger.wrong)
        for _ in range(restores):
            run.troubles.restore(bump)
    run.settle()

    done = run.troubles.done
    found = f"{run.seed}: {dict(done)} {dict(run.ledger.outcomes)} {dict(run.ledger.reasons)}"
    print(found)  # noqa: T201 - what a run was worth
    assert not run.ledger.wrong, "\n".join([found, *run.ledger.wrong])
    run.clear()
    until(lambda: "quarantined" not in run.site.must("ipam", "blocks"), "what was freed is free")
    elsewhere = ("--socket", "/nonexistent", "--store", "/nonexistent")
    assert run.site.must("ipam", "check", *elsewhere) == "No problem found.\n"
    leases = run.etcd.ctl("get", "--prefix", "/isthmus/v1/default/lease", "--keys-only").stdout
    assert leases == ""
    assert all(done[each] for each in ("leader killed", "node killed", "ipamd killed")), found
    assert run.ledger.outcomes["ADD"] > 100, found


def test_nothing_is_held_twice_while_etcd_ipamd_and_nodes_fail(
    tmp_path: Path, binary: str, namespaces: Callable[[str], Namespace]
) -> None:
    with tortured(tmp_path, binary, namespaces, whole=4, light=16, replicas=2) as run:
        torture(run, SHORT_S, restores=1)


@pytest.mark.slow
def test_nothing_is_held_twice_for_long_and_over_restores_with_a_raised_revision(
    tmp_path: Path, binary: str, namespaces: Callable[[str], Namespace]
) -> None:
    with tortured(tmp_path, binary, namespaces, whole=8, light=12, replicas=3, programs=V36) as run:
        torture(run, LONG_S, restores=3, bump=1_000_000)
