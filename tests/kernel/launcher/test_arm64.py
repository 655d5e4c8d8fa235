"""The launcher built for another architecture, where this machine can build and run that.

Debian's gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user-static are not asked for by
anything else, so without them there is nothing to see here.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from cni.spool import Spool
from tests.kernel.launcher.process import CONFIG, Launcher

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[3]
NEEDED = ("aarch64-linux-gnu-gcc", "qemu-aarch64-static")


@pytest.fixture(scope="session")
def arm64() -> list[str]:
    """What runs it."""
    if missing := [name for name in NEEDED if not shutil.which(name)]:
        pytest.skip(f"{' and '.join(missing)} not installed")
    subprocess.run(["make", "-sC", ROOT / "cni/launcher", "arm64"], check=True, timeout=120)
    return ["qemu-aarch64-static", str(ROOT / "build/launcher/isthmus-launcher-arm64")]


def run(argv: list[str], environment: dict[str, str], stdin: bytes = b"") -> tuple[int, bytes]:
    program = str(shutil.which(argv[0]))
    done = subprocess.run(
        [program, *argv[1:]],
        env=environment,
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


def test_it_tells_its_versions(arm64: list[str]) -> None:
    status, stdout = run(arm64, {"CNI_COMMAND": "VERSION"})

    assert status == 0
    assert json.loads(stdout)["cniVersion"] == "1.1.0"


def test_it_refuses_a_wrong_environment(arm64: list[str]) -> None:
    status, stdout = run(arm64, {"CNI_COMMAND": "ADD"})

    assert (status, json.loads(stdout)["code"]) == (1, 4)


def test_it_keeps_a_deletion_in_the_form_that_an_agent_reads(
    arm64: list[str], tmp_path: Path
) -> None:
    here = Launcher("", tmp_path)
    answer = run(arm64, here.environment("DEL"), CONFIG)
    (entry,) = Spool(here.spool).pending()

    assert answer == (0, b"")
    assert entry.request.stdin == CONFIG
    assert entry.request.environment["CNI_CONTAINERID"] == "c1"
