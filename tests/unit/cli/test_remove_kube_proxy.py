"""Who would translate Services is known before kube-proxy's rules go."""

from typing import Any

import pytest
from click.testing import CliRunner

from cli import remove_kube_proxy as command


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
