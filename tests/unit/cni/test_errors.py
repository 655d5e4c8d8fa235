"""The error document."""

import json

from cni.errors import CNIError, ErrorCode, error_document


def test_an_error_is_one_json_object_with_the_version_asked_for() -> None:
    error = CNIError(ErrorCode.UNSUPPORTED_FIELD, "unsupported", "why")

    assert json.loads(error_document(error, "0.4.0")) == {
        "cniVersion": "0.4.0",
        "code": 2,
        "msg": "unsupported",
        "details": "why",
    }


def test_a_delegates_own_code_passes_and_empty_details_are_left_out() -> None:
    assert error_document(CNIError(123, "x"), "1.1.0") == (
        b'{"cniVersion":"1.1.0","code":123,"msg":"x"}'
    )


def test_any_text_is_rendered_even_one_that_is_not_unicode() -> None:
    document = error_document(CNIError(7, "é\udcff\n"), "1.0.0")

    assert document.isascii()
    assert json.loads(document)["msg"] == "é\udcff\n"
