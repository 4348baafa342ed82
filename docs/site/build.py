"""Builds the site: ``python docs/site/build.py``; fails on any warning.

This module decides which pages the site has, where their links to other files of the repository lead, and that no page
fetches anything from elsewhere. The pages are gathered in ``build/pages`` first, so that the generator, which sees that
folder only, can be another one tomorrow. What the reference says is decided in ``reference.py``.
"""

from __future__ import annotations

import argparse
import os
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path

import reference
from notebooks import page_of

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

PROJECT = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "benchmarks/README.md": "project/benchmarks.md",
}
"""Pages of the site that are files of the repository elsewhere, by their path there."""

COPIED = {".css", ".jpg", ".png", ".py", ".svg"}

SCRIPT = re.compile(r"^\[(\w+\.py)\]\(([^)\s]+\.py)\)$", re.MULTILINE)
"""A paragraph that is a link to a script only: the site shows the script there."""

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")
FETCHED = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^"'\s>]+""")


def pages() -> dict[str, str]:
    """Return the Markdown of every page by its path in the site."""
    written = {
        f"docs/{path.relative_to(ROOT / 'docs')}": path.read_text("utf-8") for path in (ROOT / "docs").rglob("*.md")
    }
    notebooks = {f"docs/{path.relative_to(ROOT / 'docs')}": page_of(path) for path in (ROOT / "docs").rglob("*.ipynb")}
    found = {place_of(path): linked(text, path) for path, text in (written | notebooks).items()}
    found |= {page: linked((ROOT / path).read_text("utf-8"), path) for path, page in PROJECT.items()}
    return found | reference.pages()


def place_of(path: str) -> str | None:
    """Return where the site has a file of the repository; None where it is no part of the site."""
    if path in PROJECT:
        return PROJECT[path]
    if path == "README.md":
        return "index.md"
    return path.removeprefix("docs/").replace(".ipynb", ".md") if path.startswith("docs/") else None


def linked(text: str, path: str) -> str:
    """Let the links of a file lead to pages of the site; what is none of them is named, not linked."""

    def followed(link: re.Match[str]) -> str:
        mark, words, target, heading = link.groups(default="")
        place = place_of(posixpath.normpath(posixpath.join(posixpath.dirname(path), target)))
        if place is None:
            return words
        return f"{mark}[{words}]({posixpath.relpath(place, posixpath.dirname(str(place_of(path))))}{heading})"

    def shown(script: re.Match[str]) -> str:
        code = (ROOT / path).parent.joinpath(script[2]).read_text("utf-8")
        return f'```python title="{script[1]}"\n{code}```'

    return LINK.sub(followed, SCRIPT.sub(shown, text))


def gather(folder: Path) -> None:
    """Write everything that the generator needs into a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for path in (ROOT / "docs").rglob("*"):
        if path.suffix in COPIED and HERE not in path.parents:
            _write(folder / "docs" / path.relative_to(ROOT / "docs"), path.read_bytes())
    for path, text in pages().items():
        _write(folder / "docs" / path, text.encode())
    shutil.copy(HERE / "mkdocs.yml", folder)
    shutil.copy(HERE / "docstrings.py", folder)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def fetching(site: Path) -> list[str]:
    """Return what pages would fetch from elsewhere when they are read."""
    return [f"{page}: {found}" for page in site.rglob("*.html") for found in FETCHED.findall(page.read_text("utf-8"))]


def main() -> int:
    """Build the site, and return the exit status."""
    parser = argparse.ArgumentParser(description="Build the site; any warning is an error.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "site", help="Where the site is written.")
    out, room = parser.parse_args().out.resolve(), ROOT / "build" / "pages"
    gather(room)
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}  # it is not the site that it warns of
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--config-file",
        str(room / "mkdocs.yml"),
    ]
    status = subprocess.run([*command, "--site-dir", str(out)], env=environment, check=False).returncode  # noqa: S603
    trouble = fetching(out)
    print(*trouble, *([] if status else [f"{out}/index.html"]), sep="\n")
    return status or bool(trouble)


if __name__ == "__main__":
    sys.exit(main())
