"""The command tree: lazy, and kind to typing errors."""

import json
import os
import subprocess
import sys
from functools import partial

import click
import pytest
from click.testing import CliRunner

from cli.group import LazyGroup
from dataplane.errors import NetlinkError
from tests.unit.cli.conftest import Run

TREE = "install uninstall status attachments doctor demo agent completion"
NESTED = ["ipam", "ipam show", "ipam check", "ipam release"]


@pytest.mark.parametrize("command", [*TREE.split(" "), *NESTED])
def test_every_command_has_a_help_of_its_own(run: Run, command: str) -> None:
    result = run(*command.split(), "--help")

    assert result.exit_code == 0
    assert "Usage: isthmus" in result.output


@pytest.mark.parametrize(
    ("words", "meant"),
    [("atachments", "'attachments'"), ("ipam chek", "'check'"), ("zzz", "completion")],
)
def test_a_mistyped_command_is_a_usage_error_with_a_suggestion(
    run: Run, words: str, meant: str
) -> None:
    result = run(*words.split())

    assert result.exit_code == 2
    assert meant in result.output


def test_the_help_names_the_exit_statuses(run: Run) -> None:
    output = run("--help").output

    assert "3  the agent, or ipamd, cannot be reached" in output


def test_neither_help_nor_the_plugin_imports_what_only_tables_and_metrics_need() -> None:
    script = (
        "import sys, cli.__main__, cli.group, click.testing\n"
        "click.testing.CliRunner().invoke(cli.group.isthmus, ['--help'])\n"
        "print(sorted({'rich', 'prometheus_client', 'asyncio'} & set(sys.modules)))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_with_a_command_of_a_runtime_it_is_the_plugin_and_imports_no_command_line() -> None:
    script = (
        "import sys, cli.__main__\n"
        "status = cli.__main__.main()\n"
        "sys.stderr.write(str('click' in sys.modules))\n"
        "sys.exit(status)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"CNI_COMMAND": "VERSION"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0
    assert "1.1.0" in json.loads(done.stdout)["supportedVersions"]
    assert done.stderr == "False"


def _raise(failure: Exception) -> None:
    raise failure


@click.command()
def fails() -> None:
    """Do what a test puts in its place."""


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (PermissionError(13, "Permission denied", "/var/lib/isthmus"), "use sudo"),
        (OSError(28, "No space left on device", "/opt/x"), "No space left"),
        (NetlinkError(1, "netlink message 16"), "Operation not permitted"),
    ],
)
def test_what_the_system_refuses_is_a_message_and_not_a_traceback(
    failure: Exception, words: str
) -> None:
    group = LazyGroup("isthmus", lazy={"fails": f"{__name__}:fails"})
    fails.callback = partial(_raise, failure)

    result = CliRunner().invoke(group, ["fails"])

    assert result.exit_code == 1
    assert words in result.output
