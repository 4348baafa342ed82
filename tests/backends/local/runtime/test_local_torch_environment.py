"""Torch belongs to the application, which may be importing it just now."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys, threading
from vision_backends.backends.local.runtime.torch_environment import free_device_memory

importing = threading.Thread(target=lambda: __import__("torch"))
importing.start()
calls = 0
while importing.is_alive():
    calls += "torch" in sys.modules
    free_device_memory()
    importing.join(0.005)
free_device_memory()
print("during the import" if calls else "too late")
"""


def test_memory_can_be_given_back_while_torch_is_imported():
    """As a program does that is closed right after its warm-up has begun."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=100)
    assert (done.stdout, done.stderr) == ("during the import\n", "")
