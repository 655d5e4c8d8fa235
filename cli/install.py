"""`isthmus install`: launcher, program, unit and configuration onto a host."""

import os
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import click

from cli.answers import Problem, note
from cli.installation import Action, Care, Item, conflist, decide, unit
from cli.places import CONF, Places, agent_command, find_launcher, find_standalone
from cli.placing import (
    SAVED,
    Manifest,
    Placed,
    digest,
    digest_of,
    make_directories,
    place,
    read_manifest,
    write_manifest,
)
from net.address import IPNetwork

_TEMPLATES = {"bridge": "10-isthmus.conflist", "routed": "10-isthmus-routed.conflist"}
CONFLIST = "10-isthmus.conflist"
UNIT = "isthmus-agent.service"


class Subnet(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A network of either family, without host bits."""

    name = "subnet"

    def convert(self, value: Any, param: Any, ctx: Any) -> IPNetwork:
        try:
            return ip_network(value)
        except ValueError as exc:
            self.fail(f"{exc}; give for example 10.66.0.0/16 or fd66:6973:7468::/64", param, ctx)


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
        _directory("--program-dir", defaults.program_dir, "Where the program is."),
        _directory("--conf-dir", defaults.conf_dir, "Where runtimes find network lists."),
        _directory("--bin-dir", defaults.bin_dir, "Where runtimes find plugins."),
        _directory("--root", defaults.root, "Put before every path: a tree to be shipped."),
    ):
        command = option(command)
    return command


@click.command()
@place_options
@click.option("--launcher", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--mode", type=click.Choice(list(_TEMPLATES)), default="bridge", show_default=True)
@click.option("--subnet", "subnets", type=Subnet(), multiple=True, help="Once for each family.")
@click.option("--bridge", help="Name of the bridge, in bridge mode.")
@click.option("--no-start", is_flag=True, help="Do not enable and start the systemd unit.")
@click.option("--force", is_flag=True, help="Replace a network list that is not ours.")
def install(  # noqa: PLR0917 - click passes each by its name
    launcher: Path | None,
    mode: str,
    subnets: Sequence[IPNetwork],
    bridge: str | None,
    no_start: bool,
    force: bool,
    **directories: Path,
) -> None:
    """Put plugin, agent and network list in place.

    Doing it again changes only what differs.  The network list is put last: a runtime calls
    the plugin from that moment on.
    """
    places = Places(**directories)
    if places.is_this_host and os.geteuid() != 0:
        raise Problem("installing needs root: use sudo, or --root DIRECTORY for a tree to ship")
    if bridge and mode != "bridge":
        raise click.UsageError("--bridge is for --mode bridge")
    binary = launcher or find_launcher()
    if binary is None:
        raise Problem("the launcher is not built: make -C cni/launcher, or name it by --launcher")
    standalone = find_standalone()
    template = (CONF / _TEMPLATES[mode]).read_bytes()
    network = conflist(template, subnets, bridge) if subnets or bridge else template
    items = [
        *_binaries(places, binary),
        *_program(places, standalone),
        *_agent(places, standalone),
        Item(
            target=places.conf_dir / CONFLIST,
            content=network,
            mode=0o644,
            care=Care.REFUSE,
        ),
    ]
    put_all(places, items, force=force)
    _start(places, no_start=no_start)


def put_all(places: Places, items: Sequence[Item], *, force: bool) -> None:
    """Put *items* in order; nothing at all is put when one of them is refused."""
    manifest = read_manifest(places.manifest)
    recorded = {placed.path: placed for placed in manifest.files}
    actions: list[tuple[Item, Action]] = []
    for item in items:
        known = recorded.get(str(item.target))
        action = decide(
            item.care,
            wanted=digest(item.content),
            present=digest_of(places.real(item.target)),
            recorded=known.sha256 if known else None,
            force=force,
        )
        if action is Action.REFUSE:
            raise Problem(
                f"{item.target} is there and differs from what would be put: "
                "compare them, and replace it by --force (uninstall puts it back)"
            )
        actions.append((item, action))
    _make_room(places, items, manifest)
    for item, action in actions:
        if action is not Action.KEEP:
            _put(places, item, action, manifest)
            click.echo(f"{action.value:<8} {item.target}")


def _make_room(places: Places, items: Sequence[Item], manifest: Manifest) -> None:
    wanted = [places.manifest.parent, *(places.real(item.target).parent for item in items)]
    for directory in wanted:
        for made in make_directories(directory):
            manifest.directories.append("/" + str(made.relative_to(places.root)))
    places.manifest.parent.chmod(0o700)
    write_manifest(places.manifest, manifest)


def _put(places: Places, item: Item, action: Action, manifest: Manifest) -> None:
    """Put one file; the manifest is written before, so that an interruption forgets nothing."""
    saved = ""
    if action is Action.REPLACE_FOREIGN:
        saved = f"{item.target}{SAVED}"
        before = places.real(item.target)
        place(places.real(Path(saved)), before.read_bytes(), before.stat().st_mode & 0o7777)
    manifest.add(Placed(path=str(item.target), sha256=digest(item.content), saved=saved))
    write_manifest(places.manifest, manifest)
    place(places.real(item.target), item.content, item.mode)


def _binaries(places: Places, launcher: Path) -> list[Item]:
    content = launcher.read_bytes()
    return [
        Item(target=places.bin_dir / name, content=content, mode=0o755)
        for name in ("isthmus", "isthmus-ipam")
    ]


def _program(places: Places, standalone: Path | None) -> list[Item]:
    if standalone is None:
        return []
    if standalone.is_file():
        sources = {places.program_dir / "isthmus": standalone}
    else:
        sources = {
            places.program_dir / source.relative_to(standalone): source
            for source in sorted(standalone.rglob("*"))
            if source.is_file()
        }
    return [
        Item(
            target=target,
            content=source.read_bytes(),
            mode=0o755 if os.access(source, os.X_OK) else 0o644,
        )
        for target, source in sources.items()
    ]


def _agent(places: Places, standalone: Path | None) -> list[Item]:
    config = places.config_dir / "agent.toml"
    own = [str(places.program_dir / "isthmus"), "agent"]
    items = [
        Item(
            target=config,
            content=(CONF / "agent.toml").read_bytes(),
            mode=0o644,
            care=Care.KEEP,
        )
    ]
    if not places.is_this_host or has_systemd():
        content = unit((CONF / UNIT).read_bytes(), own if standalone else agent_command(), config)
        items.append(Item(target=places.unit_dir / UNIT, content=content, mode=0o644))
    return items


def has_systemd() -> bool:
    """systemd is what runs this host (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def _start(places: Places, *, no_start: bool) -> None:
    if not places.is_this_host:
        return
    if not has_systemd():
        note("There is no systemd here: run `isthmus agent` by what starts services here.")
        return
    from dataplane.programs import run

    steps = [["daemon-reload"]]
    if not no_start:
        steps.append(["enable", "--now", UNIT])
    for step in steps:
        done = run(["systemctl", *step])
        if done.status:
            raise Problem(f"systemctl {' '.join(step)}: {done.complaint}")
    note("Look for trouble by: isthmus doctor")
