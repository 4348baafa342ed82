"""What a preset changes: the address, what is sent, and what is not even tried."""

from __future__ import annotations

import logging

import pytest
from PIL import Image as PILImage

from vision_backends import (
    ConfigError,
    InvalidRequestError,
    NotReadyError,
    NotSupportedError,
    OpenAIBackend,
    Router,
)
from vision_backends.backends.requests import DescribeRequest, DetectRequest, EmbedRequest, EmbedTextRequest
from vision_backends.config.presets import presets
from vision_backends.testing import FakeBackend, SandboxServer

PRESETS = presets()

HOSTED = [name for name, preset in PRESETS.items() if preset.needs_key and preset.base_url and not preset.retired]
SELF_HOSTED = [name for name, preset in PRESETS.items() if not preset.needs_key]
SEEING = [name for name in (*HOSTED, *SELF_HOSTED) if PRESETS[name].sees is not None]

PICTURE = PILImage.new("RGB", (64, 48), "teal")
KEY = "sk-canary-0123456789abcdef"
MODELS = {"model": "a-vision-model", "embedding_model": "an-embedding-model"}

TASKS = {
    "describe": DescribeRequest(),
    "detect": DetectRequest(),
    "embed": EmbedRequest(),
    "embed_text": EmbedTextRequest(),
}


@pytest.fixture(autouse=True)
def without_keys(monkeypatch):
    """No variable of any server's maker."""
    for preset in PRESETS.values():
        for name in (*preset.key_variables, preset.address_variable or "OPENAI_API_KEY"):
            monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", HOSTED)
def test_a_server_that_needs_a_key_reads_that_of_its_maker(name, monkeypatch):
    """And says which variable is missing, before anything is sent."""
    preset = PRESETS[name]
    backend = OpenAIBackend(preset=name, **MODELS)
    assert backend.status()["base_url"] == preset.base_url
    with pytest.raises(NotReadyError) as caught:
        backend.check(TASKS["describe"])
    assert caught.value.remedy == f"Set {preset.key_variables[0]}, or api_key in [openai] of vision.toml."
    assert "api_key_env" not in caught.value.message
    monkeypatch.setenv(preset.key_variables[-1], KEY)
    OpenAIBackend(preset=name, **MODELS).check(TASKS["describe"])
    assert (
        OpenAIBackend(preset=name, **MODELS).credential == OpenAIBackend(preset=name, api_key=KEY, **MODELS).credential
    )


@pytest.mark.parametrize("name", SELF_HOSTED)
def test_a_server_of_ones_own_needs_none(name):
    """It is asked as it is."""
    backend = OpenAIBackend(preset=name, **MODELS)
    backend.check(TASKS["embed_text" if PRESETS[name].sees is None else "describe"])
    assert backend.status()["base_url"] == PRESETS[name].base_url
    assert not backend.is_private


def test_the_key_of_a_maker_is_not_sent_to_another_server(monkeypatch, make_backend, photo):
    """A base URL may give a preset's manners to a server of one's own."""
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    with SandboxServer(api_key=KEY, only_key=True) as server:
        backend = make_backend(preset="openrouter", base_url=server.url, api_key=None, model="m")
        with pytest.raises(Exception, match="did not accept"):
            backend.describe([photo], DescribeRequest(), timeout_s=5)
        assert [request.status for request in server.requests] == [401]
        named = make_backend(
            preset="openrouter", base_url=server.url, api_key=None, api_key_env="OPENROUTER_API_KEY", model="m"
        )
        assert named.describe([photo], DescribeRequest(), timeout_s=5)


@pytest.mark.parametrize("name", [name for name in PRESETS if not PRESETS[name].has_default_models])
def test_a_server_without_models_of_its_own_wants_one_named(name):
    """When the backend is made, not when somebody asks."""
    key = "model" if PRESETS[name].sees is not None else "embedding_model"
    other = {"base_url": "http://127.0.0.1:1/v1"} if PRESETS[name].base_url is None else {}
    with pytest.raises(ConfigError, match=rf"names no {key}") as caught:
        OpenAIBackend(preset=name, **other)
    assert f'{key} = "…"' in caught.value.remedy


def test_errors_name_the_preset_the_remedy_and_the_table(tmp_path):
    """Also of a rung with a name of its own."""
    path = tmp_path / "vision.toml"
    for line, message in (
        ('preset = "olama"', r"\[backends.x\] preset = 'olama' .* Did you mean 'ollama'"),
        ('preset = "azure"\nmodel = "m"', r"\[backends.x\] preset = 'azure' needs a base_url"),
        ('preset = "ollama"', r"\[backends.x\] preset = 'ollama' names no model"),
        ('preset = "groq"\nmodel = "m"\nprivate = true', r"\[backends.x\] private = true is for a server on this mach"),
    ):
        path.write_text(f'ladder = ["x", "embedded"]\n[backends.x]\nkind = "openai"\n{line}\n', encoding="utf-8")
        with pytest.raises(ConfigError, match=message):
            Router.from_config(path)


class TestWhatIsKnownNotToWork:
    """It is not supported, says by what source, and costs no request."""

    @pytest.mark.parametrize(
        ("settings", "unable"),
        [
            ({"preset": "deepseek", "model": "deepseek-flash"}, {"describe", "detect", "embed", "embed_text"}),
            ({"preset": "deepseek", "model": "deepseek-v4-flash-vision-exp"}, {"embed", "embed_text"}),
            ({"preset": "groq", "model": "m"}, {"embed", "embed_text"}),
            ({"preset": "ollama", "model": "m"}, {"embed", "embed_text"}),
            ({"preset": "ollama", **MODELS}, set()),
            ({"preset": "infinity", "embedding_model": "clip"}, {"describe", "detect"}),
            ({"preset": "github", **MODELS}, {"describe", "detect", "embed", "embed_text"}),
        ],
    )
    def test_each_task_by_itself(self, settings, unable):
        """A model of its own may see where others do not, and embeddings need a model that is named."""
        backend = OpenAIBackend(api_key=KEY, **settings)
        for task, request in TASKS.items():
            if task not in unable:
                backend.model_for(request)
                backend.check(request)
                continue
            with pytest.raises(NotSupportedError) as caught:
                backend.model_for(request)
            assert caught.value.remedy

    def test_the_next_rung_is_asked_and_the_trace_says_why(self):
        """A text-only model in the middle of a ladder does no harm."""
        with SandboxServer() as server:
            text_only = OpenAIBackend(preset="deepseek", base_url=server.url, model="deepseek-flash").named("deepseek")
            with Router([text_only, FakeBackend("spare")], caching=False) as router:
                trace = router.describe(PICTURE).trace
            assert len(server.requests) == 0
        assert trace.backend == "spare"
        assert (trace.attempts[0].backend, trace.attempts[0].error) == ("deepseek", "not_supported")
        assert "deepseek-flash of DeepSeek does not look at images" in trace.attempts[0].message
        assert "api-docs.deepseek.com" in trace.attempts[0].remedy


class TestManners:
    """What a server is documented to refuse is never sent to it, so that no refusal is paid for."""

    @pytest.mark.parametrize("name", SEEING)
    def test_a_description_holds_none_of_it(self, name, make_backend, sandbox, photo):
        """Whole and in pieces."""
        preset = PRESETS[name]
        backend = make_backend(preset=name, model=f"a-{preset.sees or ''}-model", api="chat")
        backend.describe([photo], DescribeRequest(), timeout_s=5)
        list(backend.describe_stream(photo, DescribeRequest(), timeout_s=5))
        assert len(sandbox.requests) == 2
        for request in sandbox.requests:
            assert request.body.keys().isdisjoint(preset.chat_refuses)
            assert ("max_tokens" in request.body) != ("max_completion_tokens" in request.body)
        assert ("stream_options" in sandbox.requests[1].body) == ("stream_options" not in preset.chat_refuses)

    def test_azure_limits_answers_by_another_name(self, make_backend, sandbox, photo):
        """Its newer models know no other."""
        make_backend(preset="azure", model="m").describe([photo], DescribeRequest(), timeout_s=5)
        assert "max_completion_tokens" in sandbox.requests[0].body

    def test_what_is_documented_is_not_told_as_learned(self, make_backend):
        """A reset would not ask the server again for it."""
        backend = make_backend(preset="mistral", model="m")
        assert backend.learned(DescribeRequest()) == []
        assert backend.status()["left_out"] == {}

    def test_no_more_texts_go_into_a_request_than_it_takes(self, sandbox):
        """The router splits the list."""
        backend = OpenAIBackend(preset="dashscope", base_url=sandbox.url, api_key=KEY, **MODELS)
        with Router([backend], caching=False) as router:
            assert len(list(router.embed_text_many([f"text {number}" for number in range(23)]))) == 23
        assert sorted(len(request.body["input"]) for request in sandbox.requests) == [3, 10, 10]

    def test_a_server_that_embeds_images_gets_them_directly(self, make_backend, make_embedder, photo):
        """By their pixels, with no description between."""
        server = make_embedder("modality")
        backend = make_backend(preset="infinity", base_url=server.url, embedding_model="clip")
        (found,) = backend.embed([photo], EmbedRequest(), timeout_s=5)
        assert "via=" not in found.space
        assert all("messages" not in body for body in server.bodies if body.get("modality") == "image")

    def test_the_users_own_words_for_errors_win(self, make_backend):
        """As over the built-in table."""
        backend = make_backend(preset="ollama", model="m", error_codes={"odd": "quota_exhausted"})
        assert backend._taxonomy.explain({"code": "odd", "message": "x"}, status=400).kind == "quota_exhausted"


class TestPrivate:
    """A server on this machine may be asked for what must not leave it, where the user says that it keeps it."""

    def test_without_the_users_word_it_may_not(self, sandbox):
        """Ollama's cloud models and proxies on this machine pass pictures on."""
        backend = OpenAIBackend(preset="ollama", base_url=sandbox.url, model="m")
        with Router([backend], caching=False) as router, pytest.raises(InvalidRequestError, match="private = true"):
            router.describe(PICTURE, local_only=True)
        assert len(sandbox.requests) == 0

    def test_with_it_it_may(self, sandbox, tmp_path):
        """For one call, and where the whole configuration is local_only."""
        path = tmp_path / "vision.toml"
        table = f'[backends.mine]\nkind = "openai"\npreset = "ollama"\nbase_url = "{sandbox.url}"\nmodel = "m"\n'
        path.write_text(
            f'ladder = ["mine", "embedded"]\nlocal_only = true\ncache.enabled = false\n{table}private = true\n', "utf-8"
        )
        with Router.from_config(path) as router:
            assert router.describe(PICTURE).trace.backend == "mine"
            assert router.describe(PICTURE, local_only=True).trace.backend == "mine"
        path.write_text(f'ladder = ["mine", "embedded"]\nlocal_only = true\n{table}', "utf-8")
        with Router.from_config(path) as router:
            assert router.describe(PICTURE).trace.backend == "embedded"

    def test_no_proxy_is_on_the_way(self, sandbox, monkeypatch, make_backend, photo):
        """It is another machine."""
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", "")
        make_backend(model="m", private=True).describe([photo], DescribeRequest(), timeout_s=5)
        with pytest.raises(Exception, match="proxy"):
            make_backend(model="m").describe([photo], DescribeRequest(), timeout_s=5)

    @pytest.mark.parametrize(
        "url",
        [
            "http://gpu.test:8000/v1",
            "http://ollama.localhost/v1",
            "http://127.0.0.1.evil.test/v1",
            "http://0.0.0.0:11434/v1",
            "https://api.openai.com/v1",
        ],
    )
    def test_a_server_elsewhere_cannot_be(self, url):
        """Nor one whose name somebody else may resolve."""
        with pytest.raises(ConfigError, match="private = true"):
            OpenAIBackend(base_url=url, private=True)

    @pytest.mark.parametrize("url", ["http://localhost:1/v1", "http://127.8.9.1:1/v1", "http://[::1]:1/v1"])
    def test_one_on_loopback_can(self, url):
        """By any of its names."""
        assert OpenAIBackend(base_url=url, private=True).is_private


def test_nothing_of_a_makers_key_is_shown(monkeypatch, caplog):
    """Not in a status, a representation or the log."""
    monkeypatch.setenv("GROQ_API_KEY", KEY)
    with caplog.at_level(logging.DEBUG):
        backend = OpenAIBackend(preset="groq", model="m")
        assert KEY not in f"{backend.status()}{backend!r}{backend.account}{vars(backend)}{caplog.text}"


def test_a_server_that_nobody_can_ask_anything_is_sent_no_key(monkeypatch):
    """Not for ``vision doctor`` either."""
    monkeypatch.setenv("GITHUB_TOKEN", KEY)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # where it would fail
    OpenAIBackend(preset="github", **MODELS).diagnose(timeout_s=5)


@pytest.mark.parametrize("name", [["ollama"], 5, None, ""])
def test_what_is_no_name_is_no_preset(name):
    """None and nothing but that is no preset at all."""
    if name is None:
        assert OpenAIBackend(preset=name).status()["preset"] is None
        return
    with pytest.raises(ConfigError, match="preset"):
        OpenAIBackend(preset=name, model="m")
