"""What docker asks of the kernel is cut down to what this machine may give."""

from pathlib import Path

import pytest

from tools.kind.fit_runtime import file_to_mend, fit, missing_capabilities

MISSING = frozenset({"CAP_SYS_RESOURCE"})
PRIVILEGED = {"capabilities": {"bounding": ["CAP_SYS_MODULE", "CAP_SYS_RESOURCE"]}}


def test_a_capability_nobody_has_is_not_asked_for() -> None:
    fitted = fit({"capabilities": {"bounding": ["CAP_CHOWN", "CAP_SYS_RESOURCE"]}}, MISSING, {})

    assert fitted["capabilities"]["bounding"] == ["CAP_CHOWN"]


def test_the_privileged_get_capabilities_that_docker_does_not_know() -> None:
    fitted = fit(PRIVILEGED, MISSING | {"CAP_BPF"}, {})

    assert fitted["capabilities"]["bounding"] == [
        "CAP_SYS_MODULE",
        "CAP_PERFMON",
        "CAP_CHECKPOINT_RESTORE",
    ]


def test_no_score_is_lowered_and_no_limit_raised() -> None:
    asked = {
        "oomScoreAdj": -999,
        "rlimits": [
            {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1048576},
            {"type": "RLIMIT_CORE", "soft": 5, "hard": 5},
        ],
    }

    fitted = fit(asked, MISSING, {"RLIMIT_NOFILE": 4096, "RLIMIT_CORE": -1})

    assert fitted == {
        "oomScoreAdj": 0,
        "rlimits": [
            {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096},
            {"type": "RLIMIT_CORE", "soft": 5, "hard": 5},
        ],
    }


def test_where_nothing_is_missing_only_capabilities_are_added() -> None:
    asked = {"oomScoreAdj": -999, "rlimits": [], **PRIVILEGED}

    fitted = fit(asked, frozenset(), {})

    assert fitted["oomScoreAdj"] == -999
    assert "CAP_SYS_RESOURCE" in fitted["capabilities"]["bounding"]


def test_capabilities_are_read_from_the_bounding_set() -> None:
    missing = missing_capabilities("Name:\tx\nCapBnd:\t000001fffeffffff\n")

    assert missing == {"CAP_SYS_RESOURCE"}


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--root", "/r", "create", "--bundle", "/b", "id"], (Path("/b/config.json"), "process")),
        (["run", "-b=/b", "id"], (Path("/b/config.json"), "process")),
        (["create", "id"], (Path("config.json"), "process")),
        (["exec", "--process", "/p.json", "id"], (Path("/p.json"), "")),
        (["exec", "id", "true"], None),
        (["kill", "id", "9"], None),
    ],
)
def test_the_file_that_runc_will_read_is_found(
    arguments: list[str], found: tuple[Path, str] | None
) -> None:
    assert file_to_mend(arguments) == found
