"""What a caller says beside the question itself: who may answer, how fast, and how patiently.

This module decides which backends such options leave, and that they make sense. It must not know what is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict

from vision_backends.arguments import check_flag, check_number, check_text, did_you_mean, iterate, shown
from vision_backends.backends.rung_names import tell_rung
from vision_backends.errors import BackendError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vision_backends.backends.base import Backend
    from vision_backends.backends.requests import Request
    from vision_backends.types import Task

__all__ = ["CallKeywords", "CallOptions", "ChoiceKeywords", "Priority", "positive_seconds"]

Priority = Literal["interactive", "batch"]
"""Whether the answer is waited for now, or may come later if that gives a better one."""

USUAL_PATIENCE_S = 600.0

MOST_MODEL_CHARS = 256
"""Of the name of a model; the longest on the hub have less than 200."""


class ChoiceKeywords(TypedDict, total=False):
    """The keywords by which a caller chooses who may answer, and how fast.

    Attributes:
        backend: Ask only this rung.
        backends: Ask only these rungs, in this order.
        model: Ask only this model. ``"azure/gpt-x"`` is the model ``gpt-x`` of the rung ``azure``, whichever model that
            is configured with; so is ``"gpt-x"`` together with ``backend="azure"``. Where no rung is named, those that
            are configured with the model are asked, in order. For embeddings it is the model that makes the vectors.
        local_only: Ask only backends that keep the input on this machine.
        deadline_s: Seconds for the call, instead of the router's for each input.
    """

    backend: str | None
    backends: Sequence[str] | None
    model: str | None
    local_only: bool
    deadline_s: float | None


class CallKeywords(ChoiceKeywords, total=False):
    """The keywords that every call takes.

    Attributes:
        priority: ``"batch"`` waits for a rate limit, an empty account or an outage to pass, first come first served,
            instead of taking the next rung; ``"interactive"`` never stands behind those who wait.
        max_wait_s: Seconds that a batch call waits at most, on top of the deadline; 600 by default.
    """

    priority: Priority
    max_wait_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """`CallKeywords` with their defaults, checked.

    Raises:
        InvalidRequestError: A value has no meaning.
    """

    backend: str | None = None
    backends: Sequence[str] | None = None
    model: str | None = None
    local_only: bool = False
    deadline_s: float | None = None
    priority: Priority = "interactive"
    max_wait_s: float | None = None

    @classmethod
    def of(cls, keywords: Mapping[str, Any], allowed: type[ChoiceKeywords]) -> Self:
        """Return the options that a method was called with.

        Args:
            keywords: What it was given beside its own parameters.
            allowed: The keywords that it takes.

        Raises:
            TypeError: There is no such option.
            InvalidRequestError: A value has no meaning.
        """
        names = sorted(allowed.__annotations__)
        for name in keywords:
            if name not in names:
                raise TypeError(f"There is no option {name!r} here; the options are: {', '.join(names)}.")
        return cls(**keywords)

    def __post_init__(self) -> None:
        if self.backend is not None or self.backends is not None:
            object.__setattr__(self, "backends", _names(self.backend, self.backends))
        if self.model is not None:
            _check_model(self.model)
        check_flag("local_only", self.local_only)
        check_number("max_wait_s", self.max_wait_s, example=600)
        if self.deadline_s is not None:
            positive_seconds(self.deadline_s)
        if self.priority not in ("interactive", "batch"):
            raise InvalidRequestError(
                f"priority={self.priority!r} is neither 'interactive' nor 'batch'.", remedy="Pass one of them."
            )
        if self.max_wait_s is not None and self.priority != "batch":
            raise InvalidRequestError(
                f"max_wait_s={self.max_wait_s} has no effect on an interactive call.",
                remedy="Only priority='batch' waits.",
            )
        if self.max_wait_s is not None and not self.max_wait_s >= 0:
            message = f"max_wait_s={self.max_wait_s} is not a time."
            raise InvalidRequestError(message, remedy="Pass seconds, such as max_wait_s=600.")

    @property
    def patience_s(self) -> float | None:
        """Seconds to wait for a better rung; None to take the next one immediately."""
        if self.priority == "interactive":
            return None
        return USUAL_PATIENCE_S if self.max_wait_s is None else self.max_wait_s

    def choose(self, ladder: Sequence[Backend], request: Request) -> Sequence[Backend]:
        """Return the backends that are left of a ladder, in the order of the call, with the model that it names.

        Raises:
            InvalidRequestError: None is.
        """
        chosen = ladder
        if self.backends is not None:
            chosen = [_rung(name, ladder, request) for name in self.backends]
        if self.model is not None:
            chosen = _with_model(self.model, chosen, request, are_named=self.backends is not None)
        if self.local_only and chosen:
            local = [rung for rung in chosen if rung.is_private]
            if not local:
                names = ", ".join(rung.name for rung in chosen)
                raise InvalidRequestError(
                    f"local_only leaves no backend: {names} would send the input to another machine.",
                    remedy="Put 'embedded' or 'local' on the ladder, or a server on this machine with private = true.",
                )
            return local
        return chosen

    def choose_for_each(
        self, ladders: Mapping[Task, Sequence[Backend]], requests: Sequence[Request]
    ) -> list[tuple[Backend, Request]]:
        """Return who is chosen for which of some requests; a name has to be that of a rung or model of one of them.

        Raises:
            InvalidRequestError: It is not.
        """
        names = {request.task: [rung.name for rung in ladders[request.task]] for request in requests}
        for name in self.backends or ():
            if not any(name in each for each in names.values()):
                message = f"There is no backend {name!r} for {', '.join(names)}."
                known = sorted({*chain(*names.values())})
                raise InvalidRequestError(
                    message, remedy=f"{did_you_mean(name, known)}The ladders have: {', '.join(known)}."
                )
        pairs: list[tuple[Backend, Request]] = []
        missed: InvalidRequestError | None = None
        for request in requests:
            there = [name for name in self.backends or () if name in names[request.task]]
            if self.backends is not None and not there:
                continue
            own = self if self.backends is None else replace(self, backend=None, backends=there)
            try:
                pairs += [(rung, request) for rung in own.choose(ladders[request.task], request)]
            except InvalidRequestError as error:
                missed = error
        if missed is not None and not pairs:
            raise missed
        return pairs


def _names(backend: str | None, backends: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of rungs that a call gives, in one way or the other.

    Raises:
        InvalidRequestError: They are none, or given in both ways.
    """
    check_text("backend", backend, example='"embedded"')
    if backends is None:
        return (str(backend),)
    if backend is not None:
        raise InvalidRequestError(
            f"backend={shown(backend)} and backends={shown(backends)} both say who is asked.",
            remedy="Pass one of them.",
        )
    if isinstance(backends, str):
        raise InvalidRequestError(
            f"backends={shown(backends)} is one string.", remedy=f"Pass backend={backends!r}, or a list of names."
        )
    remedy = 'Pass names of rungs in the order in which they are asked, as backends=["azure", "local"].'
    names = tuple(iterate("backends", backends, remedy=remedy))
    if not names or not all(isinstance(name, str) for name in names):
        raise InvalidRequestError(f"backends={shown(backends)} is not a list of names.", remedy=remedy)
    if len(set(names)) < len(names):
        raise InvalidRequestError(f"backends={shown(backends)} names a rung twice.", remedy="Name each once.")
    return names


def _check_model(model: object) -> None:
    """Return if something can be the name of a model.

    Raises:
        InvalidRequestError: It cannot.
    """
    remedy = 'Pass the name of a model, such as model="azure/gpt-x" or model="gpt-x".'
    if not isinstance(model, str) or not model.strip() or len(model) > MOST_MODEL_CHARS or not model.isprintable():
        raise InvalidRequestError(f"model={shown(model)} is not the name of a model.", remedy=remedy)


def _rung(name: str, ladder: Sequence[Backend], request: Request) -> Backend:
    """Return the rung of a name.

    Raises:
        InvalidRequestError: It is not on the ladder.
    """
    for rung in ladder:
        if rung.name == name:
            return rung
    known = [rung.name for rung in ladder]
    raise InvalidRequestError(
        f"There is no backend {name!r} on the ladder for {request.task}.",
        remedy=f"{did_you_mean(name, known)}The ladder has: {', '.join(known)}.",
    )


def _with_model(model: str, ladder: Sequence[Backend], request: Request, *, are_named: bool) -> Sequence[Backend]:
    """Return the rungs that have a model, each as it answers with that.

    What stands before the first slash is a rung only if one is called so: elsewhere it is the model's vendor.

    Args:
        model: Its name, or that of a rung and its own.
        ladder: Who may be asked.
        request: What is asked.
        are_named: Whether the call has named them, and so says that they have it, whatever they are configured with.

    Raises:
        InvalidRequestError: No rung has it.
    """
    first, slash, rest = model.partition("/")
    named = [rung for rung in ladder if slash and rung.name == first]
    if named:
        _check_model(rest)
        ladder, model, are_named = named, rest, True
    if are_named:
        return _asking_for(model, ladder, request)
    chosen = [rung for rung in ladder if _model_of(rung, request) == model]
    if chosen:
        return chosen
    models = {rung.name: name for rung in ladder if (name := _model_of(rung, request))}
    known = [f"{name} ({rung})" for rung, name in models.items()]
    named_alike = [f"{rung}/{rest}" for rung in models if slash and did_you_mean(first, [rung])]
    near = did_you_mean(model, [*models.values(), *named_alike])
    server = next((rung.name for rung in ladder if not rung.local), None)
    other = "" if server is None else f" For another model of a server, name its rung: model='{server}/{model}'."
    raise InvalidRequestError(
        f"No rung on the ladder for {request.task} is configured with the model {model!r}.",
        remedy=f"{near}They have: {', '.join(known)}.{other}",
    )


def _asking_for(model: str, ladder: Sequence[Backend], request: Request) -> Sequence[Backend]:
    """Return those rungs that can be asked for a model, each as it answers with that.

    Raises:
        InvalidRequestError: None can.
    """
    chosen: list[Backend] = []
    refusals: list[BackendError] = []
    for rung in ladder:
        try:
            chosen.append(rung.with_model(model, request))
        except BackendError as refusal:
            tell_rung(refusal, rung)
            refusals.append(refusal)
    if refusals and not chosen:
        raise InvalidRequestError(refusals[0].message, remedy=refusals[0].remedy) from refusals[0]
    return chosen


def _model_of(rung: Backend, request: Request) -> str | None:
    """Return which model of a rung would answer; None where none has the task."""
    try:
        return rung.model_for(request).name
    except BackendError:
        return None


def positive_seconds(deadline_s: float) -> float:
    """Return a deadline.

    Raises:
        InvalidRequestError: It is not positive, or no number.
    """
    check_number("deadline_s", deadline_s, example=5, optional=False)
    if not deadline_s > 0:
        message = f"deadline_s={deadline_s} leaves no time for an answer."
        raise InvalidRequestError(message, remedy="Pass seconds, such as deadline_s=5.")
    return deadline_s
