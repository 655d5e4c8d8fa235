"""The names of the little world."""

from pathlib import Path

from cli.demo_site import Site


def test_everything_is_below_one_directory_and_one_prefix() -> None:
    site = Site("ab12", Path("/run/isthmus-demo-ab12"), Path("/launcher"))

    assert site.name("web") == "isthmus-demo-ab12-web"
    assert site.inside("web") == ["ip", "netns", "exec", "isthmus-demo-ab12-web"]
    assert {path.parts[2] for path in (site.store, site.socket_path, site.log)} == {
        "isthmus-demo-ab12"
    }


def test_the_end_of_a_log_is_short_and_a_missing_log_is_empty(tmp_path: Path) -> None:
    site = Site("ab12", tmp_path, Path("/launcher"))
    without = site.tail()
    site.log.write_text("\n".join(map(str, range(100))))

    assert without == ""
    assert site.tail().split() == [str(number) for number in range(85, 100)]
