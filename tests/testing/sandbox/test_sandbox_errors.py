"""Every error reply of the table, and what the real SDK makes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import openai
import pytest
from openai.types.responses import response_error

from vision_backends.testing.sandbox import FAULTS, Fault
from vision_backends.testing.sandbox.api_errors import ERRORS

EXCEPTIONS = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    409: openai.ConflictError,
    422: openai.UnprocessableEntityError,
    429: openai.RateLimitError,
}


def _exception_for(status):
    return EXCEPTIONS.get(status, openai.InternalServerError if status >= 500 else openai.APIStatusError)


@pytest.mark.parametrize("fault", [f for f in ERRORS if f.name != "redirect"], ids=lambda fault: fault.name)
def test_an_error_row_reaches_the_sdk_as_it_stands(server, call, fault):
    """Status, code, body and headers of the row, as the SDK's exception for that status."""
    server.play(fault.name)
    with pytest.raises(openai.APIStatusError) as caught:
        call.chat()
    error = caught.value
    assert type(error) is _exception_for(fault.status)
    assert error.status_code == fault.status
    if isinstance(fault.body, dict):
        assert error.body == fault.body.get("error", fault.body)
        code = error.body.get("code") if isinstance(error.body, dict) else None
        assert error.code == (None if code is None else str(code))
    else:
        assert error.response.text == fault.body
    expected = {name: value for name, value in fault.headers.items() if value is not None}
    assert expected.items() <= dict(error.response.headers).items()
    assert error.request_id == "req_sandbox00000000"


@pytest.mark.parametrize("name", ["quota_gone", "server_error", "bad_gateway", "invalid_api_key"])
@pytest.mark.parametrize("endpoint", ["chat", "stream", "responses", "embed"])
def test_an_error_row_meets_every_endpoint(server, call, name, endpoint):
    """An error is the same wherever it is asked for."""
    server.play(name)
    with pytest.raises(_exception_for(FAULTS[name].status)):
        getattr(call, endpoint)()


def test_the_body_of_a_dead_quota_is_openais_own():
    """Clients match these words."""
    assert FAULTS["quota_gone"].body == {
        "error": {
            "message": "You exceeded your current quota, please check your plan and billing details. For more "
            "information on this error, read the docs: "
            "https://platform.openai.com/docs/guides/error-codes/api-errors.",
            "type": "insufficient_quota",
            "param": None,
            "code": "insufficient_quota",
        }
    }


def test_every_error_code_of_the_sdk_has_a_row():
    """A new code in the SDK breaks this test instead of production."""
    codes = set(get_args(response_error.ResponseError.model_fields["code"].annotation))
    envelopes = [fault.body.get("error") for fault in ERRORS if isinstance(fault.body, dict)]
    rows = {error.get("code") for error in envelopes if isinstance(error, dict)}
    assert "image_parse_error" in codes
    assert codes <= rows


def test_a_fault_can_be_limited_to_paths_and_models(server, call):
    """Other requests are healthy, and do not use it up."""
    server.play(replace(FAULTS["quota_gone"], paths=("/v1/embeddings",)), times=1)
    server.play(replace(FAULTS["server_error"], models=("another",)))
    assert call.chat()
    with pytest.raises(openai.RateLimitError):
        call.embed()
    assert call.embed()


def test_a_fault_can_be_any_status_body_and_header(server, call):
    """What the table lacks is written on the spot."""
    server.play(Fault(status=418, body={"error": {"code": "teapot", "message": "short"}}, headers={"x-tea": "1"}))
    with pytest.raises(openai.APIStatusError) as caught:
        call.chat()
    assert (caught.value.status_code, caught.value.code) == (418, "teapot")
    assert caught.value.response.headers["x-tea"] == "1"
    server.play(Fault(status=599, body="what?"))
    with pytest.raises(openai.InternalServerError):
        call.chat()


@pytest.mark.parametrize(
    "wrong",
    [
        {"corruption": "sideways"},
        {"sends": "some"},
        {"then": "explode"},
        {"delay_s": -1},
        {"sends": "half"},
        {"status": 99},
        {"paths": "/v1/embeddings"},
    ],
)
def test_a_fault_without_meaning_is_refused(wrong):
    """The record checks itself."""
    with pytest.raises(ValueError, match=r"fault|corruption|reply"):
        Fault(**wrong)


def test_a_played_fault_does_not_hide_what_arrived(server, call, image_part):
    """The log has the images also of requests that were answered with an error."""
    server.play("quota_gone")
    with pytest.raises(openai.RateLimitError):
        call.chat([image_part()])
    request = server.requests[0]
    assert (request.fault, request.status, len(request.pictures)) == ("quota_gone", 429, 1)
