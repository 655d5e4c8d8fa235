"""`isthmus uninstall`: leave the host as it was found."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

import click

from cli.answers import Problem, Unreachable, note
from cli.asking import read_attachments
from cli.install import CONFLIST, UNIT, has_systemd, place_options
from cli.places import Places
from cli.placing import Manifest, digest_of, read_manifest, remove_empty, take_away

_EDITED = ".isthmus-edited"
# All that the agent and the installer ever make in the state directory (docs/ownership.md).
_STATE = ("isthmus.db*", "lock", "sysctl.json*", "manifest.json*")


@click.command()
@place_options
@click.option("--purge", is_flag=True, help="Forget leases and edited configuration too.")
@click.option("--force", is_flag=True, help="Even while containers are attached: they lose it.")
def uninstall(purge: bool, force: bool, **directories: Path) -> None:
    """Leave the host as it was found.

    Takes away what install put, and what the agent made in the kernel.

    The network list goes first, so that no runtime calls a plugin that is going.  Refused while
    containers are attached.  Doing it again does nothing.
    """
    places = Places(**directories)
    if places.is_this_host:
        if os.geteuid() != 0:
            raise Problem("uninstalling needs root: use sudo")
        _refuse_if_in_use(places, force=force)
    manifest = _manifest(places)
    lists = [one for one in manifest.files if Path(one.path).parent == places.conf_dir]
    others = [one for one in reversed(manifest.files) if one not in lists]
    for placed in lists:
        _remove(places, placed.path, placed.saved, placed.sha256, purge=purge)
    if places.is_this_host:
        _stop_agent(places)
        _clean_kernel(places)
    for placed in others:
        _remove(places, placed.path, placed.saved, placed.sha256, purge=purge)
    places.manifest.unlink(missing_ok=True)
    if purge:
        _purge(places)
    remove_empty(places.real(Path(one)) for one in manifest.directories)
    click.echo("isthmus is uninstalled." if manifest.files else "Nothing of isthmus is installed.")


def _manifest(places: Places) -> Manifest:
    """What was put: as recorded or, where the record is lost, what is there under our names."""
    from cli.placing import Placed

    found = read_manifest(places.manifest)
    if found.files:
        return found
    ours = [places.bin_dir / "isthmus", places.bin_dir / "isthmus-ipam", places.unit_dir / UNIT]
    ours.append(places.conf_dir / CONFLIST)
    for path in ours:
        if (sha256 := digest_of(places.real(path))) is not None:
            found.files.append(Placed(path=str(path), sha256=sha256))
    return found


def _remove(places: Places, path: str, saved: str, sha256: str, *, purge: bool) -> None:
    """Remove one file; one that was edited since is the operator's work and is set aside."""
    real = places.real(Path(path))
    present = digest_of(real)
    if present is not None and present != sha256 and not purge:
        aside = real.with_name(real.name + _EDITED)
        shutil.copy2(real, aside)
        note(f"{path} was edited: kept as {path}{_EDITED}")
    take_away(real, places.real(Path(saved)) if saved else None)
    if present is not None:
        click.echo(f"remove   {path}")


def _refuse_if_in_use(places: Places, *, force: bool) -> None:
    try:
        found = read_attachments("/run/isthmus/agent.sock", str(places.state_dir / "isthmus.db"))
    except (Unreachable, Problem):
        return  # neither agent nor store: nothing that could be known to be attached
    held = [row for row in found.attachments if row["state"] == "held"]
    if held and not force:
        keys = "\n  ".join(
            f"{row['network']}/{row['container_id']}/{row['ifname']}" for row in held
        )
        raise Problem(
            f"{len(held)} containers are attached, stop them first (or cut them off by --force):"
            f"\n  {keys}"
        )


def _stop_agent(places: Places) -> None:
    from dataplane.inspect import lock_is_held
    from dataplane.programs import run

    if has_systemd() and places.real(places.unit_dir / UNIT).exists():
        done = run(["systemctl", "disable", "--now", UNIT])
        if done.status:
            raise Problem(f"systemctl disable --now {UNIT}: {done.complaint}")
    if lock_is_held(places.state_dir / "lock"):
        raise Problem(
            f"an agent that systemd did not start is running (it holds {places.state_dir}/lock): "
            "end it, then uninstall again"
        )


def _clean_kernel(places: Places) -> None:
    from agent.boot import machine_id
    from cli.leftovers import remove_leftovers

    removed, faults = remove_leftovers(places.state_dir / "sysctl.json", seed=machine_id())
    for what in removed:
        click.echo(f"remove   {what}")
    if faults:
        raise Problem("not all could be removed: " + "; ".join(faults))


def _purge(places: Places) -> None:
    state = places.real(places.state_dir)
    for pattern in _STATE:
        for path in state.glob(pattern):
            path.unlink(missing_ok=True)
    shutil.rmtree(state / "spool", ignore_errors=True)
    with suppress(OSError):
        state.rmdir()
