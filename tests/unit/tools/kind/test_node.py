"""What a node image is made of, but for what running it tells."""

import os
from pathlib import Path

import pytest

from tools.kind import node
from tools.kind.node import Containerd


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in (*node.KUBERNETES, *node.PLUGINS, *node.CONTAINERD):
        (programs / name).write_text("built")
    monkeypatch.setattr(node, "PROGRAMS", programs)
    tree = tmp_path / "tree"
    for folder in ("usr/bin", "etc/systemd/system/getty.target.wants", "lib/systemd"):
        (tree / folder).mkdir(parents=True)
    for name in node.DEBIANS_CONTAINERD:
        (tree / "usr/bin" / name).write_text("Debian's")
    (tree / "etc/hostname").touch()
    return tree


def assembled(tree: Path, containerd: Containerd) -> Path:
    root = tree.with_name("root")
    node.assemble(tree, root, containerd)
    return root


def test_a_node_has_one_containerd_and_its_configuration(tree: Path) -> None:
    root = assembled(tree, Containerd.BUILT)

    assert (root / "usr/local/bin/containerd").read_text() == "built"
    assert not (root / "usr/bin/containerd").exists()
    assert "version = 3" in (root / "etc/containerd/config.toml").read_text()


def test_debians_containerd_is_kept_by_choice(tree: Path) -> None:
    root = assembled(tree, Containerd.DEBIANS)

    assert (root / "usr/bin/containerd").read_text() == "Debian's"
    assert not (root / "usr/local/bin/containerd").exists()
    assert "version = 2" in (root / "etc/containerd/config.toml").read_text()


def test_only_what_a_node_needs_is_started(tree: Path) -> None:
    root = assembled(tree, Containerd.BUILT)

    units = root / "etc/systemd/system"
    wanted = [path.name for path in units.glob("*.wants/*")]
    assert sorted(wanted) == ["containerd.service", "kubelet.service"]
    assert os.readlink(units / "getty.target") == "/dev/null"


def test_a_name_of_the_container_is_not_in_the_image(tree: Path) -> None:
    root = assembled(tree, Containerd.BUILT)

    assert not (root / "etc/hostname").exists()


def test_the_tree_itself_stays_as_it_was(tree: Path) -> None:
    assembled(tree, Containerd.BUILT)

    assert (tree / "usr/bin/containerd").exists()
    assert (tree / "etc/systemd/system/getty.target.wants").is_dir()
