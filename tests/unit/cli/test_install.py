"""A tree to ship: everything below a root, nothing of this host touched."""

import json
import os
from pathlib import Path

import pytest

from cli.install import install
from tests.unit.cli.conftest import Run


@pytest.fixture
def launcher(tmp_path: Path) -> Path:
    path = tmp_path / "launcher"
    path.write_bytes(b"launcher 1")
    path.chmod(0o755)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


PUT = {
    "opt/cni/bin/isthmus",
    "opt/cni/bin/isthmus-ipam",
    "etc/isthmus/agent.toml",
    "etc/systemd/system/isthmus-agent.service",
    "etc/cni/net.d/10-isthmus.conflist",
    "var/lib/isthmus/manifest.json",
}


def test_install_puts_plugin_agent_and_list(run: Run, root: Path, launcher: Path) -> None:
    result = run("install", "--no-program", "--root", root, "--launcher", launcher)

    assert result.exit_code == 0, result.output
    assert files(root) == PUT
    assert os.access(root / "opt/cni/bin/isthmus-ipam", os.X_OK)
    assert (root / "var/lib/isthmus").stat().st_mode & 0o777 == 0o700


def test_the_network_list_is_put_last(run: Run, root: Path, launcher: Path) -> None:
    result = run("install", "--no-program", "--root", root, "--launcher", launcher)

    assert result.output.splitlines()[-1].endswith("/etc/cni/net.d/10-isthmus.conflist")


def test_doing_it_again_changes_nothing(run: Run, root: Path, launcher: Path) -> None:
    run("install", "--no-program", "--root", root, "--launcher", launcher)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*conflist")}

    again = run("install", "--no-program", "--root", root, "--launcher", launcher)

    assert (again.exit_code, again.output) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*conflist")} == before


def test_an_upgrade_replaces_our_own_files(run: Run, root: Path, launcher: Path) -> None:
    run("install", "--no-program", "--root", root, "--launcher", launcher)
    launcher.write_bytes(b"launcher 2")

    run(
        "install", "--no-program", "--root", root, "--launcher", launcher, "--subnet", "10.9.0.0/24"
    )

    conflist = json.loads((root / "etc/cni/net.d/10-isthmus.conflist").read_bytes())
    assert (root / "opt/cni/bin/isthmus").read_bytes() == b"launcher 2"
    assert conflist["plugins"][0]["ipam"]["ranges"] == [[{"subnet": "10.9.0.0/24"}]]


def test_a_list_that_is_not_ours_is_refused_before_anything_is_put(
    run: Run, root: Path, launcher: Path
) -> None:
    (root / "etc/cni/net.d").mkdir(parents=True)
    (root / "etc/cni/net.d/10-isthmus.conflist").write_bytes(b"mine")

    result = run("install", "--no-program", "--root", root, "--launcher", launcher)

    assert result.exit_code == 1
    assert "--force" in result.output
    assert files(root) == {"etc/cni/net.d/10-isthmus.conflist"}


def test_uninstall_leaves_the_root_as_it_was(run: Run, root: Path, launcher: Path) -> None:
    (root / "etc/cni/net.d").mkdir(parents=True)
    (root / "etc/cni/net.d/10-isthmus.conflist").write_bytes(b"mine")
    run("install", "--no-program", "--root", root, "--launcher", launcher, "--force")

    result = run("uninstall", "--root", root)

    assert result.exit_code == 0, result.output
    assert "remove   /etc/cni/net.d" in result.output.splitlines()[0]
    assert files(root) == {"etc/cni/net.d/10-isthmus.conflist"}
    assert (root / "etc/cni/net.d/10-isthmus.conflist").read_bytes() == b"mine"
    assert sorted(os.listdir(root)) == ["etc"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--subnet", "10.9.0.1/24"], "has host bits set"),
        (["--subnet", "127.0.0.0/8"], "127.0.0.0/8, which is loopback"),
        (["--subnet", "elsewhere"], "does not appear to be"),
        (["--conf-dir", "net.d"], "absolute"),
        (["--mode", "routed", "--bridge", "br0"], "--mode bridge"),
        (["--mode", "magic"], "routed"),
    ],
)
def test_a_wrong_option_says_what_is_allowed(
    run: Run, root: Path, launcher: Path, options: list[str], words: str
) -> None:
    result = run("install", "--no-program", "--root", root, "--launcher", launcher, *options)

    assert result.exit_code == 2
    assert words in result.output
    assert files(root) == set()


def test_other_directories_can_be_chosen(run: Run, root: Path, launcher: Path) -> None:
    run(
        "install", "--no-program", "--root", root, "--launcher", launcher,
        "--bin-dir", "/usr/libexec/cni", "--conf-dir", "/etc/cni/other",
    )  # fmt: skip

    assert {"usr/libexec/cni/isthmus", "etc/cni/other/10-isthmus.conflist"} <= files(root)


def test_every_option_has_a_help() -> None:
    assert [option.name for option in install.params if not getattr(option, "help", "")] == []


def test_ipamd_comes_on_request_and_goes_with_the_rest(
    run: Run, root: Path, launcher: Path
) -> None:
    words = ("install", "--no-program", "--root", root, "--launcher", launcher)
    done = run(*words, "--ipamd")
    put = files(root)
    unit = (root / "etc/systemd/system/isthmus-ipamd.service").read_text()
    gone = run("uninstall", "--root", root)

    assert put == PUT | {"etc/isthmus/ipamd.toml", "etc/systemd/system/isthmus-ipamd.service"}
    assert "systemctl enable --now isthmus-ipamd.service" in done.stderr
    assert " ipamd --config /etc/isthmus/ipamd.toml\n" in unit
    assert gone.exit_code == 0
    assert files(root) == set()
