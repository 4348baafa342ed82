"""How many broken lines the tests catch: mutants of the package's files, a seeded sample of each, run by their tests.

cosmic-ray breaks a copy of the package, one place at a time: a comparison, a number, a condition, a loop, a decorator.
A coverage run says which tests execute the broken line; those in the mirrored folder go first, and the first that fails
ends the trial. Needs ``pip install cosmic-ray`` in the development environment; 50 mutants of one file take some five
minutes.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from difflib import SequenceMatcher, unified_diff
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import cosmic_ray.plugins
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.number_replacer import NumberReplacer
from coverage import CoverageData
from parso.python.tree import Number as NumberLeaf

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from parso.tree import Leaf

ROOT = Path(__file__).parents[2]

ROOMS = ("routing", "health", "storage", "backends/openai")

TESTS = ("tests/routing", "tests/health", "tests/storage", "tests/backends/openai", "tests/engine", "tests/test_*.py")
"""Tests of these rooms and of what surrounds them, without those that say nothing about them (`UNRELATED`)."""

UNRELATED = ("test_documentation.py", "test_drawing.py", "test_public_names.py")

COMPARISONS = {"Eq": "NotEq", "Lt": "LtE Gt", "LtE": "Lt", "Gt": "GtE Lt", "GtE": "Gt", "Is": "IsNot", "IsNot": "Is"}

OPERATORS = (
    *(f"ReplaceComparisonOperator_{old}_{new}" for old, news in COMPARISONS.items() for new in news.split()),
    *(f"ReplaceBinaryOperator_{pair}" for pair in ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "Mod_Mul")),
    *("AddNot", "ReplaceUnaryOperator_Delete_Not", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue"),
    *("ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceBreakWithContinue", "ReplaceContinueWithBreak"),
    *("Number", "ZeroIterationForLoop", "RemoveDecorator"),
)

WITHOUT_EFFECT = re.compile(
    r"\s*(if TYPE_CHECKING|@(overload|dataclass|abstractmethod|functools.cache)|(async )?def |_log\b|\*,$|T = )"
)
"""Lines whose change has no effect, or matters to a type checker only."""

MOST_TESTS = 250
"""Most test functions to run for one mutant, for lines that nearly every test executes."""


class Number(NumberReplacer):
    """Changes small numbers by one, and others by a factor of ten: a limit of 1,001 is as good as one of 1,000."""

    def mutate(self, node: Leaf, index: int) -> Leaf:
        """Return another number."""
        value = ast.literal_eval(node.value)
        if abs(value) > 10:
            return NumberLeaf(repr(value * 10 if index == 0 else value // 10), node.start_pos, node.prefix)
        return NumberLeaf(repr(value + 1 if index == 0 else value - 1), node.start_pos, node.prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One broken place.

    Attributes:
        path: The file, from the root of the checkout.
        operator: How it is broken.
        code: The broken file.
        lines: Which lines of the whole file differ.
        diff: What differs, for people.
    """

    path: str
    operator: str
    code: str
    lines: tuple[int, ...]
    diff: str


def main() -> None:
    """Break lines, run their tests and print which mutants survived; exit with status 1 below the goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", help="files of the package; by default those of " + ", ".join(ROOMS))
    parser.add_argument("--per-file", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit-s", type=float, default=120.0, help="seconds for one mutant; one that hangs is caught")
    parser.add_argument("--goal", type=float, default=0.95)
    args = parser.parse_args()
    files = args.files or [
        str(path.relative_to(ROOT)) for room in ROOMS for path in sorted((ROOT / "vision_backends" / room).glob("*.py"))
    ]
    with tempfile.TemporaryDirectory() as name:
        trees = [_copy(Path(name, f"tree{number}")) for number in range(args.jobs)]
        tests_by_line = _coverage(trees[0], jobs=args.jobs)
        caught = tried = 0
        for path in files:
            mutants = _sample(path, args.per_file, seed=args.seed)
            survivors = list(_survivors(mutants, tests_by_line[path], trees, limit_s=args.limit_s))
            tried += len(mutants)
            caught += len(mutants) - len(survivors)
            print(f"{path}: {len(mutants) - len(survivors)} of {len(mutants)} caught", flush=True)
            for mutant in survivors:
                print(f"  survived: {mutant.operator}\n{mutant.diff}", flush=True)
    print(f"{caught} of {tried} caught: {caught / max(tried, 1):.1%} (goal {args.goal:.0%})")
    sys.exit(caught < args.goal * tried)


def _copy(folder: Path) -> Path:
    names = subprocess.run(
        ["git", "ls-files", "-z"],  # noqa: S607 — whichever git the user has
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in names.rstrip("\0").split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def _environment(tree: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(tree)}


def _write(path: Path, code: str) -> None:
    """Write a file of the package, and remove its bytecode, which might pass for current by its time and size."""
    path.write_text(code, encoding="utf-8")
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


def _tests(tree: Path) -> list[str]:
    found = (path.relative_to(tree) for pattern in TESTS for path in sorted(tree.glob(pattern)))
    return [str(path) for path in found if path.name not in UNRELATED]


def _coverage(tree: Path, *, jobs: int) -> dict[str, dict[int, set[str]]]:
    """Run all tests once; return which test functions execute which line of which file."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", str(jobs), "--dist", "loadfile"]
    command += ["--cov", "--cov-context=test", "--cov-report=", "--cov-fail-under=0", *_tests(tree)]
    started_s = time.monotonic()
    run = subprocess.run(command, cwd=tree, env=_environment(tree), check=False, capture_output=True, text=True)
    print(f"{run.stdout.splitlines()[-1]} ({time.monotonic() - started_s:.0f} s)", flush=True)
    if run.returncode:
        sys.exit(f"The tests must pass before lines are broken:\n{run.stdout[-3000:]}")
    data = CoverageData(str(tree / ".coverage"))
    data.read()
    found: dict[str, dict[int, set[str]]] = defaultdict(dict)
    for path in data.measured_files():
        for line, contexts in data.contexts_by_lineno(path).items():
            found[os.path.relpath(path, tree)][line] = {
                context.partition("|")[0].partition("[")[0] for context in contexts if context
            }
    return found


def _sample(path: str, count: int, *, seed: int) -> list[Mutant]:
    """Return a fixed sample of all places that can be broken."""
    source = (ROOT / path).read_text(encoding="utf-8")
    broken = [(name, code) for name in OPERATORS for code in _broken(source, name)]
    random.Random(f"{seed} {path}").shuffle(broken)  # noqa: S311 — repeatable on purpose
    mutants = (_mutant(path, source, name, code) for name, code in broken)
    return list(islice((mutant for mutant in mutants if mutant), count))


def _broken(source: str, name: str) -> Iterator[str]:
    """Yield the source once for each place that an operator finds, with that place broken."""
    operator = Number() if name == "Number" else cosmic_ray.plugins.get_operator(f"core/{name}")()
    codes = (mutate_code(source, operator, occurrence) for occurrence in itertools.count())
    return itertools.takewhile(bool, codes)


def _mutant(path: str, source: str, name: str, code: str) -> Mutant | None:
    """Return a mutant; None if the difference has no effect."""
    old, new = source.splitlines(), code.splitlines()
    changes = [
        change for change in SequenceMatcher(None, old, new, autojunk=False).get_opcodes() if change[0] != "equal"
    ]
    lines = tuple(line + 1 for _, start, end, _, _ in changes for line in range(start, max(end, start + 1)))
    is_signature = ", /, " in code and ", /, " not in source
    if not changes or is_signature or any(WITHOUT_EFFECT.match(old[line - 1]) for line in lines if line <= len(old)):
        return None
    diff = islice(unified_diff(old, new, lineterm="", n=1), 2, None)
    return Mutant(path=path, operator=name, code=code, lines=lines, diff="\n".join(f"    {line}" for line in diff))


def _survivors(
    mutants: Iterable[Mutant], tests_by_line: dict[int, set[str]], trees: list[Path], *, limit_s: float
) -> Iterator[Mutant]:
    free = list(trees)

    def try_one(mutant: Mutant) -> tuple[Mutant, bool]:
        tree = free.pop()
        try:
            return mutant, _is_caught(mutant, _chosen(mutant, tests_by_line), tree, limit_s=limit_s)
        finally:
            free.append(tree)

    with ThreadPoolExecutor(len(trees)) as pool:
        yield from (mutant for mutant, is_caught in pool.map(try_one, mutants) if not is_caught)


def _chosen(mutant: Mutant, tests_by_line: dict[int, set[str]]) -> list[str]:
    """Return the tests to run: those that execute the line, or the file if the line runs at import."""
    tests = set().union(*(tests_by_line.get(line, set()) for line in mutant.lines))
    tests = tests or set().union(*tests_by_line.values())
    room = f"tests/{Path(mutant.path).parent.relative_to('vision_backends')}/"
    name = Path(mutant.path).stem
    ordered = sorted(tests, key=lambda test: (name not in test.partition("::")[0], not test.startswith(room), test))
    return ordered[:MOST_TESTS]


def _is_caught(mutant: Mutant, tests: list[str], tree: Path, *, limit_s: float) -> bool:
    if not tests:
        return False
    path = tree / mutant.path
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "--timeout=30",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        *tests,
    ]
    _write(path, mutant.code)
    process = subprocess.Popen(
        command,
        cwd=tree,
        env=_environment(tree),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(limit_s) != 0
    except subprocess.TimeoutExpired:
        print(f"  hung or was slow for {limit_s:g} s, counted as caught: {mutant.operator}\n{mutant.diff}", flush=True)
        return True
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        _write(path, (ROOT / mutant.path).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
