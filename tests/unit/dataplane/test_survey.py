"""What is found in namespaces that are there is in tests/kernel/test_store_loss.py."""

import os
from collections.abc import Callable

import pytest

from dataplane import netns
from dataplane.survey import interfaces, survey


@pytest.mark.parametrize("path", ["/no/such/netns", os.devnull])
def test_a_namespace_that_went_since_it_was_listed_is_left_out(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    listed: Callable[[], list[str]] = lambda: [path]  # noqa: E731
    monkeypatch.setattr(netns, "reachable", listed)

    assert survey() == []


def test_loopback_is_none_of_the_interfaces() -> None:
    assert "lo" not in interfaces()
