"""Questions about one or several images."""

import asyncio
import io
import json
from typing import Literal

import pytest
from PIL import Image as PILImage
from pydantic import BaseModel, Field, field_validator

from vision_backends import (
    AllBackendsFailedError,
    AskRequest,
    AsyncRouter,
    EmbeddedBackend,
    InvalidImageError,
    InvalidReplyError,
    InvalidRequestError,
    OpenAIBackend,
    QuotaExhaustedError,
    Reply,
    Router,
    UnavailableError,
)
from vision_backends.images.room import ROOM
from vision_backends.storage.memory import MemoryStore
from vision_backends.testing import FakeAsyncBackend, FakeBackend, SandboxServer
from vision_backends.testing.sandbox import Fault

BLUE, RED = PILImage.new("RGB", (64, 48), "blue"), PILImage.new("RGB", (30, 20), "red")
COUNT = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}


class Count(BaseModel):
    """A form with a default and a rule of its own."""

    count: int
    certainty: Literal["low", "high"] = "high"

    @field_validator("count")
    @classmethod
    def no_unlucky_number(cls, value):
        """Return any other number than 13."""
        if value == 13:
            raise ValueError("13 brings no luck")
        return value


@pytest.fixture(params=[FakeBackend, FakeAsyncBackend])
def kind(request):
    """Plain and asynchronous backends."""
    return request.param


@pytest.fixture
def sandbox():
    """A server that can be made to say anything."""
    with SandboxServer() as server:
        yield server


@pytest.fixture(params=["chat", "responses"])
def server_router(request, sandbox):
    """A ladder of that server, by either API, and a fake."""
    with Router([OpenAIBackend(base_url=sandbox.url, model="m", api=request.param), FakeBackend("spare")]) as router:
        router.api = request.param
        yield router


def say(router, sandbox, *texts):
    """Have the server say these texts, one after the other, each for ten tokens and five."""
    counted = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    for text in reversed(texts):  # the newest plan comes first
        if router.api == "chat":
            body = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
        else:
            output = [{"type": "message", "content": [{"type": "output_text", "text": text}]}]
            body = {"status": "completed", "output": output}
        sandbox.play(Fault(status=200, body={**body, "usage": counted}), times=1)


class TestImages:
    """Of one question: one or several, in their order."""

    def test_they_are_seen_together_and_in_order(self, kind):
        """One call has all of them."""
        backend = kind("seer")
        with Router([backend]) as router:
            reply = router.ask([BLUE, RED], "Which is larger?")
        assert str(reply) == "seer says to 'Which is larger?': 64×48 px, 30×20 px"
        assert (reply.trace.backend, reply.data, reply.complete) == ("seer", None, True)
        assert [(call.request.images, call.count) for call in backend.calls] == [(2, 1)]

    @pytest.mark.parametrize("one", [BLUE, [BLUE], (BLUE,)])
    def test_one_needs_no_list(self, one):
        """And is the same as a list of one."""
        with Router([FakeBackend("seer")]) as router:
            assert router.ask(one, "What?").text == "seer says to 'What?': 64×48 px"

    def test_they_may_come_from_anywhere(self, tmp_path):
        """A file, bytes and pixels in one question."""
        BLUE.save(tmp_path / "blue.png")
        RED.save(tmp_path / "red.png")
        content = (tmp_path / "red.png").read_bytes()
        sources = [tmp_path / "blue.png", content, io.BytesIO((tmp_path / "blue.png").read_bytes()), RED]
        with Router([FakeBackend("seer")]) as router:
            assert router.ask(sources, "What?").text.endswith(": 64×48 px, 30×20 px, 64×48 px, 30×20 px")

    @pytest.mark.parametrize("count", [0, 17])
    def test_too_few_or_many_are_the_callers_error(self, count):
        """With what to call instead."""
        with (
            Router([FakeBackend()]) as router,
            pytest.raises(InvalidRequestError, match=f"about {count} images") as caught,
        ):
            router.ask([BLUE] * count, "What?")
        assert "describe_many" in caught.value.remedy

    def test_a_broken_one_is_named(self, tmp_path):
        """By its place; nobody is asked about the others."""
        backend = FakeBackend()
        with Router([backend]) as router:
            for broken in (b"broken", tmp_path / "nothing.png"):
                with pytest.raises(InvalidImageError, match=r"^Image 2: "):
                    router.ask([BLUE, broken], "What?")
            with pytest.raises(InvalidImageError, match=r"^(?!Image)"):
                router.ask([b"broken"], "What?")
        assert backend.calls == []

    def test_all_of_them_reach_the_server(self, server_router, sandbox):
        """In one request; tokens are estimated and billed for all."""
        reply = server_router.ask([BLUE, RED], "Which?")
        assert "64×48 px PNG" in reply.text
        assert reply.text.index("64×48") < reply.text.index("30×20")
        assert len(sandbox.requests) == 1
        backend = server_router._ladders["ask"][0]
        from vision_backends import open_image

        one, two = (
            backend.estimate(AskRequest(prompt="Which?", images=count), [tuple([open_image(BLUE)] * count)])
            for count in (1, 2)
        )
        assert two.input_tokens > one.input_tokens

    def test_their_room_is_given_back(self, kind):
        """Whatever comes of the question."""
        import gc

        gc.collect()
        before = ROOM.used_bytes
        backend = kind("seer")
        backend.play(UnavailableError("Down."))
        with Router([backend], caching=False) as router:
            with pytest.raises(AllBackendsFailedError):
                router.ask([BLUE, RED], "What?")
            router.ask([BLUE, RED], "What?")
        gc.collect()
        assert ROOM.used_bytes == before


class TestLadder:
    """Questions go down the ladder of descriptions, to whoever follows instructions."""

    def test_the_next_rung_answers_and_the_trace_says_why(self, kind):
        """As for any task."""
        best, plain, last = kind("best"), kind("plain", prompts=False), kind("last")
        best.play(QuotaExhaustedError("No quota."))
        with Router([best, plain, last]) as router:
            trace = router.ask(BLUE, "What?").trace
            rows = [(row.task, row.backend, row.outcome) for row in router.ledger()]
        assert [(each.backend, each.error) for each in trace.attempts] == [
            ("best", "quota_exhausted"),
            ("plain", "not_supported"),
            ("last", None),
        ]
        assert (trace.degraded, trace.reason) == (True, "best: No quota")
        assert rows == [("ask", "best", "failed"), ("ask", "last", "answered")]

    def test_the_embedded_rung_answers_none(self):
        """It says so, and nothing of it is degraded."""
        with Router([EmbeddedBackend()]) as router, pytest.raises(AllBackendsFailedError) as caught:
            router.ask(BLUE, "What?")
        assert [attempt.error for attempt in caught.value.attempts] == ["not_supported"]

    def test_rungs_order_and_model_can_be_named(self):
        """As for every call."""
        rungs = [FakeBackend("a"), FakeBackend("b", other_models=("large",))]
        with Router(rungs) as router:
            assert router.ask(BLUE, "What?", backends=["b", "a"]).trace.backend == "b"
            assert router.ask(BLUE, "What?", model="b/large").trace.model == "large"
            assert router.explain("ask", prompt="What?", backend="b").verdicts[0].ready

    def test_coroutines_are_the_same(self, kind):
        """With a schema, too."""

        async def main():
            async with AsyncRouter(Router([kind("seer")])) as router:
                return await router.ask([BLUE, RED], "How many?", schema=Count)

        assert isinstance(asyncio.run(main()).data, Count)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"prompt": " "}, "The prompt is empty"),
            ({"prompt": None}, "There is no prompt"),
            ({"prompt": 5}, "prompt=5"),
            ({"prompt": "x", "system": ""}, "The system is empty"),
            ({"prompt": "x", "system": 5}, "system=5"),
            ({"prompt": "\ud800"}, "not valid Unicode"),
            ({"prompt": "x" * 1_000_001}, "may be at most"),
            ({"prompt": "x", "schema": 5}, "is not a schema"),
            ({"prompt": "x", "schema": list[Count]}, "is not a schema"),
            ({"prompt": "x", "schema": {"type": "number of things"}}, "is not a JSON schema"),
            ({"prompt": "x", "schema": {"default": {1, 2}}}, "The schema is not JSON"),
            ({"prompt": "x", "schema": {"description": "a\ud83d"}}, "The schema is not valid Unicode"),
            ({"prompt": "x", "schema": {"$ref": "http://127.0.0.1:1/schema"}}, "refers to http://127.0.0.1:1/schema"),
            ({"prompt": "x", "schema": {"$ref": "#/$defs/nothing"}}, "which is not in it"),
        ],
    )
    def test_what_has_no_meaning_is_the_callers_error(self, options, message):
        """Before anybody is asked."""
        backend = FakeBackend()
        with Router([backend]) as router, pytest.raises(InvalidRequestError, match=message):
            router.ask(BLUE, **options)
        assert backend.calls == []


class TestCache:
    """An answer is for these images in this order, and for exactly what was asked."""

    def test_the_same_question_costs_nothing(self, kind):
        """Whatever the images come from."""
        backend = kind("seer")
        with Router([backend]) as router:
            router.ask([BLUE, RED], "What?", schema=COUNT)
            again = router.ask([BLUE.copy(), RED.copy()], "What?", schema=COUNT)
        assert again.trace.cached
        assert (again.data, len(backend.calls)) == (json.loads(again.text), 1)

    def test_anything_else_is_another_question(self):
        """Order, number, words, system, form, model."""
        backend = FakeBackend("seer", other_models=("large",))
        questions = [
            ([BLUE, RED], "What?", {}),
            ([RED, BLUE], "What?", {}),
            ([BLUE], "What?", {}),
            ([BLUE, BLUE], "What?", {}),
            ([BLUE, RED], "Who?", {}),
            ([BLUE, RED], "What?", {"system": "Be brief."}),
            ([BLUE, RED], "What?", {"schema": COUNT}),
            ([BLUE, RED], "What?", {"schema": Count}),
            ([BLUE, RED], "What?", {"schema": Count.model_json_schema()}),
            ([BLUE, RED], "What?", {"model": "seer/large"}),
        ]
        with Router([backend]) as router:
            for images, prompt, options in questions:
                assert not router.ask(images, prompt, **options).trace.cached
            router.describe(BLUE, prompt="What?")
        assert len(backend.calls) == len(questions) + 1

    def test_a_kept_answer_that_its_class_no_longer_takes_is_none(self, sandbox):
        """The rules may have changed since; the question is asked anew."""

        def form(most):
            class Form(BaseModel):
                count: int = Field(le=most)

            return Form

        store, wider, narrower = MemoryStore(), form(20), form(12)
        narrower.model_json_schema = wider.model_json_schema
        asked = []
        for schema in (wider, wider, narrower):  # by programs of their own
            with Router([OpenAIBackend(base_url=sandbox.url, model="m")], store=store) as router:
                router.api = "chat"
                if not asked:
                    say(router, sandbox, '{"count": 13}', '{"count": 12}')
                reply = router.ask(BLUE, "How many?", schema=schema)
            asked.append((reply.data.count, reply.trace.cached))
        assert asked == [(13, False), (13, True), (12, False)]

    def test_an_answer_that_its_backend_has_not_read_is_an_error(self):
        """Which says what the backend has to do."""
        backend = FakeBackend("seer")
        backend.play(Reply(text='{"count": 13}', data={"count": 13}))
        with Router([backend]) as router, pytest.raises(InvalidReplyError, match="no luck") as caught:
            router.ask(BLUE, "What?", schema=Count)
        assert "read_data" in caught.value.remedy


class TestSchema:
    """The answer has the form that was asked for, or it is none."""

    def test_a_class_has_an_instance_and_a_schema_values(self, server_router):
        """Fresh or cached."""
        for cached in (False, True):
            reply = server_router.ask([BLUE, RED], "How many?", schema=Count)
            assert isinstance(reply.data, Count)
            assert reply.trace.cached is cached
            assert reply.to_dict()["data"] == reply.data.model_dump()
        values = server_router.ask(BLUE, "How many?", schema=COUNT).data
        assert list(values) == ["count"]

    def test_a_server_is_asked_to_keep_to_it(self, server_router, sandbox):
        """Strictly, where OpenAI's rules for that are met; every object is closed and every property asked for."""
        server_router.ask(BLUE, "How many?", schema=Count)
        body = sandbox.requests[0].body
        form = body["response_format"]["json_schema"] if server_router.api == "chat" else body["text"]["format"]
        assert form["strict"] is True
        assert form["schema"]["required"] == ["count", "certainty"]
        assert form["schema"]["additionalProperties"] is False

    @pytest.mark.parametrize(
        ("schema", "strict"),
        [
            ({**COUNT, "additionalProperties": {"type": "string"}}, False),
            ({"type": "object", "additionalProperties": {"type": "integer"}}, False),
            ({"type": "object", "properties": {"a": {"type": "string", "minLength": 2}}}, False),
            ({"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}, True),
            ({"type": "object", "properties": {"default": {"type": "array", "items": COUNT}}}, True),
        ],
    )
    def test_what_openai_cannot_keep_to_by_force_is_asked_for_all_the_same(
        self, server_router, sandbox, schema, strict
    ):
        """As the caller has written it."""
        server_router.ask(BLUE, "How many?", schema=schema)
        body = sandbox.requests[0].body
        form = body["response_format"]["json_schema"] if server_router.api == "chat" else body["text"]["format"]
        assert form["strict"] is strict
        assert strict or form["schema"] == schema

    def test_what_is_no_object_is_asked_for_in_words(self, server_router, sandbox):
        """APIs take only objects."""
        say(server_router, sandbox, "Here: [1, 2]")
        assert server_router.ask(BLUE, "Which?", schema={"type": "array", "items": {"type": "integer"}}).data == [1, 2]
        body = sandbox.requests[0].body
        assert "response_format" not in body
        assert "text" not in body
        assert "Answer with JSON alone" in json.dumps(body)

    @pytest.mark.parametrize("text", ['{"count": 3}', 'Sure!\n```json\n{"count": 3}\n```', 'It is {"count": 3}.'])
    def test_json_is_found_wherever_it_stands(self, server_router, sandbox, text):
        """Alone, in a block of code or in a sentence."""
        say(server_router, sandbox, text)
        reply = server_router.ask(BLUE, "How many?", schema=COUNT)
        assert (reply.data, reply.trace.backend, len(sandbox.requests)) == ({"count": 3}, "openai", 1)

    def test_an_answer_of_another_form_is_asked_for_once_more(self, server_router, sandbox):
        """The model is shown what it said and what is wrong with that; both answers are paid for."""
        say(server_router, sandbox, '{"count": "three"}', '{"count": 3}')
        reply = server_router.ask([BLUE, RED], "How many?", schema=COUNT)
        assert (reply.data, reply.trace.backend) == ({"count": 3}, "openai")
        assert (reply.trace.usage.input_tokens, reply.trace.usage.output_tokens) == (20, 10)
        again = json.dumps(sandbox.requests[1].body)
        assert "three" in again
        assert "is not of type 'integer'" in again
        assert [len(request.pictures) for request in sandbox.requests] == [2, 2]

    def test_a_rule_of_the_class_counts_as_well(self, server_router, sandbox):
        """It is told to the model."""
        say(server_router, sandbox, '{"count": 13}', '{"count": 12}')
        assert server_router.ask(BLUE, "How many?", schema=Count).data == Count(count=12)
        assert "13 brings no luck" in json.dumps(sandbox.requests[1].body)

    def test_whoever_fails_twice_is_passed_by(self, server_router, sandbox):
        """And what both answers have cost is booked."""
        say(server_router, sandbox, "Three.", "Really three.")
        reply = server_router.ask(BLUE, "How many?", schema=COUNT)
        assert reply.trace.backend == "spare"
        (missed, _) = reply.trace.attempts
        assert (missed.error, missed.code) == ("invalid_reply", "schema_violation")
        assert missed.usage.input_tokens == 20
        assert len(sandbox.requests) == 2

    def test_a_question_that_cannot_be_longer_is_not_asked_again(self, server_router, sandbox):
        """That is no fault of the caller's."""
        say(server_router, sandbox, "Three.")
        reply = server_router.ask(BLUE, "How many?" + " " * 999_800, schema=COUNT)
        assert reply.trace.backend == "spare"
        assert reply.trace.attempts[0].code == "schema_violation"
        assert len(sandbox.requests) == 1

    def test_a_schema_that_a_server_refuses_is_asked_for_in_words_this_once(self, server_router, sandbox):
        """Another schema is sent as such again."""
        field = "response_format" if server_router.api == "chat" else "text.format"
        error = {"message": f"Invalid schema for {field} 'answer': it is too deep.", "param": field}
        say(server_router, sandbox, '{"count": 3}')
        sandbox.play(Fault(status=400, body={"error": error}), times=1)
        assert server_router.ask(BLUE, "How many?", schema=COUNT).trace.backend == "openai"
        assert server_router.ask(RED, "How many?", schema=COUNT).trace.backend == "openai"
        has_schema = [field.partition(".")[0] in request.body for request in sandbox.requests]
        assert has_schema == [True, False, True]
