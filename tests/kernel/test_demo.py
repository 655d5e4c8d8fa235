"""The demonstration as a newcomer runs it: it works, and leaves nothing however it ends."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.places import TREE

pytestmark = pytest.mark.kernel


def start(*words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "cli", "demo", *words],
        cwd=TREE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def left(suffix: str) -> list[str]:
    """What there still is of the demonstration *suffix*."""
    name = f"isthmus-demo-{suffix}"
    places = [*Path("/run/netns").glob(f"{name}*"), *Path("/run").glob(name)]
    running = [
        path
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if f"{name}/agent.toml".encode() in _content(path)
    ]
    return [str(path) for path in (*places, *running)]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def suffix_of(output: str) -> str:
    found = re.search(r"isthmus-demo-([0-9a-f]+)-host", output)
    assert found, output
    return found[1]


def test_it_works_in_one_go_and_leaves_nothing() -> None:
    demo = start()
    output, _ = demo.communicate(timeout=120)

    assert demo.returncode == 0, output
    assert "web and shell have the addresses they had" in output
    assert "│ cni0   10.66.0.1/16" in output
    assert left(suffix_of(output)) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_leaves_nothing(number: signal.Signals) -> None:
    demo = start()
    assert demo.stdout
    output = ""
    for line in demo.stdout:
        output += line
        if "They reach each other" in line:
            break
    os.kill(demo.pid, number)
    rest, _ = demo.communicate(timeout=60)

    assert demo.returncode == 1, output + rest
    assert left(suffix_of(output)) == []


def test_kept_it_goes_on_and_says_how_to_remove_it() -> None:
    demo = start("--keep")
    output, _ = demo.communicate(timeout=120)
    suffix = suffix_of(output)
    kept = left(suffix)
    removal = output.partition("To remove it:\n")[2]

    removed = subprocess.run(["sh", "-ec", removal], check=False, capture_output=True, text=True)

    assert demo.returncode == 0, output
    assert len(kept) == 7, kept
    assert (removed.returncode, removed.stderr) == (0, "")
