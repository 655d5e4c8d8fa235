"""What an installation is made of."""

from ipaddress import ip_network
from pathlib import Path

from cli.contents import agent_files, ipamd_files, network_list, plugins, program
from cli.places import CONF, Places

STAGED = Places(root=Path("/stage"))


def test_the_launcher_is_put_under_both_names(tmp_path: Path) -> None:
    (tmp_path / "l").write_bytes(b"x")

    items = plugins(STAGED, tmp_path / "l")

    assert [str(item.target) for item in items] == [
        "/opt/cni/bin/isthmus",
        "/opt/cni/bin/isthmus-ipam",
    ]


def test_a_program_of_one_file_and_one_of_a_folder_end_at_the_same_path(tmp_path: Path) -> None:
    folder = tmp_path / "isthmus"
    (folder / "_internal").mkdir(parents=True)
    (folder / "isthmus").write_bytes(b"program")
    (folder / "isthmus").chmod(0o755)
    (folder / "_internal" / "lib.so").write_bytes(b"")
    single = tmp_path / "isthmus-onefile"
    single.write_bytes(b"program")
    single.chmod(0o700)

    of_folder = {str(item.target): item.mode for item in program(STAGED, folder)}
    of_file = {str(item.target): item.mode for item in program(STAGED, single)}

    command = {"/usr/local/bin/isthmus": 0o755}
    assert of_file == {"/opt/isthmus/isthmus": 0o755} | command
    assert of_folder == of_file | {"/opt/isthmus/_internal/lib.so": 0o644}
    assert program(STAGED, None) == []


def test_the_unit_runs_the_installed_program_where_there_is_one() -> None:
    with_program = agent_files(STAGED, Path("/dist/isthmus"))[1].content
    without = agent_files(STAGED, None)[1].content

    assert b"ExecStart=/opt/isthmus/isthmus agent --config /etc/isthmus/agent.toml" in with_program
    assert b"ExecStart=/opt/isthmus/isthmus" not in without


def test_the_network_list_is_the_example_unless_something_else_is_asked_for() -> None:
    example = (CONF / "10-isthmus-routed.conflist").read_bytes()

    assert network_list(STAGED, "routed", [], None).content == example
    changed = network_list(STAGED, "routed", [ip_network("10.9.0.0/24")], None).content
    assert b"10.9.0.0/24" in changed


def test_ipamd_is_the_installed_program_or_the_one_that_installs() -> None:
    installed = ipamd_files(STAGED, Path("/dist/isthmus"))
    from_here = ipamd_files(STAGED, None)[1].content

    assert installed[0].content == (CONF / "ipamd.toml").read_bytes()
    line = b"ExecStart=/opt/isthmus/isthmus ipamd --config /etc/isthmus/ipamd.toml\n"
    assert line in installed[1].content
    assert b"ExecStart=/opt/isthmus" not in from_here
    assert b"ExecStart=/usr/local/bin/isthmus ipamd" not in from_here
