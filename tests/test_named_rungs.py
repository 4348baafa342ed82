"""A ladder of several servers and local models, each a rung with a name of its own."""

import json
import logging
from contextlib import ExitStack
from dataclasses import replace

import pytest
from PIL import Image as PILImage

from vision_backends import (
    AllBackendsFailedError,
    AzureBackend,
    ConfigError,
    EmbeddedBackend,
    InvalidRequestError,
    LocalBackend,
    NotReadyError,
    OpenAIBackend,
    Router,
    UnavailableError,
)
from vision_backends.config.loading import load_settings
from vision_backends.testing import FakeBackend, FakeClock, SandboxServer
from vision_backends.testing.sandbox import FAULTS as SANDBOX
from vision_backends.testing.sandbox import Fault

IMAGE = PILImage.new("RGB", (64, 48), "teal")
NAMES = ("openai", "azure", "openrouter", "ollama", "vllm")
CANARY = "sk-canary-0123456789abcdef"


@pytest.fixture
def servers():
    """Five servers, by the names of the rungs that ask them."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(SandboxServer(api_key=f"sk-{name}-0123456789", only_key=True)) for name in NAMES
        }


@pytest.fixture
def from_toml(tmp_path):
    """A maker of routers from the text of a configuration."""
    with ExitStack() as stack:

        def make(text: str) -> Router:
            (tmp_path / "vision.toml").write_text(text, encoding="utf-8")
            return stack.enter_context(Router.from_config(tmp_path / "vision.toml"))

        yield make


class Moon(FakeBackend):
    """A backend of somebody else's."""

    name = "moon"


def ladder_of(servers) -> str:
    """Return the configuration of a ladder of servers, with the wheel's own models below."""
    lines = [f"ladder = {json.dumps([*servers, 'embedded'])}", 'state = "memory"', "cache.enabled = false"]
    for name, server in servers.items():
        lines += [f"[backends.{name}]", 'kind = "openai"', f'base_url = "{server.url}"']
        lines += [f'api_key = "{server.api_key}"', f'model = "model-of-{name}"', "timeout_s = 1"]
    return "\n".join(lines)


FAULTS = (
    "quota_gone",
    "rate_limited",
    "invalid_api_key",
    "model_not_found",
    "server_error",
    "stall",
    "no_choices",
    "html_200",
)


FAULTS_OF = {
    "rate_limited": (429, {"error": {"code": "rate_limit_exceeded", "message": "Slow down."}}),
    "server_overloaded": (503, {"error": {"message": "The server is overloaded."}}),
}


class TestFiveServers:
    """On one ladder, each failing in its own way in turn."""

    def test_each_is_asked_with_its_own_key_and_model(self, servers, from_toml):
        """And named in the trace."""
        router = from_toml(ladder_of(servers))
        for name, server in servers.items():
            trace = router.describe(IMAGE, backend=name).trace
            assert (trace.backend, trace.model) == (name, f"model-of-{name}")
            assert [request.model for request in server.requests] == [f"model-of-{name}"]

    @pytest.mark.parametrize("number", range(len(FAULTS)))
    def test_the_first_that_is_well_answers_and_the_trace_names_the_others(self, servers, from_toml, number):
        """Whatever is wrong with whom."""
        router = from_toml(ladder_of(servers))
        names = list(servers)
        for place, name in enumerate(names[:-1]):
            servers[name].play(FAULTS[(number + place) % len(FAULTS)])
        trace = router.describe(IMAGE, deadline_s=20).trace
        assert (trace.backend, trace.model) == ("vllm", "model-of-vllm")
        assert list(dict.fromkeys(attempt.backend for attempt in trace.attempts)) == names
        assert all(name in trace.reason for name in names[:-1])

    def test_no_server_that_was_found_unable_is_asked_again(self, servers, from_toml):
        """Not for other tasks of its account either, as far as that is concerned."""
        router = from_toml(ladder_of(servers))
        for name, fault in zip(servers, ("quota_gone", "invalid_api_key", "rate_limited", "quota_gone"), strict=False):
            servers[name].play(fault)
        assert {router.describe(IMAGE).trace.backend for _ in range(5)} == {"vllm"}
        assert [len(server.requests) for server in servers.values()] == [1, 1, 1, 1, 5]
        blocked = {gate.backend: gate.gate for gate in router.gates()}
        assert blocked == {"openai": "quota", "azure": "authentication", "openrouter": "rate", "ollama": "quota"}

    def test_the_last_rung_answers_when_all_servers_hang(self, servers, from_toml):
        """Its time is kept back, however long the ladder is."""
        text = ladder_of(servers).replace("timeout_s = 1", "timeout_s = 20").replace('"embedded"]', '"spare"]')
        router = from_toml(f'{text}\n[backends.spare]\nkind = "vision_backends.testing:FakeBackend"\nname = "fake"')
        for server in servers.values():
            server.play("stall")
        answer = router.describe(IMAGE, deadline_s=6.5)
        assert answer.trace.backend == "spare"
        assert len(servers["openai"].requests) == 1
        assert [attempt.backend for attempt in answer.trace.attempts] == [*servers, "spare"]

    def test_streams_fall_back_and_name_the_rung(self, servers, from_toml):
        """As answers do."""
        router = from_toml(ladder_of(servers))
        for name in ("openai", "azure"):
            servers[name].play("quota_gone")
        with router.describe_stream(IMAGE) as stream:
            assert "".join(stream)
            assert stream.description.trace.backend == "openrouter"
        assert [each.backend for each in stream.description.trace.attempts] == ["openai", "azure", "openrouter"]

    def test_a_pinned_space_is_served_by_another_rung_of_the_same_server(self, from_toml):
        """A space is of server and model; the name of the rung is no part of it."""
        with SandboxServer() as server:
            same = f'kind = "openai"\nbase_url = "{server.url}"\nmodel = "m"\n'
            router = from_toml(
                'ladder = ["first", "second", "embedded"]\nstate = "memory"\n'
                f'[backends.first]\n{same}api_key = "sk-first-0123456789"\n'
                f'[backends.second]\n{same}api_key = "sk-second-0123456789"\n'
            )
            space = router.embed_text("a cat").space
            server.play("quota_gone", times=1)
            again = router.embed_text("a dog", space=space)
        assert (again.trace.backend, again.space) == ("second", space)

    def test_ledger_and_table_of_attempts_name_each(self, servers, from_toml):
        """A failed ladder is a table of its rungs."""
        router = from_toml(ladder_of(servers).replace(', "embedded"', ""))
        for server in servers.values():
            server.play("quota_gone")
        with pytest.raises(AllBackendsFailedError) as caught:
            router.describe(IMAGE)
        assert [attempt.backend for attempt in caught.value.attempts] == list(NAMES)
        assert [row.backend for row in router.ledger()] == list(NAMES)
        assert all(f"  {name} " in str(caught.value) for name in NAMES)


TEXT_ONLY = {"error": {"message": "This model does not support image input.", "type": "invalid_request_error"}}

MIXED = """
ladder = ["openai", "second", "openrouter", "deepseek", "texts", "ollama", "vllm", "embedded"]
state = "memory"
cache.enabled = false

[openai]
base_url = "{openai.url}"
api_key = "sk-first-0123456789"
model = "of-first"

[backends.second]
kind = "openai"
base_url = "{openai.url}"
api_key = "sk-second-0123456789"
model = "of-second"

[backends.openrouter]
kind = "openai"
preset = "openrouter"
base_url = "{openrouter.url}"
api_key = "{openrouter.api_key}"
model = "vendor/model"

[backends.deepseek]
kind = "openai"
preset = "deepseek"
base_url = "{azure.url}"
api_key = "{azure.api_key}"
model = "deepseek-flash"

[backends.texts]
kind = "openai"
preset = "groq"
base_url = "{azure.url}"
api_key = "{azure.api_key}"
model = "texts"

[backends.ollama]
kind = "openai"
preset = "ollama"
base_url = "{ollama.url}"
api_key = "{ollama.api_key}"
model = "qwen3-vl:4b"

[backends.vllm]
kind = "openai"
preset = "vllm"
base_url = "{vllm.url}"
api_key = "{vllm.api_key}"
model = "local-model"
timeout_s = 1
"""
"""Two accounts of one server, two models that only read, and three servers more, as their presets know them."""


class TestMixedLadder:
    """Presets that point at servers here: what fails below what has failed, until nobody but the wheel is left."""

    @pytest.fixture
    def servers(self):
        """The servers; that of two accounts takes either key."""
        with ExitStack() as stack:
            keyed = {name: SandboxServer(api_key=f"sk-{name}-0123456789", only_key=True) for name in NAMES[1:]}
            yield {name: stack.enter_context(each) for name, each in {"openai": SandboxServer(), **keyed}.items()}

    @pytest.mark.parametrize("how", ["describe", "describe_stream", "ask"])
    def test_one_after_the_other_fails_in_its_own_way(self, servers, from_toml, how):
        """Each trace names who answered and who was passed by; nobody who was found unable is asked again."""
        router = from_toml(MIXED.format(**servers))
        servers["azure"].play(Fault(name="text_only", status=400, body=TEXT_ONLY))
        failures = (
            ("openai", "openai", replace(SANDBOX["quota_gone"], models=("of-first",)), "quota_exhausted"),
            ("second", "openai", replace(SANDBOX["invalid_api_key"], models=("of-second",)), "authentication"),
            ("openrouter", "openrouter", SANDBOX["payment_required"], "quota_exhausted"),
            ("deepseek", None, None, "not_supported"),
            ("texts", None, None, "not_supported"),
            ("ollama", "ollama", SANDBOX["model_not_found"], "model_not_found"),
            ("vllm", "vllm", SANDBOX["unsupported_country_region_territory"], "authentication"),
        )
        failed: dict[str, str] = {}
        for name, server, fault, error in failures:
            if server is not None:
                assert self.answered(router, how).backend == name
                servers[server].play(fault)
            failed[name] = error
            if name in {"openrouter", "deepseek"}:
                continue  # what only reads is passed by as well
            for _ in range(2):
                before = self.asked(servers)
                trace = self.answered(router, how) if how != "ask" or name != "vllm" else self.failed(router)
            missed = [(each.backend, each.error) for each in trace.attempts if each.outcome != "answered"]
            assert [each for each in missed if each[0] != "embedded"] == list(failed.items())
            assert len(self.asked(servers)) - len(before) == (name != "vllm")
        assert [each.model for each in servers["openai"].requests].count("of-first") == 2
        assert [each.model for each in servers["azure"].requests] == ["texts"]
        assert {gate.backend for gate in router.gates()} == {"openai", "second", "openrouter", "ollama", "vllm"}

    def answered(self, router, how):
        """Return the trace of an answer."""
        if how == "ask":
            return router.ask(IMAGE, "What is this?").trace
        if how == "describe":
            return router.describe(IMAGE).trace
        with router.describe_stream(IMAGE) as stream:
            assert "".join(stream)
            return stream.description.trace

    def failed(self, router):
        """Return the error of a question that nobody can answer; it has attempts as a trace has."""
        with pytest.raises(AllBackendsFailedError) as caught:
            router.ask(IMAGE, "What is this?")
        return caught.value

    def asked(self, servers):
        """Return everything that was sent to anybody."""
        return [request for server in servers.values() for request in server.requests]


class TestOneCall:
    """Names its rungs, their order and their model."""

    def test_a_model_of_one_rung_goes_to_its_server_with_its_key(self, servers, from_toml):
        """And to no other."""
        router = from_toml(ladder_of(servers))
        trace = router.describe(IMAGE, model="azure/vendor/gpt-x").trace
        assert (trace.backend, trace.model) == ("azure", "vendor/gpt-x")
        assert [(name, [each.model for each in server.requests]) for name, server in servers.items()] == [
            ("openai", []),
            ("azure", ["vendor/gpt-x"]),
            ("openrouter", []),
            ("ollama", []),
            ("vllm", []),
        ]

    def test_servers_are_asked_in_the_order_of_the_call(self, servers, from_toml):
        """Each with its own model, or with the one that the call names."""
        router = from_toml(ladder_of(servers))
        servers["vllm"].play("server_error")
        assert router.describe(IMAGE, backends=["vllm", "azure"]).trace.model == "model-of-azure"
        assert router.detect(IMAGE, backends=["ollama", "azure"], model="x").trace.model == "x"
        assert not servers["openai"].requests
        assert [each.model for each in servers["ollama"].requests] == ["x"]

    def test_a_refusal_of_one_model_is_remembered_for_that_model(self, servers, from_toml):
        """The next call with it costs no refusal, and one with another keeps its fields."""
        router = from_toml(ladder_of(servers))
        servers["azure"].play(Fault(status=400, body={"error": {"message": "Unknown field: detail"}}), times=1)
        for model in ("azure/x", "azure/x", "azure/y"):
            router.detect(IMAGE.resize((len(model), 9)), model=model)
            router.describe(IMAGE, model=model)
        sent = [(each.model, "detail" in json.dumps(each.body)) for each in servers["azure"].requests]
        assert sent == [("x", True), *[("x", False)] * 4, *[("y", True)] * 2]

    def test_a_cached_answer_of_a_model_is_found_by_its_name(self, from_toml, tmp_path):
        """Also in the next program, and only where the rung may answer this request."""
        with SandboxServer() as server:
            text = (
                f'ladder = ["azure", "embedded"]\nstate = "{tmp_path / "state.db"}"\n'
                f'[backends.azure]\nkind = "openai"\nbase_url = "{server.url}"\nmodel = "small"\n'
            )
            first = from_toml(text).describe(IMAGE, model="azure/large")
            again = from_toml(text).describe(IMAGE, model="azure/large")
            assert (again.text, again.trace.model, again.trace.cached) == (first.text, "large", True)
            assert not from_toml(text).describe(IMAGE, backends=["embedded"]).trace.cached
            assert len(server.requests) == 1


class TestBudgets:
    """What a budget in dollars cannot count is not asked for under it."""

    @pytest.mark.parametrize("how", ["describe", "describe_many", "describe_each", "describe_stream"])
    def test_a_named_model_without_a_price_is_the_callers_error(self, from_toml, how):
        """The model that is configured is asked all the same, and so is one that costs nothing by the user's word."""
        with SandboxServer() as server:
            router = from_toml(
                f'ladder = ["paid", "embedded"]\n[backends.paid]\nkind = "openai"\nbase_url = "{server.url}"\n'
                'model = "m"\ndaily_budget_usd = 1.0\n'
                "prices = { m = { input = 1, output = 1 }, free = { input = 0, output = 0 } }\n"
            )
            given = IMAGE if how in {"describe", "describe_stream"} else [IMAGE]
            with pytest.raises(InvalidRequestError, match="cannot count what 'other' costs"):
                list(getattr(router, how)(given, model="paid/other"))
            assert not server.requests
            assert router.describe(IMAGE, model="paid/free").trace.backend == "paid"
            assert router.describe(IMAGE).trace.model == "m"


class TestLaddersOfTasks:
    """A file may have one for each task."""

    def test_questions_have_one_of_their_own(self, servers, from_toml):
        """Or that of descriptions."""
        text = ladder_of(servers).replace("ladder = ", "ladder.describe = ").replace("cache.enabled = false", "")
        asked = [from_toml(text).ask(IMAGE, "What?").trace.backend]
        asked += [from_toml(text.replace("state", 'ladder.ask = ["azure"]\nstate')).ask(IMAGE, "What?").trace.backend]
        assert asked == ["openai", "azure"]

    def test_a_rung_that_only_answers_questions_is_made_and_shown(self, servers, from_toml):
        """And its server is asked for nothing else."""
        text = ladder_of({"azure": servers["azure"]}).replace(
            'ladder = ["azure", ', 'ladder.ask = ["azure"]\nladder.describe = ['
        )
        router = from_toml(text)
        assert router.describe(IMAGE).trace.backend == "embedded"
        assert router.ask(IMAGE, "What?").trace.backend == "azure"
        assert len(servers["azure"].requests) == 1
        assert router.explain("ask").verdicts[0].ready


class TestSharedBudgets:
    """An ``account`` that several rungs name has limits for all of them together."""

    SAME = 'kind = "openai"\naccount = "work"\nmodel = "m"\nprices = { m = { input = 1, output = 1 } }\n'

    @pytest.fixture
    def ladder(self, servers, tmp_path):
        """A maker of the text of a configuration with two servers, one account and some limits of it."""

        def text(limits: str, *, names=("first", "second"), more: str = "") -> str:
            lines = [f'ladder = {json.dumps([*names, "embedded"])}\nstate = "{tmp_path / "state.db"}"\n{more}']
            for name, server in zip(names, servers.values(), strict=False):
                at = f'base_url = "{server.url}"\napi_key = "{server.api_key}"\n'
                lines.append(f"[backends.{name}]\n{at}{self.SAME}")
            return "".join([*lines, f"[accounts.work]\n{limits}\n"])

        return text

    def test_what_one_rung_has_spent_is_missing_to_the_other(self, servers, from_toml, ladder):
        """The trace names each rung, and the key that has to be raised; the ledger knows who has spent what."""
        text = ladder("daily_budget_tokens = 5000", more="cache.enabled = false\n")
        with from_toml(text) as router:
            assert router.describe(IMAGE, backend="first").trace.backend == "first"
        router = from_toml(text.replace("5000", "700"))
        trace = router.describe(IMAGE).trace
        assert trace.backend == "embedded"
        assert [(each.backend, each.outcome, each.code) for each in trace.attempts[:2]] == [
            ("first", "skipped", "budget_exhausted"),
            ("second", "skipped", "budget_exhausted"),
        ]
        assert all("accounts.work.daily_budget_tokens" in each.remedy for each in trace.attempts[:2])
        (spending,) = router.spending()
        assert (spending.backend, spending.backends) == ("accounts.work", ("first", "second"))
        assert spending.spent == sum(
            row.input_tokens + row.output_tokens for row in router.ledger() if row.input_tokens
        )
        assert [len(server.requests) for server in servers.values()] == [1, 0, 0, 0, 0]

    def test_it_stays_spent_when_a_rung_gets_another_name(self, from_toml, ladder):
        """The budget is the account's."""
        more = "cache.enabled = false\n"
        with from_toml(ladder("daily_budget_tokens = 5000", more=more)) as router:
            router.describe(IMAGE, backend="first")
        renamed = from_toml(ladder("daily_budget_tokens = 5000", names=("other", "second"), more=more))
        assert renamed.spending()[0].spent > 0

    def test_a_variable_sets_a_limit_of_it(self, monkeypatch, from_toml, ladder):
        """As of any table."""
        monkeypatch.setenv("VISION_ACCOUNTS__WORK__DAILY_BUDGET_USD", "0.25")
        (spending,) = from_toml(ladder("")).spending()
        assert (spending.budget, spending.limit) == ("daily_budget_usd", 0.25)

    @pytest.mark.parametrize(
        ("before", "after", "message"),
        [
            ("[accounts.work]", "[accounts.wrok]", r"first.account = 'work' .*\[accounts.work\].*Did you mean 'wrok'"),
            ("[accounts.work]", "[backends.x]", r"there is no table \[accounts.work\]. Write \[accounts.work\]"),
            ("daily", "dayly", r"\[accounts.work\] has an unknown key 'dayly_budget_usd'. Did you mean 'daily_"),
            ("= 5", "= 0", r"daily_budget_usd = 0.0 must be positive"),
            ("[accounts.work]", '[accounts.work]\naccount = "x"', r"\[accounts.work\] names an account, and is one"),
            ("[accounts.work]", '[accounts."A B"]', r"'A B' is not a name"),
        ],
    )
    def test_what_has_no_meaning_is_an_error(self, from_toml, ladder, before, after, message):
        """Before anything is sent."""
        text = ladder("daily_budget_usd = 5").replace(before, after)
        with pytest.raises(ConfigError, match=message):
            from_toml(text)

    def test_a_model_without_a_price_is_one_where_dollars_are_counted(self, from_toml, ladder):
        """Whichever rung of the account it is; by configuration, and by a call's ``model=``."""
        text = ladder("daily_budget_usd = 5")
        unpriced = text.replace('model = "m"', 'model = "unpriced"', 1)
        with pytest.raises(ConfigError, match=r"accounts\.work\.daily_budget_usd cannot count what 'unpriced' costs"):
            from_toml(unpriced)
        from_toml(unpriced.replace("= 5", "= 5\nallow_unpriced = true"))
        with pytest.raises(InvalidRequestError, match=r"accounts\.work\.daily_budget_usd cannot count what 'x' costs"):
            from_toml(text).describe(IMAGE, model="second/x")


class TestAccounts:
    """Gates for quota and keys belong to who pays, not to the rung."""

    def test_two_rungs_of_one_account_cost_one_request_when_it_is_empty(self, from_toml):
        """The second is known to be empty as well."""
        with SandboxServer() as server:
            server.play("quota_gone")
            same = f'kind = "openai"\nbase_url = "{server.url}"\napi_key = "{server.api_key}"\n'
            router = from_toml(
                'ladder = ["large", "small", "embedded"]\nstate = "memory"\n'
                f'[backends.large]\n{same}model = "large"\n[backends.small]\n{same}model = "small"\n'
            )
            trace = router.describe(IMAGE).trace
            assert trace.backend == "embedded"
            assert [(each.backend, each.outcome, each.error) for each in trace.attempts[:2]] == [
                ("large", "failed", "quota_exhausted"),
                ("small", "skipped", "quota_exhausted"),
            ]
            assert len(server.requests) == 1

    @pytest.mark.parametrize("name", ["first", "second"])
    def test_a_reset_of_either_rung_asks_their_account_again(self, name):
        """Whichever of them has met the trouble."""
        with SandboxServer() as server:
            rungs = [OpenAIBackend(base_url=server.url).named(each) for each in ("first", "second")]
            with Router([*rungs, FakeBackend("spare")], caching=False) as router:
                server.play("quota_gone", times=1)
                assert router.describe(IMAGE).trace.backend == "spare"
                assert router.reset("spare") == 0
                assert router.reset(name) == 1
                assert router.describe(IMAGE).trace.backend == "first"

    def test_two_accounts_of_one_server_are_two(self):
        """The one without quota is asked once, the other answers."""
        with SandboxServer() as server:
            accounts = [
                OpenAIBackend(base_url=server.url, api_key=f"sk-{name}-0123456789").named(name)
                for name in ("first", "second")
            ]
            with Router([*accounts, FakeBackend("spare")], caching=False) as router:
                server.play("quota_gone", times=1)
                assert {router.describe(IMAGE).trace.backend for _ in range(3)} == {"second"}
            assert len(server.requests) == 4

    @pytest.mark.parametrize(
        "other",
        [
            {"api_key": "sk-other-0123456789"},
            {"organization": "org-1"},
            {"project": "proj-1"},
            {"base_url": "http://127.0.0.1:2/v1"},
            {"headers": {"x-api-key": "another"}},
        ],
    )
    def test_who_pays_is_server_organization_project_and_key(self, other):
        """Another of them is another account."""
        mine = {"api_key": CANARY, "base_url": "http://127.0.0.1:1/v1"}
        assert OpenAIBackend(**mine).credential == OpenAIBackend(**mine, model="m", headers={"x-title": "t"}).credential
        assert OpenAIBackend(**mine).credential != OpenAIBackend(**(mine | other)).credential

    def test_without_any_key_headers_say_who_pays(self):
        """Whatever they are called."""
        url = "http://127.0.0.1:1/v1"
        made = {OpenAIBackend(base_url=url, headers={"x-customer": name}).credential for name in ("a", "b")}
        assert len(made) == 2

    def test_what_a_server_has_left_for_an_account_counts_for_all_its_rungs(self):
        """Its headers speak of the account and the model."""
        clock = FakeClock()
        left = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-limit-requests": "10"}
        fault = Fault(headers=left | {"x-ratelimit-reset-requests": "40s"})
        with SandboxServer() as server:
            rungs = [OpenAIBackend(base_url=server.url, clock=clock).named(name) for name in ("first", "second")]
            with Router([*rungs, FakeBackend("spare")], caching=False, clock=clock) as router:
                server.play(fault)
                assert router.describe(IMAGE).trace.backend == "first"
                trace = router.describe(IMAGE).trace
        assert trace.backend == "spare"
        assert [each.code for each in trace.attempts[:2]] == ["limit_near", "limit_near"]

    @pytest.mark.parametrize(
        ("fault", "error"), [("rate_limited", "rate_limited"), ("server_overloaded", "overloaded")]
    )
    def test_what_a_server_counts_for_an_account_and_a_model_is_met_once(self, fault, error):
        """Two rungs of both do not need a refusal each; another model, or another account, has its own."""
        with SandboxServer() as server:
            made = {"base_url": server.url, "api_key": "sk-first-0123456789"}
            rungs = [
                OpenAIBackend(**made, model="m").named("first"),
                OpenAIBackend(**made, model="m", detail="low").named("second"),
                OpenAIBackend(**made, model="other").named("third"),
                OpenAIBackend(**{**made, "api_key": "sk-other-0123456789"}, model="m").named("fourth"),
            ]
            server.play(Fault(name=fault, status=FAULTS_OF[fault][0], body=FAULTS_OF[fault][1]))
            with Router([*rungs, FakeBackend("spare")], caching=False) as router:
                trace = router.describe(IMAGE).trace
                assert [(each.backend, each.outcome) for each in trace.attempts[:4]] == [
                    ("first", "failed"),
                    ("second", "skipped"),
                    ("third", "failed"),
                    ("fourth", "failed"),
                ]
                assert trace.attempts[1].error == error
                assert len(server.requests) == 3
                server.heal()
                assert router.reset("second") >= 1
                assert router.describe(IMAGE).trace.backend == "first"

    def test_a_server_that_is_down_is_so_for_all_rungs_of_an_account_and_a_model(self):
        """Five failures are enough for both together."""
        with SandboxServer() as server:
            rungs = [OpenAIBackend(base_url=server.url, model="m").named(name) for name in ("first", "second")]
            server.play("server_error")
            with Router([*rungs, FakeBackend("spare")], caching=False) as router:
                for _ in range(10):
                    assert router.describe(IMAGE).trace.backend == "spare"
                assert [gate.gate for gate in router.gates()] == ["outage"]
            assert len(server.requests) < 10

    def test_what_one_rung_has_set_for_itself_does_not_close_another(self):
        """Its timeout, its API, or a field that only it sends."""
        with SandboxServer() as server:
            made = {"base_url": server.url, "model": "m"}
            rungs = [OpenAIBackend(**made, api="responses").named("first"), OpenAIBackend(**made).named("second")]
            server.play(Fault(name="odd", status=200, body={"odd": True}, paths=("/v1/responses",)))
            with Router([*rungs, FakeBackend("spare")], caching=False) as router:
                assert {router.describe(IMAGE).trace.backend for _ in range(12)} == {"second"}
                assert [(gate.backend, gate.gate) for gate in router.gates()] == [("first", "outage")]

    def test_a_rung_inherits_nothing_from_another(self, from_toml, monkeypatch):
        """OPENAI_* is for the rung of that name only."""
        monkeypatch.setenv("OPENAI_API_KEY", CANARY)
        monkeypatch.setenv("OPENAI_ORG_ID", "org-of-openai")
        with SandboxServer(api_key=CANARY, only_key=True) as server:
            router = from_toml(
                'ladder = ["second", "third", "embedded"]\n[openai]\nmodel = "mine"\n'
                '[backends.second]\nkind = "openai"\n'
                f'[backends.third]\nkind = "openai"\nbase_url = "{server.url}"\n'
            )
            trace = router.describe(IMAGE).trace
            (sent,) = server.requests
        assert trace.attempts[0].code == "no_api_key"
        assert "VISION_BACKENDS__SECOND__API_KEY" in trace.attempts[0].remedy
        assert "[backends.second]" in trace.attempts[0].remedy
        assert "openai-organization" not in {name.lower() for name in sent.headers}
        assert sent.model != "mine"
        assert sent.status == 401


class TestKeysInVariables:
    """``api_key_env`` names the variable that holds a rung's key."""

    def test_it_is_sent(self, from_toml, monkeypatch):
        """And nothing of it is shown."""
        monkeypatch.setenv("SECOND_KEY", CANARY)
        with SandboxServer(api_key=CANARY, only_key=True) as server:
            router = from_toml(
                f'ladder = ["second"]\n[backends.second]\nkind = "openai"\nbase_url = "{server.url}"\n'
                'api_key_env = "SECOND_KEY"\n'
            )
            assert router.describe(IMAGE).trace.backend == "second"
        assert CANARY not in repr(router.status())

    def test_a_missing_variable_is_named_with_its_table(self, from_toml):
        """No request is made without the key."""
        with SandboxServer() as server:
            router = from_toml(
                f'ladder = ["second", "embedded"]\n[backends.second]\nkind = "openai"\nbase_url = "{server.url}"\n'
                'api_key_env = "SECOND_KEY"\n'
            )
            attempt = router.describe(IMAGE).trace.attempts[0]
            assert router.diagnose()["second"] is None
            assert len(server.requests) == 0
        assert (attempt.error, attempt.outcome) == ("not_ready", "skipped")
        assert "[backends.second] api_key_env names the variable SECOND_KEY, which is not set" in attempt.message
        assert attempt.remedy == "Set SECOND_KEY, or api_key in [backends.second] of vision.toml."

    @pytest.mark.parametrize("written", [CANARY, "abcdef0123456789", "", "A B", "A" * 200])
    def test_a_key_that_was_written_there_by_mistake_is_not_shown(self, from_toml, written):
        """What is no name of a variable is an error that does not repeat it."""
        with pytest.raises(ConfigError) as caught:
            from_toml(f'ladder = ["second"]\n[backends.second]\nkind = "openai"\napi_key_env = "{written}"\n')
        assert "[backends.second] api_key_env" in caught.value.message
        assert not written or written not in str(caught.value)

    def test_the_variable_that_is_named_wins_over_openais(self, monkeypatch, from_toml):
        """The user has said where the key is."""
        monkeypatch.setenv("MY_KEY", CANARY)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-program")
        with SandboxServer(api_key=CANARY, only_key=True) as server:
            router = from_toml(f'ladder = ["openai"]\n[openai]\napi_key_env = "MY_KEY"\nbase_url = "{server.url}"\n')
            assert router.describe(IMAGE).trace.backend == "openai"

    def test_a_key_beside_it_is_an_error_and_one_of_a_later_place_wins(self, tmp_path, monkeypatch):
        """Key by key, the later place wins; these two are one key."""
        path = tmp_path / "vision.toml"
        path.write_text('[backends.second]\nkind = "openai"\napi_key_env = "SECOND_KEY"\n', encoding="utf-8")
        monkeypatch.setenv("VISION_BACKENDS__SECOND__API_KEY", CANARY)
        assert load_settings(path).table("second") == {"kind": "openai", "api_key": CANARY}
        with pytest.raises(ConfigError, match="has both api_key and api_key_env"):
            OpenAIBackend(api_key=CANARY, api_key_env="SECOND_KEY")


class TestMessages:
    """They name the rung and the user's own table."""

    def test_remedies_name_the_table_of_the_rung(self, servers, from_toml):
        """In traces, in explanations and in what doctor says."""
        router = from_toml(
            ladder_of(servers).replace(f'api_key = "{servers["azure"].api_key}"', 'api_key = "sk-wrong-key"')
        )
        with pytest.raises(AllBackendsFailedError) as caught:
            router.describe(IMAGE, backend="azure")
        (attempt,) = caught.value.attempts
        assert attempt.remedy == (
            "Check VISION_BACKENDS__AZURE__API_KEY, or api_key, organization and project in [backends.azure] of "
            "vision.toml."
        )
        servers["ollama"].close()
        found = router.diagnose()
        assert "[backends.ollama]" in found["ollama"].remedy
        assert found["ollama"].backend == "ollama"

    def test_so_do_those_of_other_kinds(self):
        """A backend writes the table of its kind, and need not know how a ladder calls it."""
        backend = Moon().named("second")
        with Router([backend, FakeBackend("spare")], caching=False) as router:
            backend.play(UnavailableError("See [moon] phase.", remedy="Correct [moon].", backend="moon"))
            failed = router.describe(IMAGE).trace.attempts[0]
            backend.not_ready = NotReadyError("See [moon] phase.", remedy="Correct [moon].")
            verdict = router.explain("describe").verdicts[0]
        assert (failed.backend, failed.message, failed.remedy) == (
            "second",
            "See [backends.second] phase.",
            "Correct [backends.second].",
        )
        assert (verdict.backend, verdict.reason, verdict.remedy) == (failed.backend, failed.message, failed.remedy)

    def test_an_extra_of_the_package_is_no_table(self):
        """``pip install 'vision-backends[local]'`` is right for any local rung."""
        from vision_backends.backends.rung_names import tell_rung

        error = NotReadyError(
            "The folder in [local] is empty.", remedy="Run: pip install 'vision-backends[local]', or see [local.x]"
        )
        tell_rung(error, LocalBackend().named("tiny"))
        tell_rung(error, LocalBackend().named("tiny"))
        assert error.args == (error.message,) == ("The folder in [backends.tiny] is empty.",)
        assert error.remedy == "Run: pip install 'vision-backends[local]', or see [backends.tiny.x]"
        assert error.backend == "tiny"

    @pytest.mark.parametrize("base", [OpenAIBackend, AzureBackend])
    def test_a_variety_of_a_kind_names_its_own_table(self, base):
        """In what is wrong with its keywords, and with its calls; however it is called later."""

        class Mine(base):
            """A server of somebody else's."""

            name = "mine"

        given = {"endpoint": "https://127.0.0.1:9", "deployment": "d"} if base is AzureBackend else {}
        with pytest.raises(ConfigError) as caught:
            Mine(**given, timeout_s=-1)
        assert caught.value.message.startswith("[backends.mine] timeout_s = -1")
        for name in ("mine", "second"):
            backend = Mine(**given, api_key_env="NO_SUCH_KEY").named(name)
            with pytest.raises(AllBackendsFailedError) as failed, Router([backend]) as router:
                router.describe(IMAGE)
            (attempt,) = failed.value.attempts
            assert f"api_key in [backends.{name}] of vision.toml" in attempt.remedy

    @pytest.mark.parametrize(
        ("kind", "line", "message"),
        [
            ("openai", "timeout_s = -1", "[backends.second] timeout_s = -1.0"),
            ("openai", 'base_url = "x"', "[backends.second] base_url = 'x' is not"),
            ("openai", 'error_codes = {x = "y"}', "[backends.second.error_codes] has the unknown kind 'y'."),
            ("openai", "modell = 1", "[backends.second] has an unknown key 'modell'."),
            ("local", "min_score = 2", "[backends.second] min_score = 2.0"),
            ("local", 'device = "abacus"', "[backends.second] has a bad value for 'device'"),
            ("embedded", "threads = 0", "[backends.second] threads = 0"),
        ],
    )
    def test_errors_of_the_configuration_name_it_too(self, from_toml, kind, line, message):
        """They are raised before anything is opened."""
        with pytest.raises(ConfigError) as caught:
            from_toml(f'ladder = ["second"]\n[backends.second]\nkind = "{kind}"\n{line}\n')
        assert caught.value.message.startswith(message)


class TestInCode:
    """The same without any file."""

    def test_backends_are_named_one_by_one(self):
        """Each instance has its own name; its class keeps the one that it had."""
        second = EmbeddedBackend().named("second")
        assert (second.name, EmbeddedBackend.name, EmbeddedBackend().name) == ("second", "embedded", "embedded")
        with Router([EmbeddedBackend(), second]) as router:
            assert router.describe(IMAGE, backend="second").trace.backend == "second"

    @pytest.mark.parametrize("name", ["", None, 3])
    def test_a_name_is_a_text(self, name):
        """An empty one names nothing."""
        with pytest.raises(InvalidRequestError):
            FakeBackend("x").named(name)

    def test_two_of_one_name_are_refused_on_ladders_of_different_tasks_as_well(self):
        """Gates, budgets and answers are kept by name."""
        with pytest.raises(InvalidRequestError, match="named 'x'"):
            Router({"describe": [FakeBackend("x")], "embed": [FakeBackend("x")]})


def test_budgets_belong_to_the_rung(servers, from_toml):
    """One account may have two rungs with a limit each."""
    text = ladder_of(servers)
    router = from_toml(text.replace('model = "model-of-azure"', 'model = "model-of-azure"\nrequests_per_minute = 1'))
    assert router.describe(IMAGE, backend="azure").trace.backend == "azure"
    with pytest.raises(AllBackendsFailedError, match="azure"):
        router.describe(IMAGE, backend="azure")
    assert router.describe(IMAGE, backend="openrouter").trace.backend == "openrouter"


def test_nothing_of_a_key_is_logged(servers, from_toml, caplog):
    """Under any name."""
    with caplog.at_level(logging.DEBUG):
        router = from_toml(ladder_of(servers))
        for server in servers.values():
            server.play("invalid_api_key")
        router.describe(IMAGE)
        router.status()
    assert not [server.api_key for server in servers.values() if server.api_key in caplog.text]
