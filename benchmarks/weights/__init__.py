"""Models of the published architectures and true sizes, with random weights: their time is real, their quality none."""

from .checkpoints import Role, make_checkpoint

__all__ = ["Role", "make_checkpoint"]
