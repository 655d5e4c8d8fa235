"""Trials that fail are findings, not failures; the real ones are in tests/kernel/test_doctor.py."""

import pytest

from dataplane.features import find_shortcomings


@pytest.mark.kernel
def test_without_nft_what_needs_it_is_missing_and_the_rest_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    found = find_shortcomings("table inet x { }")

    assert {"nftables NAT", "nftables conntrack", "nftables fib"} <= set(found.missing)
    assert "veth" not in found.missing
    assert "nft" in found.refusal
