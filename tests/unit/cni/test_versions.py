"""The versions spoken and the verbs of each."""

import json

import pytest

from cni.environment import Verb
from cni.errors import CNIError
from cni.versions import SUPPORTED, VERSION_DOCUMENT, at_least, check_version


def test_the_version_document_lists_all_seven_under_the_newest() -> None:
    assert json.loads(VERSION_DOCUMENT) == {
        "cniVersion": "1.1.0",
        "supportedVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
    }


@pytest.mark.parametrize("version", ["9.9.9", "1.0", "abc", "", "1.1", "1.2.0", "01.1.0", " 1.1.0"])
def test_a_version_is_looked_up_and_not_compared(version: str) -> None:
    with pytest.raises(CNIError) as caught:
        check_version(version, Verb.ADD)

    assert (caught.value.code, caught.value.msg) == (1, "incompatible CNI versions")
    assert caught.value.details == (
        f'config is "{version}", plugin supports '
        '["0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"]'
    )


@pytest.mark.parametrize(
    ("verb", "since"),
    [("ADD", "0.1.0"), ("DEL", "0.1.0"), ("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")],
)
def test_a_verb_is_allowed_from_its_version_on(verb: str, since: str) -> None:
    for version in SUPPORTED:
        if at_least(version, since):
            check_version(version, Verb(verb))
            continue
        with pytest.raises(CNIError, match=f"config version does not allow {verb}") as caught:
            check_version(version, Verb(verb))
        assert caught.value.code == 1
