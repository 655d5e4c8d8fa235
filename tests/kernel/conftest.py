"""Namespaces for tests: made with a random suffix, removed whatever happens."""

import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest


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
