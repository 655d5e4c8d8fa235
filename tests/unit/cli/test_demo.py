"""What the demonstration needs before it begins."""

import pytest

from tests.unit.cli.conftest import Run


def test_programs_that_are_missing_are_named_by_their_packages(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("os.geteuid", lambda: 0)

    result = run("demo")

    assert result.exit_code == 1
    assert "apt install iproute2 nftables iputils-ping" in result.output


def test_without_root_it_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    result = run("demo")

    assert result.exit_code == 1
    assert "sudo" in result.output
