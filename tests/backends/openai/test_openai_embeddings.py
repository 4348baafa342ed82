"""Vectors: which ones are believed, and which servers are allowed to embed images."""

from __future__ import annotations

import base64
import json
import re
import time

import numpy as np
import pytest

from vision_backends import Router
from vision_backends.backends.openai import OpenAIBackend
from vision_backends.backends.openai.embeddings import read_vectors, text_body
from vision_backends.backends.requests import EmbedRequest, EmbedTextRequest
from vision_backends.errors import (
    TEXT_TOO_LONG,
    ConfigError,
    InvalidReplyError,
    InvalidRequestError,
    NotSupportedError,
    RateLimitedError,
    TimedOutError,
    UnavailableError,
    VisionError,
)


def packed(numbers):
    """Return numbers as base64 of float32."""
    return base64.b64encode(np.array(numbers, dtype="<f4").tobytes()).decode()


def reply(*vectors, **more):
    """Return a reply with vectors."""
    return {"data": [{"index": place, "embedding": vector} for place, vector in enumerate(vectors)], **more}


def test_base64_and_lists_are_both_read_and_made_of_length_one():
    """Servers answer with lists where base64 was asked for."""
    vectors, tokens = read_vectors(reply(packed([3, 4]), [0, 2], usage={"prompt_tokens": 4}), count=2, dimensions=2)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[0.6, 0.8], [0, 1]], atol=1e-6)
    assert tokens.input == 4


def test_vectors_are_put_in_the_order_of_their_index():
    """The order of the reply means nothing, unless the indices do not either."""
    rows = [{"index": 1, "embedding": [0, 1]}, {"index": 0, "embedding": [1, 0]}]
    assert read_vectors({"data": rows}, count=2, dimensions=None)[0][0].tolist() == [1, 0]
    unnumbered = [{"embedding": [0, 1]}, {"index": None, "embedding": [1, 0]}]
    assert read_vectors({"data": unnumbered}, count=2, dimensions=None)[0][0].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({}, "wrong_count"),
        ({"data": "x"}, "wrong_count"),
        (reply([1, 0]), "wrong_count"),
        (reply([1, 0], [1, 0], [1, 0]), "wrong_count"),
        ({"data": [1, 2]}, "wrong_count"),
        (reply([1, 0], [1, 0, 0]), "wrong_dimension"),
        (reply([1, 0, 0], [1, 0, 0]), "wrong_dimension"),
        (reply([], []), "wrong_dimension"),
        (reply(None, None), "wrong_dimension"),
        (reply([1, 0], [float("nan"), 0]), "bad_vector"),
        (reply([1, 0], [float("inf"), 0]), "bad_vector"),
        (reply([1, 0], [0, 0]), "bad_vector"),
        (reply([1, 0], "no base64!"), "bad_vector"),
        (reply([1, 0], base64.b64encode(b"abc").decode()), "bad_vector"),
        (reply([1, 0], ["x", "y"]), "bad_vector"),
        (reply([1, 0], [[1], [2, 3]]), "bad_vector"),
    ],
)
def test_wrong_numbers_lengths_and_values_are_invalid_replies(payload, code):
    """A wrong vector in an index is worse than none."""
    with pytest.raises(InvalidReplyError) as caught:
        read_vectors(payload, count=2, dimensions=2)
    assert caught.value.code == code


def test_dimensions_are_asked_for_only_when_configured():
    """Older models refuse the parameter."""
    assert "dimensions" not in text_body("m", ["a"], dimensions=None)
    assert text_body("m", ["a"], dimensions=64)["dimensions"] == 64


@pytest.mark.parametrize("shape", ["modality", "messages"])
def test_a_server_that_looks_at_the_pixels_embeds_images_directly(shape, make_embedder, make_backend, photo):
    """It is asked in the shape that it knows, after three probes and once for all."""
    server = make_embedder(shape)
    backend = make_backend(base_url=server.url, image_embeddings="direct", embedding_model="clip")
    for _ in range(2):
        first, second = backend.embed([photo, photo], EmbedRequest(), timeout_s=5)
    assert first.similarity(second) == pytest.approx(1)
    assert first.space == backend.model_for(EmbedTextRequest()).space == f"127.0.0.1:{server.server_port}/clip"
    assert first.trace.usage.input_tokens == 1
    probes = [body for body in server.bodies if "iVBOR" in str(body)[:400]]
    assert len(server.bodies) - len(probes) == (2 if shape == "modality" else 4)


def test_a_server_that_embeds_the_letters_of_a_data_url_is_refused(make_embedder, make_backend, photo):
    """Such vectors look like any other, and find nothing."""
    server = make_embedder("letters")
    backend = make_backend(base_url=server.url, image_embeddings="direct", embedding_model="clip")
    backend.check(EmbedRequest())
    with pytest.raises(NotSupportedError, match="pixels"):
        backend.embed([photo], EmbedRequest(), timeout_s=5)
    asked = len(server.bodies)
    with pytest.raises(NotSupportedError, match="describe"):
        backend.check(EmbedRequest())
    with pytest.raises(NotSupportedError):
        backend.embed([photo], EmbedRequest(), timeout_s=5)
    assert len(server.bodies) == asked


def test_vectors_of_one_batch_have_one_length(make_embedder, make_backend, photo):
    """Also where each of them comes in a reply of its own."""
    server = make_embedder("messages")
    backend = make_backend(base_url=server.url, image_embeddings="direct", embedding_model="clip")
    backend.embed([photo], EmbedRequest(), timeout_s=5)
    server.uneven = True
    with pytest.raises(InvalidReplyError, match="different lengths"):
        backend.embed([photo, photo], EmbedRequest(), timeout_s=5)


def test_an_outage_during_the_proof_proves_nothing(make_embedder, make_backend, photo):
    """The server is asked again when it is back."""
    server = make_embedder("modality")
    server.broken = True
    backend = make_backend(base_url=server.url, image_embeddings="direct", embedding_model="clip")
    with pytest.raises(UnavailableError):
        backend.embed([photo], EmbedRequest(), timeout_s=5)
    server.broken = False
    assert backend.embed([photo], EmbedRequest(), timeout_s=5)[0].dimension == 32


def test_openai_itself_embeds_texts_only(make_backend):
    """The configuration is wrong, and is told so before the first call."""
    with pytest.raises(ConfigError, match="texts only"):
        make_backend(base_url="https://api.openai.com/v1", image_embeddings="direct")


def test_the_second_request_of_a_call_gets_what_the_first_has_left(sandbox, make_backend, photo):
    """A description that takes the whole time leaves none for its vector."""
    sandbox.play({"name": "slow", "delay_s": 0.08, "paths": ["/v1/chat/completions"]})
    backend = make_backend()
    started = time.monotonic()
    with pytest.raises(TimedOutError):
        backend.embed([photo], EmbedRequest(), timeout_s=0.05)
    assert time.monotonic() - started < 1
    assert sandbox.counts.get("/v1/embeddings", 0) == 0


OPENAI = "This model's maximum context length is 8192 tokens, however you requested {} tokens ({} in your prompt)."
TOO_LONG = [
    (400, {"error": {"message": OPENAI, "type": "invalid_request_error", "param": None, "code": None}}),
    (400, {"error": {"message": OPENAI, "code": "context_length_exceeded"}}),
    (400, {"object": "error", "message": OPENAI, "type": "BadRequestError", "code": 400}),  # vLLM
    (
        413,
        {"error": "Input validation error: `inputs` must have less than 8192 tokens. Given: {}", "error_type": "v"},
    ),  # TEI
    (
        400,
        {"error": {"code": 400, "message": "the request ({} tokens) exceeds the available context size (8192 tokens)"}},
    ),
    (500, {"error": {"message": "input is too large to process. increase the physical batch size"}}),  # llama.cpp
]


@pytest.fixture
def short_sighted(make_server):
    """A maker of servers whose model reads 8,192 tokens, one for each letter; says what longer texts are told."""

    def make(status, refusal):
        def talk(line):
            while (request := line.receive()) is not None:
                texts = json.loads(request[1])["input"]
                longest = max(map(len, texts))
                if longest > 8192:
                    told = json.dumps(refusal).replace("{}", str(longest)).encode()
                    line.reply(told, status=status)
                else:
                    vectors = [{"index": place, "embedding": [1.0, len(text)]} for place, text in enumerate(texts)]
                    line.reply(json.dumps({"data": vectors, "usage": {"prompt_tokens": 9}}).encode())

        return make_server(talk)

    return make


@pytest.mark.parametrize(("status", "refusal"), TOO_LONG)
def test_a_text_that_the_server_calls_too_long_is_refused_in_its_words(short_sighted, make_backend, status, refusal):
    """However it says so: only that text is at fault, and other rungs may read it."""
    backend = make_backend(base_url=short_sighted(status, refusal).url, embedding_model="m")
    with pytest.raises(NotSupportedError, match=r"8192 tokens|too large") as caught:
        backend.embed_text(["x" * 9000], EmbedTextRequest(), timeout_s=5)
    assert caught.value.code == TEXT_TOO_LONG
    assert "truncate=True" in caught.value.remedy


@pytest.mark.parametrize(("status", "refusal"), TOO_LONG)
def test_a_long_text_is_cut_until_the_server_reads_it(short_sighted, make_backend, status, refusal):
    """By the lengths that it names, or by half; the trace says what was left out."""
    server = short_sighted(status, refusal)
    backend = make_backend(base_url=server.url, embedding_model="m")
    (cut,) = backend.embed_text(["x" * 16_000 + " the end"], EmbedTextRequest(truncate=True), timeout_s=5)
    (note,) = cut.trace.notes
    assert re.match(r"m has read \d,\d+ of the text's 16,008 characters, without 'x+…'\.", note)
    assert len(server.received) == 2
    (whole,) = backend.embed_text(["short"], EmbedTextRequest(truncate=True), timeout_s=5)
    assert whole.trace.notes == ()


def test_a_text_of_megabytes_is_not_sent(short_sighted, make_backend):
    """No server reads as much; where it may be cut, what is sent is its beginning."""
    told = "This model's maximum context length is 8192 tokens, however you requested {} tokens."
    server = short_sighted(400, {"error": {"message": told, "code": "context_length_exceeded"}})
    backend = make_backend(base_url=server.url, embedding_model="m")
    with pytest.raises(NotSupportedError, match="20,000,000 characters long; a server is sent at most") as caught:
        backend.embed_text(["a cat", "x" * 20_000_000], EmbedTextRequest(), timeout_s=5)
    assert caught.value.code == TEXT_TOO_LONG
    assert server.received == []
    (cut,) = backend.embed_text(["x" * 20_000_000], EmbedTextRequest(truncate=True), timeout_s=5)
    assert re.match(r"m has read \d,\d+ of the text's 20,000,000 characters, without 'x+…'\.", cut.trace.notes[0])


def test_a_text_is_not_cut_to_nothing(short_sighted, make_backend):
    """Whatever lengths the server names."""
    told = "This model's maximum context length is 1 tokens, however you requested {} tokens."
    server = short_sighted(400, {"error": {"message": told, "code": "context_length_exceeded"}})
    backend = make_backend(base_url=server.url, embedding_model="m")
    (cut,) = backend.embed_text(["x" * 16_000], EmbedTextRequest(truncate=True), timeout_s=5)
    assert cut.trace.notes[0].startswith("m has read 800 of")


def test_a_minute_limit_is_not_taken_for_a_long_text(short_sighted, make_backend):
    """It is about many texts together, and passes."""
    told = "Request too large on tokens per min: context size, Limit 8000, Requested {}."
    server = short_sighted(429, {"error": {"message": told, "code": "rate_limit_exceeded"}})
    with pytest.raises(RateLimitedError):
        make_backend(base_url=server.url, embedding_model="m").embed_text(["x" * 9000], EmbedTextRequest(), timeout_s=5)


def test_one_long_text_of_a_list_fails_alone(short_sighted, make_backend):
    """The others are asked for again without it."""
    server = short_sighted(*TOO_LONG[0])
    with Router([OpenAIBackend(base_url=server.url, embedding_model="m")]) as router:
        first, long, last = router.embed_text_many(["a", "x" * 9000, "b"])
        assert first.space == last.space
        assert "however you requested 9000 tokens" in str(long)
        before = len(server.received)
        many = router.embed_text_many([*map(str, range(200)), "x" * 9001])
        assert sum(isinstance(each, VisionError) for each in many) == 1
        assert len(server.received) - before <= 2 * 8 + 1  # the half with the long one is halved again and again
        with pytest.raises(InvalidRequestError, match="however you requested 9000 tokens"):
            router.embed_text("x" * 9000, space=first.space)
