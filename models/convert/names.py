"""The 1000 ImageNet class names, tidied for use inside a sentence.

The source is the list that OpenAI curated for CLIP (https://github.com/openai/CLIP, MIT) as published in
open_clip. It resolves ImageNet's twins ("crane bird" and "construction crane"); what is left to do is to
drop asides in brackets and alternatives, and to mend a few capitals. Two pairs of classes name the same thing
(missile 657 and 744, sunglasses 836 and 837); they keep one name each, on purpose: a reader of the file adds
the probabilities of equal names.
"""

from __future__ import annotations

import ast
import re

LIST_NAME = "IMAGENET_CLASSNAMES"
COUNT = 1000
PLAINER = {
    "bell or wind chime": "wind chime",
    "gas mask or respirator": "gas mask",
    "red wolf or maned wolf": "red wolf",
    "spiral or coil": "coil",
    "traffic or street sign": "street sign",
    "vaulted or arched ceiling": "vaulted ceiling",
    "african grey parrot": "African grey parrot",
    "arabian camel": "Arabian camel",
    "brussels griffon": "Brussels griffon",
    "ford model t": "Ford Model T",
    "vespa": "motor scooter",
}


def read_names(python_source: str) -> list[str]:
    """Return the 1000 names in the order of the model's outputs.

    Raises:
        ValueError: The source no longer holds 1000 of them.
    """
    for statement in ast.parse(python_source).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == LIST_NAME:
            names = [_tidy(name) for name in ast.literal_eval(statement.value)]
            if len(names) == COUNT:
                return names
    raise ValueError(f"The source has no list {LIST_NAME} of {COUNT} names.")


def _tidy(name: str) -> str:
    plain = re.sub(r"\s*\(.*?\)", "", name).split(" / ")[0].strip()
    return PLAINER.get(plain, plain)
