"""Paths on the installed host, and below a root."""

from pathlib import Path

from cli.places import CONF, Places, agent_command


def test_paths_are_put_below_the_root() -> None:
    places = Places(root=Path("/stage"))

    assert places.real(Path("/opt/cni/bin")) == Path("/stage/opt/cni/bin")
    assert places.manifest == Path("/stage/var/lib/isthmus/manifest.json")
    assert not places.is_this_host
    assert Places().is_this_host


def test_the_data_files_are_beside_the_code() -> None:
    assert (CONF / "10-isthmus.conflist").is_file()


def test_the_agent_can_be_run_from_anywhere() -> None:
    command = agent_command()

    assert command[-1] == "agent"
    assert Path(command[0]).is_absolute()
