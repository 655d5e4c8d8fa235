"""A node's part of taking isthmus out of a cluster."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.uninstall_node import Removal, uninstall_node

PUT = ("opt/cni/bin/isthmus", "opt/cni/bin/isthmus-ipam", "etc/cni/net.d/10-isthmus.conflist")
OTHERS = ("opt/cni/bin/loopback", "etc/cni/net.d/20-other.conflist")
STATE = ("var/lib/isthmus/spool/1.del", "var/lib/isthmus-etcd/data/member/db")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in PUT + OTHERS + STATE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def removal(root: Path, links: list[str], *, force: bool = False) -> Removal:
    return Removal(root, force=force, links=lambda: links, clean_kernel=lambda ledger: [])


def test_while_pods_have_their_network_nothing_goes(root: Path) -> None:
    ours = removal(root, ["isth0"])

    ours.step()

    assert ours.waiting_for == "1 pods still have their network: isth0"
    assert files(root) == {*PUT, *OTHERS, *STATE}


def test_after_the_last_pod_all_goes_that_is_ours_and_nothing_else(root: Path) -> None:
    links = ["isth0"]
    ours = removal(root, links)
    ours.step()
    links.clear()

    ours.step()

    assert ours.waiting_for == ""
    assert files(root) == set(OTHERS)
    assert not (root / "var/lib/isthmus").exists()


def test_by_force_pods_are_not_waited_for(root: Path) -> None:
    ours = removal(root, ["isth0"], force=True)

    ours.step()

    assert files(root) == set(OTHERS)


def test_what_the_kernel_keeps_is_told_and_the_state_stays(root: Path) -> None:
    ours = Removal(root, force=False, links=list, clean_kernel=lambda ledger: ["table x: busy"])

    ours.step()

    assert ours.waiting_for == "table x: busy"
    assert set(STATE) <= files(root)


def test_done_again_it_does_nothing(root: Path) -> None:
    removal(root, []).step()
    again = removal(root, [])

    again.step()

    assert again.waiting_for == ""
    assert files(root) == set(OTHERS)


def test_a_root_that_is_not_there_is_a_matter_of_usage(tmp_path: Path) -> None:
    done = CliRunner().invoke(uninstall_node, ["--root", str(tmp_path / "none")])

    assert done.exit_code == 2


def test_what_host_locals_directory_has_of_ours_goes(root: Path) -> None:
    folder = root / "var/lib/cni/networks/old"
    folder.mkdir(parents=True)
    (folder / "10.9.0.7").write_text("c1\r\neth0")
    (folder / "10.9.0.8").write_text("c2\r\neth0\r\n")

    removal(root, []).step()

    assert [one.name for one in folder.iterdir()] == ["10.9.0.7"]
