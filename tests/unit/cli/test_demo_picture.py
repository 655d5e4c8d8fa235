"""The picture is as wide as it must be, and its lines meet."""

from textwrap import dedent

from cli.demo_picture import Pod, Scene, draw

SCENE = Scene(
    outside="out",
    host="host",
    uplink=("192.0.2.1/24",),
    beyond=("192.0.2.2/24",),
    bridge=("10.66.0.1/16", "fd66::1/64"),
    rules=("masquerade",),
    pods=(
        Pod(title="web", namespace="ns-web", addresses=("10.66.0.2/16",), host_side="isth1"),
        Pod(
            title="shell",
            namespace="ns-shell",
            addresses=("10.66.0.3/16", "fd66::3/64"),
            host_side="isth2",
        ),
    ),
)


def test_the_picture_shows_namespaces_links_and_addresses() -> None:
    picture = draw(SCENE)

    assert picture == dedent("""\
        ┌──────────────────────────────────────────────────────────┐
        │ beyond the host: out                                     │
        │ uplink 192.0.2.2/24                                      │
        └─────────────────────────────┬────────────────────────────┘
                                      │
        ┌─────────────────────────────┴────────────────────────────┐
        │ uplink 192.0.2.1/24                                      │
        │ the host: host                                           │
        │   masquerade                                             │
        │ cni0   10.66.0.1/16                                      │
        │        fd66::1/64                                        │
        │ ──────────────────────────────────────────────────────── │
        │     isth1                    isth2                       │
        └───┬────────────────────────┬─────────────────────────────┘
            │                        │
        ┌───┴─────────────────┐  ┌───┴─────────────────┐
        │ web                 │  │ shell               │
        │ ns-web              │  │ ns-shell            │
        │ eth0   10.66.0.2/16 │  │ eth0   10.66.0.3/16 │
        └─────────────────────┘  │        fd66::3/64   │
                                 └─────────────────────┘""")
