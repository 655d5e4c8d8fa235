"""The command tree.  A command's module is imported when that command is asked for."""

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from agent.version import VERSION
from cli.answers import Problem

EXIT_CODES = """\b
Exit status:
  0  fine
  1  a problem was found, or what was asked for could not be done
  2  the command line is wrong
  3  the agent, or ipamd, cannot be reached
"""


class LazyGroup(click.Group):
    """A group whose commands are named by module and attribute, and suggested when mistyped."""

    def __init__(
        self, *args: object, lazy: Mapping[str, str] | None = None, **attrs: object
    ) -> None:
        super().__init__(*args, **attrs)  # type: ignore[arg-type]
        self._lazy = dict(lazy or {})

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what the system refuses is a message, never a traceback."""
        from dataplane.errors import DataplaneError

        try:
            return super().invoke(ctx)
        except PermissionError as exc:
            raise Problem(f"{exc.filename or exc}: permission denied; use sudo") from exc
        except BrokenPipeError:
            raise  # click ends quietly when nobody reads
        except (OSError, DataplaneError) as exc:
            raise Problem(str(exc)) from exc

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if (where := self._lazy.get(cmd_name)) is None:
            return None
        module, _, attribute = where.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        wanted = args[0]
        if not wanted.startswith("-") and wanted not in self._lazy:
            near = get_close_matches(wanted, self._lazy, n=1)
            meant = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(self._lazy)}"
            ctx.fail(f"no command {wanted!r}: {meant}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    lazy={
        "install": "cli.install:install",
        "uninstall": "cli.uninstall:uninstall",
        "uninstall-node": "cli.uninstall_node:uninstall_node",
        "manifest": "cli.manifest:manifest",
        "status": "cli.status:status",
        "attachments": "cli.attachments:attachments",
        "services": "cli.services:services",
        "explain": "cli.explain:explain",
        "remove-kube-proxy": "cli.remove_kube_proxy:remove_kube_proxy",
        "ipam": "cli.group:ipam",
        "doctor": "cli.doctor:doctor",
        "connectivity": "cli.connectivity:connectivity",
        "demo": "cli.demo:demo",
        "demo-cluster": "cli.demo_cluster:demo_cluster",
        "agent": "cli.agent:agent",
        "ipamd": "cli.ipamd:ipamd",
        "completion": "cli.completion:completion",
    },
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)
@click.version_option(version=VERSION, prog_name="isthmus")
def isthmus() -> None:
    """Attach containers to networks: a CNI plugin, its node agent, and its addresses.

    With CNI_COMMAND in its environment this program is the CNI plugin itself.
    """


@click.group(
    cls=LazyGroup,
    lazy={
        "show": "cli.ipam:show",
        "check": "cli.ipam:check",
        "release": "cli.ipam:release",
        "init": "cli.ipam_cluster:init",
        "begin": "cli.ipam_begin:begin",
        "pools": "cli.ipam_pools:pools",
        "blocks": "cli.ipam_cluster:blocks",
        "nodes": "cli.ipam_cluster:nodes",
        "services": "cli.ipam_cluster:services",
        "who": "cli.ipam_cluster:who",
        "drain": "cli.ipam_cluster:drain",
        "pin": "cli.ipam_cluster:pin",
        "settings": "cli.ipam_cluster:settings",
        "certificates": "cli.certificates:certificates",
    },
    epilog=EXIT_CODES,
)
def ipam() -> None:
    """Look at, verify and mend addresses: of this node, or of the cluster that ipamd serves."""
