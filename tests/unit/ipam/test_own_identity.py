"""What ipamd signs for itself, and when again."""

import asyncio
from pathlib import Path

import pytest
from cryptography import x509

from ipam.own_identity import LIFE, OwnIdentity
from ipam.signing import Issued, make_authority, now
from ipam.tls import BadCredentials, TLSFiles, identify


class Clock:
    seconds = 0.0


def put(directory: Path, made: Issued) -> None:
    (directory / "ca.pem").write_bytes(made.certificate)
    (directory / "ca.key").write_bytes(made.key)


def own(directory: Path, clock: Clock) -> OwnIdentity:
    (directory / "state").mkdir(exist_ok=True)
    return OwnIdentity(
        directory / "state",
        ca=directory / "ca.pem",
        ca_key=directory / "ca.key",
        hosts=("10.0.0.1",),
        clock=lambda: clock.seconds,
    )


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / "state").iterdir()}


def test_it_serves_with_one_and_administrates_with_another(tmp_path: Path) -> None:
    put(tmp_path, make_authority(now()))
    identity = own(tmp_path, Clock())

    identity.renew()

    identity.files.read()
    state = tmp_path / "state"
    admin = TLSFiles(certificate=state / "admin.pem", key=state / "admin.key", ca=state / "ca.pem")
    admin.read()
    assert admin.fault() == ""
    certificate = x509.load_pem_x509_certificate((state / "admin.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    who = identify(names.get_values_for_type(x509.UniformResourceIdentifier))
    assert who is not None
    assert who.is_admin
    assert all(path.stat().st_mode & 0o077 == 0 for path in state.iterdir())


def test_it_is_renewed_long_before_its_end_and_not_before(tmp_path: Path) -> None:
    put(tmp_path, make_authority(now()))
    clock = Clock()
    identity = own(tmp_path, clock)
    identity.renew()
    first = content(tmp_path)
    clock.seconds = LIFE.total_seconds() / 3 - 1
    identity.renew()
    second = content(tmp_path)
    clock.seconds += 2
    identity.renew()

    assert first == second
    assert content(tmp_path)["ipamd.pem"] != first["ipamd.pem"]


def test_another_authority_is_taken_at_once(tmp_path: Path) -> None:
    put(tmp_path, make_authority(now()))
    identity = own(tmp_path, Clock())
    identity.renew()
    other = make_authority(now())
    put(tmp_path, other)
    identity.renew()

    state = tmp_path / "state"
    served = x509.load_pem_x509_certificate((state / "ipamd.pem").read_bytes())
    served.verify_directly_issued_by(x509.load_pem_x509_certificate(other.certificate))
    assert (state / "ca.pem").read_bytes() == other.certificate


def test_an_authority_that_cannot_be_read_is_named_and_nothing_changes(tmp_path: Path) -> None:
    put(tmp_path, make_authority(now()))
    identity = own(tmp_path, Clock())
    identity.renew()
    before = content(tmp_path)
    (tmp_path / "ca.key").write_text("nothing")

    with pytest.raises(BadCredentials, match=r"ca\.key"):
        identity.renew()
    assert content(tmp_path) == before


def test_renewing_goes_on_until_it_is_cancelled(tmp_path: Path) -> None:
    async def play() -> None:
        put(tmp_path, make_authority(now()))
        running = asyncio.ensure_future(own(tmp_path, Clock()).run())
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(play())
