"""The files that make up an installation, read from where they were built."""

import os
from collections.abc import Sequence
from pathlib import Path

from agent.placement import PLUGINS
from agent.program import own_command
from cli.installation import Care, Item, agent_config, conflist, ipamd_unit, unit
from cli.places import CONF, Places, has_systemd
from net.address import IPNetwork

CONFLIST = "10-isthmus.conflist"
UNIT = "isthmus-agent.service"
IPAMD_UNIT = "isthmus-ipamd.service"
_TEMPLATES = {"bridge": "10-isthmus.conflist", "routed": "10-isthmus-routed.conflist"}


def plugins(places: Places, launcher: Path) -> list[Item]:
    """The launcher under both names by which runtimes and other plugins call it."""
    content = launcher.read_bytes()
    return [Item(target=places.bin_dir / name, content=content, mode=0o755) for name in PLUGINS]


def program(places: Places, standalone: Path | None) -> list[Item]:
    """The standalone program, one file or a folder, and the command, where it is built."""
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
    items = [
        Item(
            target=target,
            content=source.read_bytes(),
            mode=0o755 if os.access(source, os.X_OK) else 0o644,
        )
        for target, source in sources.items()
    ]
    # A script, not a link: it is put and taken away like every other file.
    script = f'#!/bin/sh\nexec {places.program_dir}/isthmus "$@"\n'.encode()
    return [*items, Item(target=places.command_dir / "isthmus", content=script, mode=0o755)]


def agent_files(places: Places, standalone: Path | None) -> list[Item]:
    """The agent's configuration, which is the operator's once it is there, and its unit."""
    config = places.config_dir / "agent.toml"
    example = agent_config((CONF / "agent.toml").read_bytes(), places.state_dir)
    items = [Item(target=config, content=example, mode=0o644, care=Care.KEEP)]
    if not places.is_this_host or has_systemd():
        command = [*_command(places, standalone), "agent"]
        content = unit((CONF / UNIT).read_bytes(), command, config, places.state_dir)
        items.append(Item(target=places.unit_dir / UNIT, content=content, mode=0o644))
    return items


def ipamd_files(places: Places, standalone: Path | None) -> list[Item]:
    """ipamd's configuration, likewise the operator's, and its unit."""
    config = places.config_dir / "ipamd.toml"
    example = (CONF / "ipamd.toml").read_bytes()
    command = [*_command(places, standalone), "ipamd"]
    content = ipamd_unit((CONF / IPAMD_UNIT).read_bytes(), command, config)
    return [
        Item(target=config, content=example, mode=0o644, care=Care.KEEP),
        Item(target=places.unit_dir / IPAMD_UNIT, content=content, mode=0o644),
    ]


def _command(places: Places, standalone: Path | None) -> list[str]:
    return [str(places.program_dir / "isthmus")] if standalone else own_command()


def network_list(
    places: Places, mode: str, subnets: Sequence[IPNetwork], bridge: str | None
) -> Item:
    """What runtimes read; byte for byte the example where nothing else is asked for."""
    content = (CONF / _TEMPLATES[mode]).read_bytes()
    if subnets or bridge:
        content = conflist(content, subnets, bridge)
    return Item(target=places.conf_dir / CONFLIST, content=content, mode=0o644, care=Care.REFUSE)
