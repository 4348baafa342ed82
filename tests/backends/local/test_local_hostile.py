"""Checkpoints damaged by chance or on purpose: each is refused by name or works, and the next rung answers."""

from __future__ import annotations

import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_values import ODD, changed, places
from PIL import Image as PILImage

from vision_backends import Router
from vision_backends.foreign_text import UNPRINTABLE
from vision_backends.testing import FakeBackend

IMAGE = PILImage.new("RGB", (40, 30), "teal")

MODELS = {
    "describe": ("caption_model", "blip"),
    "embed": ("embedding_model", "clip"),
    "detect": ("detection_model", "detr"),
}

KEYS = ["quantization_config", "dtype", "attn_implementation", "architectures", "tokenizer_class", "auto_map"]


def damage(folder, chance):
    """Change one file of a checkpoint."""
    path = chance.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    content = path.read_bytes()
    if path.suffix == ".json" and chance.random() < 0.7:
        table = json.loads(content)
        if isinstance(table, dict) and chance.random() < 0.3:
            table[chance.choice(KEYS)] = chance.choice(ODD)
        else:
            table = changed(table, chance.choice(list(places(table))), chance.choice(ODD))
        path.write_text(json.dumps(table), encoding="utf-8")
    elif chance.random() < 0.3:
        path.unlink()
    elif chance.random() < 0.5:
        path.write_bytes(content[: chance.randrange(len(content))])
    else:
        spoilt = bytearray(content)
        for _ in range(chance.choice([1, 3, 20])):
            spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
        path.write_bytes(spoilt)


@pytest.mark.parametrize("task", MODELS)
@settings(max_examples=settings.default.max_examples // 33, deadline=None, suppress_health_check=list(HealthCheck))
@given(chance=st.randoms(use_true_random=False))
def test_a_hostile_checkpoint_is_refused_or_works(model, make_backend, tmp_path_factory, task, chance):
    """Never an untyped error, a model that computes for ever, or a rung that is shut for anything but its model."""
    setting, kind = MODELS[task]
    folder = tmp_path_factory.mktemp("hostile") / kind
    shutil.copytree(model(kind), folder)
    damage(folder, chance)
    local = make_backend(**{setting: str(folder), "download": "never"})
    with Router([local, FakeBackend("spare")], caching=False, deadline_s=60) as router:
        answer = getattr(router, task)(IMAGE)
    first = answer.trace.attempts[0]
    if first.outcome != "answered":
        assert answer.trace.backend == "spare"
        assert first.error in {"not_ready", "not_supported", "invalid_reply", "unavailable"}, first
        assert not UNPRINTABLE.search(first.message)
    shutil.rmtree(folder)
