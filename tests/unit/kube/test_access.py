import base64
from pathlib import Path

import pytest

from kube.access import Access, Material, from_kubeconfig, in_cluster, server_of
from kube.errors import BadAccess
from tests.certificates import Authority

CONFIG = """
apiVersion: v1
kind: Config
current-context: here
clusters:
- name: other
  cluster: {server: "https://10.0.0.9:6443"}
- name: c
  cluster:
    server: https://10.0.0.1:6443
    certificate-authority: pki/ca.pem
    tls-server-name: kubernetes
contexts:
- name: here
  context: {cluster: c, user: u}
users:
- name: u
  user:
"""


def written(tmp_path: Path, user: str) -> Path:
    path = tmp_path / "kubeconfig"
    path.write_text(f"{CONFIG}    {user}\n")
    return path


def test_a_pod_has_its_service_account(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    environment = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}

    access = in_cluster(environment, token=tmp_path / "token", ca=tmp_path / "ca.crt")

    assert (access.server, access.host, access.port) == ("https://[fd00::1]:443", "fd00::1", 443)
    assert access.bearer() == "secret"


def test_an_address_that_is_given_needs_no_environment(tmp_path: Path) -> None:
    access = in_cluster(
        {}, server="https://10.0.0.1:6443/api-here/", token=tmp_path / "t", ca=tmp_path / "c"
    )

    assert (access.authority, access.prefix) == ("10.0.0.1:6443", "/api-here")


def test_outside_a_pod_there_is_no_address(tmp_path: Path) -> None:
    with pytest.raises(BadAccess, match="KUBERNETES_SERVICE_HOST"):
        in_cluster({}, token=tmp_path / "t", ca=tmp_path / "c")


@pytest.mark.parametrize(
    "server",
    ["", "10.0.0.1:6443", "ftp://a", "https://", "https://a:x", "https://a:0", "https://a/?b=c",
     "https://a b", "https://u@a", "https://[::1"],
)  # fmt: skip
def test_what_is_no_address_is_refused(server: str) -> None:
    with pytest.raises(BadAccess, match="no address of an API server"):
        Access(server=server)


def test_a_kubeconfig_is_read_relative_to_itself(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    path = written(tmp_path, "{token: abc}")

    access = from_kubeconfig(path)

    assert (access.server, access.server_name) == ("https://10.0.0.1:6443", "kubernetes")
    assert access.bearer() == "abc"
    assert access.ca.path == authority.file
    assert access.context().get_ca_certs()


def test_of_a_kubelets_file_the_address_alone_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, "{exec: {command: steal}}")

    assert server_of(path) == "https://10.0.0.1:6443"


def test_an_identity_may_be_a_certificate_in_the_file_itself(tmp_path: Path) -> None:
    files = Authority(tmp_path / "pki").admin()
    data = [base64.b64encode(each.read_bytes()).decode() for each in (files.certificate, files.key)]
    path = written(tmp_path, f"{{client-certificate-data: {data[0]}, client-key-data: {data[1]}}}")

    access = from_kubeconfig(path, server="https://10.0.0.2")

    assert (access.server, access.port) == ("https://10.0.0.2", 443)
    assert access.context()
    assert access.bearer() == ""


@pytest.mark.parametrize(
    ("user", "why"),
    [
        ("{exec: {command: aws}}", "users by exec are not supported"),
        ("{username: a, password: b}", "users by username are not supported"),
        ("{client-certificate-data: '!'}", "client-certificate-data is not base64"),
        ("[]", "no user 'u' among its users"),
        ("{", "not YAML"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_says_why(tmp_path: Path, user: str, why: str) -> None:
    with pytest.raises(BadAccess, match=why) as caught:
        from_kubeconfig(written(tmp_path, user))

    assert "kubeconfig" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "current-context: nowhere", "clusters: 7"])
def test_a_file_that_is_no_kubeconfig_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)

    with pytest.raises(BadAccess, match="kubeconfig"):
        from_kubeconfig(path)


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    access = Access(
        server="https://a", token=Material(tmp_path / "token"), ca=Material(tmp_path / "ca.crt")
    )

    with pytest.raises(BadAccess, match="token: No such file"):
        access.bearer()
    with pytest.raises(BadAccess, match=r"ca\.crt: No such file"):
        access.context()
    with pytest.raises(BadAccess, match="nothing: No such file"):
        from_kubeconfig(tmp_path / "nothing")


@pytest.mark.parametrize("token", ["", "\n", "two words", "a\x00b"])
def test_a_file_that_holds_no_token_is_refused(tmp_path: Path, token: str) -> None:
    (tmp_path / "token").write_text(token)
    access = Access(server="https://a", token=Material(tmp_path / "token"))

    with pytest.raises(BadAccess, match="holds no token"):
        access.bearer()


def test_authorities_and_certificates_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("nothing")
    bad = Material(tmp_path / "bad")

    with pytest.raises(BadAccess, match="bad: no certificates of authorities"):
        Access(server="https://a", ca=bad).context()
    with pytest.raises(BadAccess, match="bad: no certificate and its key"):
        Access(server="https://a", certificate=bad, key=bad).context()


def test_a_file_that_was_exchanged_has_another_stamp(tmp_path: Path) -> None:
    access = Access(server="https://a", ca=Material(tmp_path / "ca.crt"))
    before = access.stamp()
    (tmp_path / "ca.crt").write_text("new")

    assert access.stamp() != before


def test_no_secret_is_shown() -> None:
    access = Access(
        server="https://a", token=Material(data=b"secret"), key=Material(data=b"secret")
    )

    assert "secret" not in repr(access)
