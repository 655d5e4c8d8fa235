"""Who gets a node's certificate, and who does not: over the real edge, TLS and API calls."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from ipam import enrolling, server
from ipam.channel import IpamdAway
from ipam.enrolment import Enrolment, Kubernetes, Terms, make_server
from ipam.errors import IPAMError
from ipam.own_identity import OwnIdentity
from ipam.refusals import Invalid, NotAllowed, NotReady
from ipam.signing import make_authority, make_request, now
from ipam.tls import SERVER, BadCredentials
from kube.client import Client
from tests.kube_api import NODES, FakeAPI

NODE, UID = (f"authentication.kubernetes.io/node-{what}" for what in ("name", "uid"))


def vouched(**more: Any) -> dict[str, Any]:
    extra = {NODE: ["node-1"], UID: ["u-1"]}
    return {
        "audiences": ["isthmus-ipamd"],
        "user": {"username": "system:serviceaccount:isthmus:agent", "extra": extra},
        **more,
    }


@dataclass
class Site:
    api: FakeAPI
    endpoint: str
    directory: Path
    server_name: str = SERVER

    async def enroll(self, token: str = "good", request: bytes = b"") -> enrolling.Enrolled:
        file = self.directory / "token"
        file.write_text(f"{token}\n")
        return await enrolling.enroll(
            [self.endpoint],
            request or make_request().certificate,
            token=file,
            ca=self.directory / "ca.pem",
            server_name=self.server_name,
        )


def at_a_site(directory: Path, play: Callable[[Site], Awaitable[None]]) -> None:
    async def whole() -> None:
        made = make_authority(now())
        (directory / "ca.pem").write_bytes(made.certificate)
        (directory / "ca.key").write_bytes(made.key)
        state = directory / "state"
        state.mkdir()
        own = OwnIdentity(
            state,
            ca=directory / "ca.pem",
            ca_key=directory / "ca.key",
            hosts=(),
            clock=lambda: 0.0,
        )
        own.renew()
        async with FakeAPI(reviews={"good": vouched()}) as api:
            api.put(NODES, {"metadata": {"name": "node-1", "uid": "u-1"}})
            client = Client(api.access)
            terms = Terms(account="isthmus/agent", life=timedelta(days=3))
            enrolment = Enrolment(Kubernetes(client, "isthmus-ipamd"), own.signer, terms)
            served = make_server(enrolment)
            credentials = server.server_credentials(own.files, of_both=False)
            port = served.add_secure_port("127.0.0.1:0", credentials)
            await served.start()
            try:
                await play(Site(api, f"127.0.0.1:{port}", directory))
            finally:
                await served.stop(0)
                client.close()

    asyncio.run(whole())


def refused(
    directory: Path,
    kind: type[IPAMError],
    why: str,
    change: Callable[[Site], Any] = lambda site: None,
    **asked: Any,
) -> None:
    async def play(site: Site) -> None:
        change(site)
        with pytest.raises(kind, match=why):
            await site.enroll(**asked)

    at_a_site(directory, play)


def test_a_pods_token_is_exchanged_for_the_certificate_of_its_node(tmp_path: Path) -> None:
    async def play(site: Site) -> None:
        got = await site.enroll()

        certificate = x509.load_pem_x509_certificate(got.certificate)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["isthmus:node:node-1"]
        assert (got.node, got.renew_after_s) == ("node-1", 86400.0)
        life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        assert life >= timedelta(days=3)

    at_a_site(tmp_path, play)


def test_an_expired_or_forged_token_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, NotAllowed, "refuses the token", token="expired")


def test_a_token_for_another_audience_is_refused(tmp_path: Path) -> None:
    def change(site: Site) -> None:
        site.api.reviews["good"] = vouched(audiences=["https://kubernetes.default.svc"])

    refused(tmp_path, NotAllowed, "audiences", change)


def test_another_service_account_is_refused(tmp_path: Path) -> None:
    def change(site: Site) -> None:
        extra = vouched()["user"]["extra"]
        user = {"username": "system:serviceaccount:default:default", "extra": extra}
        site.api.reviews["good"] = vouched(user=user)

    refused(tmp_path, NotAllowed, "of service account default/default, not isthmus/agent", change)


@pytest.mark.parametrize(
    "extra", [{}, {NODE: ["node-1"]}, {UID: ["u-1"]}, {NODE: ["node-1", "b"], UID: ["u-1"]}]
)
def test_a_token_that_names_no_node_is_refused(tmp_path: Path, extra: Any) -> None:
    def change(site: Site) -> None:
        user = {"username": "system:serviceaccount:isthmus:agent", "extra": extra}
        site.api.reviews["good"] = vouched(user=user)

    refused(tmp_path, NotAllowed, "the token names no node", change)


def test_a_token_from_before_the_node_was_made_anew_is_refused(tmp_path: Path) -> None:
    def change(site: Site) -> None:
        site.api.put(NODES, {"metadata": {"name": "node-1", "uid": "u-2"}})

    refused(tmp_path, NotAllowed, "Node node-1 was deleted and made anew", change)


def test_a_token_of_a_node_that_is_gone_is_refused(tmp_path: Path) -> None:
    def change(site: Site) -> None:
        site.api.delete(NODES, "node-1")

    refused(tmp_path, NotAllowed, "there is no Node node-1", change)


def test_a_name_that_could_be_no_nodes_is_refused(tmp_path: Path) -> None:
    def change(site: Site) -> None:
        user = vouched()["user"]
        user["extra"][NODE] = ["a/../b"]
        site.api.reviews["good"] = vouched(user=user)

    refused(tmp_path, NotAllowed, "the name of node", change)


def test_an_api_server_that_cannot_say_means_later(tmp_path: Path) -> None:
    def change(site: Site) -> None:
        site.api.trouble = lambda asked: 503

    refused(tmp_path, NotReady, "cannot say whose token this is", change)


def test_ipamd_without_the_right_to_ask_says_so(tmp_path: Path) -> None:
    def change(site: Site) -> None:
        site.api.denied = lambda asked: True

    refused(tmp_path, NotReady, "cannot POST", change)


@pytest.mark.parametrize("token", ["", "a b"])
def test_what_is_no_token_is_refused(tmp_path: Path, token: str) -> None:
    refused(tmp_path, NotAllowed, "no token", token=token)


def test_what_is_no_request_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, Invalid, "no request for a certificate", request=b"nothing")


def test_a_server_that_is_not_ipamd_gets_no_token(tmp_path: Path) -> None:
    async def play(site: Site) -> None:
        site.server_name = "somebody-else"
        with pytest.raises(IpamdAway):
            await site.enroll()
        (site.directory / "ca.pem").write_bytes(make_authority(now()).certificate)
        site.server_name = SERVER
        with pytest.raises(IpamdAway):
            await site.enroll()

        assert site.api.asked == []

    at_a_site(tmp_path, play)


def test_a_token_file_that_is_missing_is_named(tmp_path: Path) -> None:
    async def play() -> None:
        with pytest.raises(BadCredentials, match="token: No such file"):
            await enrolling.enroll(
                ["127.0.0.1:1"],
                b"",
                token=tmp_path / "token",
                ca=tmp_path / "ca.pem",
                server_name=SERVER,
            )

    asyncio.run(play())
