"""Foreign IPAM plugins, as small programs: what they are given, what becomes of their answers."""

import json
import os
import shlex
import signal
from pathlib import Path

import pytest

from cni import delegate, spec
from cni.environment import check
from cni.errors import CNIError
from cni.spec import Delegate
from ipam.leases import State
from tests.unit.cni.fakes import BLUE, GREEN, NO_TRACE, WHO, Answer, Document, World

GIVEN: Document = {
    "cniVersion": "1.1.0",
    "ips": [{"address": "10.7.0.5/24", "gateway": "10.7.0.1"}],
    "routes": [{"dst": "0.0.0.0/0"}],
    "dns": {"nameservers": ["10.7.0.53"]},
}
IPAM: Document = {"type": "fixed", "colour": "blue"}


class Plugin:
    """A program `fixed` that writes down how it was called; *answers* by verb."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.says("ADD", json.dumps(GIVEN))

    @property
    def path(self) -> str:
        return f"/no/such/bin:{self.directory}"

    def says(self, verb: str, text: str, status: int = 0) -> None:
        (self.directory / f"answer-{verb}").write_text(text)
        (self.directory / f"status-{verb}").write_text(str(status))
        self.runs(
            'd=$(dirname "$0")\n'
            'echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS $CNI_ARGS" >> "$d/calls"\n'
            'cat > "$d/stdin"\n'
            'echo "a word on stderr" >&2\n'
            '[ -f "$d/answer-$CNI_COMMAND" ] || exit 0\n'
            'cat "$d/answer-$CNI_COMMAND"; exit "$(cat "$d/status-$CNI_COMMAND")"'
        )

    def runs(self, script: str) -> None:
        program = self.directory / "fixed"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        """Verb and attachment of each call; without a line break at its end."""
        written = self.directory / "calls"
        return (
            [line.strip() for line in written.read_text().splitlines()] if written.exists() else []
        )

    @property
    def stdin(self) -> Document:
        found: Document = json.loads((self.directory / "stdin").read_text())
        return found


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    return Plugin(tmp_path)


def call(world: World, plugin: Plugin, verb: str, **more: object) -> Answer:
    conf = more.pop("conf", world.conf(ipam=IPAM))
    return world.call(verb, conf, path=plugin.path, **more)  # type: ignore[arg-type]


def test_its_addresses_are_the_attachments(world: World, plugin: Plugin) -> None:
    found = call(world, plugin, "ADD")

    assert found.document is not None
    assert found.document["ips"] == [
        {"interface": 2, "address": "10.7.0.5/24", "gateway": "10.7.0.1"}
    ]
    assert found.document["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.7.0.1"}]
    assert found.document["dns"] == {"nameservers": ["10.7.0.53"]}
    assert world.record().addresses == ()
    assert world.leases.usage() == ()


def test_it_is_given_the_whole_configuration_and_our_environment(
    world: World, plugin: Plugin
) -> None:
    call(world, plugin, "ADD", args="IgnoreUnknown=1;COLOUR=blue")

    assert plugin.calls == [f"ADD c1 eth0 {BLUE} IgnoreUnknown=1;COLOUR=blue"]
    assert plugin.stdin == world.conf(ipam=IPAM)


@pytest.mark.parametrize("verb", ["DEL", "STATUS"])
def test_other_verbs_are_passed_on(world: World, plugin: Plugin, verb: str) -> None:
    assert call(world, plugin, verb).status == 0
    assert [line.split()[0] for line in plugin.calls] == [verb]


def test_check_and_gc_are_passed_on(world: World, plugin: Plugin) -> None:
    result = call(world, plugin, "ADD").document

    assert call(world, plugin, "CHECK", conf=world.conf(ipam=IPAM, prevResult=result)).status == 0
    gc = world.conf(
        ipam=IPAM, **{"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}
    )
    assert call(world, plugin, "GC", conf=gc).status == 0
    assert [line.split()[0] for line in plugin.calls] == ["ADD", "CHECK", "GC"]


@pytest.mark.parametrize("verb", ["ADD", "DEL", "STATUS"])
def test_its_error_is_ours(world: World, plugin: Plugin, verb: str) -> None:
    plugin.says(verb, '{"code": 42, "msg": "no luck", "details": "at all"}', status=1)

    found = call(world, plugin, verb)

    assert (found.code, found.msg, found.details) == (42, "no luck", "at all")


def test_after_its_failed_add_it_is_asked_to_forget(world: World, plugin: Plugin) -> None:
    plugin.says("ADD", '{"code": 42, "msg": "no luck"}', status=1)

    call(world, plugin, "ADD")

    assert [line.split()[0] for line in plugin.calls] == ["ADD", "DEL"]
    assert world.traces() == NO_TRACE


@pytest.mark.parametrize("step", ["attach", "complete"])
def test_after_our_own_failure_it_is_asked_to_forget(
    world: World, plugin: Plugin, step: str
) -> None:
    world.kernel.broken = step

    found = call(world, plugin, "ADD")

    assert found.code == 102
    assert [line.split()[0] for line in plugin.calls] == ["ADD", "DEL"]
    assert world.traces() == NO_TRACE


def test_an_undo_that_fails_does_not_hide_why(world: World, plugin: Plugin) -> None:
    plugin.says("DEL", "gone", status=3)
    world.kernel.broken = "attach"

    found = call(world, plugin, "ADD")

    assert (found.code, found.msg) == (102, "attach cut off")


def test_a_result_without_addresses_is_refused(world: World, plugin: Plugin) -> None:
    plugin.says("ADD", '{"cniVersion": "1.1.0"}')

    found = call(world, plugin, "ADD")

    assert (found.code, found.msg) == (7, "IPAM plugin returned missing IP config")
    assert world.traces() == NO_TRACE


@pytest.mark.parametrize("text", ["", "not json", "[]", '{"cniVersion": "7.0"}'])
def test_an_answer_that_is_no_result_is_refused(world: World, plugin: Plugin, text: str) -> None:
    plugin.says("ADD", text)

    found = call(world, plugin, "ADD")

    assert found.code in (6, 7)
    assert world.traces() == NO_TRACE


@pytest.mark.parametrize(
    ("says", "details"),
    [
        ("a traceback", "a traceback"),
        ("", "a word on stderr"),
        ('{"msg": "no code"}', '{"msg": "no code"}'),
        ('{"code": "x"}', '{"code": "x"}'),
    ],
)
def test_a_failure_without_an_error_is_told_with_what_it_said(
    world: World, plugin: Plugin, says: str, details: str
) -> None:
    plugin.says("DEL", says, status=3)

    found = call(world, plugin, "DEL")

    assert (found.code, found.msg, found.details) == (
        999,
        "fixed failed with exit status 3",
        details,
    )


def test_an_older_plugin_without_gc_is_no_failure(world: World, plugin: Plugin) -> None:
    plugin.says("GC", '{"code": 4, "msg": "unknown CNI_COMMAND: GC"}', status=1)

    assert call(world, plugin, "GC").status == 0


def test_a_gc_that_fails_is_told(world: World, plugin: Plugin) -> None:
    plugin.says("GC", '{"code": 11, "msg": "busy"}', status=1)

    found = call(world, plugin, "GC")

    assert (found.code, found.details) == (11, "busy")


def test_a_plugin_that_is_not_there_is_named_with_where_it_was_looked_for(world: World) -> None:
    found = world.add(world.conf(ipam=IPAM), path="/no/such/bin:/nor/here")

    assert found.code == 7
    assert found.msg == 'failed to find plugin "fixed" in path [/no/such/bin /nor/here]'
    assert "ipam.type" in found.details


def test_without_a_path_there_is_nothing_to_run(world: World) -> None:
    found = world.call("DEL", world.conf(ipam=IPAM), path="")

    assert (found.code, found.msg) == (4, "required env variables [CNI_PATH] missing")


def test_a_folder_of_the_name_is_no_plugin(world: World, tmp_path: Path) -> None:
    (tmp_path / "fixed").mkdir()

    assert world.add(world.conf(ipam=IPAM), path=str(tmp_path)).code == 7


def test_a_file_that_cannot_be_executed_is_named(plugin: Plugin) -> None:
    program = plugin.directory / "fixed"
    program.write_bytes(b"\x7fELF of no machine")

    with pytest.raises(CNIError) as caught:
        delegate.run(program, {}, b"", timeout=5)

    assert (caught.value.code, caught.value.msg) == (5, f"cannot run {program}")


def test_one_that_does_not_end_is_killed_with_its_children(plugin: Plugin) -> None:
    child = plugin.directory / "child"
    os.mkfifo(child)
    # Opening a FIFO to read waits for a writer: two processes that hang until they are killed.
    plugin.runs(f"cat {shlex.quote(str(child))} & read x < {shlex.quote(str(child))}")

    with pytest.raises(CNIError) as caught:
        delegate.run(plugin.directory / "fixed", dict(os.environ), b"", timeout=0.1)

    assert (caught.value.code, caught.value.msg) == (11, "fixed did not answer within 0.1 s")
    with pytest.raises(OSError, match="No such device"):  # nobody has it open to read
        os.open(child, os.O_WRONLY | os.O_NONBLOCK)


def test_its_standard_output_is_all_that_counts(plugin: Plugin) -> None:
    plugin.runs("echo noise >&2; echo result")

    out = delegate.run(plugin.directory / "fixed", dict(os.environ), b"", timeout=5)

    assert out == b"result\n"


def test_the_namespace_stays_the_path_where_that_leads_to_it(world: World, plugin: Plugin) -> None:
    fd = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        for netns in ("/proc/self/ns/net", "/no/such/path"):
            request = world.request("ADD", {}, netns=netns, netns_fd=fd, path=plugin.path)
            delegate.ask(
                "fixed",
                check(request.environment).command,
                request,
                check(request.environment),
                timeout=5,
            )
    finally:
        os.close(fd)

    assert [line.split()[3] for line in plugin.calls] == [
        "/proc/self/ns/net",
        f"/proc/self/fd/{fd}",
    ]


def test_what_it_takes_to_ask_again_is_kept_with_the_record(world: World, plugin: Plugin) -> None:
    call(world, plugin, "ADD", args="IgnoreUnknown=1")

    asked = spec.decode(world.record().spec).delegate

    assert asked is not None
    assert (asked.kind, asked.args) == ("fixed", "IgnoreUnknown=1")
    assert asked.path == ("/no/such/bin", str(plugin.directory))
    assert json.loads(asked.stdin) == world.conf(ipam=IPAM)


def test_an_end_without_a_caller_is_a_del_without_a_namespace(plugin: Plugin) -> None:
    asked = Delegate(kind="fixed", stdin="{}", args="A=1", path=(str(plugin.directory),))

    delegate.end(asked, WHO)

    assert plugin.calls == ["DEL c1 eth0  A=1"]
    assert plugin.stdin == {}


def test_an_undelivered_add_is_taken_back_from_it_too(world: World, plugin: Plugin) -> None:
    from cni import undo

    request = world.request("ADD", world.conf(ipam=IPAM), path=plugin.path)
    call(world, plugin, "ADD", started_ns=request.started_ns)

    undo.undelivered(request, world.node)

    assert [line.split()[0] for line in plugin.calls] == ["ADD", "DEL"]
    assert world.traces() == NO_TRACE
    assert world.record().state is State.RESERVED


def test_what_it_gives_is_known_to_the_disk_before_it_is_asked(
    world: World, plugin: Plugin
) -> None:
    world.store.full = True

    found = call(world, plugin, "ADD")

    assert found.code == 11
    assert plugin.calls == []


def test_it_hears_of_a_dead_attachment_whose_key_comes_again(world: World, plugin: Plugin) -> None:
    call(world, plugin, "ADD")
    plugin.says("DEL", '{"code": 11, "msg": "busy"}', 1)

    found = call(world, plugin, "ADD", netns=GREEN)

    assert found.status == 0
    assert plugin.calls == [f"ADD c1 eth0 {BLUE}", "DEL c1 eth0", f"ADD c1 eth0 {GREEN}"]


def test_its_failure_does_not_keep_an_undelivered_add(world: World, plugin: Plugin) -> None:
    from cni import undo

    plugin.says("DEL", '{"code": 11, "msg": "busy"}', 1)
    request = world.request("ADD", world.conf(ipam=IPAM), path=plugin.path)
    call(world, plugin, "ADD", started_ns=request.started_ns)

    undo.undelivered(request, world.node)

    assert world.traces() == NO_TRACE
    assert world.record().state is State.RESERVED


def test_it_hears_of_what_gc_ends(world: World, plugin: Plugin) -> None:
    call(world, plugin, "ADD")

    found = call(
        world, plugin, "GC", conf=world.conf(ipam=IPAM, **{"cni.dev/valid-attachments": []})
    )

    assert found.status == 0
    assert [line.split()[0] for line in plugin.calls] == ["ADD", "DEL", "GC"]


def test_a_name_too_long_for_a_file_is_that_of_no_plugin(world: World, plugin: Plugin) -> None:
    found = call(world, plugin, "ADD", conf=world.conf(ipam={"type": "x" * 300}))

    assert found.code == 7


def test_one_whose_child_leaves_the_session_is_given_up_in_time(plugin: Plugin) -> None:
    plugin.runs('setsid sh -c \'echo $$ > "$0"; exec sleep 60\' "$(dirname "$0")/child"; sleep 60')

    with pytest.raises(CNIError) as caught:
        delegate.run(plugin.directory / "fixed", {"PATH": os.environ["PATH"]}, b"", timeout=0.5)
    os.kill(int((plugin.directory / "child").read_text()), signal.SIGKILL)

    assert caught.value.code == 11
