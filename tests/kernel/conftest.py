"""Namespaces for tests: made with a random suffix, removed whatever happens."""

import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.kernel.agents import Machine

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Namespace:
    """One named network namespace of a test."""

    name: str

    @property
    def path(self) -> str:
        return f"/run/netns/{self.name}"

    def run(self, *argv: str, check: bool = True) -> str:
        """Run a program inside; returns what it printed."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *argv],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(argv)}: {done.stdout}{done.stderr}")
        return done.stdout

    def succeeds(self, *argv: str) -> bool:
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *argv], check=False, capture_output=True, timeout=60
        )
        return done.returncode == 0

    def pings(self, address: str) -> bool:
        return self.succeeds("ping", "-n", "-c", "1", "-W", "2", address)


@pytest.fixture
def namespaces() -> Iterator[Callable[[str], Namespace]]:
    """Make namespaces by role; a failing test's are printed before they go."""
    made: list[Namespace] = []

    def make(role: str) -> Namespace:
        namespace = Namespace(f"it-{role}-{secrets.token_hex(4)}")
        subprocess.run(["ip", "netns", "add", namespace.name], check=True, timeout=30)
        made.append(namespace)
        namespace.run("ip", "link", "set", "lo", "up")
        return namespace

    yield make
    for namespace in made:
        if os.path.exists(namespace.path):
            subprocess.run(["ip", "netns", "del", namespace.name], check=False, timeout=30)


@pytest.fixture(scope="session")
def binary() -> str:
    """The launcher's test build, whose deadlines are a tenth.

    ISTHMUS_TEST_LAUNCHER names another, which is how the same tests run against the one with
    sanitizers.
    """
    given = os.environ.get("ISTHMUS_TEST_LAUNCHER")
    if given:
        return given
    subprocess.run(["make", "-sC", ROOT / "cni/launcher", "test-build"], check=True, timeout=120)
    return str(ROOT / "build/launcher/isthmus-launcher-test")


@pytest.fixture(scope="session")
def patient() -> str:
    """The launcher with its own deadlines, where none is tried: a busy machine may be that slow."""
    if given := os.environ.get("ISTHMUS_TEST_LAUNCHER"):
        return given
    subprocess.run(["make", "-sC", ROOT / "cni/launcher"], check=True, timeout=120)
    return str(ROOT / "build/launcher/isthmus-launcher")


@pytest.fixture(scope="session")
def dist() -> Path:
    """Both forms of the program, built anew where a source has changed."""
    if given := os.environ.get("ISTHMUS_TEST_DIST"):
        return Path(given)
    subprocess.run(["make", "-sC", ROOT / "cni/launcher"], check=True, timeout=120)
    subprocess.run([ROOT / "tools/dist.sh"], check=True, capture_output=True, timeout=300)
    return ROOT / "dist"


@pytest.fixture
def machine(binary: str, tmp_path: Path) -> "Iterator[Machine]":
    """A machine of its own, its agent not started yet; see tests/kernel/agents.py."""
    from tests.kernel.agents import made_machine

    with made_machine(tmp_path / "node", binary) as machine:
        yield machine
