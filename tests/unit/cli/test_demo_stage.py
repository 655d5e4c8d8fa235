"""The names of a demonstration, and the end of a log."""

from pathlib import Path

from cli.demo_stage import Stage, tail


def test_namespaces_are_named_for_the_one_demonstration() -> None:
    stage = Stage("ab12", Path("/run/isthmus-demo-ab12"), Path("/launcher"))

    assert stage.path("web") == "/run/netns/isthmus-demo-ab12-web"
    assert stage.inside("web") == ["ip", "netns", "exec", "isthmus-demo-ab12-web"]


def test_the_end_of_a_log_is_short_and_a_missing_log_is_empty(tmp_path: Path) -> None:
    log = tmp_path / "log"
    without = tail(log)
    log.write_text("\n".join(map(str, range(100))))

    assert without == ""
    assert tail(log).split() == [str(number) for number in range(85, 100)]
