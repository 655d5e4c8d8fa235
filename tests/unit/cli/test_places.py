"""Paths on the installed host, and below a root."""

from pathlib import Path

from cli.places import CONF, Places


def test_paths_are_put_below_the_root() -> None:
    places = Places(root=Path("/stage"))

    assert places.real(Path("/opt/cni/bin")) == Path("/stage/opt/cni/bin")
    assert places.manifest == Path("/stage/var/lib/isthmus/manifest.json")
    assert not places.is_this_host
    assert Places().is_this_host


def test_the_data_files_are_beside_the_code() -> None:
    assert (CONF / "10-isthmus.conflist").is_file()


def test_paths_that_the_launcher_does_not_know_are_named_with_their_variables() -> None:
    places = Places(state_dir=Path("/srv/s"), program_dir=Path("/srv/p"))

    assert Places().unknown_to_launcher() == []
    assert places.unknown_to_launcher() == [
        ("ISTHMUS_SPOOL", Path("/srv/s/spool")),
        ("ISTHMUS_STANDALONE", Path("/srv/p/isthmus")),
    ]
