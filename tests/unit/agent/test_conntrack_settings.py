"""What conntrack is told where Services are served."""

import pytest

from agent.conntrack_settings import FEWEST, set_conntrack
from dataplane.sysctl import SysctlRefused

MAX = "net/netfilter/nf_conntrack_max"
CLOSE_WAIT = "net/netfilter/nf_conntrack_tcp_timeout_close_wait"


class Settings:
    def __init__(self, most: str | None = "65536", refused: str = "") -> None:
        self.values = {MAX: most}
        self.refused = refused

    def get(self, name: str) -> str | None:
        return self.values.get(name)

    def ensure(self, name: str, value: str) -> bool:
        if name == self.refused:
            raise SysctlRefused(f"cannot set {name}")
        self.values[name] = value
        return True


def test_half_closed_connections_are_kept_for_an_hour() -> None:
    settings = Settings()

    assert set_conntrack(settings, cores=2) == []
    assert settings.values[CLOSE_WAIT] == "3600"


@pytest.mark.parametrize(
    ("before", "cores", "after"),
    [
        ("65536", 2, str(FEWEST)),
        ("65536", 64, str(64 * 32768)),
        ("9999999", 2, "9999999"),
        (None, 2, str(FEWEST)),
    ],
)
def test_there_is_room_for_more_by_cores_and_never_for_less_than_before(
    before: str | None, cores: int, after: str
) -> None:
    settings = Settings(before)

    set_conntrack(settings, cores)

    assert settings.values[MAX] == after


def test_what_is_refused_is_told_and_holds_up_nothing_else() -> None:
    settings = Settings(refused=MAX)

    assert set_conntrack(settings, cores=2) == [f"cannot set {MAX}"]
    assert settings.values[CLOSE_WAIT] == "3600"
