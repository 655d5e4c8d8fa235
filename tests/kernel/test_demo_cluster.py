"""The cluster's demonstration as a newcomer runs it: it works, and leaves nothing."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.places import TREE

pytestmark = pytest.mark.kernel


def start() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "cli", "demo-cluster"],
        cwd=TREE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def left(output: str) -> list[str]:
    """What there still is of the demonstration that said *output*: places, and processes."""
    found = re.search(r"isthmus-demo-[0-9a-f]+", output)
    assert found, output
    places = [*Path("/run/netns").glob(f"{found[0]}*"), *Path("/run").glob(found[0])]
    running = [
        path for path in Path("/proc").glob("[0-9]*/cmdline") if found[0].encode() in _content(path)
    ]
    return [str(path) for path in (*places, *running)]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_it_works_in_one_go_and_leaves_nothing() -> None:
    demo = start()
    output, _ = demo.communicate(timeout=180)

    assert demo.returncode == 0, output
    assert len(re.findall(r"web-. ➜ web-. .* (direct|VXLAN) .* ms", output)) == 6
    assert "etcd is killed (-9)" in output
    assert len(re.findall(r"more-[abc] on host-[abc]", output)) == 3
    assert "No problem found." in output
    assert left(output) == []


def test_interrupted_it_leaves_nothing() -> None:
    demo = start()
    assert demo.stdout
    output = ""
    for line in demo.stdout:
        output += line
        if "ipamd at" in line:
            break
    os.kill(demo.pid, signal.SIGTERM)
    rest, _ = demo.communicate(timeout=60)

    assert demo.returncode == 1, output + rest
    assert left(output) == []
