"""Servers that refuse a field of OpenAI's, behind a router as an application has it."""

from __future__ import annotations

import base64
import io
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
from PIL import Image as PILImage
from typer.testing import CliRunner

from vision_backends import Router
from vision_backends.backends.openai import OpenAIBackend
from vision_backends.backends.openai.dialect import Dialect, serialized
from vision_backends.backends.openai.errors import Taxonomy
from vision_backends.backends.openai.protocol import Ask, Chat, Responses
from vision_backends.cli.app import app
from vision_backends.errors import AllBackendsFailedError, InvalidImageError, ModelNotFoundError, RefusedError
from vision_backends.storage import open_store
from vision_backends.testing import FakeBackend

CHAT_ANSWER = {
    "id": "c",
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "A grey cat."}}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
}
RESPONSES_ANSWER = {
    "id": "r",
    "model": "m",
    "status": "completed",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "A grey cat."}]}],
    "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15},
}


def noise(side_px):
    """Return a picture that does not compress."""
    return PILImage.effect_noise((side_px, side_px), 90).convert("RGB")


class JsonServer(ThreadingHTTPServer):
    """Answers with the status and the JSON that a function of path and body returns, and keeps the bodies."""

    daemon_threads = True

    def __init__(self, reply):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        self.bodies = []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.bodies.append(body)
        status, reply = self.server.reply(self.path, body)
        content = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def serve():
    """Start servers, and stop them."""
    made = []

    def start(reply):
        server = JsonServer(reply)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        made.append((server, thread))
        return server

    yield start
    for server, thread in made:
        server.shutdown()
        thread.join()
        server.server_close()


def refuse(message, *, status=400, param=None, code=None):
    """Return a refusal in OpenAI's shape."""
    return status, {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def router_of(server, *, store=None, below=True, **settings):
    """Return a router over a server, and a rung below it that always answers."""
    backend = OpenAIBackend(base_url=server.url, model="m", **settings)
    return Router([backend, *([FakeBackend("below")] if below else [])], store=store, caching=False)


def has(body, field):
    """Tell whether a body has a field, given by its path."""
    for part in field.split("."):
        if not isinstance(body, dict) or part not in body:
            return False
        body = body[part]
    return True


def pixels(body):
    """Return the picture that was sent."""
    url = body["messages"][1]["content"][1]["image_url"]["url"]
    return PILImage.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


@pytest.mark.parametrize(
    ("api", "field", "words", "instead"),
    [
        (
            "chat",
            "max_tokens",
            "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
            "max_completion_tokens",
        ),
        ("chat", "max_tokens", "max_tokens: Extra inputs are not permitted", "max_completion_tokens"),
        ("chat", "reasoning_effort", "Unrecognized request argument supplied: reasoning_effort", None),
        ("responses", "reasoning", "Unsupported parameter: 'reasoning.effort' is not supported with this model.", None),
        ("responses", "store", "store is not allowed here", None),
        ("responses", "instructions", "`instructions` is not supported", "input"),
    ],
)
def test_a_refused_field_is_left_out_once_and_for_all(serve, api, field, words, instead):
    """The first photo costs one refusal, the next none, and nothing is degraded."""

    def reply(_path, body):
        return refuse(words) if has(body, field) else (200, CHAT_ANSWER if api == "chat" else RESPONSES_ANSWER)

    server = serve(reply)
    router = router_of(server, api=api, reasoning_effort="low")
    for number in range(3):
        answer = router.describe(noise(32 + number))
        assert (answer.text, answer.trace.degraded, len(answer.trace.attempts)) == ("A grey cat.", False, 1)
    assert len(server.bodies) == 4
    assert field in server.bodies[0]
    assert not any(field in body for body in server.bodies[1:])
    assert instead is None or instead in server.bodies[1]
    assert field in str(router.status()[0].facts["left_out"])
    explanation = router.explain("describe")
    assert f"refuses {field} of {api}" in explanation.verdicts[0].notes[0]
    assert "vision reset openai" in str(explanation)
    assert not router.explain("embed_text").verdicts[0].notes
    router.close()


def test_a_value_that_a_model_lacks_is_replaced_by_one_that_it_offers(serve):
    """The least thinking among those."""

    def reply(_path, body):
        if body.get("reasoning_effort") == "none":
            return refuse(
                "Unsupported value: 'none'. Supported values are: 'low', 'medium', and 'high'.",
                param="reasoning_effort",
            )
        return 200, CHAT_ANSWER

    server = serve(reply)
    with router_of(server, reasoning_effort="none") as router:
        assert router.describe(noise(32)).text == "A grey cat."
    assert [body["reasoning_effort"] for body in server.bodies] == ["none", "low"]


@pytest.mark.parametrize("most", [200, 1])
def test_a_limit_that_is_too_high_is_lowered(serve, most):
    """To what the server takes."""

    def reply(_path, body):
        return refuse(f"max_tokens is too large: at most {most}.") if body["max_tokens"] > most else (200, CHAT_ANSWER)

    server = serve(reply)
    with router_of(server) as router:
        assert router.describe(noise(32)).text == "A grey cat."
    assert server.bodies[1]["max_tokens"] == most


@pytest.mark.parametrize(
    ("refused", "answers"),
    [
        (("reasoning_effort", "response_format", "max_tokens"), "openai"),
        (("reasoning_effort", "response_format", "max_tokens", "max_completion_tokens"), "below"),
    ],
)
def test_three_fields_of_one_request_may_be_refused_one_after_the_other(serve, refused, answers):
    """More are given up on: a server that refuses everything would be asked for ever."""
    empty = {**CHAT_ANSWER["choices"][0], "message": {"role": "assistant", "content": '{"objects": []}'}}

    def reply(_path, body):
        named = next((field for field in refused if field in body), None)
        return refuse(f"Unknown parameter: {named}") if named else (200, {**CHAT_ANSWER, "choices": [empty]})

    server = serve(reply)
    with router_of(server, reasoning_effort="low") as router:
        assert router.detect(noise(32)).trace.backend == answers
    assert len(server.bodies) == 4


def test_a_schema_that_is_refused_is_asked_for_in_words(serve):
    """Detection goes on with a server that knows none."""
    boxes = {"objects": [{"label": "cat", "confidence": 90, "x1": 10, "y1": 10, "x2": 900, "y2": 990}]}
    answer = json.loads(json.dumps(CHAT_ANSWER))
    answer["choices"][0]["message"]["content"] = json.dumps(boxes)

    def reply(_path, body):
        return refuse("This response_format type is unavailable now") if "response_format" in body else (200, answer)

    server = serve(reply)
    with router_of(server) as router:
        found = router.detect(noise(64))
    assert ([item.label for item in found.items], found.trace.degraded) == (["cat"], False)
    assert "confidence" in server.bodies[1]["messages"][0]["content"]


def test_a_stream_is_opened_again_without_its_refused_field(serve):
    """Before the first piece, so that nobody sees it."""

    def reply(_path, body):
        if "stream_options" in body:
            return 422, {"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]}
        return 200, CHAT_ANSWER

    server = serve(reply)
    with router_of(server) as router:
        stream = router.describe_stream(noise(32))
        assert "".join(stream) == "A grey cat."
        assert stream.description.trace.degraded is False
    assert len(server.bodies) == 2


def test_what_a_server_refuses_is_known_to_the_next_program_and_until_a_reset(serve, tmp_path):
    """It lies beside the gates."""

    def reply(_path, body):
        return refuse("Unknown parameter: max_tokens") if "max_tokens" in body else (200, CHAT_ANSWER)

    server, path = serve(reply), tmp_path / "state.sqlite"
    for _ in range(2):
        with router_of(server, store=open_store(path)) as router:
            router.describe(noise(32))
    assert len(server.bodies) == 3
    with router_of(server, store=open_store(path)) as router:
        router.reset()
        router.describe(noise(32))
        assert "max_tokens" in server.bodies[3]
    assert len(server.bodies) == 5


def test_a_field_that_stays_refused_shuts_the_task_not_the_caller_out(serve):
    """All photos would meet the same; the rung below answers, and the answer says so."""
    server = serve(lambda _path, _body: refuse("Unsupported parameter: 'max_tokens'"))
    with router_of(server) as router:
        first, second = router.describe(noise(32)), router.describe(noise(33))
        asked = len(server.bodies)
        assert (first.trace.backend, first.trace.degraded) == ("below", True)
        assert "max_tokens" in (first.trace.reason or "")
        assert second.trace.degraded
        assert [(gate.gate, gate.task) for gate in router.gates()] == [("refusal", "describe")]
        assert asked == len(server.bodies) <= 3


def test_a_request_that_is_too_large_for_a_proxy_is_sent_smaller(serve):
    """Its limit is remembered."""
    limit = 150_000

    def reply(_path, body):
        return (413, {"detail": "too large"}) if len(json.dumps(body)) > limit else (200, CHAT_ANSWER)

    server = serve(reply)
    with router_of(server) as router:
        for side_px in (500, 510):
            assert router.describe(noise(side_px)).trace.degraded is False
    first, *others = [len(json.dumps(body, separators=(",", ":"))) for body in server.bodies]
    assert len(others) == 2
    assert max(others) <= first // 2
    assert pixels(server.bodies[-1]).width == pixels(server.bodies[-1]).height < 510


@pytest.mark.parametrize("side_px", [64, 400])
def test_only_a_request_that_is_too_large_is_sent_smaller(serve, side_px):
    """Whether its picture is a quarter larger than there is room for, or far smaller."""
    limit = [10**9]

    def reply(_path, body):
        return (413, {"detail": "too large"}) if len(json.dumps(body)) > limit[0] else (200, CHAT_ANSWER)

    server = serve(reply)
    photo = noise(side_px)
    with router_of(server) as router:
        router.describe(photo)
        limit[0] = 140_000
        router.describe(noise(500))
        asked = len(server.bodies)
        router.describe(photo)
    is_small = len(json.dumps(server.bodies[0])) < limit[0]
    assert len(server.bodies) == asked + 1
    assert (server.bodies[-1] == server.bodies[0]) == is_small


def test_no_picture_is_shrunk_to_a_dot(serve):
    """Where its words take nearly all the room, the server may refuse it for good."""
    file = io.BytesIO()
    noise(300).save(file, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    parts = [{"type": "text", "text": "x" * (len(url) - 400)}, {"type": "image_url", "image_url": {"url": url}}]
    body = {"model": "m", "messages": [{"role": "system", "content": ""}, {"role": "user", "content": parts}]}
    refusal = RefusedError("Too large.", status=413)
    content, _ = Dialect("http://x/v1").without(json.dumps(body).encode(), refusal)
    assert pixels(json.loads(content)).width >= 19


def test_a_refusal_that_names_nothing_goes_to_the_next_rung_and_is_told(serve):
    """Every photo may be another matter, so each is asked for."""
    server = serve(lambda _path, _body: (400, {"error": "no"}))
    with router_of(server) as router:
        for number in range(2):
            answer = router.describe(noise(32 + number))
            assert (answer.trace.backend, answer.trace.attempts[0].error) == ("below", "refused")
            assert answer.trace.degraded
        assert router.gates() == []
    assert len(server.bodies) == 2
    with router_of(server, below=False) as router, pytest.raises(AllBackendsFailedError, match="refused"):
        router.describe(noise(32))


def test_an_image_that_the_server_has_described_is_not_blamed(serve):
    """The first answer proves that it can be read."""
    replies = [(200, CHAT_ANSWER), refuse("Invalid image.", code="invalid_image")]
    server = serve(lambda _path, _body: replies[min(len(server.bodies), 2) - 1])
    photo = noise(40)
    with router_of(server) as router:
        assert router.describe(photo).trace.backend == "openai"
        answer = router.describe(photo, max_words=9)
        assert (answer.trace.backend, answer.trace.attempts[0].error) == ("below", "refused")
        with pytest.raises(InvalidImageError):
            router.describe(noise(41))


def test_a_server_that_cannot_embed_is_paid_for_one_caption(serve):
    """Texts and photos alike know it from then on."""

    def reply(path, _body):
        return refuse("The model does not support Embeddings API") if "embeddings" in path else (200, CHAT_ANSWER)

    server = serve(reply)
    with router_of(server) as router:
        with pytest.raises(AllBackendsFailedError):
            router.embed_text("a cat", backend="openai")
        for number in range(3):
            assert router.embed(noise(32 + number)).trace.backend == "below"
    assert sum("messages" in body for body in server.bodies) == 0
    assert len(server.bodies) == 1


def test_a_path_that_is_not_there_is_asked_for_once(serve):
    """It is neither an unknown model nor an outage."""
    server = serve(lambda _path, _body: (404, {"detail": "Not Found"}))
    with router_of(server) as router:
        for number in range(3):
            assert router.describe(noise(32 + number)).trace.degraded
        assert [gate.gate for gate in router.gates()] == ["refusal"]
    assert len(server.bodies) == 1


def test_what_cannot_be_left_out_is_not():
    """An answer without a limit could cost anything, and other vectors would be another space."""
    dialect = Dialect("http://x/v1")
    body = {"model": "m", "max_output_tokens": 9, "input": [], "dimensions": 256}
    for field in ("max_output_tokens", "dimensions"):
        refusal = RefusedError(f"Unsupported parameter: {field}")
        refusal.field = field
        assert dialect.without(json.dumps(body).encode(), refusal) is None


def test_the_status_says_what_a_server_refuses(serve, tmp_path):
    """Also in another program than the one that has learned it."""

    def reply(_path, body):
        return refuse("Unknown parameter: max_tokens") if "max_tokens" in body else (200, CHAT_ANSWER)

    server = serve(reply)
    config = tmp_path / "vision.toml"
    state = tmp_path / "state.sqlite"
    config.write_text(f'ladder = ["openai"]\nstate = "{state}"\n[openai]\nbase_url = "{server.url}"\nmodel = "m"\n')
    with Router.from_config(config) as router:
        router.describe(noise(32))
    done = CliRunner().invoke(app, ["status", "--config", str(config)])
    assert "openai: its server refuses max_tokens (chat m)" in done.stdout
    assert "vision reset openai" in done.stdout


def test_a_server_can_only_lower_a_limit(serve):
    """What it names is not believed where it would cost more."""

    def reply(_path, body):
        return refuse(f"max_tokens must be at most {10**30}.") if len(server.bodies) == 1 else (200, CHAT_ANSWER)

    server = serve(reply)
    with router_of(server) as router:
        assert router.describe(noise(32)).trace.degraded
    assert all(body["max_tokens"] <= 1024 for body in server.bodies)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"error": {"error": {"error": {"error": {"error": {"error": {"error": {}}}}}}}}},
        [[[[[[[[[[{"message": "deep"}]]]]]]]]]],
        [{"message": "x" * 200}] * 5_000,
        {"message": "model " * 150_000},
        {"message": json.dumps({"message": json.dumps({"message": json.dumps({"code": "x"})})})},
    ],
)
def test_a_hostile_error_is_read_quickly(serve, body):
    """The event loop has other calls to serve."""
    server = serve(lambda _path, _body: (400, body))
    with router_of(server) as router:
        router.describe(noise(32), backend="below")
        started = time.thread_time()
        assert type(Taxonomy(host="api.test").explain(body, status=400)) in {RefusedError, ModelNotFoundError}
        assert time.thread_time() - started < 0.5
        assert router.describe(noise(33)).trace.degraded


def test_what_an_image_is_known_by_is_computed_in_a_thread(serve):
    """That of an array of 36 MB would hold up every other call on the event loop."""
    server = serve(lambda _path, _body: (200, CHAT_ANSWER))
    with router_of(server) as router:
        assert router.describe(np.zeros((3000, 4000, 3), np.uint8)).trace.backend == "openai"


@pytest.mark.parametrize("protocol", [Chat(official=False), Responses()])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_body_with_images_is_the_json_that_it_would_be_anyhow(protocol, count):
    """Images are put in as they are, in their order; whatever is in the words is escaped."""
    ask = Ask(
        model="a-model",
        instructions='Say "yes".\n',
        question="data:image/jpeg;base64,AAAA \\ \u2028 \u00e9 \ud800",
        image_urls=tuple(f"data:image/png;base64,{'+/' * n}{n}=" for n in range(count)),
        detail="auto",
        max_tokens=7,
        schema={"type": "object"},
    )
    body = protocol.body(ask, stream=False)
    assert serialized(body) == json.dumps(body, separators=(",", ":")).encode()
