"""Versions are those that go.mod pins."""

import re

import pytest

from tools.kind import versions
from tools.kind.places import FILES_OF_THE_NODE
from tools.kind.versions import pinned


@pytest.mark.parametrize("text", ["require a.b/c v1.2.3\n", "require (\n\ta.b/c v1.2.3 // x\n)\n"])
def test_a_version_is_found_however_it_is_required(text: str) -> None:
    assert pinned(text, "a.b/c") == "v1.2.3"


def test_a_module_that_is_not_required_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"requires no a\.b/c"):
        pinned("module a.b/c\nreplace a.b/c => a.b/d v1.0.0\n", "a.b/c")


def test_kubernetes_and_the_stock_image_are_of_one_minor_version() -> None:
    stock = re.search(r":(v\d+\.\d+)\.", versions.STOCK_NODE_IMAGE)

    assert stock is not None
    assert versions.kubernetes().rpartition(".")[0] == stock[1]


def test_nodes_start_pods_from_the_sandbox_image_that_is_built() -> None:
    for configuration in (FILES_OF_THE_NODE / "containerd").iterdir():
        assert f"pause:{versions.PAUSE_TAG}'" in configuration.read_text()
