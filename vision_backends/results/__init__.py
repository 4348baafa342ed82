"""Answers as pictures, tables and data sets: what they look like, and which files of other programs they become.

The modules of this package decide how answers are shown and written. They must not know who gave them, nor the classes
of the answers, which stand above: they go by the fields. Importing them imports no library of others.
"""

from vision_backends.results.datasets import save_coco, save_voc, save_yolo, to_coco
from vision_backends.results.tables import save_csv, to_pandas, to_polars, to_rows

__all__ = [
    "save_coco",
    "save_csv",
    "save_voc",
    "save_yolo",
    "to_coco",
    "to_pandas",
    "to_polars",
    "to_rows",
]
