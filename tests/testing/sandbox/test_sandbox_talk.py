"""Chat, responses and models, asked by the real SDK over a real socket."""

from __future__ import annotations

import json

import openai
import pytest

BOX = {"type": "integer", "minimum": 0, "maximum": 1000}


DETECTIONS = {
    "type": "object",
    "additionalProperties": False,
    "required": ["objects"],
    "properties": {
        "objects": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["label", "score", "x1", "y1", "x2", "y2"],
                "properties": {
                    "label": {"type": "string", "enum": ["cat", "a red scooter"]},
                    "score": {"type": "number", "minimum": 0, "maximum": 1},
                    **dict.fromkeys(("x1", "y1", "x2", "y2"), BOX),
                },
            },
        }
    },
}


CHAT_FORMAT = {"type": "json_schema", "json_schema": {"name": "found", "strict": True, "schema": DETECTIONS}}


TEXT_FORMAT = {"format": {"type": "json_schema", "name": "found", "strict": True, "schema": DETECTIONS}}


def _text(content):
    return {"type": "text", "text": content}


def test_chat_describes_the_pixels_that_arrived(call, image_part):
    """Size, mean colour and format come from decoding what was sent."""
    reply = call.chat([_text("What is it?"), image_part(size=(640, 480), colour=(200, 100, 50))])
    assert "640×480 px PNG image of mean colour #c86432" in reply.choices[0].message.content
    assert reply.choices[0].finish_reason == "stop"
    assert reply.object == "chat.completion"
    assert reply.model == "gpt-sandbox"


def test_chat_answers_the_same_to_the_same_and_otherwise_otherwise(call, image_part):
    """An answer depends on the prompt and on the pixels, and on nothing else."""

    def answer(question, **options):
        return call.chat([_text(question), image_part(**options)]).choices[0].message.content

    assert answer("What?") == answer("What?")
    assert answer("What?") != answer("Who?")
    assert answer("What?") != answer("What?", colour=(200, 100, 51))


def test_chat_names_every_image_in_its_order(call, image_part):
    """Several images are described one after the other."""
    said = call.chat([image_part(size=(10, 20)), image_part(size=(30, 40))]).choices[0].message.content
    assert 0 < said.index("10×20") < said.index("30×40")


def test_usage_counts_text_and_image_tokens(call, image_part):
    """A quarter of the characters, and the tile rule for images."""
    reply = call.chat([_text("x" * 40), image_part(size=(1024, 1024), detail="high")])
    usage = reply.usage
    assert usage.prompt_tokens_details.image_tokens == 765
    assert usage.prompt_tokens == 10 + 765
    assert usage.completion_tokens == -(-len(reply.choices[0].message.content) // 4)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_chat_streams_words_then_reason_then_usage(call):
    """A stream gives the same text as a document, and usage in a last chunk of its own when asked for."""
    whole = call.chat()
    chunks = call.stream(stream_options={"include_usage": True})
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in call.stream())


def test_chat_cuts_at_the_token_limit(call):
    """An answer longer than the limit ends with ``length``, under either name of the limit."""
    for option in ("max_tokens", "max_completion_tokens"):
        reply = call.chat(**{option: 3})
        assert reply.choices[0].finish_reason == "length"
        assert reply.usage.completion_tokens == 3


def test_responses_speak_of_the_same_pixels_as_chat(call, data_url):
    """The Responses API has its own shape and the same answers."""
    url = data_url(size=(320, 200), kind="JPEG")
    parts = [
        {"type": "input_text", "text": "What?"},
        {"type": "input_image", "image_url": url, "detail": "low"},
    ]
    reply = call.responses([{"role": "user", "content": parts}], store=False)
    assert "320×200 px JPEG" in reply.output_text
    assert reply.status == "completed"
    assert reply.store is False
    assert reply.usage.input_tokens == 2 + 85
    chat = call.chat([_text("What?"), {"type": "image_url", "image_url": {"url": url}}])
    assert chat.choices[0].message.content == reply.output_text


def test_responses_end_incomplete_at_the_token_limit(call):
    """A cut answer says why it is incomplete."""
    reply = call.responses(max_output_tokens=16)
    assert (reply.status, reply.incomplete_details) == ("completed", None)
    reply = call.responses(max_output_tokens=3)
    assert reply.status == "incomplete"
    assert reply.incomplete_details.reason == "max_output_tokens"


def test_responses_stream_the_events_of_the_sdk(call):
    """The types and numbers of the events, and the same text three times over."""
    events = list(call.responses(stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert [event.type for event in events if event.type != "response.output_text.delta"] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    final = events[-1].response
    done = next(event for event in events if event.type == "response.output_text.done")
    assert "".join(deltas) == done.text == final.output_text
    assert final.usage.total_tokens > 0


def test_the_sdks_own_stream_helper_understands_the_events(client):
    """`client.responses.stream` follows every event and builds the final response."""
    with client.responses.stream(model="gpt-sandbox", input="Describe it.") as stream:
        final = stream.get_final_response()
    assert final.output_text.startswith("The sandbox sees no image")


def test_detections_conform_to_the_schema_in_both_apis(call, image_part, data_url):
    """Boxes have an inside, lie in 0 to 1000, carry the labels asked for, and are the same each time."""
    chat = call.chat([_text("Find."), image_part()], response_format=CHAT_FORMAT).choices[0].message.content
    parts = [{"type": "input_text", "text": "Find."}, {"type": "input_image", "image_url": data_url()}]
    assert call.responses([{"role": "user", "content": parts}], text=TEXT_FORMAT).output_text == chat
    objects = json.loads(chat)["objects"]
    assert objects
    for found in objects:
        assert found["label"] in {"cat", "a red scooter"}
        assert 0 <= found["score"] <= 1
        assert 0 <= found["x1"] < found["x2"] <= 1000
        assert 0 <= found["y1"] < found["y2"] <= 1000


def test_a_strict_schema_must_be_strict(call):
    """Objects that are open or have optional properties are refused, as the API does."""
    for flawed in ({"type": "object", "properties": {"a": BOX}}, {**DETECTIONS, "required": []}):
        form = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": flawed}}
        with pytest.raises(openai.BadRequestError, match="Invalid schema"):
            call.chat(response_format=form)


def test_json_mode_answers_json_and_wants_the_word(call):
    """The prompt must say json, and a schema spelled out in it is followed."""
    mode = {"type": "json_object"}
    with pytest.raises(openai.BadRequestError, match="json"):
        call.chat("Hello", response_format=mode)
    assert "answer" in json.loads(call.chat("Say it in JSON", response_format=mode).choices[0].message.content)
    prompt = f"Answer as JSON of this schema: {json.dumps(DETECTIONS)}"
    said = json.loads(call.chat(prompt, response_format=mode).choices[0].message.content)
    assert set(said) == {"objects"}
    prompt = 'JSON please, not {this} but {"any": "thing"}'
    assert set(json.loads(call.chat(prompt, response_format=mode).choices[0].message.content)) == {"answer"}


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "text"}, "messages"),
        ({"messages": [{"role": "user", "content": 3}]}, "content"),
        ({"messages": ["text"]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, None),
        ({"messages": [{"role": "user", "content": "x"}], "max_tokens": 0}, "max_tokens"),
        ({"messages": [{"role": "user", "content": "x"}], "response_format": 7}, "response_format"),
        (
            {"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_schema"}},
            "response_format",
        ),
    ],
)
def test_malformed_chat_requests_are_400(client, options, param):
    """A request of the wrong shape names its parameter."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", body={"model": "m", **options}, cast_to=object)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_requests_need_json_a_model_and_a_known_url(client):
    """What cannot be served at all has the API's own status."""
    with pytest.raises(openai.BadRequestError, match="parse the JSON"):
        client.post("/responses", body=None, cast_to=object)
    with pytest.raises(openai.BadRequestError, match="model"):
        client.post("/responses", body={"input": "x"}, cast_to=object)
    with pytest.raises(openai.BadRequestError, match="input"):
        client.post("/responses", body={"model": "m"}, cast_to=object)
    with pytest.raises(openai.NotFoundError, match="Invalid URL"):
        client.post("/nothing", body={}, cast_to=object)
    for method, path in ((client.get, "/embeddings"), (client.post, "/models")):
        with pytest.raises(openai.APIStatusError) as caught:
            method(path, cast_to=object)
        assert caught.value.status_code == 405


def test_models_are_listed_and_retrieved(client):
    """Any name is a model unless the sandbox was given a list."""
    assert "gpt-5.4-mini" in [model.id for model in client.models.list()]
    assert client.models.retrieve("anything").id == "anything"


def test_every_reply_carries_request_id_and_limits(client):
    """As the real API does, also without a limit."""
    reply = client.chat.completions.with_raw_response.create(model="m", messages=[{"role": "user", "content": "hi"}])
    assert reply.headers["x-request-id"] == "req_sandbox00000000"
    for kind in ("requests", "tokens"):
        limit = int(reply.headers[f"x-ratelimit-limit-{kind}"])
        assert 0 < int(reply.headers[f"x-ratelimit-remaining-{kind}"]) < limit
        assert reply.headers[f"x-ratelimit-reset-{kind}"] == "2ms"
