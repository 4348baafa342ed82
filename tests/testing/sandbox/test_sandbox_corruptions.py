"""Answers that arrive in full and are wrong, as the real SDK meets them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from vision_backends.testing.sandbox import FAULTS

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["objects"],
    "properties": {
        "objects": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["label", "box"],
                "properties": {
                    "label": {"type": "string"},
                    "box": {"type": "array", "items": {"type": "integer"}, "minItems": 4, "maxItems": 4},
                },
            },
        }
    },
}


FORMAT = {"type": "json_schema", "json_schema": {"name": "found", "strict": True, "schema": SCHEMA}}


def _found(call):
    """Return the text of a detection answer."""
    return call.chat("Find.", response_format=FORMAT).choices[0].message.content


def test_a_refusal_in_each_api(server, call):
    """Its words stand where the SDK expects them, in documents and streams."""
    server.play("refusal")
    message = call.chat().choices[0].message
    assert (message.content, message.refusal) == (None, "I'm sorry, but I can't help with that.")
    assert "".join(c.choices[0].delta.refusal or "" for c in call.stream()) == message.refusal
    assert call.responses().output[0].content[0].refusal == message.refusal
    assert "response.refusal.done" in [event.type for event in call.responses(stream=True)]


@pytest.mark.parametrize(("name", "reason"), [("content_filter", "content_filter"), ("length", "max_output_tokens")])
def test_an_answer_cut_short_says_why(server, call, name, reason):
    """The first half of the text, with its finish reason."""
    whole = call.chat().choices[0].message.content
    server.play(name)
    choice = call.chat().choices[0]
    assert choice.finish_reason == name
    assert 0 < len(choice.message.content) < len(whole)
    response = call.responses()
    assert (response.status, response.incomplete_details.reason) == ("incomplete", reason)
    assert list(call.responses(stream=True))[-1].type == "response.incomplete"


def test_an_empty_answer_and_no_choices(server, call):
    """Nothing was said, or nobody said it."""
    server.play("empty_answer")
    assert call.chat().choices[0].message.content == ""
    server.play("no_choices")
    assert call.chat().choices == []
    assert call.responses().output == []
    assert call.stream() == []


def test_detections_that_are_not_json_or_not_of_the_schema(server, call):
    """Prose, a fenced block, and another object."""
    good = json.loads(_found(call))
    server.play("not_json")
    with pytest.raises(json.JSONDecodeError):
        json.loads(_found(call))
    server.play("fenced_json")
    assert json.loads(_found(call).split("```json")[1].split("```")[0]) == good
    server.play("schema_broken")
    assert set(json.loads(_found(call))) == {"surprise"}


def test_detections_with_impossible_boxes_and_labels(server, call):
    """Of the schema's shape, and wrong."""
    server.play("boxes_out_of_range")
    assert all(min(item["box"]) > 1000 for item in json.loads(_found(call))["objects"])
    server.play("boxes_inside_out")
    assert all(item["box"][0] > item["box"][2] for item in json.loads(_found(call))["objects"])
    assert call.chat().choices[0].message.content.startswith("The sandbox")
    server.play("unknown_label")
    assert {item["label"] for item in json.loads(_found(call))["objects"]} == {"sandbox-unknown"}


@pytest.mark.parametrize("name", ["response_failed", "response_failed_rate", "response_failed_policy"])
def test_a_failed_response_raises_nothing(server, call, name):
    """Status 200: the inner code is all that a client has; other endpoints are not concerned."""
    server.play(name)
    response = call.responses()
    assert (response.status, response.error.code) == ("failed", FAULTS[name].code)
    last = list(call.responses(stream=True))[-1]
    assert (last.type, last.response.error.code) == ("response.failed", FAULTS[name].code)
    assert call.chat().choices[0].finish_reason == "stop"


def _shape(call):
    return np.array([row.embedding for row in call.embed().data]).shape


def test_vectors_of_wrong_number_and_dimension(server, call):
    """The SDK takes what comes."""
    assert _shape(call) == (2, 1536)
    server.play("too_few_vectors")
    assert _shape(call) == (1, 1536)
    server.play("too_many_vectors")
    assert _shape(call) == (3, 1536)
    server.play("wrong_dimension")
    assert _shape(call) == (2, 768)


def test_the_sdk_refuses_an_embedding_reply_without_data(server, call):
    """One input and one vector too few leaves none."""
    server.play("too_few_vectors")
    with pytest.raises(ValueError, match="No embedding data"):
        call.embed("one")


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_vectors_of_nan_and_zeros(server, call, encoding):
    """In either encoding."""
    server.play("nan_vector")
    vector = call.embed(encoding_format=encoding).data[-1].embedding
    assert encoding == "base64" or math.isnan(vector[0])
    server.play("zero_vector")
    assert encoding == "base64" or not any(call.embed(encoding_format=encoding).data[0].embedding)


def test_usage_can_be_missing_everywhere(server, call):
    """In documents, streams and embeddings."""
    server.play("no_usage")
    assert call.chat().usage is None
    assert call.responses().usage is None
    assert call.embed().usage is None
    assert all(chunk.usage is None for chunk in call.stream(stream_options={"include_usage": True}))


def test_headers_can_be_missing(server, client):
    """Neither limits nor an id."""
    server.play("no_limit_headers")
    headers = client.models.with_raw_response.list().headers
    assert not [name for name in headers if "ratelimit" in name or "request-id" in name]


def test_content_can_be_a_list_and_the_model_another(server, call):
    """Both pass through the SDK."""
    plain = call.chat().choices[0].message.content
    server.play("list_content")
    assert call.chat().choices[0].message.content == [{"type": "text", "text": plain}]
    server.play("renamed_model")
    replies = (call.chat(), call.stream()[0], call.responses(), call.embed())
    assert {reply.model for reply in replies} == {"sandbox-renamed-model"}


def test_embeddings_can_come_in_another_order(server, call):
    """The index tells."""
    straight = {row.index: row.embedding for row in call.embed().data}
    server.play("shuffled_vectors")
    rows = call.embed().data
    assert [row.index for row in rows] == [1, 0]
    assert {row.index: row.embedding for row in rows} == straight


def test_floats_can_come_where_base64_was_asked_for(server, call):
    """The SDK decodes either."""
    straight = call.embed().data[0].embedding
    server.play("floats_for_base64")
    assert np.allclose(call.embed().data[0].embedding, straight)
