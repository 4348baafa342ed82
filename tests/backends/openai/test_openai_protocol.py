"""Chat Completions and Responses: what is asked, and how answers are read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vision_backends.backends.openai.prices import Tokens
from vision_backends.backends.openai.protocol import Ask, Chat, Responses, Said, Transcript, join_parts, read_all, whole
from vision_backends.errors import ContentRejectedError, InvalidReplyError, UnavailableError

ASK = Ask(
    model="m",
    instructions="Be brief.",
    question="What?",
    image_urls=("data:image/png;base64,AA==",),
    detail="high",
    max_tokens=99,
)
CHAT, RESPONSES = Chat(official=False), Responses()


def chat(message=None, finish="stop", **more):
    """Return a reply of Chat Completions."""
    return {"choices": [{"message": message, "finish_reason": finish}], **more}


def delta(content=None, finish=None, **more):
    """Return an event of Chat Completions."""
    return {"choices": [{"delta": {"content": content}, "finish_reason": finish}], **more}


def responses(*parts, status="completed", **more):
    """Return a reply of Responses."""
    return {"status": status, "output": [{"type": "reasoning"}, {"type": "message", "content": list(parts)}], **more}


def text(words):
    """Return a part of a message of Responses."""
    return {"type": "output_text", "text": words}


def test_chat_sends_what_compatible_servers_know():
    """They do not know store, and call the limit max_tokens."""
    body = CHAT.body(ASK, stream=False)
    assert body["stream"] is False
    assert body["max_tokens"] == 99
    assert not {"store", "stream_options", "reasoning_effort", "response_format", "max_completion_tokens"} & set(body)
    image = body["messages"][1]["content"][1]
    assert image == {"type": "image_url", "image_url": {"url": ASK.image_urls[0], "detail": "high"}}


def test_chat_at_openai_stores_nothing_and_uses_its_names():
    """The official API has a limit of its own name."""
    body = Chat(official=True).body(ASK, stream=True)
    assert body["store"] is False
    assert body["max_completion_tokens"] == 99
    assert body["stream_options"] == {"include_usage": True}


def test_responses_stores_nothing_and_says_explicitly_whether_to_stream():
    """One compatible server streams unless it is told not to."""
    body = RESPONSES.body(ASK, stream=False)
    assert (body["store"], body["stream"]) == (False, False)
    assert body["input"][0]["content"][1] == {"type": "input_image", "image_url": ASK.image_urls[0], "detail": "high"}
    assert body["instructions"] == "Be brief."


@pytest.mark.parametrize("protocol", [CHAT, RESPONSES])
def test_effort_and_schema_are_sent_when_there_are_any(protocol):
    """Each API has its own place for them."""
    body = protocol.body(replace(ASK, effort="low", schema={"type": "object"}), stream=False)
    effort = body.get("reasoning_effort") or body["reasoning"]["effort"]
    form = body["response_format"]["json_schema"] if "response_format" in body else body["text"]["format"]
    assert effort == "low"
    assert (form["strict"], form["schema"]) == (True, {"type": "object"})


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (chat({"content": "a cat"}), Said(text="a cat", finish="stop")),
        (chat({"content": [{"type": "text", "text": "a "}, "cat", 5, {}]}), Said(text="a cat", finish="stop")),
        (chat({"content": "a c"}, "length"), Said(text="a c", finish="length")),
        (chat({"content": None}, "stop"), Said(finish="stop")),
        ({"choices": [{"message": {"content": "a cat"}}]}, Said(text="a cat", finish="stop")),
        (chat({"content": "a cat"}, None, model="m-2026"), Said(text="a cat", model="m-2026")),
        (
            chat({"content": "x", "refusal": None}, usage={"prompt_tokens": 3}),
            Said(text="x", finish="stop", tokens=Tokens(input=3)),
        ),
        (chat({"content": "x"}, "content_filter", model=5), Said(text="x", finish="filter")),
    ],
)
def test_chat_replies_are_read_as_servers_bend_them(payload, expected):
    """Content as parts, no usage, no finish reason, a renamed model."""
    assert CHAT.read(payload) == expected


@pytest.mark.parametrize(
    ("word", "finish"),
    [
        ("STOP", "stop"),
        ("eos_token", "stop"),
        ("end_turn", "stop"),
        ("model_length", "length"),
        ("MAX_TOKENS", "length"),
        ("FINISH_REASON_MAX_TOKENS", "length"),
        ("SAFETY", "filter"),
        ("sensitive", "filter"),
        ("content_filter: RECITATION", "filter"),
        ("max-tokens", "length"),
        ("null", None),
        (" ", None),
        ("", None),
        (None, None),
    ],
)
def test_endings_are_known_in_many_words(word, finish):
    """Those of OpenAI, and of others; an empty one is none."""
    assert CHAT.read(chat({"content": "a cat"}, word)).finish == finish
    assert CHAT.read_event(delta("a cat", word)).finish == finish


@pytest.mark.parametrize(
    "word", ["error", "abort", "insufficient_system_resource", "tool_calls", "network_error", "\ud83d", 5, ["stop"]]
)
def test_an_ending_that_is_not_known_is_no_answer(word):
    """Something stopped the model in the middle, or it wants something else than to answer."""
    for read, payload in ((CHAT.read, chat({"content": "a c"}, word)), (CHAT.read_event, delta("a c", word))):
        with pytest.raises(InvalidReplyError) as caught:
            read(payload)
        assert caught.value.code == "not_completed"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "a cat", "reasoning_content": "Is it?"}, "a cat"),
        ({"content": None, "reasoning": "Is it?"}, ""),
        ({"content": "", "reasoning_details": [{"type": "reasoning.text", "text": "Is it?"}]}, ""),
        ({"content": [{"type": "thinking", "thinking": "Is it?"}, {"type": "text", "text": "a cat"}]}, "a cat"),
        ({"content": [{"type": "reasoning", "text": "Is it?"}, "a cat"]}, "a cat"),
    ],
)
def test_thoughts_beside_the_text_are_no_text(message, text):
    """Wherever a server puts them."""
    said = CHAT.read(chat(message))
    assert (said.text, said.has_thoughts) == (text, True)


def test_counted_thoughts_are_thoughts_too():
    """Some servers only say how many there were."""
    usage = {"prompt_tokens": 1, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 9}}
    assert CHAT.read(chat({"content": ""}, "length", usage=usage)).was_eaten
    assert not CHAT.read(chat({"content": "a c"}, "length")).was_eaten
    assert CHAT.read(chat({"content": "a c", "reasoning": "?"}, "length")).was_eaten


def test_thoughts_of_responses_are_no_text():
    """Neither reasoning items nor parts of other types."""
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Is it?"}]}
    parts = [{"type": "reasoning_text", "text": "Is it?"}, text("a cat")]
    said = RESPONSES.read({"output": [thought, {"type": "message", "content": parts}]})
    assert (said.text, said.has_thoughts) == ("a cat", True)


def test_a_model_is_named_in_valid_unicode():
    """It goes into files and databases."""
    assert CHAT.read(chat({"content": "a cat"}, model="m\ud83d")).model == "m\ufffd"


@pytest.mark.parametrize(
    "payload", [{}, {"choices": []}, {"choices": [{}]}, {"choices": ["x"]}, {"choices": None}, chat(None)]
)
def test_a_chat_reply_without_a_message_is_invalid(payload):
    """There is nothing to read."""
    with pytest.raises(InvalidReplyError):
        CHAT.read(payload)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (responses(text("a "), text("cat")), Said(text="a cat", finish="stop", whole=True)),
        (
            responses(text("a c"), status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
            Said(text="a c", finish="length", whole=True),
        ),
        (
            responses(status="incomplete", incomplete_details={"reason": "content_filter"}),
            Said(finish="filter", whole=True),
        ),
        (
            responses(text("x"), model="m", usage={"input_tokens": 3}),
            Said(text="x", finish="stop", tokens=Tokens(input=3), model="m", whole=True),
        ),
        ({"output": [{"type": "message", "content": "odd"}, 3]}, Said(finish="stop", whole=True)),
        ({"output": None}, Said(finish="stop", whole=True)),
    ],
)
def test_responses_replies_are_read(payload, expected):
    """Thoughts and tools are passed over."""
    assert RESPONSES.read(payload) == expected


@pytest.mark.parametrize(
    "more",
    [
        {"status": "failed"},
        {"status": "queued"},
        {"status": "incomplete"},
        {"status": "incomplete", "incomplete_details": {"reason": "new"}},
        {"status": ""},
        {"status": None},
        {"output": [{"type": "message", "status": "incomplete", "content": [text("a c")]}]},
    ],
)
def test_a_response_that_is_not_completed_is_invalid(more):
    """Whatever the reason, it is no answer."""
    with pytest.raises(InvalidReplyError, match="response is"):
        RESPONSES.read({"output": [], **more})


def test_a_refusal_is_the_providers_policy():
    """It never falls back: that would get round the policy."""
    with pytest.raises(ContentRejectedError, match="cannot help"):
        CHAT.read(chat({"content": None, "refusal": "I cannot help with that."}))
    with pytest.raises(ContentRejectedError, match="cannot help"):
        RESPONSES.read(responses({"type": "refusal", "refusal": "I cannot help with that."}))
    with pytest.raises(ContentRejectedError, match="no reason"):
        RESPONSES.read_event({"type": "response.refusal.done", "refusal": None})


def pieces(protocol, events):
    """Return the pieces of a stream and the whole."""
    transcript = Transcript(protocol)
    return [piece for event in events if (piece := transcript.add(event))], transcript.end()


def test_a_chat_stream_is_followed_piece_by_piece():
    """Usage may come on any event, and an event may carry nothing."""
    events = [
        delta(""),
        delta("a ", model="m-1"),
        {"choices": []},
        delta("cat"),
        delta(finish="stop"),
        {"choices": [], "usage": {"prompt_tokens": 5}},
    ]
    found, said = pieces(CHAT, events)
    assert found == ["a ", "cat"]
    assert said == Said(text="a cat", finish="stop", tokens=Tokens(input=5), model="m-1")


def test_a_responses_stream_is_followed_piece_by_piece():
    """The last event holds the whole text again, which is not a piece."""
    events = [
        {"type": "response.created", "response": {"status": "in_progress"}},
        {"type": "response.output_text.delta", "delta": "a "},
        {"type": "response.output_text.delta", "delta": "cat"},
        {"type": "response.output_text.delta", "delta": None},
        {"type": "response.completed", "response": responses(text("a cat"), usage={"input_tokens": 5}, model="m-1")},
    ]
    found, said = pieces(RESPONSES, events)
    assert found == ["a ", "cat"]
    assert said == Said(text="a cat", finish="stop", tokens=Tokens(input=5), model="m-1")


@pytest.mark.parametrize(
    ("protocol", "event"), [(CHAT, chat({"content": "a cat"})), (RESPONSES, responses(text("a cat")))]
)
def test_a_whole_reply_in_place_of_a_stream_is_one_piece(protocol, event):
    """Some servers do not stream, whatever they are asked."""
    found, said = pieces(protocol, [event])
    assert found == ["a cat"]
    assert said.finish == "stop"


def test_an_empty_word_is_no_ending_of_a_stream():
    """Some servers put one on every event."""
    with pytest.raises(InvalidReplyError) as caught:
        read_all(CHAT, [delta("a ", ""), delta("cat", "")])
    assert caught.value.code == "stream_cut"


def test_thoughts_are_no_pieces_of_a_stream():
    """Wherever their tags are cut in two; the blank lines after them are none either."""
    words = ["<th", "ink>Is it a ", "dog?</thi", "nk>", "\n\n", "a ", "cat"]
    found, said = pieces(CHAT, [*map(delta, words), delta(finish="stop")])
    assert found == ["a ", "cat"]
    assert (said.text, said.has_thoughts) == ("a cat", True)
    beside = {"choices": [{"delta": {"reasoning_content": "Is it a dog?"}, "finish_reason": None}]}
    found, said = pieces(CHAT, [beside, delta("a cat"), delta(finish="stop")])
    assert (found, said.text, said.has_thoughts) == (["a cat"], "a cat", True)


def test_a_character_may_be_split_over_two_events():
    """Its halves are joined, and one that stays alone is replaced."""
    found, said = pieces(CHAT, [delta("a \ud83d"), delta("\ude00 and \ud83d"), delta("!", finish="stop")])
    assert found == ["a ", "😀 and ", "\ufffd!"]
    assert said.text == "a 😀 and \ufffd!"


def test_usage_of_a_stream_never_falls():
    """A server may end with zeros."""
    counts = [{"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": n}} for n in (4, 0)]
    assert pieces(CHAT, [delta("a cat", "stop"), *counts])[1].tokens == Tokens(input=9, output=4)


@pytest.mark.parametrize("protocol", [CHAT, RESPONSES])
def test_a_stream_that_does_not_say_why_it_ends_was_cut(protocol):
    """Half an answer looks like a whole one."""
    events = [delta("a "), {"type": "response.output_text.delta", "delta": "a "}]
    with pytest.raises(InvalidReplyError) as caught:
        read_all(protocol, events)
    assert caught.value.code == "stream_cut"


def test_what_breaks_after_the_last_word_takes_nothing_from_the_answer():
    """A server may hang up instead of saying goodbye."""

    def events(finish):
        yield delta("a cat", finish)
        raise UnavailableError("The line broke.")

    assert read_all(CHAT, events("stop")).text == "a cat"
    with pytest.raises(UnavailableError):
        read_all(CHAT, events(None))


def test_an_answer_is_whole_or_an_error():
    """Empty and filtered answers are none, nor are thoughts; a cut one is, marked as such."""
    assert whole(Said(text="a c", finish="length")).finish == "length"
    with pytest.raises(InvalidReplyError):
        whole(Said(text=" \n", finish="stop"))
    with pytest.raises(ContentRejectedError):
        whole(Said(text="a cat", finish="filter"))


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (Said(finish="length"), "limit_used_up"),
        (Said(finish="stop", has_thoughts=True), "only_thoughts"),
        (Said(finish="stop"), "empty_reply"),
    ],
)
def test_an_answer_that_says_nothing_tells_why(said, code):
    """A limit that thinking has used up is the reader's to raise."""
    with pytest.raises(InvalidReplyError) as caught:
        whole(said)
    assert caught.value.code == code
    assert ("reasoning_effort" in str(caught.value)) == (code != "empty_reply")


def test_texts_come_as_strings_lists_or_null():
    """Anything else is no text."""
    assert [join_parts(content) for content in ("a", ["a", {"text": "b"}, {"text": None}], None, 5)] == [
        "a",
        "ab",
        "",
        "",
    ]
