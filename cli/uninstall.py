"""`isthmus uninstall`: leave the host as it was found."""

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import click

from cli.answers import Problem, Unreachable, note, socket_option
from cli.asking import read_attachments
from cli.contents import CONFLIST, IPAMD_UNIT, UNIT
from cli.install import place_options
from cli.places import Places, has_systemd
from cli.placing import Manifest, Placed, digest_of, read_manifest, remove_empty, take_away

_EDITED = ".isthmus-edited"
# All that the agent and the installer ever make in the state directory (docs/ownership.md).
_STATE = ("isthmus.db*", "lock", "lost", "sysctl.json*", "manifest.json*")


@click.command()
@place_options
@socket_option
@click.option("--purge", is_flag=True, help="Forget leases and edited configuration too.")
@click.option("--force", is_flag=True, help="Even while containers are attached: they lose it.")
def uninstall(socket: str, purge: bool, force: bool, **directories: Path) -> None:
    """Leave the host as it was found.

    Takes away what install put, and what the agent made in the kernel.

    The network list goes first, so that no runtime calls a plugin that is going.  Refused while
    containers are attached.  Doing it again does nothing.
    """
    places = Places(**directories)
    if places.is_this_host:
        _refuse_if_in_use(places, socket, force=force)
    manifest = _manifest(places)
    lists = [one for one in manifest.files if one.path.endswith(".conflist")]
    others = [one for one in reversed(manifest.files) if one not in lists]
    _remove(places, lists, purge=purge)
    units = [name for name in (UNIT, IPAMD_UNIT) if _has_unit(places, name, manifest)]
    for name in units:
        _systemctl("disable", "--now", name)
    if places.is_this_host:
        _clean_kernel(places)
    _remove(places, others, purge=purge)
    if units:
        _systemctl("daemon-reload")
    places.manifest.unlink(missing_ok=True)
    if purge:
        _purge(places)
    remove_empty(places.real(Path(one)) for one in manifest.directories)
    click.echo("isthmus is uninstalled." if manifest.files else "Nothing of isthmus is installed.")


def _manifest(places: Places) -> Manifest:
    """What was put: as recorded or, where the record is lost, what is there under our names."""
    found = read_manifest(places.manifest)
    if found.files:
        return found
    folder = places.real(places.program_dir)
    program = [path for path in folder.rglob("*") if path.is_file()]
    ours = [places.bin_dir / "isthmus", places.bin_dir / "isthmus-ipam"]
    ours += [places.unit_dir / UNIT, places.unit_dir / IPAMD_UNIT, places.conf_dir / CONFLIST]
    ours += [places.program_dir / path.relative_to(folder) for path in program]
    found.directories += [str(places.program_dir), str(places.state_dir)]
    inner = {path.parent for path in ours if path.is_relative_to(places.program_dir)}
    found.directories += map(str, inner)
    for path in ours:
        if (sha256 := digest_of(places.real(path))) is not None:
            found.files.append(Placed(path=str(path), sha256=sha256))
    return found


def _remove(places: Places, files: Iterable[Placed], *, purge: bool) -> None:
    """Remove *files*; one that was edited since is the operator's work and is set aside."""
    for placed in files:
        real = places.real(Path(placed.path))
        present = digest_of(real)
        if present is not None and present != placed.sha256 and not purge:
            shutil.copy2(real, real.with_name(real.name + _EDITED))
            note(f"{placed.path} was edited: kept as {placed.path}{_EDITED}")
        take_away(real, places.real(Path(placed.saved)) if placed.saved else None)
        if present is not None:
            click.echo(f"remove   {placed.path}")


def _refuse_if_in_use(places: Places, socket: str, *, force: bool) -> None:
    """Raise Problem while containers are attached or an agent runs that is not systemd's."""
    from dataplane.inspect import lock_is_held

    if os.geteuid() != 0:
        raise Problem("uninstalling needs root: use sudo")
    if not _is_of_systemd(places, UNIT) and lock_is_held(places.state_dir / "lock"):
        raise Problem(
            f"an agent that systemd did not start is running (it holds {places.state_dir}/lock): "
            "end it, then uninstall again"
        )
    try:
        found = read_attachments(socket, str(places.state_dir / "isthmus.db"), quiet=True)
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


def _systemctl(*words: str) -> None:
    from dataplane.programs import run

    done = run(["systemctl", *words])
    if done.status:
        raise Problem(f"systemctl {' '.join(words)}: {done.complaint}")


def _has_unit(places: Places, name: str, manifest: Manifest) -> bool:
    """It is one that we put: what an operator copied there stays."""
    ours = any(one.path == str(places.unit_dir / name) for one in manifest.files)
    return ours and _is_of_systemd(places, name)


def _is_of_systemd(places: Places, name: str) -> bool:
    """systemd has this unit: on this host, not in a tree to be shipped."""
    there = places.real(places.unit_dir / name).exists()
    return places.is_this_host and has_systemd() and there


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
