import json
from pathlib import Path

import pytest

from agent.known import Known, KnownNode, KnownPod, keep, load

ALL = Known(
    node=KnownNode(
        uid="u-1", labels={"zone": "a"}, addresses=("10.0.0.1",), pod_cidrs=("10.1.0.0/24",)
    ),
    endpoints=("10.0.0.1:9476",),
    enroll=("10.0.0.1:9475",),
    pods={"shop/web": KnownPod(uids=("p-1",), annotations={"isthmus.dev/pool": "blue"})},
    namespaces={"shop": {}},
)


def test_what_is_kept_is_what_is_loaded(tmp_path: Path) -> None:
    keep(tmp_path / "said.json", ALL)

    assert load(tmp_path / "said.json") == ALL
    assert load(tmp_path / "none.json") == Known()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"7", b'{"node": 7}', b"\xff", json.dumps({"node": {}}).encode()]
)
def test_a_file_that_is_damaged_is_begun_anew(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "said.json").write_bytes(content)

    assert load(tmp_path / "said.json") == Known()
    assert "begun anew" in caplog.text


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="said"):
        keep(tmp_path / "none" / "said.json", ALL)
