"""Installing over a plugin that runs, and taking back what was made in the kernel."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.barrier import BRIDGED, ROUTED
from cli.group import isthmus
from cli.leftovers import remove_leftovers
from cli.places import TREE
from cni.attachment import bridge
from cni.spec import BridgeSpec, Spec
from cni.tables import skeleton
from dataplane.netns import entered, open_path
from dataplane.sysctl import FileLedger, Sysctls
from tests.kernel.conftest import Namespace

pytestmark = pytest.mark.kernel

ALIAS = "isthmus/1 bm 1 n c eth0 10.66.0.2/16"


@pytest.fixture
def host(namespaces: Callable[[str], Namespace]) -> Namespace:
    return namespaces("host")


@contextmanager
def inside(namespace: Namespace) -> Iterator[None]:
    with open(open_path(namespace.path), "rb", buffering=0) as handle, entered(handle.fileno()):
        yield


def clean(namespace: Namespace, ledger: Path) -> tuple[list[str], list[str]]:
    """Remove leftovers of *namespace*, from a thread of its own."""

    def work() -> tuple[list[str], list[str]]:
        with inside(namespace):
            return remove_leftovers(ledger, seed="test")

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def links(namespace: Namespace) -> set[str]:
    listed = namespace.run("ip", "-o", "link")
    return {line.split(": ")[1].partition("@")[0] for line in listed.splitlines()}


def test_links_tables_bridge_and_settings_of_ours_go_and_others_stay(
    host: Namespace, tmp_path: Path
) -> None:
    ours = bridge(Spec(bridge=BridgeSpec(name="cni0")), seed="test")
    assert ours is not None
    host.run("ip", "link", "add", "cni0", "address", ours.mac, "type", "bridge")
    host.run("ip", "link", "add", "br-other", "type", "bridge")
    for name, alias in (("isth0123456789a", ALIAS), ("isthmine", "")):
        host.run("ip", "link", "add", name, "type", "veth", "peer", "name", f"p{name[4:9]}")
        if alias:
            host.run("ip", "link", "set", name, "alias", alias, "master", "cni0")
    host.run("nft", "add table inet theirs")
    ledger = tmp_path / "sysctl.json"
    with ThreadPoolExecutor(1) as pool:
        pool.submit(_prepare, host, ledger).result()

    removed, faults = clean(host, ledger)

    assert faults == []
    assert removed == [
        "link isth0123456789a",
        "bridge cni0",
        "table inet isthmus-cni",
        "table inet isthmus-lost",
        "table bridge isthmus-cni",
        "table bridge isthmus-lost",
        "changes of net/ipv4/ip_forward",
    ]
    assert links(host) == {"lo", "br-other", "isthmine", "pmine"}
    assert host.run("nft", "list", "tables") == "table inet theirs\n"
    assert host.run("cat", "/proc/sys/net/ipv4/ip_forward") == "0\n"
    assert not ledger.exists()


def _prepare(host: Namespace, ledger: Path) -> None:
    with inside(host):
        Sysctls(FileLedger(ledger)).ensure("net/ipv4/ip_forward", "0")
        Sysctls().ensure("net/ipv4/ip_forward", "0")
        Sysctls(FileLedger(ledger)).ensure("net/ipv4/ip_forward", "1")
        tables = skeleton() + ROUTED.script() + BRIDGED.script()
        subprocess.run(["nft", "-f", "-"], input=tables, text=True, check=True)


def test_a_host_without_leftovers_is_left_alone(host: Namespace, tmp_path: Path) -> None:
    assert clean(host, tmp_path / "sysctl.json") == ([], [])


def test_a_plugin_is_replaced_while_it_runs(tmp_path: Path) -> None:
    root, launcher = tmp_path / "root", tmp_path / "launcher"
    launcher.write_bytes(Path("/bin/sleep").read_bytes())
    words = ["install", "--no-program", "--root", str(root), "--launcher", str(launcher)]
    root.mkdir()
    first = CliRunner().invoke(isthmus, words)
    running = subprocess.Popen([root / "opt/cni/bin/isthmus", "60"])

    launcher.write_bytes(Path("/bin/true").read_bytes())
    second = CliRunner().invoke(isthmus, words)
    still_runs = running.poll() is None
    running.kill()
    running.wait()

    assert (first.exit_code, second.exit_code, still_runs) == (0, 0, True)
    assert subprocess.run([root / "opt/cni/bin/isthmus"], check=False).returncode == 0


LIFE = """
set -eu
mount --make-rprivate /
for place in /opt /var/lib /etc/cni /run; do mount -t tmpfs none $place; done
mkdir /run/netns /etc/cni/net.d
ip link set lo up
ip netns add pod
snapshot() { find /opt /var/lib /etc/cni /run/netns | sort; ip -o link; nft list ruleset;
    cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding; }
snapshot > /run/before
isthmus() { "$PYTHON" -m cli "$@"; }
isthmus install --no-program --config-dir /opt/etc
"$PYTHON" -m cli agent --config /opt/etc/agent.toml 2> /run/log & agent=$!
trap 'kill -9 $agent; cat /run/log' EXIT
call() { "$PYTHON" -c "import json; d = json.load(open('/etc/cni/net.d/10-isthmus.conflist'))
print(json.dumps(d['plugins'][0] | {'name': d['name'], 'cniVersion': '1.0.0'}))" |
    CNI_COMMAND=$1 CNI_CONTAINERID=c1 CNI_NETNS=/run/netns/pod CNI_IFNAME=eth0 \\
    CNI_PATH=/opt/cni/bin /opt/cni/bin/isthmus; }
call ADD
echo "== attached"; isthmus attachments
echo "== refused"; isthmus uninstall --config-dir /opt/etc 2>&1 && exit 1
trap - EXIT
kill $agent; wait $agent || :
isthmus uninstall --config-dir /opt/etc 2>&1 && exit 1
echo "== forced"; isthmus uninstall --config-dir /opt/etc --force --purge
echo "== difference"; rm -rf /run/isthmus; snapshot | diff /run/before - && echo none
"""


def test_a_host_is_left_as_it_was_found() -> None:
    done = subprocess.run(
        ["unshare", "--mount", "--net", "bash", "-c", LIFE],
        cwd=TREE,
        env=os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(TREE)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    parts = done.stdout.split("== ")
    said = {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}
    assert "10.66.0.2/16" in said["attached"], done.stdout + done.stderr
    assert "end it, then uninstall again" in said["refused"]
    assert "isthmus/c1/eth0" in said["refused"]
    assert "changes of net/ipv4/ip_forward" in said["forced"]
    assert said["difference"] == "none\n", done.stdout + done.stderr


UNDER_SYSTEMD = """
set -eu
mount --make-rprivate /
for place in /opt /var/lib /etc/cni /etc/systemd /run; do mount -t tmpfs none $place; done
mkdir -p /run/systemd/system /run/bin
cat > /run/bin/systemctl <<'END'
#!/bin/sh
echo "systemctl $*, lists: $(ls /etc/cni/net.d 2> /dev/null)"  >> /run/calls
END
chmod +x /run/bin/systemctl
PATH=/run/bin:$PATH
places="--config-dir /opt/etc --command-dir /opt/bin"
"$PYTHON" -m cli install --no-program $places > /run/log
cp /etc/systemd/system/isthmus-agent.service /run/unit
"$PYTHON" -m cli install --no-program $places
"$PYTHON" -m cli uninstall $places > /run/log
cat /run/calls; grep ^ExecStart /run/unit; find /etc/systemd /etc/cni /opt -type f
"""


def test_systemd_runs_the_agent_before_any_list_names_it_and_stops_it_after() -> None:
    done = subprocess.run(
        ["unshare", "--mount", "--net", "bash", "-c", UNDER_SYSTEMD],
        cwd=TREE,
        env=os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(TREE)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    calls = [line for line in done.stdout.splitlines() if line.startswith("systemctl")]
    listed = "10-isthmus.conflist"
    assert calls == [
        "systemctl daemon-reload, lists: ",
        "systemctl enable isthmus-agent.service, lists: ",
        "systemctl restart isthmus-agent.service, lists: ",
        f"systemctl daemon-reload, lists: {listed}",
        f"systemctl enable isthmus-agent.service, lists: {listed}",
        f"systemctl start isthmus-agent.service, lists: {listed}",
        "systemctl disable --now isthmus-agent.service, lists: ",
        "systemctl daemon-reload, lists: ",
    ], done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith("agent --config /opt/etc/agent.toml")
