"""The values between planners and the kernel are plain, frozen, and unremarkable by default."""

import dataclasses

import pytest

from dataplane import model


@pytest.mark.parametrize(
    "kind",
    [model.Bandwidth, model.Bridge, model.BridgePort, model.Route, model.Sandbox, model.Veth],
)
def test_values_are_frozen_and_named(kind: type) -> None:
    parameters = kind.__dataclass_params__  # type: ignore[attr-defined]

    assert parameters.frozen
    assert all(field.kw_only for field in dataclasses.fields(kind))


def test_a_plain_port_does_nothing_special() -> None:
    assert model.BridgePort() == model.BridgePort(
        hairpin=False, isolated=False, vlan=0, trunk=(), preserve_default_vlan=True
    )


def test_equal_wishes_are_one_key() -> None:
    made = [model.Bridge(name="br0", mac="02:00:00:00:00:01") for _ in range(2)]

    assert len(set(made)) == 1
