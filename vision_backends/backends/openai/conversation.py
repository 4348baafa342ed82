"""Asking one question and getting one answer, in whichever dialect the server has.

This module decides that an answer is usable before anybody sees it. It must not know what is asked, nor how bytes
travel.
"""

from __future__ import annotations

__all__ = []
