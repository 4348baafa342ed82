"""The server itself: keys, log, many clients, and nothing left behind."""

from __future__ import annotations

import gc
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from openai import OpenAI
from PIL import Image

from vision_backends.testing.sandbox import Chaos, Limits, SandboxServer, Script

CANARY = "sk-canary-0123456789abcdef"


def _sandbox_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("sandbox")]


def _ask(client):
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])


def test_only_loopback_is_listened_on():
    """Any other host is refused before a socket is opened."""
    for host in ("0.0.0.0", "192.168.1.1", "example.com", "::"):  # noqa: S104 — refused is the point
        with pytest.raises(ValueError, match="loopback"):
            SandboxServer(host=host).start()


@pytest.mark.parametrize("host", ["localhost", "::1"])
def test_other_names_of_loopback_will_do(host):
    """A name, and IPv6 where the machine has it."""
    try:
        server = SandboxServer(host=host)
        server.start()
    except OSError:
        pytest.skip(f"no {host} on this machine")
    with server, OpenAI(base_url=server.url, api_key="x", max_retries=0) as client:
        assert _ask(client)


def test_a_server_that_is_not_running_says_so():
    """And starting or closing twice is no error."""
    server = SandboxServer()
    with pytest.raises(RuntimeError, match="not running"):
        _ = server.url
    server.start()
    url = server.url
    server.start()
    assert server.url == url
    server.close()
    server.close()


def test_any_key_is_accepted_but_none_and_the_invalid_one(server):
    """As little in the way as possible, with a way to see a 401."""
    with OpenAI(base_url=server.url, api_key="whatever", max_retries=0) as client:
        _ask(client)
        for key in ("sk-invalid", ""):
            with pytest.raises(openai.AuthenticationError) as caught:
                _ask(client.with_options(api_key=key) if key else _without_key(client))
            assert caught.value.code == ("invalid_api_key" if key else None)


def _without_key(client):
    return client.with_options(default_headers={"Authorization": "Basic x"})


def test_a_server_can_insist_on_its_own_key_and_models():
    """``only_key`` and ``models``."""
    with (
        SandboxServer(api_key="sk-mine", only_key=True, models=["m"]) as server,
        OpenAI(base_url=server.url, api_key="sk-mine", max_retries=0) as client,
    ):
        _ask(client)
        assert [model.id for model in client.models.list()] == ["m"]
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve("another")
        assert caught.value.code == "model_not_found"
        with pytest.raises(openai.NotFoundError):
            client.embeddings.create(model="another", input="x")
        with pytest.raises(openai.AuthenticationError):
            _ask(client.with_options(api_key="sk-other"))


def test_the_log_shows_what_arrived(server, call, clock, image_part):
    """Path, model, body in short, pixels and what came with them, time, status, tokens."""
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    call.chat([image_part(kind="JPEG", size=(30, 20), exif=exif, comment=b"mine")], temperature=0.5)
    request = server.requests[0]
    assert (request.index, request.method, request.path) == (0, "POST", "/v1/chat/completions")
    assert (request.model, request.fault, request.status) == ("gpt-sandbox", "healthy", 200)
    assert request.body["temperature"] == 0.5
    assert request.at_s == clock.monotonic()
    assert request.tokens > 255
    picture = request.pictures[0]
    assert (picture.width, picture.height, picture.format) == (30, 20, "JPEG")
    assert picture.metadata == ("comment", "exif")
    call.chat([image_part(kind="JPEG")])
    assert server.requests[1].pictures[0].metadata == ()


def test_long_bodies_are_logged_in_short(server, call):
    """Texts and lists are cut, with what is missing."""
    call.embed(["x" * 5000, *["y"] * 100])
    given = server.requests[0].body["input"]
    assert given[0].endswith("<1000 more characters>")
    assert given[-1] == "<37 more>"


def test_no_key_is_kept_anywhere(server, capfd):
    """Not in the log, its JSON, any repr, nor on the terminal."""
    with OpenAI(base_url=server.url, api_key=CANARY, max_retries=0) as client:
        _ask(client)
        server.play("invalid_api_key")
        with pytest.raises(openai.AuthenticationError) as caught:
            _ask(client)
    kept = json.dumps([request.to_dict() for request in server.requests]) + repr(server.requests) + repr(vars(server))
    assert CANARY not in kept
    assert CANARY not in str(caught.value)
    assert CANARY not in "".join(capfd.readouterr())


def test_reset_makes_the_server_as_new(server, call):
    """Plans, log, ids and what was spent; the limits stay."""
    server.limit(Limits(quota_requests=1))
    first = call.chat()
    server.play("server_error")
    server.reset()
    assert server.requests == ()
    assert server.counts == {}
    assert server.recorded == Script(())
    assert call.chat().id == first.id
    with pytest.raises(openai.RateLimitError):
        call.chat()


def test_the_same_requests_get_the_same_bytes():
    """Two servers, one script, the same replies to the letter."""

    def replies():
        with SandboxServer() as server, OpenAI(base_url=server.url, api_key="x", max_retries=0) as client:
            server.play(Chaos(seed=5, rate=0.5, faults=("quota_gone", "length", "renamed_model", "html_200")))
            said = []
            for number in range(30):
                messages = [{"role": "user", "content": f"question {number}"}]
                try:
                    reply = client.chat.completions.create(model="m", messages=messages)
                    said.append(reply if isinstance(reply, str) else reply.model_dump(exclude={"created"}))
                except openai.APIStatusError as error:
                    said.append(error.body)
            return said

    assert replies() == replies()


def test_one_connection_serves_many_requests(server, call):
    """Keep-alive holds, also across errors and broken requests."""
    for _ in range(5):
        call.chat()
        server.play("server_error", times=1)
        with pytest.raises(openai.InternalServerError):
            call.embed()
    assert server.connections == 1


def test_a_thousand_requests_from_sixteen_threads(server, client):
    """All are answered and counted, over as many connections as there are threads, in bounded time."""
    started = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda _: _ask(client), range(1000)))
    assert time.monotonic() - started < 30
    assert len({reply.id for reply in replies}) == 1000
    assert server.counts == {"/v1/chat/completions": 1000}
    assert sorted(request.index for request in server.requests) == list(range(1000))
    assert server.connections <= 16


def test_nothing_is_left_after_close():
    """No thread and no socket, with connections open, replies stalled and clients gone."""
    before = _sandbox_threads()
    server = SandboxServer()
    with server, OpenAI(base_url=server.url, api_key="x", max_retries=0, timeout=0.02) as client:
        _ask(client.with_options(timeout=5))
        server.play("stall")
        with pytest.raises(openai.APITimeoutError):
            _ask(client)
        held = socket.create_connection(("127.0.0.1", int(server.root_url.rpartition(":")[2])))
        held.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        while len(server.requests) < 3:
            time.sleep(0.001)
        started = time.monotonic()
        server.close()
        assert time.monotonic() - started < 2
        assert held.recv(1) == b""
        held.close()
    assert _sandbox_threads() == before
    gc.collect()  # an unclosed socket would warn here, and warnings are errors


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"NONSENSE\r\n\r\n", b"400"),
        (b"POST /v1/responses HTTP/1.1\r\nContent-Length: many\r\n\r\n", b"413"),
        (b"POST /v1/responses HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n", b"413"),
        (b"POST /v1/responses HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"413"),
        (b"POST /v1/responses HTTP/1.1\r\nAuthorization: Bearer x\r\nContent-Length: 4\r\n\r\n{'a'", b"400"),
        (b"", b""),
    ],
)
def test_what_is_not_http_harms_nobody(server, call, data, status):
    """The connection is answered and closed; others go on."""
    with socket.create_connection(("127.0.0.1", int(server.root_url.rpartition(":")[2])), timeout=5) as raw:
        raw.sendall(data)
        raw.shutdown(socket.SHUT_WR)
        assert status in raw.makefile("rb").read()
    assert call.chat()
