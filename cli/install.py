"""`isthmus install`: launcher, program, unit and configuration onto a host."""

import os
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import click

from agent.placement import place
from cli.answers import Problem, note
from cli.contents import (
    IPAMD_UNIT,
    UNIT,
    agent_files,
    ipamd_files,
    network_list,
    plugins,
    program,
)
from cli.installation import Action, Item, decide
from cli.places import Places, find_launcher, find_standalone, has_systemd
from cli.placing import (
    SAVED,
    Placed,
    digest,
    digest_of,
    make_directories,
    read_manifest,
    write_manifest,
)
from net.address import IPNetwork


class Subnet(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A network of either family, without host bits."""

    name = "subnet"

    def convert(self, value: Any, param: Any, ctx: Any) -> IPNetwork:
        from ipam.ranges import senseless

        try:
            network = ip_network(value)
        except ValueError as exc:
            self.fail(f"{exc}; give for example 10.66.0.0/16 or fd66:6973:7468::/64", param, ctx)
        if fault := senseless(network):
            self.fail(fault, param, ctx)
        return network


def _directory(name: str, default: Path, what: str) -> Any:
    return click.option(
        name,
        type=click.Path(file_okay=False, path_type=Path),
        default=default,
        show_default=True,
        callback=_absolute,
        help=what,
    )


def _absolute(_ctx: click.Context, _param: click.Parameter, value: Path) -> Path:
    if not value.is_absolute():
        raise click.BadParameter(f"{value} is relative: give an absolute path")
    return value


def place_options(command: Any) -> Any:
    """The options that name directories, shared by install and uninstall."""
    defaults = Places()
    for option in (
        _directory("--unit-dir", defaults.unit_dir, "Where systemd finds units."),
        _directory("--state-dir", defaults.state_dir, "The agent's state, and the manifest."),
        _directory("--config-dir", defaults.config_dir, "Where agent.toml is."),
        _directory("--command-dir", defaults.command_dir, "Where shells find the command."),
        _directory("--program-dir", defaults.program_dir, "Where the program is."),
        _directory("--conf-dir", defaults.conf_dir, "Where runtimes find network lists."),
        _directory("--bin-dir", defaults.bin_dir, "Where runtimes find plugins."),
        _directory("--root", defaults.root, "Put before every path: a tree to be shipped."),
    ):
        command = option(command)
    return command


@click.command()
@place_options
@click.option(
    "--launcher",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The program that runtimes call; without it, the one that was built here.",
)
@click.option("--no-program", is_flag=True, help="Only the launcher: the agent runs from here.")
@click.option(
    "--mode",
    type=click.Choice(["bridge", "routed"]),
    default="bridge",
    show_default=True,
    help="Containers on a bridge of the host, or each on a link of its own with host routes.",
)
@click.option(
    "--subnet",
    "subnets",
    type=Subnet(),
    multiple=True,
    help="Addresses for containers, such as 10.66.0.0/16; once for each family.",
)
@click.option("--bridge", help="Name of the bridge, in bridge mode.")
@click.option(
    "--ipamd",
    "with_ipamd",
    is_flag=True,
    help="Also the unit and configuration of ipamd, which gives a cluster's nodes their addresses.",
)
@click.option("--no-start", is_flag=True, help="Do not enable and start the systemd unit.")
@click.option("--force", is_flag=True, help="Replace a network list that is not ours.")
def install(  # noqa: PLR0913, PLR0917 - click passes each by its name
    launcher: Path | None,
    no_program: bool,
    mode: str,
    subnets: Sequence[IPNetwork],
    bridge: str | None,
    with_ipamd: bool,
    no_start: bool,
    force: bool,
    **directories: Path,
) -> None:
    """Put plugin, agent and network list in place.

    Doing it again changes only what differs.  The network list is put last, when the agent
    runs: a runtime calls the plugin from that moment on.
    """
    places = Places(**directories)
    if places.is_this_host and os.geteuid() != 0:
        raise Problem("installing needs root: use sudo, or --root DIRECTORY for a tree to ship")
    if bridge and mode != "bridge":
        raise click.UsageError("--bridge is for --mode bridge")
    binary = launcher or find_launcher()
    if binary is None:
        raise Problem("the launcher is not built: make launcher, or name it by --launcher")
    standalone = None if no_program else find_standalone()
    installer = Installer(places, force=force)
    files = plugins(places, binary) + program(places, standalone) + agent_files(places, standalone)
    if with_ipamd:
        files += ipamd_files(places, standalone)
    before = installer.plan(files)
    last = installer.plan([network_list(places, mode, subnets, bridge)])
    changed = installer.put(before)
    _start(places, no_start=no_start, changed=changed)
    if with_ipamd:
        _tell_of_ipamd(places, no_start=no_start, changed=changed)
    installer.put(last)
    for variable, path in places.unknown_to_launcher():
        note(f"The launcher does not know {path}: set {variable} to it for the runtime.")
    if places.is_this_host:
        note("Look for trouble by: isthmus doctor")


class Installer:
    """Puts files and keeps the manifest of them."""

    def __init__(self, places: Places, *, force: bool) -> None:
        self._places = places
        self._force = force
        self._manifest = read_manifest(places.manifest)

    def plan(self, items: Sequence[Item]) -> list[tuple[Item, Action]]:
        """Decide about each of *items*; raises Problem when one of them is refused."""
        recorded = {placed.path: placed.sha256 for placed in self._manifest.files}
        actions: list[tuple[Item, Action]] = []
        for item in items:
            action = decide(
                item.care,
                wanted=digest(item.content),
                present=digest_of(self._places.real(item.target)),
                recorded=recorded.get(str(item.target)),
                force=self._force,
            )
            if action is Action.REFUSE:
                raise Problem(
                    f"{item.target} is there and differs from what would be put: "
                    "compare them, and replace it by --force (uninstall puts it back)"
                )
            actions.append((item, action))
        return actions

    def put(self, actions: Sequence[tuple[Item, Action]]) -> bool:
        """Carry out *actions* in order; returns whether anything changed."""
        wanted = [(item, action) for item, action in actions if action is not Action.KEEP]
        for item, action in wanted:
            self._make_room(self._places.manifest.parent, self._places.real(item.target).parent)
            self._put(item, action)
            click.echo(f"{action.value:<8} {item.target}")
        return bool(wanted)

    def _make_room(self, *directories: Path) -> None:
        for directory in directories:
            for made in make_directories(directory):
                self._manifest.directories.append("/" + str(made.relative_to(self._places.root)))
        self._places.manifest.parent.chmod(0o700)

    def _put(self, item: Item, action: Action) -> None:
        """Put one file; the manifest is written first, so that an interruption forgets nothing."""
        real, saved = self._places.real(item.target), ""
        if action is Action.REPLACE_FOREIGN:
            saved = f"{item.target}{SAVED}"
            mode = real.stat().st_mode & 0o7777
            place(self._places.real(Path(saved)), real.read_bytes(), mode)
        self._manifest.add(Placed(path=str(item.target), sha256=digest(item.content), saved=saved))
        write_manifest(self._places.manifest, self._manifest)
        place(real, item.content, item.mode)


def _start(places: Places, *, no_start: bool, changed: bool) -> None:
    """Let systemd know the unit and run it; containers keep their network over a restart."""
    if not places.is_this_host:
        return
    if not has_systemd():
        note("There is no systemd here: run `isthmus agent` by what starts services here.")
        return
    steps = [["daemon-reload"]]
    if not no_start:
        steps += [["enable", UNIT], ["restart" if changed else "start", UNIT]]
    for step in steps:
        _systemctl(step)


def _tell_of_ipamd(places: Places, *, no_start: bool, changed: bool) -> None:
    """Have a running ipamd begin anew; the first time it needs its certificates before."""
    if places.is_this_host and has_systemd() and changed and not no_start:
        _systemctl(["try-restart", IPAMD_UNIT])
    note(
        f"ipamd is not started before it has what {places.config_dir}/ipamd.toml names: then "
        f"systemctl enable --now {IPAMD_UNIT}"
    )


def _systemctl(words: Sequence[str]) -> None:
    """Raises Problem."""
    from dataplane.programs import run

    done = run(["systemctl", *words])
    if done.status:
        raise Problem(f"systemctl {' '.join(words)}: {done.complaint}")
