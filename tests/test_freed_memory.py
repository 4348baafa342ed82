"""Freed memory goes back to the system, where a C library keeps it."""

import platform
import subprocess
import sys

import pytest

HELD = """
import re
from pathlib import Path
from vision_backends.freed_memory import return_freed_memory

def resident_mb():
    return int(re.search(r"VmRSS:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1000

blocks = [bytes(2_000) for _ in range(50_000)]
last = blocks[-1]
del blocks  # what is below the last one stays with the process
held = resident_mb()
return_freed_memory()
print(held - resident_mb())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed memory, and can be told")
def test_memory_that_was_freed_goes_back_to_the_system():
    """Of 100 MB in small pieces, of which the last is still needed, nearly all."""
    run = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True, timeout=60)
    assert int(run.stdout) > 80
