"""Deployments of Azure OpenAI: where requests go, who asks, and what Azure's own errors mean."""

from __future__ import annotations

import asyncio
import json
import sys
import types

import pytest
from PIL import Image as PILImage

from vision_backends import (
    AuthenticationError,
    AzureBackend,
    ConfigError,
    ContentRejectedError,
    InvalidRequestError,
    ModelNotFoundError,
    NotReadyError,
    NotSupportedError,
    OpenAIBackend,
    RateLimitedError,
    Router,
)
from vision_backends.backends.requests import DescribeRequest, EmbedRequest, EmbedTextRequest
from vision_backends.clock import SYSTEM_CLOCK, Deadline
from vision_backends.engine.event_loop import engine_loop
from vision_backends.errors import UnavailableError
from vision_backends.testing import FakeBackend

KEY = "azure-canary-0123456789abcdef"
PROOF = "entra-canary-0123456789abcdef"
VERSION = "2024-10-21"
PICTURE = PILImage.new("RGB", (64, 48), "teal")

MEANINGFUL = {"accept", "api-key", "authorization", "content-length", "content-type"}

CHAT = {"model": "m", "messages": [{"role": "user", "content": "What?"}]}
REQUESTS = [
    ("chat", {**CHAT, "stream": False, "max_completion_tokens": 9}),
    ("chat", {**CHAT, "stream": True, "stream_options": {"include_usage": True}}),
    ("responses", {"model": "m", "input": "What?", "store": False, "stream": False}),
    ("embeddings", {"model": "m", "input": ["a", "b"], "encoding_format": "base64"}),
]

ANSWER = {"choices": [{"message": {"content": "a teal field"}, "finish_reason": "stop"}], "model": "gpt-6-luna-2026"}


@pytest.fixture(autouse=True)
def without_azure(monkeypatch):
    """No variable of Azure's SDKs."""
    for name in ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_AD_PROOF", "OPENAI_API_VERSION"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def azure(make_server):
    """A maker of backends for one server that answers, or refuses, as told; returns both."""
    made = []

    def make(body=ANSWER, *, status=200, headers=(), **settings):
        def talk(conversation):
            while conversation.receive():
                conversation.reply(json.dumps(body).encode(), status=status, headers=headers)

        server = make_server(talk)
        root = server.url.removesuffix("/v1")
        defaults = {"endpoint": root, "deployment": "my-deployment"}
        if "azure_ad_token_provider" not in settings and "api_key_env" not in settings:
            defaults["api_key"] = KEY
        backend = AzureBackend(**{**defaults, **settings})
        made.append(backend)
        return backend, server

    yield make
    for backend in made:
        engine_loop().run(backend.aclose)
        backend.close()


def refuse(talk):
    """Answer each request with an error, which ends it whatever it was."""
    while talk.receive():
        talk.reply(b'{"error": {"message": "no", "code": "server_error"}}', status=500)


def meant(request):
    """Return the request line, the headers that mean something, and the JSON of a request."""
    head, body = request
    line, *headers = head.split("\r\n")
    named = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in headers)}
    return line, {name: value for name, value in named.items() if name in MEANINGFUL}, json.loads(body)


def ask(backend, endpoint, body):
    """Send a request with our client."""

    async def send():
        client, deadline = backend._client, Deadline(SYSTEM_CLOCK, 5)
        request = await client.prepare(endpoint, lambda: dict(body), deadline=deadline)
        sent = anext(client.stream(request, deadline=deadline)) if body.get("stream") else None
        with pytest.raises(UnavailableError):
            await (sent or client.post(request, deadline=deadline))
        await client.aclose()

    asyncio.run(send())


def describe(backend, *, timeout_s=5):
    """Describe a picture."""
    from vision_backends.images import open_image

    image = open_image(PICTURE)
    return engine_loop().run(lambda: backend.describe([image], DescribeRequest(), timeout_s=timeout_s))[0]


class TestBytes:
    """What is sent is what OpenAI's own SDK sends."""

    @pytest.mark.parametrize("proof", [{"api_key": KEY}, {"azure_ad_token_provider": lambda: PROOF}])
    @pytest.mark.parametrize("fixed", [False, True])
    @pytest.mark.parametrize(("endpoint", "body"), REQUESTS)
    def test_a_dated_version_is_asked_as_the_sdk_asks_it(self, make_server, endpoint, body, fixed, proof):
        """By the address of the deployment, with the version behind it, and with key or token."""
        import openai

        server = make_server(refuse)
        root = server.url.removesuffix("/v1")
        backend = AzureBackend(endpoint=f"{root}/", deployment="m", api_version=VERSION, **proof)
        ask(backend, endpoint, body)
        sdk = openai.AzureOpenAI(
            azure_endpoint=root,
            azure_deployment="m" if fixed else None,
            api_version=VERSION,
            max_retries=0,
            **proof,
        )
        create = {"chat": sdk.chat.completions.create, "responses": sdk.responses.create}
        with sdk, pytest.raises(openai.InternalServerError):
            create.get(endpoint, sdk.embeddings.create)(**body)
        ours, theirs = map(meant, server.received)
        assert ours == theirs
        assert ours[0].split()[1].endswith(f"?api-version={VERSION}")
        assert ("/deployments/m/" in ours[0]) == (endpoint != "responses")

    @pytest.mark.parametrize("written", ["", "/", "/openai/v1", "/openai/v1/", "/openai"])
    def test_without_a_version_the_v1_api_is_asked(self, azure, written):
        """However much of its address is written; a key stands in Azure's own header."""
        backend, server = azure()
        backend = AzureBackend(endpoint=f"{server.url.removesuffix('/v1')}{written}", deployment="d", api_key=KEY)
        assert describe(backend).text == "a teal field"
        line, headers, body = meant(server.received[0])
        assert line == "POST /openai/v1/chat/completions HTTP/1.1"
        assert (headers["api-key"], headers.get("authorization"), body["model"]) == (KEY, None, "d")
        assert "max_completion_tokens" in body
        backend.close()

    def test_a_version_behind_v1_is_passed_on(self, azure):
        """Such as ``preview``."""
        backend, server = azure()
        root = server.url.removesuffix("/v1")
        backend = AzureBackend(
            endpoint=f"{root}/openai/v1/", deployment="d", api_version="preview", api="responses", api_key=KEY
        )
        with pytest.raises(Exception, match="empty"):
            describe(backend)
        assert meant(server.received[0])[0] == "POST /openai/v1/responses?api-version=preview HTTP/1.1"
        backend.close()

    def test_vectors_come_from_a_deployment_of_their_own(self, azure):
        """Each at its address; without one nothing is embedded."""
        vectors = {"data": [{"index": 0, "embedding": [1.0, 0.0]}], "usage": {"prompt_tokens": 1}}
        backend, server = azure(vectors, api_version=VERSION, embedding_deployment="my-vectors")
        found = engine_loop().run(lambda: backend.embed_text(["a"], EmbedTextRequest(), timeout_s=5))
        assert meant(server.received[0])[0].split()[1] == (
            f"/openai/deployments/my-vectors/embeddings?api-version={VERSION}"
        )
        assert found[0].space.endswith("/my-vectors")
        without, _ = azure()
        for request in (EmbedRequest(), EmbedTextRequest()):
            with pytest.raises(NotSupportedError) as caught:
                without.model_for(request)
            assert "embedding" in caught.value.remedy


class TestKeys:
    """A key or a token, and whose."""

    def test_the_variables_of_azures_sdk_are_read(self, azure, monkeypatch):
        """The key goes to the resource that the other names, and to no other."""
        _, server = azure()
        root = server.url.removesuffix("/v1")
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
        assert AzureBackend(endpoint=root, deployment="d").status()["has_key"]
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://another.openai.azure.com/")
        backend = AzureBackend(endpoint=root, deployment="d")
        assert not backend.status()["has_key"]
        with pytest.raises(NotReadyError, match="no API key"):
            backend.check(DescribeRequest())
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", root)
        assert AzureBackend(endpoint=root, deployment="d").status()["has_key"]

    @pytest.mark.parametrize("is_async", [False, True])
    def test_a_token_is_asked_for_at_each_request(self, azure, is_async):
        """It may have changed; none of them is shown."""
        tokens = iter([f"{PROOF}-1", f"{PROOF}-2"])

        def plain():
            return next(tokens)

        async def awaited():
            return next(tokens)

        backend, server = azure(azure_ad_token_provider=awaited if is_async else plain)
        for number in (1, 2):
            describe(backend)
            headers = meant(server.received[-1])[1]
            assert headers["authorization"] == f"Bearer {PROOF}-{number}"
            assert "api-key" not in headers

    @pytest.mark.parametrize("given", [RuntimeError(f"no {PROOF}"), None, "", "two\nlines", 3, b"bytes"])
    def test_no_token_is_no_request(self, azure, given):
        """It is an authentication error that says what failed, and the next rung is asked."""

        def provider():
            if isinstance(given, Exception):
                raise given
            return given

        backend, server = azure(azure_ad_token_provider=provider)
        with pytest.raises(AuthenticationError) as caught:
            describe(backend)
        assert caught.value.code == "no_token"
        assert "[backends.azure] azure_ad_token_provider" in caught.value.message
        assert server.received == []
        with Router([backend, FakeBackend("spare")], caching=False) as router:
            assert [router.describe(PICTURE).trace.backend for _ in range(2)] == ["spare", "spare"]

    def test_a_token_that_a_server_repeats_is_hidden(self, azure):
        """As a key is."""
        backend, _ = azure({"error": {"message": f"bad {PROOF}"}}, status=401, azure_ad_token_provider=lambda: PROOF)
        with pytest.raises(AuthenticationError) as caught:
            describe(backend)
        assert PROOF not in str(caught.value)
        assert "[hidden]" in str(caught.value)

    def test_a_provider_that_hangs_ends_at_the_deadline(self, azure):
        """In a thread that is left behind."""
        from threading import Event

        release = Event()
        backend, server = azure(azure_ad_token_provider=lambda: release.wait(30) and "late")
        try:
            with pytest.raises(UnavailableError):
                describe(backend, timeout_s=0.3)
        finally:
            release.set()
        assert server.received == []

    def test_a_file_names_a_callable(self, tmp_path, monkeypatch, azure):
        """Or the package that finds one."""
        monkeypatch.setitem(sys.modules, "my_tokens", types.SimpleNamespace(give=lambda: PROOF, text="x"))
        _, server = azure()
        path = tmp_path / "vision.toml"

        def write(provider):
            path.write_text(
                f'ladder = ["azure", "embedded"]\n[backends.azure]\nkind = "azure"\ndeployment = "d"\n'
                f'endpoint = "{server.url.removesuffix("/v1")}"\nazure_ad_token_provider = "{provider}"\n',
                encoding="utf-8",
            )

        write("my_tokens:give")
        with Router.from_config(path) as router:
            assert router.describe(PICTURE).trace.backend == "azure"
        assert meant(server.received[0])[1]["authorization"] == f"Bearer {PROOF}"
        for wrong in ("my_tokens:text", "my_tokens:nothing", "no_such_module_here:x", "nonsense"):
            write(wrong)
            with pytest.raises(ConfigError, match=r"\[backends.azure\] azure_ad_token_provider"):
                Router.from_config(path)

    def test_the_package_that_finds_one_is_used_where_it_is_installed(self, azure, monkeypatch):
        """And named where it is not."""
        import importlib.machinery

        from_package = {"azure_ad_token_provider": "azure-identity"}
        with pytest.raises(ConfigError, match="pip install azure-identity"):
            azure(**from_package)
        identity = types.ModuleType("azure.identity")
        identity.DefaultAzureCredential = lambda: "credential"
        identity.get_bearer_token_provider = lambda credential, scope: lambda: f"{credential}-for-{scope[8:14]}"
        for name, module in (("azure", types.ModuleType("azure")), ("azure.identity", identity)):
            module.__spec__ = importlib.machinery.ModuleSpec(name, None)
            monkeypatch.setitem(sys.modules, name, module)
        backend, server = azure(**from_package)
        describe(backend)
        assert meant(server.received[0])[1]["authorization"] == "Bearer credential-for-cognit"

    def test_key_and_token_together_are_an_error(self):
        """One of them would never be sent."""
        with pytest.raises(ConfigError, match="both a key and azure_ad_token_provider"):
            AzureBackend(endpoint="https://x.test", deployment="d", api_key=KEY, azure_ad_token_provider=lambda: PROOF)

    def test_two_identities_are_two_accounts(self):
        """Whatever their tokens are called; a name in a file is one identity."""
        made = {"endpoint": "https://x.openai.azure.com", "deployment": "d"}
        first, second = (AzureBackend(**made, azure_ad_token_provider=lambda: PROOF) for _ in range(2))
        assert first.credential != second.credential
        assert first.account != second.account
        keyed = AzureBackend(**made, api_key=KEY)
        assert keyed.credential == AzureBackend(**{**made, "deployment": "e"}, api_key=KEY).credential
        assert keyed.credential != first.credential

    def test_each_address_of_a_resource_is_of_one_account(self):
        """Its key has one quota, by whichever version it is asked."""
        root = "https://x.openai.azure.com"
        made = [
            AzureBackend(endpoint=f"{root}{path}", deployment="d", api_key=KEY, **more).credential
            for path, more in (("", {}), ("/openai/v1/", {}), ("", {"api_version": VERSION}))
        ]
        assert len(set(made)) == 1
        other = AzureBackend(endpoint="https://y.openai.azure.com", deployment="d", api_key=KEY)
        assert other.credential != made[0]


DEPLOYMENT_NOT_FOUND = {
    "error": {
        "code": "DeploymentNotFound",
        "message": "The API deployment for this resource does not exist. If you created the deployment within the last "
        "5 minutes, please wait a moment and try again.",
    }
}

PROMPT_FILTERED = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {"hate": {"filtered": True, "severity": "high"}},
        },
    }
}

WRONG_KEY = {
    "error": {
        "code": "401",
        "message": "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid "
        "key for an active subscription and use a correct regional API endpoint for your resource.",
    }
}

TOO_MANY = {
    "error": {
        "code": "429",
        "message": "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 have "
        "exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 6 seconds.",
    }
}


class TestErrors:
    """As Azure words them (learn.microsoft.com/azure/foundry/openai, and public reports; 2026-11)."""

    @pytest.mark.parametrize(
        ("status", "body", "error"),
        [
            (404, DEPLOYMENT_NOT_FOUND, ModelNotFoundError),
            (400, PROMPT_FILTERED, ContentRejectedError),
            (401, WRONG_KEY, AuthenticationError),
            (429, TOO_MANY, RateLimitedError),
        ],
    )
    def test_each_is_what_it_means(self, azure, status, body, error):
        """And names the user's own table and keys."""
        backend, _ = azure(body, status=status)
        with pytest.raises(error) as caught:
            describe(backend)
        said = str(caught.value)
        assert "[openai]" not in said
        assert "base_url" not in said
        if error is ModelNotFoundError:
            assert caught.value.remedy == (
                "Check deployment, embedding_deployment and endpoint in [backends.azure] of vision.toml."
            )
        if error is RateLimitedError:
            assert caught.value.retry_after_s == 6.0

    def test_an_answer_that_was_filtered_is_a_refusal(self, azure):
        """Which no other rung may circumvent."""
        filtered = {"choices": [{"message": {"content": "a"}, "finish_reason": "content_filter"}]}
        backend, _ = azure(filtered)
        with Router([backend, FakeBackend("spare")], caching=False) as router, pytest.raises(ContentRejectedError):
            router.describe(PICTURE)

    def test_the_results_of_filters_that_a_stream_begins_with_are_no_answer(self, make_server):
        """Azure sends them in an event without choices."""
        events = [
            {"choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}]},
            {"choices": [{"delta": {"content": "a teal "}, "content_filter_results": {}}]},
            {"choices": [{"delta": {"content": "field"}}]},
            {"choices": [{"delta": {}, "finish_reason": "stop"}]},
        ]

        def talk(conversation):
            while conversation.receive():
                text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
                head = f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {len(text)}\r\n\r\n"
                conversation.send(head.encode() + text.encode())

        root = make_server(talk).url.removesuffix("/v1")
        backend = AzureBackend(endpoint=root, deployment="d", api_key=KEY)
        with Router([backend], caching=False) as router, router.describe_stream(PICTURE) as stream:
            assert "".join(stream) == "a teal field"

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"deployment": "a/b"}, "[backends.azure] deployment = 'a/b'"),
            ({"embedding_deployment": "a?b"}, "[backends.azure] embedding_deployment = 'a?b'"),
            ({"api_version": "2024&x=1"}, "[backends.azure] api_version"),
            ({"endpoint": "x.openai.azure.com"}, "[backends.azure] endpoint = 'x.openai.azure.com' is not an http"),
            ({"timeout_s": -1}, "[backends.azure] timeout_s = -1"),
            ({"api_key_env": "small"}, "[backends.azure] api_key_env is not the name"),
            ({"prices": {"d": {"input": -1, "output": 1}}}, "[backends.azure"),
            ({"error_codes": {"x": "y"}}, "[backends.azure.error_codes]"),
            ({"azure_ad_token_provider": "no:such"}, "[backends.azure] azure_ad_token_provider"),
        ],
    )
    def test_values_that_an_address_cannot_hold_are_refused(self, settings, message):
        """They would lead elsewhere. In a program as well, the table that is named is Azure's."""
        key = {} if {"api_key_env", "azure_ad_token_provider"} & settings.keys() else {"api_key": KEY}
        with pytest.raises(ConfigError) as caught:
            AzureBackend(**{"endpoint": "https://x.test", "deployment": "d", **key, **settings})
        assert message in caught.value.message
        assert "[openai" not in str(caught.value)


class TestOnALadder:
    """As a rung with a name, a table and an account of its own."""

    def test_a_call_may_name_another_deployment_and_nothing_else(self, azure):
        """Its name is a part of the address."""
        backend, server = azure(api_version=VERSION)
        with Router([backend]) as router:
            assert router.describe(PICTURE, model="azure/other").trace.backend == "azure"
            with pytest.raises(InvalidRequestError, match="not the name of a deployment"):
                router.describe(PICTURE, model="azure/../../files?x=")
        paths = [meant(each)[0].split()[1].partition("?")[0] for each in server.received]
        assert paths == ["/openai/deployments/other/chat/completions"]

    def test_prices_and_sizes_are_those_of_the_model_behind(self, azure):
        """A deployment may be called anything."""
        usage = {"prompt_tokens": 1_000_000, "completion_tokens": 0}
        backend, _ = azure({**ANSWER, "usage": usage}, model="gpt-6-luna")
        answer = describe(backend)
        assert (answer.trace.model, answer.trace.revision) == ("my-deployment", "gpt-6-luna-2026")
        assert answer.trace.usage.cost_usd == pytest.approx(0.10)
        assert backend.wire_rule(DescribeRequest()) == OpenAIBackend(model="gpt-6-luna").wire_rule(DescribeRequest())
        unknown, _ = azure({**ANSWER, "usage": usage})
        assert describe(unknown).trace.usage.cost_usd is None

    def test_a_table_of_its_kind_is_read_and_its_mistakes_are_named(self, tmp_path):
        """With the keys that it has."""
        path = tmp_path / "vision.toml"

        def make(*lines):
            table = "\n".join(['ladder = ["work", "embedded"]', "[backends.work]", 'kind = "azure"', *lines])
            path.write_text(table, encoding="utf-8")
            return Router.from_config(path)

        with pytest.raises(ConfigError, match=r"\[backends.work\] lacks the key|\[backends.work\].*'deployment'"):
            make('endpoint = "https://x.openai.azure.com"')
        with pytest.raises(ConfigError, match=r"\[backends.work\] endpoint = 'nonsense' is not"):
            make('endpoint = "nonsense"', 'deployment = "d"')
        with make('endpoint = "https://x.openai.azure.com"', 'deployment = "d"') as router:
            (attempt,) = [each for each in router.describe(PICTURE).trace.attempts if each.backend == "work"]
        assert (attempt.code, attempt.remedy) == (
            "no_api_key",
            "Set AZURE_OPENAI_API_KEY, or api_key in [backends.work] of vision.toml.",
        )

    def test_a_call_may_name_another_deployment(self, azure):
        """But nothing that would be read as another address."""
        backend, server = azure(api_version=VERSION)
        with Router([backend, FakeBackend("spare")], caching=False) as router:
            assert router.describe(PICTURE, model="azure/other-deployment").trace.backend == "azure"
            line, _, body = meant(server.received[0])
            assert line.split()[1].startswith("/openai/deployments/other-deployment/chat/completions?")
            assert body["model"] == "other-deployment"
        for name in ("a/b", "..", "a?b", "a b", "ä"):
            with pytest.raises(NotSupportedError):
                backend.with_model(name, DescribeRequest())
