"""``python -m vision_backends.testing.sandbox``."""

from __future__ import annotations

import sys

from vision_backends.testing.sandbox.command import main

sys.exit(main())
