"""`isthmus uninstall-node`: a node's part of taking isthmus out of a cluster.

    1. without an agent no pod gets a network any more; what runs keeps its own until it ends, with
       our plugin, which only keeps the deletion: links go with their pods
    2. once none is left: network list, plugin, kernel objects, state

The list has to stay until then: without any a runtime cannot end a pod either.  The program stays,
so that the pod it runs in can be watched: ready means that the node is clean.
"""

import shutil
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from agent.placement import PLUGINS, sync_directory
from cli.contents import CONFLIST
from cli.manifest_site import HOST_LOCAL
from cli.places import Places
from cni.host_local import HostLocal

PAGE = "127.0.0.1:9477"
_LOOK_S = 2.0
# Whole directories of ours; the runtime's are left, and only our files in them go.
_STATE = (
    *("/var/lib/isthmus", "/var/lib/isthmus-ipamd", "/var/lib/isthmus-etcd"),
    *("/run/isthmus", "/run/isthmus-etcd"),
)


@click.command("uninstall-node")
@click.option(
    "--root",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    default=Path("/host"),
    show_default=True,
    help="Where the node's directories are mounted.",
)
@click.option(
    "--host-local",
    type=click.Path(path_type=Path),
    default=Path(HOST_LOCAL),
    show_default=True,
    help="Where a former network's IPAM plugin keeps addresses: ours go from there.",
)
@click.option("--force", is_flag=True, help="Do not wait for pods: they lose their network.")
@click.option("--once", is_flag=True, help="End when the node is clean.")
def uninstall_node(root: Path, host_local: Path, force: bool, once: bool) -> None:
    """Take isthmus off this node of a cluster, in a pod that may."""
    from ipam.pages import serve

    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    removal = Removal(
        root, host_local=host_local, force=force, links=_links, clean_kernel=_clean_kernel
    )
    if not once:
        serve(PAGE, _Nothing(), ready=lambda: removal.waiting_for)
    while not stopping.is_set() and removal.waiting_for:
        removal.step()
        if removal.waiting_for:
            stopping.wait(_LOOK_S)
    if not once:
        stopping.wait()


class Removal:
    """*waiting_for* says why the node is not clean yet, or "".

    *links* names the host sides of pods that are there; *clean_kernel*, given where sysctl.json
    is, takes away the rest of the kernel's objects, and returns what it could not and why.
    """

    def __init__(
        self,
        root: Path,
        *,
        host_local: Path = Path(HOST_LOCAL),
        force: bool,
        links: Callable[[], Sequence[str]],
        clean_kernel: Callable[[Path], Sequence[str]],
    ) -> None:
        self._places = Places(root=root)
        self._host_local = self._places.real(host_local)
        self._force = force
        self._links = links
        self._clean_kernel = clean_kernel
        self.waiting_for = "nothing was done yet"

    def step(self) -> None:
        """Do what can be done now."""
        if not self._force and (links := self._links()):
            self._wait(f"{len(links)} pods still have their network: {', '.join(links[:5])}")
            return
        self._take(self._places.conf_dir / CONFLIST)
        for name in PLUGINS:
            self._take(self._places.bin_dir / name)
        ledger = self._places.real(self._places.state_dir) / "sysctl.json"
        if faults := self._clean_kernel(ledger):
            self._wait("; ".join(faults))
            return
        HostLocal(self._host_local).keep({}, (), lambda address: True)
        for state in _STATE:
            self._clear(self._places.real(Path(state)))
        self.waiting_for = ""
        click.echo("this node is clean")

    def _wait(self, reason: str) -> None:
        if reason != self.waiting_for:
            click.echo(f"waiting: {reason}")
        self.waiting_for = reason

    def _take(self, path: Path) -> None:
        real = self._places.real(path)
        if real.exists():
            real.unlink()
            sync_directory(real.parent)
            click.echo(f"remove   {path}")

    def _clear(self, directory: Path) -> None:
        if directory.exists():
            shutil.rmtree(directory)
            click.echo(f"remove   /{directory.relative_to(self._places.root)}")


def _clean_kernel(ledger: Path) -> list[str]:
    from agent.boot import machine_id
    from cli.leftovers import remove_leftovers
    from dataplane.sysctl import make_writable

    make_writable()
    removed, faults = remove_leftovers(ledger, seed=machine_id())
    for what in removed:
        click.echo(f"remove   {what}")
    return faults


def _links() -> list[str]:
    """Host sides of pods that are there."""
    from cli.leftovers import is_own_veth
    from dataplane.links import Links
    from dataplane.netlink import Netlink

    with Netlink() as host:
        return sorted(link.name for link in Links(lambda: host).all() if is_own_veth(link))


class _Nothing:
    def collect(self) -> tuple[()]:
        return ()
