"""What is sent, byte for byte: the same as by OpenAI's own SDK, which is the reference."""

from __future__ import annotations

import asyncio
import json

import pytest

from vision_backends.backends.openai.client import Client
from vision_backends.backends.openai.errors import Taxonomy
from vision_backends.backends.openai.prices import PriceList
from vision_backends.backends.openai.secret import Secret
from vision_backends.backends.openai.settings import BaseUrl
from vision_backends.clock import SYSTEM_CLOCK, Deadline
from vision_backends.errors import UnavailableError

MEANINGFUL = {"accept", "authorization", "content-length", "content-type", "openai-organization", "openai-project"}

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "high"}}
CHAT = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}, PICTURE]}]}
RESPONSES = {"model": "m", "instructions": "Be brief.", "input": "What?", "max_output_tokens": 9, "store": False}

REQUESTS = [
    ("chat", {**CHAT, "stream": False, "max_completion_tokens": 9}),
    ("chat", {**CHAT, "stream": True, "stream_options": {"include_usage": True}}),
    ("responses", {**RESPONSES, "stream": False}),
    ("responses", {**RESPONSES, "stream": True, "reasoning": {"effort": "low"}}),
    ("embeddings", {"model": "m", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 64}),
]

ACCOUNTS = [{}, {"organization": "org-1", "project": "proj-1"}]


def refuse(talk):
    """Answer each request with an error, which ends it whatever it was."""
    while talk.receive():
        talk.reply(b'{"error": {"message": "no", "code": "server_error"}}', status=500)


def meant(request):
    """Return the request line, the headers that mean something, and the JSON of a request."""
    head, body = request
    line, *headers = head.split("\r\n")
    named = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in headers)}
    own = {name: value for name, value in named.items() if name in MEANINGFUL or name.startswith("x-own")}
    return line, own, json.loads(body)


async def ask(url, endpoint, body, headers, account):
    """Send a request with our client."""
    base_url = BaseUrl.parse(url)
    client = Client(
        base_url,
        api_key=Secret("sk-key"),
        taxonomy=Taxonomy(host=base_url.host),
        prices=PriceList({}),
        headers={name: Secret(value) for name, value in headers.items()},
        **account,
    )
    deadline = Deadline(SYSTEM_CLOCK, 5)
    request = await client.prepare(endpoint, lambda: body, deadline=deadline)
    sent = (
        anext(client.stream(request, deadline=deadline))
        if body.get("stream")
        else client.post(request, deadline=deadline)
    )
    with pytest.raises(UnavailableError):
        await sent
    await client.aclose()


def ask_the_sdk(url, endpoint, body, headers, account):
    """Send a request with OpenAI's SDK."""
    import openai

    client = openai.OpenAI(base_url=url, api_key="sk-key", max_retries=0, default_headers=headers, **account)
    create = {"chat": client.chat.completions.create, "responses": client.responses.create}
    with client, pytest.raises(openai.InternalServerError):
        create.get(endpoint, client.embeddings.create)(**body)


@pytest.mark.parametrize("account", ACCOUNTS)
@pytest.mark.parametrize(("endpoint", "body"), REQUESTS)
def test_a_request_is_the_one_that_the_sdk_would_send(make_server, endpoint, body, account):
    """Method, path, query, credentials and JSON; only the user agent is our own."""
    server = make_server(refuse)
    headers = {"X-Own": "yes"}
    asyncio.run(ask(server.url, endpoint, body, headers, account))
    ask_the_sdk(server.url, endpoint, body, headers, account)
    ours, theirs = map(meant, server.received)
    assert ours == theirs
    assert ours[2] == body
    assert ("openai-project" in ours[1]) == bool(account)


def test_what_the_user_sends_replaces_what_is_sent_by_itself(make_server):
    """Also under a name that is written differently."""
    server = make_server(refuse)
    headers = {"AUTHORIZATION": "Basic x", "User-Agent": "mine"}
    asyncio.run(ask(server.url, "chat", REQUESTS[0][1], headers, {}))
    sent = server.received[0][0].lower()
    assert sent.count("authorization:") == sent.count("user-agent:") == 1
    assert "authorization: basic x" in sent
    assert "user-agent: mine" in sent


def test_half_a_character_is_sent_as_it_is(make_server):
    """Lone surrogates come from broken file names and cut texts; UTF-8 has no bytes for them."""
    server = make_server(refuse)
    body = {"model": "m", "input": ["a \ud83d b, ä 猫"]}
    asyncio.run(ask(server.url, "embeddings", body, {}, {}))
    assert json.loads(server.received[0][1]) == body
