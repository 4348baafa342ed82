"""This package beside three others on the same servers: A in trouble above, B well below.

``python benchmarks/peers/run.py --install`` makes an environment for each of the others first, in a folder outside
of this repository. Each is tried with its defaults, and with the best settings that somebody who knows it would choose.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from libraries import FOLDER, LIBRARIES, Library, install

from benchmarks.sandbox_process import RemoteSandbox, client_environment

HERE = Path(__file__).parent

TRIAL_S = 150.0


FAULTS = {
    "quota": "quota_gone",
    "retry_after": "rate_limited",
    "broken_image": "invalid_image",
    "stampede": "quota_gone",
    "healthy": "healthy",
}

COLUMNS = (
    ("quota: requests to A, first call", "quota", "first_requests", "{:.0f}"),
    ("first answer", "quota", "first_s", "{:.3g} s"),
    ("requests per later call", "quota", "next_requests_per_call", "{:.3g}"),
    ("later answers", "quota", "next_s", "{:.3g} s"),
    ("Retry-After: 20", "retry_after", "seconds", "{:.3g} s"),
    ("broken image (400)", "broken_image", "outcome", "{}"),
    ("50 callers as the cooldown ends: requests to A", "stampede", "requests", "{:.0f}"),
    ("added to its SDK when A is well", "healthy", "added_s", "{:.2g} s"),
    ("import", "healthy", "import_s", "{:.2g} s"),
)


def main() -> None:
    """Install where asked, try everything, and print the table."""
    parser = argparse.ArgumentParser(description="This package and its peers, side by side.")
    parser.add_argument("--install", action="store_true", help="make the environments of the peers first")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    if options.install:
        for library in LIBRARIES:
            install(library, options.folder)
    rows = []
    with RemoteSandbox.started() as a, RemoteSandbox.started() as b:
        for library in LIBRARIES:
            for settings in library.settings:
                print(f"{library.name}, {settings} …", file=sys.stderr)
                rows.append(try_all(library, settings, options.folder, a, b))
    print(json.dumps(rows, indent=2) if options.json else table(rows))


def try_all(library: Library, settings: str, folder: Path, a: RemoteSandbox, b: RemoteSandbox) -> dict[str, Any]:
    """Return what came of each trial of one library with one kind of settings."""
    python = library.python(folder)
    row: dict[str, Any] = {"library": library.name, "settings": settings, "trials": {}}
    if not python.exists():
        row["missing"] = "not installed"
        return row
    for name, fault in FAULTS.items():
        for sandbox in (a, b):
            sandbox.reset()
        a.play(fault)
        words = [str(python), str(HERE / "trial.py"), library.module, settings, name, a.url, b.url]
        row["trials"][name] = try_one(words)
    return row


def try_one(command: list[str]) -> dict[str, Any]:
    """Run one trial in a process of its own and return its figures, or why there are none."""
    try:
        run = subprocess.run(
            command, env=client_environment(), capture_output=True, text=True, timeout=TRIAL_S, cwd=HERE, check=True
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {TRIAL_S:.0f} s"}
    except subprocess.CalledProcessError as error:
        return {"failed": (error.stderr.strip().splitlines() or ["no message"])[-1][:200]}
    figures: dict[str, Any] = json.loads(run.stdout.strip().splitlines()[-1])
    return figures


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table in Markdown, a column for each library and kind of settings."""
    heads = [f"{row['library']}, {row['settings']}" for row in rows]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(rows) + 1) + "|"]
    for title, trial, key, form in COLUMNS:
        cells = []
        for row in rows:
            figures = row["trials"].get(trial, {})
            cells.append(form.format(figures[key]) if key in figures else figures.get("failed", row.get("missing", "")))
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
