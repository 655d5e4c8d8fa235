"""Who would translate Services is known before kube-proxy's rules go."""

from typing import Any

import pytest
from click.testing import CliRunner

from cli import remove_kube_proxy as command
from dataplane import kube_proxy
from dataplane.programs import ProgramMissing

PROGRAMMED = {"services": [{"name": "shop/web", "programmed": True}]}


@pytest.mark.parametrize(
    ("services", "said"),
    [
        ([], "translates no Services: without kube-proxy nobody would"),
        ([{"name": "shop/web", "programmed": False}], "not all Services are programmed yet: shop/"),
    ],
)
def test_without_isthmus_in_its_place_it_stays(
    monkeypatch: pytest.MonkeyPatch, services: list[dict[str, Any]], said: str
) -> None:
    monkeypatch.setattr(command, "ask_agent", lambda *_: {"services": services})

    done = CliRunner().invoke(command.remove_kube_proxy)

    assert done.exit_code == 1
    assert said in str(done.output)


@pytest.mark.parametrize(
    ("modes", "said"),
    [
        ([], ["kube-proxy left nothing here"]),
        (["nftables"], ["what kube-proxy made in mode nftables is removed"]),
        (["ipvs"], ["what kube-proxy made in mode ipvs is removed",
                    "virtual servers stay: ipvsadm --clear, if nobody else uses IPVS here"]),
    ],
)  # fmt: skip
def test_what_is_removed_is_said_by_its_mode(
    monkeypatch: pytest.MonkeyPatch, modes: list[str], said: list[str]
) -> None:
    monkeypatch.setattr(command, "ask_agent", lambda *_: PROGRAMMED)
    monkeypatch.setattr(kube_proxy, "remove", lambda _: modes)

    done = CliRunner().invoke(command.remove_kube_proxy)

    assert (done.exit_code, done.output.splitlines()) == (0, said)


def test_where_a_program_lacks_it_is_said_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    def remove(_: object) -> list[str]:
        raise ProgramMissing("cannot run iptables-legacy-save: No such file or directory")

    monkeypatch.setattr(command, "ask_agent", lambda *_: PROGRAMMED)
    monkeypatch.setattr(kube_proxy, "remove", remove)

    done = CliRunner().invoke(command.remove_kube_proxy)

    assert done.exit_code == 1
    assert "iptables-legacy-save" in done.output
    assert "kube-proxy --cleanup" in done.output
