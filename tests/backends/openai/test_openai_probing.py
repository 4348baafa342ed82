"""Whether a server's model sees is found out, remembered, and believed for a week."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from threading import Thread

import pytest
from PIL import Image as PILImage

from vision_backends import OpenAIBackend, Router
from vision_backends.backends.openai.errors import Taxonomy
from vision_backends.backends.openai.probing import COLOURS, Probe, identity_of
from vision_backends.errors import AllBackendsFailedError, InvalidRequestError, RefusedError, UnavailableError
from vision_backends.health.budgets import Limits
from vision_backends.storage import open_store
from vision_backends.testing import FakeBackend, FakeClock

IMAGE = PILImage.new("RGB", (64, 48), "teal")

DAY_S = 86_400

TEXT_ONLY = {"error": {"message": "This model does not support image input.", "type": "invalid_request_error"}}

BOXES = {"objects": [{"label": "cat", "confidence": 90, "x1": 10, "y1": 10, "x2": 900, "y2": 990}]}


def colour_in(body):
    """Return the name of the colour of the picture in a question, or None for one of several colours."""
    url = body["messages"][1]["content"][1]["image_url"]["url"]
    picture = PILImage.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
    colours = [name for name, (rgb, _) in COLOURS.items() if picture.getcolors() == [(picture.width**2, rgb)]]
    return colours[0] if colours else None


def sees(body):
    """Answer as a model that sees images and follows schemas."""
    colour = colour_in(body)
    if "response_format" in body:
        return 200, json.dumps({"colour": colour} if colour else BOXES)
    return 200, f"It is {colour}." if colour else "A teal square."


class Server(ThreadingHTTPServer):
    """A server whose model is a function of the request's body to a status and a text, or a whole body."""

    daemon_threads = True

    def __init__(self, model):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model = model
        self.bodies = []
        self.listed = {"id": "mine", "owned_by": "vllm", "created": 1}
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def probes(self):
        """How many of the questions were about a colour."""
        return sum("colour" in body["messages"][1]["content"][0]["text"] for body in self.bodies)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._send(200, {"object": "list", "data": [self.server.listed]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.bodies.append(body)
        status, said = self.server.model(body)
        if isinstance(said, str):
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
            usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
            said = {"id": "c", "model": body["model"], "choices": [choice], "usage": usage}
        self._send(status, said)

    def _send(self, status, value):
        content = json.dumps(value).encode()
        with contextlib.suppress(OSError):  # who has given up does not read it
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def serve():
    """A starter of servers."""
    started = []

    def start(model=sees):
        server = Server(model)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        started.append((server, thread))
        return server

    yield start
    for server, thread in started:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def open_router(tmp_path):
    """A maker of routers, as one program after the other has them: the server best, a fake below."""
    made = []

    def make(server, *, price=0, limits=None, clock=None, **table):
        table = {"base_url": server if isinstance(server, str) else server.url, "model": "mine"} | table
        store = open_store(tmp_path / "state.sqlite", **({} if clock is None else {"clock": clock}))
        best = OpenAIBackend(price=price, **table, **({} if clock is None else {"clock": clock}))
        options = {} if clock is None else {"clock": clock}
        made.append(Router([best, FakeBackend("spare")], store=store, caching=False, limits=limits, **options))
        return made[-1]

    yield make
    for router in made:
        router.close()


def test_a_free_server_on_this_machine_is_probed_once_before_its_first_answer(serve, open_router):
    """The next programs and the other tasks believe that; the ledger has it as what it is."""
    server = serve()
    for _ in range(2):
        with open_router(server) as router:
            answers = [router.describe(IMAGE), router.describe(IMAGE), router.detect(IMAGE, labels=["cat"])]
            assert {answer.trace.backend for answer in answers} == {"openai"}
            assert not any(answer.trace.degraded for answer in answers)
            assert [attempt.backend for attempt in answers[0].trace.attempts] == ["openai"]
    assert (server.probes, len(server.bodies)) == (2, 8)
    assert len({json.dumps(body["messages"]) for body in server.bodies[:2]}) == 2
    with open_router(server) as router:
        totals = {total.task: total for total in router.ledger_totals()}
    assert (totals["probe"].attempts, totals["probe"].input_tokens, totals["probe"].cost_usd) == (2, 20, 0.0)
    assert totals["describe"].attempts == 4


@pytest.mark.parametrize(
    "table",
    [
        {"price": None},
        {"price": 1.0},
        {"price": None, "prices": {"mine": {"input": 1, "output": 1}}},
        {"price": None, "preset": "litellm"},
    ],
)
def test_a_server_that_may_cost_something_is_sent_nothing_but_what_was_asked(serve, open_router, table):
    """A proxy on this machine passes pictures on; its first answer is all that is known."""
    server = serve()
    with open_router(server, **table) as router:
        assert router.describe(IMAGE).trace.backend == "openai"
    assert (server.probes, len(server.bodies)) == (0, 1)


@pytest.mark.parametrize("table", [{"price": None, "preset": "ollama"}, {"price": None, "private": True}])
def test_a_preset_or_the_user_may_say_that_nobody_pays(serve, open_router, table):
    """The same as a price of 0."""
    server = serve()
    with open_router(server, **table) as router:
        router.describe(IMAGE)
    assert server.probes == 2


@pytest.mark.parametrize("said", ["A sunny beach.", "Blue", '{"colour": "blue"}', "red, green, blue or yellow", "…"])
def test_a_model_that_answers_without_looking_is_never_asked_about_a_picture(serve, open_router, said):
    """Some servers leave the picture out of what the model reads, and it makes something up."""
    server = serve(lambda _body: (200, said))
    for asked in range(2):
        with open_router(server) as router:
            for answer in (router.describe(IMAGE), router.detect(IMAGE), router.embed(IMAGE)):
                assert (answer.trace.backend, answer.trace.degraded) == ("spare", False)
            assert "".join(router.describe_stream(IMAGE)).startswith("spare")
            verdict = router.explain("describe").verdicts[0]
            assert (verdict.ready, verdict.error, verdict.code) == (False, "not_supported", "blind")
            assert "sees no images, as was found out on 20" in verdict.reason
            assert router.explain("embed_text").verdicts[0].ready
        assert server.probes == len(server.bodies) <= 3, asked


def test_a_model_that_says_that_it_sees_nothing_is_asked_once(serve, open_router):
    """It knows best."""
    server = serve(lambda _body: (200, "I'm a text-based model and cannot see the image."))
    with open_router(server) as router:
        assert router.describe(IMAGE).trace.backend == "spare"
    assert len(server.bodies) == 1


@pytest.mark.parametrize("price", [None, 0, 1.0])
def test_a_text_only_model_in_the_middle_costs_one_request_a_week(serve, open_router, price):
    """Whoever pays, whatever is asked, in every program, until the week is over."""
    server, clock = serve(lambda _body: (400, TEXT_ONLY)), FakeClock()
    for expected, day in ((1, 0), (1, 1), (1, 6), (2, 8)):
        clock.advance(day * DAY_S - (clock.time() - FakeClock().time()))
        with open_router(server, price=price, clock=clock) as router:
            for ask in (router.describe, router.detect, router.embed):
                assert ask(IMAGE).trace.backend == "spare"
        assert len(server.bodies) == expected, day


PROGRAM = """
import sys
from vision_backends import OpenAIBackend, Router
from vision_backends.storage import open_store
from vision_backends.testing import FakeBackend
with Router([OpenAIBackend(base_url=sys.argv[1], model="mine"), FakeBackend("spare")],
            store=open_store(sys.argv[2]), caching=False) as router:
    print(router.describe(sys.argv[3]).trace.backend, router.detect(sys.argv[3]).trace.backend)
"""


def test_another_program_asks_a_text_only_model_nothing(serve, tmp_path):
    """The first one's refusal is all that it needs."""
    server = serve(lambda _body: (400, TEXT_ONLY))
    IMAGE.save(tmp_path / "photo.png")
    for _ in range(2):
        arguments = [server.url, str(tmp_path / "state.sqlite"), str(tmp_path / "photo.png")]
        done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
        assert done.stdout == "spare spare\n"
        assert len(server.bodies) == 1


def test_a_reset_and_a_look_of_ones_own_ask_again(serve, open_router):
    """After another model has been put behind the name."""
    server = serve(lambda _body: (400, TEXT_ONLY))
    with open_router(server, price=None) as router:
        assert router.describe(IMAGE).trace.backend == "spare"
        server.model = sees
        assert router.describe(IMAGE).trace.backend == "spare"
        assert router.gates() == []
        assert router.probe()["openai"].sees
        assert router.describe(IMAGE).trace.backend == "openai"
        router.reset("openai")
        assert router.describe(IMAGE).trace.backend == "openai"
        server.model = lambda _body: (400, TEXT_ONLY)
        assert router.probe()["openai"].sees is False
        server.model = sees
        found = router.probe("openai")["openai"]
        assert (found.sees, found.follows_schemas, found.questions) == (True, True, 2)
        router.reset("openai")
        assert router.describe(IMAGE).trace.backend == "openai"


def test_the_same_name_with_other_weights_is_probed_anew(serve, open_router):
    """Ollama says when a model was fetched, which is when it may have become another."""
    server = serve()
    server.listed |= {"owned_by": "library"}
    for created, expected in ((1, 2), (1, 2), (2, 4)):
        server.listed |= {"created": created}
        with open_router(server) as router:
            router.describe(IMAGE)
        assert server.probes == expected


def test_the_time_of_a_list_is_no_identity():
    """Most servers say when they were asked."""
    first, later = ({"id": "m", "owned_by": "vllm", "created": at, "permission": [{"created": at}]} for at in (1, 2))
    assert identity_of(first) == identity_of(later)
    assert identity_of(first | {"owned_by": "library"}) != identity_of(later | {"owned_by": "library"})
    assert identity_of(first | {"root": "other/weights"}) != identity_of(first)


def test_a_server_that_is_down_while_it_is_probed_says_nothing_of_its_model(serve, open_router):
    """It is asked for like any other rung that fails, and probed when it is there."""
    server = serve(lambda _body: (503, {"error": {"message": "loading"}}))
    with open_router(server) as router:
        answer = router.describe(IMAGE)
        assert (answer.trace.backend, answer.trace.attempts[0].error) == ("spare", "overloaded")
        assert (len(server.bodies), answer.trace.degraded) == (1, True)
        assert router.describe(IMAGE).trace.backend == "spare"
        assert len(server.bodies) == 1
        server.model = sees
        router.reset()
        assert router.describe(IMAGE).trace.backend == "openai"
        assert server.probes == 3
    with open_router("http://127.0.0.1:9/v1") as router:
        assert router.describe(IMAGE).trace.attempts[0].code == "connection_failed"


def test_a_probe_takes_no_more_than_half_of_the_time(serve, open_router):
    """What was asked is asked all the same, and no finding is made up."""
    first, held = threading.Event(), threading.Event()

    def model(body):
        if not first.is_set():
            first.set()
            held.wait(20)
        return sees(body)

    server = serve(model)
    try:
        with open_router(server) as router:
            answer = router.describe(IMAGE, deadline_s=6, backend="openai")
            assert answer.trace.backend == "openai"
            assert server.probes == 1
            router.describe(IMAGE)
            assert server.probes == 1
            assert router.explain("describe").verdicts[0].notes == ()
    finally:
        held.set()


@pytest.mark.parametrize("said", ["A sunny beach.", TEXT_ONLY])
def test_nobody_waits_for_a_model_that_sees_nothing(serve, open_router, said):
    """Patience is for rungs that may recover."""
    server, clock = serve(lambda _body: (200 if isinstance(said, str) else 400, said)), FakeClock()
    with open_router(server, clock=clock) as router:
        before = clock.monotonic()
        assert router.describe(IMAGE, priority="batch", max_wait_s=600).trace.backend == "spare"
        assert clock.monotonic() == before


def test_many_first_calls_are_one_probe(serve, open_router):
    """The others wait for what it finds."""
    server = serve()
    with open_router(server) as router:
        answers = router.describe_many([PILImage.new("RGB", (64, 48), (n, 0, 9)) for n in range(12)])
        assert {answer.trace.backend for answer in answers} == {"openai"}
        threads = [Thread(target=router.describe, args=(IMAGE,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert server.probes == 2


def test_local_only_forbids_a_probe_as_it_forbids_a_question(serve, open_router):
    """Unless the server is said to be private."""
    server = serve()
    with open_router(server) as router:
        assert router.describe(IMAGE, local_only=True).trace.backend == "spare"
    assert server.bodies == []
    with open_router(server, private=True) as router:
        assert router.describe(IMAGE, local_only=True).trace.backend == "openai"
    assert server.probes == 2


def test_a_probe_counts_towards_budgets_and_is_not_sent_against_one(serve, open_router):
    """Like any other request."""
    server = serve()
    with open_router(server, limits={"openai": Limits(daily_budget_tokens=1_000_000)}) as router:
        router.describe(IMAGE)
        assert router.spending()[0].spent >= 45
    with open_router(server, limits={"openai": Limits(daily_budget_tokens=10)}, model="other") as router:
        assert router.describe(IMAGE).trace.backend == "spare"
        assert isinstance(router.probe()["openai"], Exception)
    assert len(server.bodies) == 3


def test_a_server_that_does_not_follow_schemas_is_asked_in_words(serve, open_router):
    """It was sent one, and its answer was none that follows it."""

    def model(body):
        colour = colour_in(body)
        said = str(body["messages"])
        if "schema" not in said and "JSON" not in said:
            return 200, colour or "A cat, I think."
        return 200, json.dumps({"colour": colour} if colour else BOXES)

    server = serve(model)
    with open_router(server) as router:
        found = router.detect(IMAGE, labels=["cat"])
        assert [box.label for box in found] == ["cat"]
        assert "response_format" in server.bodies[0]
        assert "response_format" not in server.bodies[-1]
        assert router.probe()["openai"].follows_schemas is False


def test_json_without_a_schema_is_tried_before_words_alone(serve, open_router):
    """By the name that most servers know it by."""

    def model(body):
        if body.get("response_format", {}).get("type") == "json_schema":
            return 400, {"error": {"message": "response_format.type must be 'json_object' or 'text'"}}
        return sees(body)

    server = serve(model)
    for _ in range(2):
        with open_router(server) as router:
            assert [box.label for box in router.detect(IMAGE, labels=["cat"])] == ["cat"]
    kinds = [body["response_format"]["type"] for body in server.bodies]
    assert kinds == ["json_schema", *["json_object"] * 4]
    assert "confidence" in server.bodies[-1]["messages"][0]["content"]


def test_what_was_found_out_is_told_with_its_day(serve, open_router):
    """By explain, and so by doctor and status."""
    server = serve()
    with open_router(server) as router:
        router.describe(IMAGE)
    with open_router(server) as router:
        (note,) = router.explain("describe").verdicts[0].notes
        assert note.startswith("mine sees images (found out on 20")
        assert note.endswith("), follows JSON schemas.")
        assert router.explain("embed_text").verdicts[0].notes == ()


def test_a_model_that_a_call_has_named_has_findings_of_its_own(serve, open_router):
    """A text-only one says nothing of the others of its server."""
    server = serve(lambda body: (400, TEXT_ONLY) if body["model"] == "texts" else sees(body))
    for _ in range(2):
        with open_router(server, price=None) as router:
            with pytest.raises(AllBackendsFailedError, match="images"):
                router.describe(IMAGE, model="openai/texts")
            assert router.describe(IMAGE).trace.backend == "openai"
    assert [body["model"] for body in server.bodies].count("texts") == 1


def test_a_model_that_a_call_has_named_has_to_have_a_price_under_a_budget(serve, open_router):
    """It is the caller's error, before anything is sent."""
    server, limits = serve(), {"openai": Limits(daily_budget_usd=1.0)}
    with open_router(server, price=None, prices={"mine": {"input": 1, "output": 1}}, limits=limits) as router:
        for ask in (router.describe, lambda image, **options: router.describe_many([image], **options)):
            with pytest.raises(InvalidRequestError, match="cannot count what 'other' costs"):
                ask(IMAGE, model="openai/other")
        assert server.bodies == []
        assert router.describe(IMAGE, model="openai/mine").trace.backend == "openai"


def test_a_refused_field_is_told_with_its_day(serve, open_router):
    """It is forgotten a week after it."""

    def model(body):
        return (400, {"error": {"message": "Unknown parameter: 'max_tokens'"}}) if "max_tokens" in body else sees(body)

    with open_router(serve(model), price=None) as router:
        router.describe(IMAGE)
        (note,) = router.explain("describe").verdicts[0].notes
        assert note.startswith("Its server refuses max_tokens of chat (found out on 20")


def test_only_backends_with_a_server_can_be_probed(serve, open_router):
    """The message names them."""
    with open_router(serve()) as router, pytest.raises(InvalidRequestError, match="spare") as caught:
        router.probe("spare")
    assert "openai" in caught.value.remedy


def test_a_probe_that_is_not_answered_returns_why(open_router):
    """For whoever asked for it."""
    with open_router("http://127.0.0.1:9/v1", price=None) as router:
        assert isinstance(router.probe()["openai"], UnavailableError)


@pytest.mark.parametrize("colour", list(COLOURS))
def test_a_colour_is_named_in_words_in_json_or_in_numbers(colour):
    """And not among others."""
    rgb = "#{:02x}{:02x}{:02x}".format(*COLOURS[colour][0])
    for said, is_right in (
        (colour.upper(), True),
        (f"The image is a solid {colour} square.", True),
        (json.dumps({"colour": colour}), True),
        (f"```json\n{json.dumps({'colour': colour})}\n```", True),
        (f"mean colour {rgb}", True),
        ("red green blue yellow orange purple", False),
        ("#808080", False),
        ("grey", False),
    ):
        probe = Probe(random=Random(1), asked=[colour])  # noqa: S311
        probe.hear(said)
        assert (probe.right, probe.wrong) == ((1, 0) if is_right else (0, 1)), said


def test_the_colours_of_one_probe_differ():
    """Who always says the same is right once at most."""
    for seed in range(50):
        probe = Probe(random=Random(seed))  # noqa: S311
        while probe.sight is None:
            probe.go_on()
            probe.hear("Yellow.")
        assert probe.sight == "blind"


@pytest.mark.parametrize(
    ("message", "is_blind"),
    [
        ("This model does not support image input.", True),
        ("Invalid content type. image_url is only supported by certain models.", True),
        ("model qwen3 does not support images", True),
        ("image input is not supported - hint: you may need to provide the mmproj", True),
        ("image format webp is not supported", False),
        ("This image type is not supported", False),
        ("We do not support images of this size: image size is not supported", False),
    ],
)
def test_a_refusal_of_one_picture_is_not_one_of_all(message, is_blind):
    """A week is long."""
    error = Taxonomy(host="api.test").explain({"error": {"message": message}}, status=400)
    assert (isinstance(error, RefusedError) and error.blind) is is_blind
