import pytest

from kube.errors import (
    Away,
    Conflict,
    Denied,
    Expired,
    KubeError,
    NotFound,
    Rejected,
    Unauthorized,
    error_for,
)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Rejected),
        (401, Unauthorized),
        (403, Denied),
        (404, NotFound),
        (409, Conflict),
        (410, Expired),
        (422, Rejected),
        (429, Away),
        (500, Away),
        (504, Away),
    ],
)
def test_a_status_means_what_a_caller_can_do_about_it(status: int, kind: type[KubeError]) -> None:
    error = error_for(status, "why")

    assert type(error) is kind
    assert str(error) == "why"
