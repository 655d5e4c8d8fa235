from pathlib import Path

import pytest

from kube.config import CHECKS, ServerConfig
from kube.errors import BadAccess
from net import settings
from net.settings import ConfigError

KUBELET = """
current-context: c
clusters: [{name: c, cluster: {server: "https://10.0.0.1:6443"}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
users: [{name: u, user: {}}]
"""
SERVICE = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def test_the_address_of_the_kubelet_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "kubelet.conf"
    file.write_text(KUBELET)
    access = ServerConfig(address_from=file).access(SERVICE)

    first = access().server
    file.write_text(KUBELET.replace("10.0.0.1:6443", "10.0.0.22:6443"))

    assert first == "https://10.0.0.1:6443"
    assert access().server == "https://10.0.0.22:6443"


def test_an_address_has_precedence(tmp_path: Path) -> None:
    access = ServerConfig(address="https://10.0.0.5:6443", address_from=tmp_path / "none")

    assert access.access(SERVICE)().server == "https://10.0.0.5:6443"


def test_without_any_the_service_is_asked() -> None:
    assert ServerConfig().access(SERVICE)().server == "https://10.96.0.1:443"


def test_a_whole_kubeconfig_serves_where_there_is_no_service_account(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(KUBELET)

    assert ServerConfig(kubeconfig=file).access({})().server == "https://10.0.0.1:6443"


def test_a_file_that_is_not_there_yet_is_an_error_until_it_is(tmp_path: Path) -> None:
    file = tmp_path / "kubelet.conf"
    access = ServerConfig(address_from=file).access(SERVICE)

    with pytest.raises(BadAccess):
        access()
    file.write_text(KUBELET)

    assert access().server == "https://10.0.0.1:6443"


@pytest.mark.parametrize("address", ["10.0.0.1", 7, "https://"])
def test_a_bad_address_is_refused_when_the_file_is_read(address: object) -> None:
    with pytest.raises(ConfigError, match="address ="):
        settings.checked(ServerConfig, {"address": address}, CHECKS)
