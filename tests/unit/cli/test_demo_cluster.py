"""The cluster's demonstration, before it makes anything."""

import os

import pytest

from tests.unit.cli.conftest import Run


def test_it_says_what_it_will_show(run: Run) -> None:
    said = " ".join(run("demo-cluster", "--help").output.split())

    assert "The network of this machine is not touched" in said


def test_it_needs_root(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    refused = run("demo-cluster")

    assert refused.exit_code == 1
    assert "needs root" in refused.output


def test_it_names_the_packages_that_are_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "/nowhere")
    refused = run("demo-cluster")

    assert refused.exit_code == 1
    assert "apt install etcd-server iproute2 nftables iputils-ping" in refused.output
