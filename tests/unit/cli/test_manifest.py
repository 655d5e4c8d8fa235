"""`isthmus manifest`, and the manifest that is kept in conf/."""

from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from cli.manifest import manifest
from cli.places import CONF


def run(*words: str) -> Result:
    return CliRunner().invoke(manifest, words)


def objects(*words: str) -> list[dict[str, Any]]:
    done = run(*words)
    assert done.exit_code == 0, done.output
    return list(yaml.safe_load_all(done.output))


def test_the_manifest_in_conf_is_what_the_command_prints() -> None:
    assert (CONF / "isthmus.yaml").read_text() == run().output


def test_the_kustomization_is_of_that_manifest() -> None:
    document = yaml.safe_load((CONF / "kustomization.yaml").read_text())

    assert [(CONF / name).exists() for name in document["resources"]] == [True]


def test_each_object_is_made_after_what_it_needs() -> None:
    kinds = [one["kind"] for one in objects()]

    assert kinds[0] == "Namespace"
    assert kinds.index("ServiceAccount") < kinds.index("Deployment")
    assert kinds[-1] == "DaemonSet"


def test_texts_of_several_lines_are_printed_as_they_are() -> None:
    assert "  agent.toml: |\n" in run().output


@pytest.mark.parametrize(
    ("families", "pools"),
    [
        ("ipv4", ["--pool=ipv4=10.244.0.0/16:24"]),
        ("ipv6", ["--pool=ipv6=fd00:10:244::/56:112"]),
        ("dual", ["--pool=ipv4=10.244.0.0/16:24", "--pool=ipv6=fd00:10:244::/56:112"]),
    ],
)
def test_pools_are_of_the_families_asked_for(families: str, pools: list[str]) -> None:
    [job] = [one for one in objects("--families", families) if one["kind"] == "Job"]
    [container] = job["spec"]["template"]["spec"]["containers"]

    assert [word for word in container["args"] if word.startswith("--pool")] == pools


def test_removal_is_printed_instead() -> None:
    kinds = [one["kind"] for one in objects("--uninstall", "--force")]

    assert kinds == ["Namespace", "DaemonSet"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--ipv4-pool", "fd00::/64"), "--ipv4-pool is of IPv4"),
        (("--ipv4-pool", "10.0.0.1/16"), "has host bits set"),
        (("--api-server", "10.0.0.1"), "must be as https://10.0.0.1:6443"),
        (("--etcd", "10.0.0.1:2379"), "must be a list of URLs"),
        (("--etcd-member", "cp-1"), "give NODE=ADDRESS"),
        (("--mtu", "7"), "MTU 7"),
        (("--mode", "bgp"), "'bgp' is not one of"),
        (("--force",), "--force is for --uninstall"),
    ],
)
def test_what_makes_no_sense_is_a_matter_of_usage(words: tuple[str, ...], message: str) -> None:
    done = run(*words)

    assert done.exit_code == 2
    assert message in done.output
