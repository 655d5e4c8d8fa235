import asyncio
from pathlib import Path
from random import Random

import pytest
from cryptography import x509

from agent.enrolment import Enrolment, Request, make_request
from ipam.channel import IpamdAway
from ipam.enrolling import Enrolled
from ipam.errors import IPAMError
from ipam.tls import BadCredentials
from tests.kube_api import until

MADE = Request(b"key\n", b"request\n")


class Ipamd:
    """Certifies, or does as *error* says."""

    def __init__(self, node: str = "a") -> None:
        self.node = node
        self.error: IPAMError | None = None
        self.asked: list[bytes] = []

    async def enroll(self, request: bytes) -> Enrolled:
        self.asked.append(request)
        if self.error:
            raise self.error
        return Enrolled(certificate=b"certificate\n", node=self.node, renew_after_s=86400.0)


def enrolment(directory: Path, ipamd: Ipamd) -> Enrolment:
    return Enrolment(directory / "node.pem", "a", ipamd.enroll, random=Random(1), make=lambda: MADE)


def test_certificate_and_key_are_in_one_file_for_us_alone(tmp_path: Path) -> None:
    ipamd = Ipamd()

    wait = asyncio.run(enrolment(tmp_path, ipamd).renew())

    file = tmp_path / "node.pem"
    assert file.read_bytes() == b"certificate\nkey\n"
    assert file.stat().st_mode & 0o077 == 0
    assert (wait, ipamd.asked) == (86400.0, [MADE.request])


def test_a_certificate_of_another_node_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(BadCredentials, match="says that this is node b, and the configuration a"):
        asyncio.run(enrolment(tmp_path, Ipamd("b")).renew())

    assert not (tmp_path / "node.pem").exists()


def test_what_fails_is_tried_again_and_the_former_one_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> None:
        ipamd = Ipamd()
        ipamd.error = IpamdAway("nobody there")
        (tmp_path / "node.pem").write_text("former")
        kept = enrolment(tmp_path, ipamd)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(kept.run())
            await until(lambda: bool(kept.trouble))
            assert kept.problems() == ["no new certificate for this node: nobody there"]
            assert (tmp_path / "node.pem").read_text() == "former"
            ipamd.error = None
            await until(lambda: not kept.trouble)
            running.cancel()

        assert (tmp_path / "node.pem").read_text() != "former"
        assert kept.problems() == []
        assert len(ipamd.asked) == 2

    asyncio.run(play())

    assert caplog.text.count("no certificate for this node yet") == 1


def test_our_own_program_makes_key_and_request() -> None:
    made = make_request()

    request = x509.load_pem_x509_csr(made.request)
    assert request.is_signature_valid
    assert b"PRIVATE KEY" in made.key
    assert make_request().key != made.key
