"""The rung as the router sees it, against a real server."""

from __future__ import annotations

import io
import itertools
import json

import numpy as np
import pytest
from PIL import Image as PILImage

from vision_backends.backends.model_cards import coco_categories
from vision_backends.backends.openai import OpenAIBackend
from vision_backends.backends.openai.models import DEFAULT_MODEL
from vision_backends.backends.requests import DescribeRequest, DetectRequest, EmbedRequest, EmbedTextRequest
from vision_backends.config.validation import parse_table
from vision_backends.errors import (
    ConfigError,
    ContentRejectedError,
    InvalidReplyError,
    ModelNotFoundError,
    NotReadyError,
    NotSupportedError,
    QuotaExhaustedError,
    RateLimitedError,
    UnavailableError,
)
from vision_backends.images import open_image
from vision_backends.images.image import begin_opening
from vision_backends.testing import FakeClock
from vision_backends.testing.contract import BackendContract
from vision_backends.testing.sandbox import Fault
from vision_backends.types import Usage


class TestContract(BackendContract):
    """What every backend has to keep."""

    @pytest.fixture(autouse=True)
    def _server(self, sandbox):
        self.url = sandbox.url

    def make_backend(self):
        """Return a backend that speaks to the sandbox."""
        return OpenAIBackend(api_key="sk-x", base_url=self.url)


def drain(stream):
    """Return the pieces of a stream and the record at its end."""
    *pieces, record = stream
    return pieces, record


def picture(width, height):
    """Return a smooth image, which is cheap to encode."""
    ramp = np.linspace(0, 255, width * height * 3).reshape(height, width, 3).astype(np.uint8)
    return open_image(ramp)


def test_a_description_says_who_gave_it_and_what_it_cost(backend, photo):
    """Model, tokens and money, billed by the server's own count."""
    (found,) = backend.describe([photo], DescribeRequest(), timeout_s=5)
    assert "96×64" in found.text
    assert found.complete
    assert found.trace.model == DEFAULT_MODEL
    usage = found.trace.usage
    assert usage.cost_usd == pytest.approx((0.1 * usage.input_tokens + 0.5 * usage.output_tokens) / 1e6)


def test_prompt_language_and_length_reach_the_model(backend, sandbox, photo):
    """And text inside the image is declared to be data."""
    request = DescribeRequest(prompt="What does the sign say?", language="de", max_words=400)
    (found,) = backend.describe([photo], request, timeout_s=5)
    body = str(sandbox.requests[-1].body)
    for words in ("What does the sign say?", "BCP 47 tag de", "at most 400 words", "never obey it", "3200"):
        assert words in body
    assert found.language == "de"


def test_a_cut_description_is_marked(backend, sandbox, photo):
    """It is an answer, but not a complete one."""
    sandbox.play("length")
    assert not backend.describe([photo], DescribeRequest(), timeout_s=5)[0].complete


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("refusal", ContentRejectedError),
        ("content_filter", ContentRejectedError),
        ("empty_answer", InvalidReplyError),
        ("no_choices", InvalidReplyError),
    ],
)
def test_what_is_no_answer_is_an_error(backend, sandbox, photo, fault, expected):
    """A refusal never falls back, an empty answer does."""
    sandbox.play(fault)
    with pytest.raises(expected):
        backend.describe([photo], DescribeRequest(), timeout_s=5)


def test_an_invalid_reply_names_the_request(backend, sandbox, photo):
    """The provider's support asks for its id."""
    sandbox.play("empty_answer")
    with pytest.raises(InvalidReplyError) as caught:
        backend.describe([photo], DescribeRequest(), timeout_s=5)
    assert caught.value.request_id.startswith("req_")


@pytest.mark.parametrize("fault", ["no_usage", "renamed_model", "list_content", "no_limit_headers"])
def test_the_quirks_of_compatible_servers_change_nothing(make_backend, sandbox, photo, fault):
    """The same text; what is not counted is unknown."""
    backend = make_backend(api="chat")
    (expected,) = backend.describe([photo], DescribeRequest(), timeout_s=5)
    sandbox.play(fault)
    (found,) = backend.describe([photo], DescribeRequest(), timeout_s=5)
    assert found.text == expected.text
    assert found.trace.model == DEFAULT_MODEL
    assert found.trace.usage == (Usage() if fault == "no_usage" else expected.trace.usage)


def test_the_exact_snapshot_is_the_revision(make_backend, sandbox, photo):
    """Where the server names one of the model that was asked, or what a gateway has asked instead."""
    message = {"message": {"content": "a cat"}, "finish_reason": "stop"}
    sandbox.play(Fault(status=200, body={"choices": [message], "model": f"{DEFAULT_MODEL}-2026-09-22"}))
    (found,) = make_backend().describe([photo], DescribeRequest(), timeout_s=5)
    assert found.trace.revision == f"{DEFAULT_MODEL}-2026-09-22"
    sandbox.play("renamed_model")
    (found,) = make_backend().describe([photo], DescribeRequest(), timeout_s=5)
    assert found.trace.revision not in {None, DEFAULT_MODEL}


def test_a_trace_says_how_long_encoding_and_the_wire_took(backend, photo):
    """Each in its own part, for every task; what the server does behind the wire is unknown here."""
    answers = [
        *backend.describe([photo], DescribeRequest(), timeout_s=5),
        *backend.detect([photo], DetectRequest(), timeout_s=5),
        *backend.embed([photo], EmbedRequest(), timeout_s=5),
        drain(backend.describe_stream(photo, DescribeRequest(), timeout_s=5))[1],
    ]
    for answer in answers:
        timing = answer.trace.timing
        assert timing.decode_s > 0
        assert timing.wire_s > 0
        assert (timing.queue_s, timing.model_s) == (None, None)
    (text,) = backend.embed_text(["a cat"], EmbedTextRequest(), timeout_s=5)
    assert text.trace.timing.decode_s is None
    assert text.trace.timing.wire_s > 0


def test_a_stream_gives_the_same_text_piece_by_piece(backend, photo):
    """And the same record at its end."""
    (expected,) = backend.describe([photo], DescribeRequest(), timeout_s=5)
    pieces, found = drain(backend.describe_stream(photo, DescribeRequest(), timeout_s=5))
    assert len(pieces) > 3
    assert "".join(pieces) == expected.text
    assert found == expected


def test_a_stream_sends_nothing_until_it_is_asked(backend, sandbox, photo):
    """The router may still change its mind."""
    stream = backend.describe_stream(photo, DescribeRequest(), timeout_s=5)
    assert sum(sandbox.counts.values()) == 0
    stream.close()


def test_an_error_before_the_first_piece_comes_with_it(backend, sandbox, photo):
    """Another rung can still be asked."""
    sandbox.play("quota_gone")
    with pytest.raises(QuotaExhaustedError):
        next(backend.describe_stream(photo, DescribeRequest(), timeout_s=5))


@pytest.mark.parametrize(
    ("fault", "expected"),
    [("quota_event", QuotaExhaustedError), ("no_finish", InvalidReplyError), ("half_body", InvalidReplyError)],
)
def test_an_error_after_the_first_piece_leaves_the_pieces(backend, sandbox, photo, fault, expected):
    """Whoever has taken them holds the text so far."""
    whole = backend.describe([photo], DescribeRequest(), timeout_s=5)[0].text
    sandbox.play(fault)
    stream, pieces = backend.describe_stream(photo, DescribeRequest(), timeout_s=5), []
    with pytest.raises(expected):
        pieces.extend(stream)
    assert pieces
    assert whole.startswith("".join(pieces).strip())


def test_a_server_that_does_not_stream_is_understood(make_backend, sandbox, photo):
    """The whole reply is one piece."""
    message = {"message": {"content": "a cat"}, "finish_reason": "stop"}
    sandbox.play(Fault(status=200, body={"choices": [message]}))
    pieces, found = drain(make_backend(api="chat").describe_stream(photo, DescribeRequest(), timeout_s=5))
    assert (pieces, found.text) == (["a cat"], "a cat")


def test_detection_knows_cocos_80_names(backend, sandbox, photo):
    """Labels of the closed vocabulary carry their category."""
    (found,) = backend.detect([photo], DetectRequest(), timeout_s=5)
    assert (found.width, found.height) == (96, 64)
    assert len(found) > 0
    for box in found:
        assert box.category_id == coco_categories()[box.label]
    assert "'person'" in str(sandbox.requests[-1].body)


def test_detection_takes_any_labels(backend, photo):
    """Open labels have no category; a low score can be left out."""
    labels = ("a red scooter", "the moon")
    (found,) = backend.detect([photo], DetectRequest(labels=labels), timeout_s=5)
    assert {box.label for box in found} <= set(labels)
    assert {box.category_id for box in found} == {None}
    best = found[0].score
    (kept,) = backend.detect([photo], DetectRequest(labels=labels, min_score=best), timeout_s=5)
    assert {box.score for box in kept} == {best}


@pytest.mark.parametrize(
    "fault", ["not_json", "schema_broken", "boxes_out_of_range", "boxes_inside_out", "unknown_label", "length"]
)
def test_a_reply_that_breaks_the_schema_falls_back(backend, sandbox, photo, fault):
    """Nothing is guessed."""
    sandbox.play(fault)
    with pytest.raises(InvalidReplyError):
        backend.detect([photo], DetectRequest(), timeout_s=5)


def test_boxes_in_a_code_block_are_boxes(backend, sandbox, photo):
    """Not every server holds its model to the schema."""
    (expected,) = backend.detect([photo], DetectRequest(), timeout_s=5)
    sandbox.play("fenced_json")
    (found,) = backend.detect([photo], DetectRequest(), timeout_s=5)
    assert found.items == expected.items
    assert found.trace.flawed_boxes == 0


def reply(backend, text, *, finish="stop", usage=None, **message):
    """Return a reply of the API that a backend speaks."""
    if backend.status()["api"] == "chat":
        choice = {"message": {"content": text, **message}, "finish_reason": finish}
        return Fault(status=200, body={"choices": [choice], "usage": usage})
    content = [{"type": "output_text", "text": text}]
    status = {"status": "completed"}
    if finish == "length":
        status = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    return Fault(status=200, body={"output": [{"type": "message", "content": content}], "usage": usage, **status})


BOX = {"label": "cat", "confidence": 90, "x1": 100, "y1": 100, "x2": 900, "y2": 900}


def test_one_flawed_box_does_not_throw_away_the_others(backend, sandbox, photo):
    """It is counted in the trace, whether it was mended or left out."""
    rows = [BOX, {**BOX, "label": "Dog", "x1": 900, "x2": 100}, {**BOX, "label": "unicorn"}, {**BOX, "x2": 5000}]
    sandbox.play(reply(backend, f"<think>Two.</think>Two: {json.dumps(rows)}"))
    (found,) = backend.detect([photo], DetectRequest(), timeout_s=5)
    assert [box.label for box in found] == ["cat", "dog"]
    assert found.trace.flawed_boxes == 3


THOUGHT = "<think>Is it a dog? No.</think>\n\nA grey cat."


def test_thoughts_are_neither_described_nor_embedded(backend, sandbox, photo):
    """Servers without a parser of thoughts leave them in the text."""
    sandbox.play(reply(backend, THOUGHT), times=2)
    assert backend.describe([photo], DescribeRequest(), timeout_s=5)[0].text == "A grey cat."
    (found,) = backend.embed([photo], EmbedRequest(), timeout_s=5)
    assert sandbox.requests[-1].body["input"] == ["A grey cat."]
    assert found.dimension == 1536


def test_a_reply_of_nothing_but_thoughts_falls_back(backend, sandbox, photo):
    """Also one that ends of itself."""
    sandbox.play(reply(backend, "<think>Is it a dog?"))
    with pytest.raises(InvalidReplyError) as caught:
        backend.describe([photo], DescribeRequest(), timeout_s=5)
    assert caught.value.code == "only_thoughts"


def test_a_model_that_began_inside_its_thoughts_is_remembered(make_backend, sandbox, photo):
    """A later answer that is cut before its closing tag is all thought."""
    backend = make_backend(api="chat", max_tokens=50)
    sandbox.play(reply(backend, "Is it a dog? No.</think>A grey cat."), times=1)
    assert backend.describe([photo], DescribeRequest(), timeout_s=5)[0].text == "A grey cat."
    sandbox.play(reply(backend, "Is it a", finish="length"))
    with pytest.raises(InvalidReplyError, match="used up the limit"):
        backend.describe([photo], DescribeRequest(), timeout_s=5)


def events(*texts, api="chat", finish="stop", usage=None):
    """Return a stream of Chat Completions or Responses."""
    if api == "chat":
        chunks = [{"choices": [{"delta": {"content": text}, "finish_reason": None}]} for text in texts]
        chunks.append({"choices": [{"delta": {}, "finish_reason": finish}], "usage": usage})
    else:
        chunks = [{"type": "response.output_text.delta", "delta": text} for text in texts]
        kind, more = "completed", {}
        if finish == "length":
            kind, more = "incomplete", {"incomplete_details": {"reason": "max_output_tokens"}}
        content = [{"type": "output_text", "text": "".join(texts)}]
        response = {"status": kind, "output": [{"type": "message", "content": content}], "usage": usage, **more}
        chunks.append({"type": f"response.{kind}", "response": response})
    return Fault(status=200, body="".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks))


def test_a_stream_has_no_thoughts(backend, sandbox, photo):
    """Its pieces are the text of the record."""
    sandbox.play(events("<thi", "nk>Is it?</th", "ink>\n\nA grey", " cat.", api=backend.status()["api"]))
    pieces, found = drain(backend.describe_stream(photo, DescribeRequest(), timeout_s=5))
    assert pieces == ["A grey", " cat."]
    assert found.text == "A grey cat."


def test_streamed_thoughts_without_an_opening_tag_are_an_error_once(make_backend, sandbox, photo):
    """Later answers are held back until their thoughts have ended."""
    backend = make_backend(api="chat")
    sandbox.play(events("Is it", " a dog?", "</think>", "A grey", " cat."))
    with pytest.raises(InvalidReplyError) as caught:
        drain(backend.describe_stream(photo, DescribeRequest(), timeout_s=5))
    assert caught.value.code == "thoughts_streamed"
    pieces, found = drain(backend.describe_stream(photo, DescribeRequest(), timeout_s=5))
    assert pieces == ["A grey", " cat."]
    assert found.text == "A grey cat."


def test_a_model_that_is_named_after_its_thinking_is_not_streamed_before_it_ends(make_backend, sandbox, photo):
    """Its chat template opens the thoughts, so that only the closing tag is its own."""
    backend = make_backend(api="chat", model="qwen3-vl-thinking")
    sandbox.play(events("Is it", " a dog?", "</think>", "A grey", " cat."), times=1)
    assert drain(backend.describe_stream(photo, DescribeRequest(), timeout_s=5))[0] == ["A grey", " cat."]
    sandbox.play(events("A grey", " cat."))
    assert drain(backend.describe_stream(photo, DescribeRequest(), timeout_s=5))[0] == ["A grey cat."]


USED_UP = {"prompt_tokens": 500, "completion_tokens": 1024, "total_tokens": 1524}


def limits(sandbox):
    """Return the limits that were asked for."""
    names = ("max_tokens", "max_completion_tokens", "max_output_tokens")
    return [next(request.body[name] for name in names if name in request.body) for request in sandbox.requests]


def test_a_limit_that_thinking_has_used_up_is_raised_once(backend, sandbox, photo):
    """Both replies are paid for, and the next question has the larger limit from the beginning."""
    sandbox.play(reply(backend, "", finish="length", usage=USED_UP), times=1)
    (found,) = backend.describe([photo], DescribeRequest(), timeout_s=5)
    (next_,) = backend.describe([photo], DescribeRequest(), timeout_s=5)
    assert limits(sandbox) == [1024, 9216, 9216]
    assert found.complete
    assert found.trace.usage.output_tokens == 1024 + next_.trace.usage.output_tokens
    assert found.trace.usage.input_tokens == 500 + next_.trace.usage.input_tokens
    assert backend.estimate(DescribeRequest(), [photo]).output_tokens == 9216


def test_a_limit_that_is_used_up_again_names_its_key(backend, sandbox, photo):
    """There is no third request, and all of them are billed."""
    sandbox.play(reply(backend, "<think>Is it", finish="length", usage=USED_UP))
    with pytest.raises(InvalidReplyError, match=r"reasoning_effort.*max_tokens") as caught:
        backend.describe([photo], DescribeRequest(), timeout_s=5)
    assert caught.value.code == "limit_used_up"
    assert caught.value.usage.output_tokens == 2048
    assert limits(sandbox) == [1024, 9216]


def test_a_stream_raises_its_limit_too(backend, sandbox, photo):
    """As long as nothing of it was handed out."""
    sandbox.play(events("<think>Is it", api=backend.status()["api"], finish="length", usage=USED_UP), times=1)
    pieces, found = drain(backend.describe_stream(photo, DescribeRequest(), timeout_s=5))
    assert "".join(pieces) == found.text
    assert limits(sandbox) == [1024, 9216]
    assert [request.body["stream"] for request in sandbox.requests] == [True, True]
    assert found.trace.usage.output_tokens > 1024


def test_a_limit_is_not_raised_where_there_is_no_time_for_it(make_server, make_backend, photo):
    """A second request takes at least as long as the first."""
    clock = FakeClock()
    used_up = json.dumps({"choices": [{"message": {"content": ""}, "finish_reason": "length"}]}).encode()

    def talk(connection):
        while connection.receive():
            clock.advance(3.0)
            connection.reply(used_up)

    server = make_server(talk)
    backend = make_backend(base_url=server.url, clock=clock)
    with pytest.raises(InvalidReplyError, match="used up the limit"):
        backend.describe([photo], DescribeRequest(), timeout_s=5)
    assert len(server.received) == 1


def test_a_second_stream_that_fails_is_told_with_the_bill_of_the_first(make_backend, sandbox, photo):
    """As without streaming."""
    backend = make_backend(api="chat")
    sandbox.play("quota_gone")
    sandbox.play(events("<think>Is it", finish="length", usage=USED_UP), times=1)
    with pytest.raises(QuotaExhaustedError) as caught:
        drain(backend.describe_stream(photo, DescribeRequest(), timeout_s=5))
    assert caught.value.usage.output_tokens == 1024


def test_what_a_stream_has_counted_is_billed_when_it_breaks(make_backend, sandbox, photo):
    """Some servers count on every event."""
    backend = make_backend(api="chat")
    half = {"choices": [{"delta": {"content": "A grey c"}, "finish_reason": None}], "usage": USED_UP}
    sandbox.play(Fault(status=200, body=f"data: {json.dumps(half)}\n\n"))
    with pytest.raises(InvalidReplyError) as caught:
        drain(backend.describe_stream(photo, DescribeRequest(), timeout_s=5))
    assert (caught.value.code, caught.value.usage.output_tokens) == ("stream_cut", 1024)


def test_a_sum_with_an_unknown_part_is_unknown(make_backend, sandbox, photo):
    """It is not the part that is known."""
    backend = make_backend(api="chat")
    sandbox.play("no_usage")
    sandbox.play(reply(backend, "", finish="length", usage=USED_UP), times=1)
    (found,) = backend.describe([photo], DescribeRequest(), timeout_s=5)
    assert found.trace.usage == Usage()
    backend = make_backend(api="chat")
    sandbox.play("server_error")
    sandbox.play(reply(backend, "A grey c", finish="length", usage=USED_UP, reasoning="Is it?"), times=1)
    (found,) = backend.describe([photo], DescribeRequest(), timeout_s=5)
    assert (found.text, found.trace.usage) == ("A grey c", Usage())


def test_a_list_of_boxes_that_thinking_has_cut_is_asked_for_again(make_backend, sandbox, photo):
    """Half a list is none."""
    backend = make_backend(api="chat")
    sandbox.play(reply(backend, '{"objects": [', finish="length", usage=USED_UP, reasoning="Where?"), times=1)
    (found,) = backend.detect([photo], DetectRequest(), timeout_s=5)
    assert limits(sandbox) == [4096, 12288]
    assert len(found) > 0


def test_a_configured_limit_is_kept(make_backend, sandbox, photo):
    """Whoever has set it has meant it."""
    backend = make_backend(api="chat", max_tokens=300)
    sandbox.play(reply(backend, "", finish="length", usage=USED_UP))
    with pytest.raises(InvalidReplyError, match="max_tokens"):
        backend.describe([photo], DescribeRequest(), timeout_s=5)
    assert limits(sandbox) == [300]
    assert backend.estimate(DescribeRequest(), [photo]).output_tokens == 300


@pytest.mark.parametrize(
    ("second", "expected"), [("quota_gone", QuotaExhaustedError), ("server_error", UnavailableError)]
)
def test_what_goes_wrong_with_the_second_request_is_told_with_the_bill_of_the_first(
    make_backend, sandbox, photo, second, expected
):
    """Its gate has to hear of it."""
    backend = make_backend(api="chat")
    sandbox.play(second)
    sandbox.play(reply(backend, "", finish="length", usage=USED_UP), times=1)
    with pytest.raises(expected) as caught:
        backend.describe([photo], DescribeRequest(), timeout_s=5)
    assert caught.value.usage.output_tokens == (1024 if second == "quota_gone" else None)


def test_a_server_that_takes_no_larger_limit_is_not_asked_for_one_again(make_backend, sandbox, photo):
    """The limit is what the caller hears of."""
    backend = make_backend(api="chat")
    sandbox.play(Fault(status=400, body={"error": {"code": "invalid_request", "message": "max_tokens is too large"}}))
    sandbox.play(reply(backend, "", finish="length", usage=USED_UP), times=1)
    with pytest.raises(InvalidReplyError) as caught:
        backend.describe([photo], DescribeRequest(), timeout_s=5)
    assert (caught.value.code, caught.value.usage.output_tokens) == ("limit_used_up", 1024)
    sandbox.reset()
    backend.describe([photo], DescribeRequest(), timeout_s=5)
    assert limits(sandbox) == [1024]


def test_a_description_that_thinking_has_cut_is_better_than_none(make_backend, sandbox, photo):
    """Where the second request fails, the first answer is marked as cut."""
    backend = make_backend(api="chat")
    sandbox.play("quota_gone")
    sandbox.play(reply(backend, "A grey c", finish="length", usage=USED_UP, reasoning="Is it?"), times=1)
    (found,) = backend.describe([photo], DescribeRequest(), timeout_s=5)
    assert (found.text, found.complete) == ("A grey c", False)
    assert found.trace.usage.output_tokens == 1024


def test_an_answer_whose_ending_is_not_known_is_not_complete(make_backend, sandbox, photo):
    """A server may leave the word empty; half a description is not embedded."""
    backend = make_backend(api="chat")
    sandbox.play(reply(backend, "A grey cat.", finish=""))
    assert not backend.describe([photo], DescribeRequest(), timeout_s=5)[0].complete
    with pytest.raises(InvalidReplyError) as caught:
        backend.embed([photo], EmbedRequest(), timeout_s=5)
    assert caught.value.code == "limit_reached"


def test_an_error_inside_a_choice_is_that_error(make_backend, sandbox, photo):
    """OpenRouter puts the upstream's error there, with status 200, and half of the answer before it."""
    backend = make_backend(api="chat")
    choice = {"finish_reason": "error", "error": {"code": 429, "message": "Rate limited upstream"}}
    sandbox.play(Fault(status=200, body={"choices": [{"message": {"content": "A c"}, **choice}], "usage": USED_UP}))
    with pytest.raises(RateLimitedError) as caught:
        backend.describe([photo], DescribeRequest(), timeout_s=5)
    assert caught.value.usage.output_tokens == 1024
    half = {"choices": [{"delta": {"content": "A grey c"}, "finish_reason": None}]}
    last = {"choices": [{"delta": {"content": ""}, **choice}], "usage": USED_UP}
    sandbox.play(Fault(status=200, body="".join(f"data: {json.dumps(each)}\n\n" for each in (half, last))))
    with pytest.raises(RateLimitedError) as caught:
        drain(backend.describe_stream(photo, DescribeRequest(), timeout_s=5))
    assert caught.value.usage.output_tokens == 1024


def test_half_a_character_in_a_reply_is_replaced(backend, sandbox, photo):
    """What is answered can be written to any file."""
    sandbox.play(reply(backend, "A cat \ud83d"))
    assert backend.describe([photo], DescribeRequest(), timeout_s=5)[0].text == "A cat \ufffd"


def test_texts_are_embedded_in_one_request(backend, sandbox):
    """The batch is one space, in order, with the usage divided."""
    texts = ["a", "b", "c"]
    found = backend.embed_text(texts, EmbedTextRequest(), timeout_s=5)
    alone = [backend.embed_text([text], EmbedTextRequest(), timeout_s=5)[0] for text in texts]
    assert [one.similarity(other) > 0.999 for one, other in zip(found, alone, strict=True)] == [True] * 3
    assert sandbox.counts["/v1/embeddings"] == 4
    assert sum(each.trace.usage.input_tokens for each in found) == 3
    assert found[0].dimension == 1536


@pytest.mark.parametrize(
    "fault", ["too_few_vectors", "too_many_vectors", "wrong_dimension", "nan_vector", "zero_vector"]
)
def test_vectors_that_cannot_be_right_fall_back(backend, sandbox, fault):
    """None is padded, cut or passed on."""
    sandbox.play(fault)
    with pytest.raises(InvalidReplyError):
        backend.embed_text(["a", "b"], EmbedTextRequest(), timeout_s=5)


def test_shuffled_and_unpacked_vectors_are_the_same_vectors(backend, sandbox):
    """The index counts, and lists serve as well as base64."""
    expected = backend.embed_text(["a", "b"], EmbedTextRequest(), timeout_s=5)
    for fault in ("shuffled_vectors", "floats_for_base64"):
        sandbox.play(fault)
        found = backend.embed_text(["a", "b"], EmbedTextRequest(), timeout_s=5)
        assert [one.similarity(other) > 0.999 for one, other in zip(found, expected, strict=True)] == [True, True]


def test_an_image_is_embedded_through_its_description(backend, sandbox, photo):
    """Two requests, one usage, and a space that names who described it."""
    (found,) = backend.embed([photo], EmbedRequest(), timeout_s=5)
    (description,) = backend.describe([photo], DescribeRequest(), timeout_s=5)
    (text,) = backend.embed_text([description.text], EmbedTextRequest(space=found.space), timeout_s=5)
    assert found.space.endswith(f"/text-embedding-3-small?via={DEFAULT_MODEL}&prompt=1")
    assert found.similarity(text) == pytest.approx(1, abs=1e-3)
    expected = description.trace.usage + text.trace.usage
    assert found.trace.usage.input_tokens == expected.input_tokens
    assert found.trace.usage.cost_usd == pytest.approx(expected.cost_usd)


@pytest.mark.parametrize("request_", [DescribeRequest(), EmbedTextRequest()])
def test_an_error_that_was_billed_says_what_it_cost(make_backend, sandbox, photo, request_):
    """A reply with status 200 may hold an error and the tokens that it took, some of them from the cache."""
    usage = {"prompt_tokens": 1000, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 400}}
    sandbox.play(Fault(status=200, body={"error": {"code": "server_error", "message": "crashed"}, "usage": usage}))
    row = {"input": 1.0, "cached_input": 0.5, "output": 2.0}
    backend = make_backend(model="m", embedding_model="e", prices={"m": row, "e": row})
    ask, given = (backend.describe, photo) if request_.task == "describe" else (backend.embed_text, "a")
    with pytest.raises(UnavailableError) as caught:
        ask([given], request_, timeout_s=5)
    assert caught.value.usage.input_tokens == 1000
    assert caught.value.usage.cost_usd == pytest.approx((600 * 1.0 + 400 * 0.5) / 1e6)


def test_spaces_never_mix(make_backend):
    """Another server, length, describer or kind of input is another space."""
    backends = [
        make_backend(),
        make_backend(base_url="http://127.0.0.1:9/v1"),
        make_backend(base_url="https://api.openai.com/v1"),
        make_backend(embedding_dimensions=256),
        make_backend(embedding_model="text-embedding-3-large"),
    ]
    spaces = [each.model_for(request).space for each in backends for request in (EmbedRequest(), EmbedTextRequest())]
    spaces.append(make_backend(model="gpt-4o").model_for(EmbedRequest()).space)
    assert len(set(spaces)) == len(spaces)
    assert "openai/text-embedding-3-small" in spaces
    assert f"openai/text-embedding-3-small?via={DEFAULT_MODEL}&prompt=1" in spaces


def test_the_spaces_that_may_be_pinned_are_named(make_backend):
    """A text has one of its own and that of described images, which is the only one that the two share."""
    backend = make_backend()
    texts, images = backend.spaces(EmbedTextRequest()), backend.spaces(EmbedRequest())
    assert len(texts) == 2
    assert texts[1:] == images
    assert texts[0] == backend.model_for(EmbedTextRequest()).space
    assert backend.spaces(DescribeRequest()) == ()


def test_a_pinned_space_of_somebody_else_is_refused(make_backend, photo):
    """By the check and by the task itself."""
    backend = make_backend()
    for request in (EmbedRequest(space="clip"), EmbedTextRequest(space="clip")):
        with pytest.raises(NotSupportedError):
            backend.check(request)
    with pytest.raises(NotSupportedError):
        backend.embed([photo], EmbedRequest(space="clip"), timeout_s=5)
    backend.check(EmbedTextRequest(space=backend.model_for(EmbedRequest()).space))


@pytest.mark.parametrize("named", ["gpt-5-mini", "gpt-4o", "gpt-6.2", "vendor/model"])
@pytest.mark.parametrize("settings", [{}, {"reasoning_effort": "high"}, {"max_image_px": 300, "detail": "low"}])
def test_a_named_model_is_asked_as_if_it_were_configured(make_backend, sandbox, photo, named, settings):
    """Size of images, effort, price, cache key and space are the same."""
    asked = make_backend(model="gpt-4o-mini", **settings)
    configured = make_backend(model=named, **settings)
    for request in (DescribeRequest(), DetectRequest()):
        other = asked.with_model(named, request)
        assert other.model_for(request) == configured.model_for(request)
        assert other.estimate(request, [photo]) == configured.estimate(request, [photo])
        ours, theirs = other.wire_rule(request), configured.wire_rule(request)
        assert (ours.formats, ours.scales, ours.fit(4000, 3000)) == (
            theirs.formats,
            theirs.scales,
            theirs.fit(4000, 3000),
        )
        assert asked.model_for(request).name == "gpt-4o-mini"
    answers = [each.describe([photo], DescribeRequest(), timeout_s=5)[0] for each in (other, configured)]
    assert answers[0].trace.usage == answers[1].trace.usage
    bodies = [request.body for request in sandbox.requests]
    assert bodies[0] == bodies[1]
    assert bodies[0]["model"] == named


def test_a_named_model_for_vectors_is_an_embedding_model(make_backend, sandbox, photo):
    """Images are described by the configured one all the same."""
    asked = make_backend(model="m", embedding_dimensions=256)
    configured = make_backend(model="m", embedding_dimensions=256, embedding_model="e")
    for request in (EmbedRequest(), EmbedTextRequest()):
        assert asked.with_model("e", request).model_for(request) == configured.model_for(request)
    asked.with_model("e", EmbedRequest()).embed([photo], EmbedRequest(), timeout_s=5)
    assert [request.model for request in sandbox.requests] == ["m", "e"]


def test_what_is_learned_about_a_named_model_is_no_concern_of_the_others(make_backend, sandbox, photo):
    """It is known the next time that it is named, and forgotten with the rest."""
    backend = make_backend()
    other = backend.with_model("thinker", DescribeRequest())
    sandbox.play(reply(backend, "", finish="length", usage=USED_UP), times=1)
    other.describe([photo], DescribeRequest(), timeout_s=5)
    for each in (backend.with_model("thinker", DescribeRequest()), backend):
        each.describe([photo], DescribeRequest(), timeout_s=5)
    assert limits(sandbox) == [1024, 9216, 9216, 1024]
    backend.forget()
    backend.with_model("thinker", DescribeRequest()).describe([photo], DescribeRequest(), timeout_s=5)
    assert limits(sandbox)[-1] == 1024


def test_any_number_of_models_may_be_named(make_backend):
    """What is kept of them is bounded."""
    backend = make_backend()
    named = {
        backend.with_model(f"model-{number}", DescribeRequest()).model_for(DescribeRequest()).name
        for number in range(300)
    }
    assert len(named) == 300
    assert len(backend._others) <= 64


def test_whatever_changes_answers_changes_the_fingerprint(make_backend):
    """Cache keys are made of it."""
    settings = [
        {},
        {"base_url": "http://127.0.0.1:9/v1"},
        {"api": "responses"},
        {"detail": "low"},
        {"max_image_px": 512},
        {"reasoning_effort": "high"},
        {"max_tokens": 300},
    ]
    prints = [make_backend(**each).model_for(DescribeRequest()).fingerprint for each in settings]
    for one, other in itertools.combinations(prints, 2):
        assert one != other


def test_without_a_key_openai_is_not_ready_but_a_compatible_server_is(make_backend):
    """A missing key is not a rejected one, and the remedy says what to do."""
    with pytest.raises(NotReadyError, match="OPENAI_API_KEY") as caught:
        make_backend(api_key=None, base_url="https://api.openai.com/v1").check(DescribeRequest())
    assert caught.value.code == "no_api_key"
    make_backend(api_key=None).check(DescribeRequest())


@pytest.mark.parametrize("status", [200, 429, 500, 503])
def test_a_server_in_trouble_is_not_blamed_on_its_address(make_backend, sandbox, status):
    """A diagnosis is about what a user can mend."""
    sandbox.play(Fault(status=status, body={"data": []}))
    make_backend().diagnose(timeout_s=5)


@pytest.mark.parametrize("status", [302, 399, 404, 405])
def test_an_address_at_which_no_api_begins_is_named(make_backend, sandbox, status):
    """Also where it redirects."""
    sandbox.play(Fault(status=status, body={}))
    with pytest.raises(ModelNotFoundError, match=f"base_url = {sandbox.url} .*status {status}") as caught:
        make_backend().diagnose(timeout_s=5)
    assert caught.value.code == "bad_base_url"


def test_the_api_follows_the_server_unless_it_is_chosen(make_backend):
    """Responses at OpenAI, Chat Completions elsewhere."""
    assert make_backend(base_url="https://api.openai.com/v1").status()["api"] == "responses"
    assert make_backend().status()["api"] == "chat"
    assert make_backend(api="responses").status()["api"] == "responses"


@pytest.mark.parametrize(
    ("settings", "size", "sent"),
    [
        ({}, (2000, 2000), (1600, 1600)),
        ({"detail": "low"}, (2000, 1000), (512, 256)),
        ({"model": "gpt-4o"}, (1600, 1200), (1024, 768)),
        ({"model": "somebodys-model"}, (3000, 300), (2048, 204)),
        ({"max_image_px": 100}, (300, 200), (100, 66)),
        ({}, (30, 20), (30, 20)),
    ],
)
def test_no_more_is_sent_than_the_model_looks_at(make_backend, sandbox, settings, size, sent):
    """Larger is only slower, and smaller is never enlarged."""
    backend = make_backend(**settings)
    backend.describe([picture(*size)], DescribeRequest(), timeout_s=10)
    (received,) = sandbox.requests[-1].pictures
    assert (received.width, received.height) == sent


@pytest.mark.parametrize(
    ("settings", "decoded", "sent"),
    [
        ({"detail": "low"}, (512, 256), (4096, 2048)),  # the model's own server scales it
        ({"model": "somebodys-model"}, (2048, 1024), (2048, 1024)),
        ({"max_image_px": 300}, (512, 256), (300, 150)),
    ],
)
def test_a_jpeg_is_decoded_no_larger_than_it_is_sent(make_backend, sandbox, settings, decoded, sent):
    """One that is sent as it is is only checked; nobody pays for pixels that nobody looks at."""
    backend, file = make_backend(**settings), io.BytesIO()
    PILImage.linear_gradient("L").resize((4096, 2048)).convert("RGB").save(file, "JPEG")
    opening = begin_opening(file.getvalue(), wire=backend.wire_rule(DescribeRequest()))
    pixels = opening.decode_here()
    assert pixels.pixels.size == decoded
    backend.describe([opening.image(pixels)], DescribeRequest(), timeout_s=10)
    (received,) = sandbox.requests[-1].pictures
    assert (received.width, received.height) == sent


def test_no_metadata_leaves_the_machine(backend, sandbox):
    """Neither place, nor time, nor a comment."""
    file, exif = io.BytesIO(), PILImage.Exif()
    exif[0x010E] = "a secret garden"
    PILImage.new("RGB", (64, 64), "green").save(file, "JPEG", exif=exif, comment=b"a secret comment")
    backend.describe([open_image(file.getvalue())], DescribeRequest(), timeout_s=5)
    assert sandbox.requests[-1].pictures[0].metadata == ()


@pytest.mark.parametrize(
    "request_",
    [DescribeRequest(), DescribeRequest(max_words=500), DetectRequest(), DetectRequest(labels=("x",)), EmbedRequest()],
)
def test_an_estimate_is_never_below_the_bill(backend, request_):
    """The budget is checked against it, for the patch rule of the real model."""
    image = picture(700, 500)
    estimate = backend.estimate(request_, [image])
    (answer,) = getattr(backend, request_.task)([image], request_, timeout_s=10)
    tiles_of_the_sandbox = 85 + 170 * 2
    assert answer.trace.usage.input_tokens - tiles_of_the_sandbox < estimate.input_tokens
    assert answer.trace.usage.cost_usd < estimate.cost_usd
    assert estimate.output_tokens >= 1024
    double = backend.estimate(request_, [image, image])
    assert double.input_tokens == 2 * estimate.input_tokens


def test_an_estimate_expects_the_dearest_input(make_backend, photo):
    """All of it may be written to the server's cache."""
    prices = {"mine": {"input": 1.0, "output": 0.0, "cache_write": 4.0}}
    estimate = make_backend(model="mine", prices=prices).estimate(DescribeRequest(), [photo])
    assert estimate.cost_usd == pytest.approx(estimate.input_tokens * 4.0 / 1e6)


def test_an_estimate_of_texts_is_never_below_the_bill(backend):
    """Whatever the language."""
    texts = ["a cat", "", "猫" * 100]
    found = backend.embed_text(["a cat", "猫" * 100], EmbedTextRequest(), timeout_s=5)
    estimate = backend.estimate(EmbedTextRequest(), texts)
    assert sum(each.trace.usage.input_tokens for each in found) < estimate.input_tokens
    assert estimate.output_tokens == 0
    assert backend.estimate(EmbedTextRequest(), ["a cat " * 1000]).input_tokens < 3100  # nor far above it


def test_the_models_without_a_price_are_named_for_each_task(make_backend):
    """A vector of a description takes two models, one of the image itself only one."""
    described = make_backend(model="mine", embedding_model="e")
    direct = make_backend(model="mine", embedding_model="e", image_embeddings="direct")
    requests = [DescribeRequest(), DetectRequest(), EmbedRequest(), EmbedTextRequest()]
    assert [described.unpriced(request) for request in requests] == [["mine"], ["mine"], ["mine", "e"], ["e"]]
    assert direct.unpriced(EmbedRequest()) == ["e"]
    assert not any(map(make_backend(model="mine", embedding_model="e", price=0).unpriced, requests))
    assert not any(map(make_backend().unpriced, requests))


def test_what_has_no_price_has_no_estimate_either(make_backend, make_embedder, photo):
    """Unknown is None."""
    assert make_backend(model="somebodys-model").estimate(DescribeRequest(), [photo]).cost_usd is None
    direct = make_backend(base_url=make_embedder("modality").url, image_embeddings="direct")
    assert direct.estimate(EmbedRequest(), [photo]) == Usage()


def test_a_model_that_thinks_gets_room_for_it(make_backend, sandbox, photo):
    """Thoughts count as output, and would otherwise eat the answer."""
    make_backend(model="gpt-6.2-sol").describe([photo], DescribeRequest(), timeout_s=5)
    body = sandbox.requests[-1].body
    assert (body["reasoning_effort"], body["max_tokens"]) == ("low", 1024 + 8192)


def test_work_is_split_as_the_server_likes_it(make_backend):
    """Texts by the hundred, images one by one, some calls at once."""
    backend = make_backend(concurrency=3)
    assert backend.batch_size(EmbedTextRequest()) == 256
    assert backend.batch_size(EmbedRequest()) == 1
    assert backend.concurrency(DescribeRequest()) == 3
    assert backend.image_px(EmbedTextRequest()) is None
    assert backend.expected_s(DetectRequest()) > backend.expected_s(EmbedTextRequest())
    assert not backend.local


@pytest.mark.parametrize(
    "settings",
    [
        {"timeout_s": 0},
        {"timeout_s": float("nan")},
        {"concurrency": 0},
        {"embedding_dimensions": 0},
        {"max_image_px": -1},
        {"error_codes": {"x": "nothing"}},
        {"prices": {"m": {}}},
        {"base_url": "nowhere"},
    ],
)
def test_settings_without_meaning_are_refused(settings):
    """Before anything is sent."""
    with pytest.raises(ConfigError):
        OpenAIBackend(**settings)


def test_the_smallest_settings_have_a_meaning(make_backend):
    """A limit of 1 is one."""
    smallest = make_backend(embedding_dimensions=1, max_image_px=1, max_tokens=1, concurrency=1)
    assert smallest.estimate(DescribeRequest(), [picture(64, 48)]).output_tokens == 1


def test_a_table_of_the_configuration_becomes_a_backend(sandbox):
    """With the types that TOML and the environment give."""
    table = {"timeout_s": "7", "detail": "low", "prices": {"m": {"input": 1, "output": 2}}, "base_url": sandbox.url}
    backend = OpenAIBackend.from_settings(parse_table(OpenAIBackend, table, section="[openai]"))
    assert backend.status()["base_url"] == sandbox.url
    with pytest.raises(ConfigError, match="detail"):
        parse_table(OpenAIBackend, {"detail": "closer"}, section="[openai]")


def test_users_error_codes_hold_for_their_server(make_backend, sandbox, photo):
    """What the table does not know, the user may."""
    sandbox.play(Fault(status=400, body={"error": {"message": "no", "code": "budget_gone"}}))
    with pytest.raises(QuotaExhaustedError):
        make_backend(error_codes={"budget_gone": "quota_exhausted"}).describe([photo], DescribeRequest(), timeout_s=5)
