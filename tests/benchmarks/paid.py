"""Rungs that a configuration can name: one that costs money, one that does not say how much, one that is soon tired."""

from __future__ import annotations

from dataclasses import replace

from vision_backends.backends.base import Backend
from vision_backends.backends.requests import Model
from vision_backends.errors import UnavailableError
from vision_backends.types import Description, Timing, Trace, Usage

COST_USD = 0.01


class PaidBackend(Backend):
    """Describes for a cent, and says where the time went."""

    name = "paid"
    local = False

    def __init__(self):
        self.calls = 0

    def model_for(self, request):
        """Return the only one."""
        return Model(name="toy", revision="1")

    def check(self, request):
        """Return: it can."""

    def status(self):
        """Return where its only model runs."""
        engine = {"images": "openvino", "texts": "torch (openvino is slower)"}
        return {"caption": {"model": "toy", "device": "cpu", "dtype": "float32", "engine": engine}}

    def describe(self, images, request, *, timeout_s):
        """Describe nothing in particular."""
        self.calls += 1
        trace = Trace(model="toy", usage=Usage(cost_usd=COST_USD), timing=Timing(decode_s=0.0, wire_s=0.0))
        return [Description(text="a toy", trace=trace) for _ in images]


class TiredBackend(PaidBackend):
    """Answers once, and then never again."""

    name = "tired"

    def describe(self, images, request, *, timeout_s):
        """Describe, or fail."""
        answers = super().describe(images, request, timeout_s=timeout_s)
        if self.calls > 1:
            raise UnavailableError("It is tired.")
        return answers


class PricelessBackend(PaidBackend):
    """Describes for a price that nobody knows."""

    name = "priceless"

    def describe(self, images, request, *, timeout_s):
        """Describe nothing in particular."""
        answers = super().describe(images, request, timeout_s=timeout_s)
        return [replace(each, trace=replace(each.trace, usage=Usage())) for each in answers]
