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
