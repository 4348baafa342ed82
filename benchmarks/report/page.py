"""The report as one HTML page that loads nothing: styles, charts and pictures stand inside.

This module decides which charts the page gets. It must not know how a figure came about. Whatever comes from a run is
a stranger's text: the template escapes it, and the page forbids itself to run or to load anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..lateness import could_not_keep
from .comparison import DIFFERENT, NOTHING_ALIKE, UNLIKE
from .contents import QUESTION
from .palette import PARTS, assign_marks, css_variables
from .pictures import arrange_pictures
from .quality_chart import draw_quality
from .settings import show_settings
from .tables import tabulate_classes
from .time_charts import draw_loads, draw_shares, draw_starts, draw_times
from .timeline import NARROW, WIDE, draw_day
from .wording import RANDOM_WEIGHTS, show_date, show_usd, split_links

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..records import FailoverResult
    from .contents import Contents
    from .palette import Mark
    from .standings import Group

__all__ = ["write_page"]

_FOLDER = Path(__file__).parent


def write_page(contents: Contents) -> str:
    """Return the page."""
    seen = _name_backends(contents)
    marks = assign_marks(seen)
    prices = [each.cost_per_1000_usd or 0.0 for group in contents.groups for each in group.standings]
    dearest_usd = max(prices, default=0.0)
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "split_links": split_links,
        "show_settings": show_settings,
        "could_not_keep": could_not_keep,
    }
    return environment.get_template("page.html.j2").render(
        question=QUESTION,
        date=show_date(contents.runs[-1].started_at),
        contents=contents,
        unlike=UNLIKE,
        different=DIFFERENT,
        nothing_alike=NOTHING_ALIKE,
        marks=marks,
        legend=[name for name in [*filter(None, marks), None] if name in seen],
        css=Markup(f"{css_variables()}\n{(_FOLDER / 'page.css').read_text(encoding='utf-8')}"),  # noqa: S704 — our own
        parts=PARTS,
        sizes=_explain_sizes(dearest_usd),
        random_weights=RANDOM_WEIGHTS,
        classes=list(filter(None, map(tabulate_classes, contents.groups))),
        pictures=arrange_pictures(contents.examples),
        days=_draw_days(contents.days, marks),
        charts={
            "quality": _draw_panels(
                contents,
                lambda group, name: draw_quality(group, marks, dearest_usd=dearest_usd, name=f"quality-{name}"),
            ),
            "times": _draw_panels(contents, lambda group, name: draw_times(group, marks, name=f"times-{name}")),
            "starts": _draw_panels(contents, lambda group, name: draw_starts(group, marks, name=f"starts-{name}")),
            "shares": _draw_panels(contents, lambda group, name: draw_shares(group, marks, name=f"shares-{name}")),
            "loads": _draw_panels(contents, lambda group, name: draw_loads(group, marks, name=f"loads-{name}")),
        },
    )


def _draw_panels(contents: Contents, draw: Callable[[Group, str], str | None]) -> list[tuple[str, Markup]]:
    """Return the panels of one chart with their titles, without those for which nothing was measured."""
    drawn = [(group, draw(group, str(place))) for place, group in enumerate(contents.groups, start=1)]
    return [(_title(group, contents), Markup(svg)) for group, svg in drawn if svg]  # noqa: S704 — escaped by its writer


def _title(group: Group, contents: Contents) -> str:
    """Name the task, and the data set where a task has several."""
    alone = [each.task for each in contents.groups].count(group.task) == 1
    return group.task if alone or not group.dataset else f"{group.task} on {group.dataset}"


def _explain_sizes(dearest_usd: float) -> str:
    if not dearest_usd:
        return "All marks have one size: nothing has a price."
    return (
        f"A mark is as large as its price: the smallest is free, the largest {show_usd(dearest_usd)} per 1,000 images."
    )


def _draw_days(
    days: tuple[FailoverResult, ...], marks: Mapping[str | None, Mark]
) -> list[tuple[FailoverResult, list[tuple[str, Markup]]]]:
    """Return each day with its lane, once for wide and once for narrow screens; all lanes have the same limits."""
    longest_s = max((call.elapsed_s for day in days for call in day.calls), default=1.0)
    found: list[tuple[FailoverResult, list[tuple[str, Markup]]]] = []
    for place, day in enumerate(days, start=1):
        lanes = {
            screen: draw_day(day, marks, width=width, longest_s=longest_s, name=f"day-{screen}-{place}")
            for screen, width in (("wide", WIDE), ("narrow", NARROW))
        }
        found.append((day, [(screen, Markup(svg)) for screen, svg in lanes.items() if svg]))  # noqa: S704
    return found


def _name_backends(contents: Contents) -> list[str | None]:
    """Return every backend that anything on the page is about, in the order of its appearance."""
    return [
        *(each.backend for group in contents.groups for each in group.standings),
        *(call.backend for day in contents.days for call in day.calls),
        *(answer.backend for example in contents.examples for answer in example.answers),
    ]
