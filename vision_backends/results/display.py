"""An answer in front of a person: in a notebook, in a viewer of pictures, on axes of matplotlib's.

This module decides where it is shown. It must not know how it looks.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from vision_backends.results.cards import card
from vision_backends.results.libraries import load
from vision_backends.results.pictures import picture

if TYPE_CHECKING:
    from vision_backends.images import ImageSource
    from vision_backends.results.pictures import WithPicture

__all__ = ["plot", "show"]


def show(answer: WithPicture, *, image: ImageSource | None) -> None:
    """Show an answer. Arguments and errors as in `Description.show`."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is not None and hasattr(shell, "kernel"):  # a notebook, not a terminal
        sys.modules["IPython"].display.display_html(card(answer, image=image), raw=True)
        return
    picture(answer, image).show(title=str(answer))


def plot(answer: WithPicture, *, image: ImageSource | None, ax: Any) -> Any:  # noqa: ANN401 — axes of matplotlib's
    """Draw an answer's picture on axes. Arguments and errors as in `Detections.plot`."""
    shown = picture(answer, image)  # before there is a figure
    if ax is None:
        pyplot = load("matplotlib.pyplot", purpose="plot()")
        _, ax = pyplot.subplots()
    trace = answer.trace
    ax.imshow(shown)
    ax.set_axis_off()
    ax.set_title(f"{trace.backend}{' (degraded)' if trace.degraded else ''}", parse_math=False)
    return ax
