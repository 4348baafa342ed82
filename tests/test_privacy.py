"""What the package leaves behind on the machine, and in whose hands."""

import os
import subprocess
import sys

STATE = ".cache/vision-backends/state.sqlite"


def test_an_offline_description_leaves_nothing_but_its_own_state(tmp_path, photos):
    """No library underneath writes a device id, a log or a cache of its own to the user's home."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_"))}
    run = subprocess.run(
        [sys.executable, "-m", "vision_backends", "describe", str(photos / "cat.jpg")],
        env=environment | {"HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "cat" in run.stdout
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left - {f"{STATE}-wal", f"{STATE}-shm"} == {STATE}  # SQLite's companions stay where closing was too slow
