"""How fast each rung answers: from a cold start, warm, and with many callers at once; and where the time goes.

This module decides in which order things are measured. It must not know how any of them is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..datasets import open_dataset
from ..rungs import open_router
from .cold import measure_cold
from .load import measure_loads
from .stage import staged
from .subjects import meet
from .summary import summed_up
from .warm import measure_warm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..datasets import Photo
    from ..plan import Plan
    from ..run_file import RunFile
    from .stage import Stage
    from .subjects import Subject

__all__ = ["measure"]


def measure(plan: Plan, run_file: RunFile) -> None:
    """Time all rungs with the images of the data set, and write how fast they are.

    A rung that costs more than is left is measured no further, and the run says so; the others go on.

    Raises:
        ConfigError: A rung cannot be made.
        InvalidRequestError: The data set cannot be read.
    """
    dataset = open_dataset(plan.dataset, limit=plan.limit, seed=plan.seed)
    run_file.name_photos(dataset.fingerprint())
    with staged(plan) as stage:
        subjects = _measure(stage, run_file, dataset.photos)
    for subject in subjects:
        run_file.add_latency(summed_up(subject, stage, run_file))
        if subject.spent:
            run_file.stop(f"Latency of {subject.backend}: {subject.declined}")


def _measure(stage: Stage, run_file: RunFile, photos: Sequence[Photo]) -> list[Subject]:
    plan = stage.plan
    with open_router(plan, run_file) as router:
        subjects = meet(stage, router, run_file, photos[0])
        awake = [subject for subject in subjects if subject.declined is None]
        measure_warm(plan, router, run_file, awake, photos)
        measure_loads(plan, router, run_file, awake, photos)
    measure_cold(plan, run_file, awake, photos[0])
    return subjects
