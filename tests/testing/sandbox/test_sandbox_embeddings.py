"""The embeddings endpoint, asked by the real SDK over a real socket."""

from __future__ import annotations

import base64

import numpy as np
import openai
import pytest


def test_embeddings_are_unit_vectors_that_depend_on_the_input(call):
    """The same text has the same vector of length 1, another text another one."""
    vectors = np.array([row.embedding for row in call.embed(["one", "two", "one"]).data])
    assert vectors.shape == (3, 1536)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (vectors[0] == vectors[2]).all()
    assert abs(vectors[0] @ vectors[1]) < 0.2


def test_embeddings_come_as_floats_or_base64(call, client):
    """Both encodings hold the same numbers; the SDK asks for base64 by itself."""
    reply = call.embed("one", encoding_format="float").data[0].embedding
    assert np.array_equal(np.float32(reply), np.float32(call.embed("one").data[0].embedding))
    body = {"model": "text-embedding-3-small", "input": "one", "encoding_format": "base64"}
    raw = client.post("/embeddings", body=body, cast_to=object)["data"][0]["embedding"]
    assert np.array_equal(np.frombuffer(base64.b64decode(raw), "<f4"), np.float32(reply))


def test_embedding_dimensions_are_a_normalised_prefix(call):
    """``dimensions`` shortens a vector and normalises it again."""
    full, short = (np.array(call.embed("one", **o).data[0].embedding) for o in ({}, {"dimensions": 64}))
    assert short.shape == (64,)
    assert np.allclose(short, full[:64] / np.linalg.norm(full[:64]), atol=1e-6)
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        call.embed("one", dimensions=5000)


def test_embeddings_take_tokens_and_refuse_nothing(call):
    """Lists of tokens are an input; empty texts and lists are not."""
    one = call.embed([1, 2, 3])
    assert len(one.data) == 1
    assert len(call.embed([[1, 2], [3]]).data) == 2
    for given in ("", [""], [], [[]]):
        with pytest.raises(openai.BadRequestError):
            call.embed(given)


def test_embeddings_of_images_depend_on_the_image(call, client, data_url):
    """``modality`` embeds the image; without it the URL is a text, with messages it is vLLM's way."""
    image, other = data_url(), data_url(colour=(1, 2, 3))

    def embed(given, **extra):
        return call.embed(given, extra_body=extra).data[0].embedding

    assert embed([image], modality="image") == embed([image], modality="image")
    assert embed([image], modality="image") != embed([other], modality="image")
    assert embed([image], modality="image") != embed([image])
    with pytest.raises(openai.BadRequestError):
        embed(["not an image"], modality="image")
    part = {"type": "image_url", "image_url": {"url": image}}
    body = {"model": "text-embedding-3-small", "messages": [{"role": "user", "content": [part]}]}
    vector = client.post("/embeddings", body=body, cast_to=object)["data"][0]["embedding"]
    assert np.array_equal(np.float32(vector), np.float32(embed([image], modality="image")))


def test_two_encodings_of_one_picture_have_one_vector(call, data_url):
    """An image is embedded by its decoded pixels, whichever lossless format and settings brought them."""
    options = ({"compress_level": 0}, {"compress_level": 9}, {"kind": "WEBP", "lossless": True})
    images = [data_url(**each) for each in options]
    vectors = [row.embedding for row in call.embed(images, extra_body={"modality": "image"}).data]
    assert len(set(images)) == 3
    assert vectors[0] == vectors[1] == vectors[2]
    (turned,) = call.embed([data_url(size=(48, 64))], extra_body={"modality": "image"}).data
    assert turned.embedding != vectors[0]
