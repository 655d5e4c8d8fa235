"""Taking away what was put, also when the record of it is lost or files were edited."""

from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run


@pytest.fixture
def root(run: Run, tmp_path: Path) -> Path:
    """A root with isthmus in it."""
    launcher = tmp_path / "launcher"
    launcher.write_bytes(b"launcher")
    path = tmp_path / "root"
    path.mkdir()
    assert run("install", "--no-program", "--root", path, "--launcher", launcher).exit_code == 0
    return path


def left(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_nothing_is_left_and_doing_it_again_is_fine(run: Run, root: Path) -> None:
    first = run("uninstall", "--root", root)
    again = run("uninstall", "--root", root)

    assert (first.exit_code, again.exit_code) == (0, 0)
    assert list(root.iterdir()) == []
    assert again.output == "Nothing of isthmus is installed.\n"


def test_the_network_list_goes_first_wherever_it_was_put(run: Run, tmp_path: Path) -> None:
    launcher, root = tmp_path / "launcher", tmp_path / "other"
    launcher.write_bytes(b"")
    root.mkdir()
    run(
        "install", "--no-program", "--root", root, "--launcher", launcher,
        "--conf-dir", "/srv/net.d",
    )  # fmt: skip

    result = run("uninstall", "--root", root)

    assert result.output.startswith("remove   /srv/net.d/10-isthmus.conflist\n")
    assert list(root.iterdir()) == []


def test_what_an_operator_edited_is_set_aside(run: Run, root: Path) -> None:
    (root / "etc/isthmus/agent.toml").write_text("max_parallel = 8\n")

    result = run("uninstall", "--root", root)

    assert "was edited" in result.output
    assert left(root) == {"etc/isthmus/agent.toml.isthmus-edited"}


def test_leases_stay_unless_they_are_to_be_purged(run: Run, root: Path) -> None:
    state = root / "var/lib/isthmus"
    (state / "spool").mkdir()
    for name in ("isthmus.db", "isthmus.db-wal", "lock", "lost", "sysctl.json", "spool/1.del"):
        (state / name).write_bytes(b"")

    run("uninstall", "--root", root)
    kept = left(root)
    run("uninstall", "--root", root, "--purge")

    assert "var/lib/isthmus/isthmus.db" in kept
    assert left(root) == set()


def test_purging_touches_nothing_in_the_directory_that_is_not_ours(run: Run, root: Path) -> None:
    (root / "var/lib/isthmus/notes.txt").write_bytes(b"")

    run("uninstall", "--root", root, "--purge")

    assert left(root) == {"var/lib/isthmus/notes.txt"}


def test_without_its_record_files_are_found_by_their_names(run: Run, root: Path) -> None:
    (root / "var/lib/isthmus/manifest.json").unlink()
    (root / "opt/isthmus/_internal").mkdir(parents=True)
    for name in ("isthmus", "_internal/libpython.so"):
        (root / "opt/isthmus" / name).write_bytes(b"")

    run("uninstall", "--root", root)

    assert left(root) == {"etc/isthmus/agent.toml"}
    assert not (root / "opt/isthmus").exists()
