"""What the documentation shows is run: programs, configuration, commands, paths and links."""

import ast
import asyncio
import importlib
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import vision_backends
import vision_backends.results
import vision_backends.search
import vision_backends.testing
from vision_backends.testing import SandboxServer

ROOT = Path(__file__).parents[1]

DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "benchmarks/README.md",
        *ROOT.glob("docs/**/*.md"),
    )
}

EXAMPLES = sorted(path.stem for path in ROOT.glob("docs/examples/*.py"))

HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)

NOTEBOOKS = sorted(path.stem for path in ROOT.glob("docs/notebooks/*.ipynb"))

HELP = dict(
    re.findall(
        r"^Usage: vision ?([a-z -]*?) ?[\[{](.*?)(?=^Usage:|\Z)",
        (ROOT / "tests" / "cli" / "help.txt").read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
)
"""What each command says of itself, by its name; ``tests/cli`` holds this to the program."""


def blocks(language):
    """Return all code blocks of one language, each named after its document."""
    found = []
    for name, text in DOCUMENTS.items():
        for number, code in enumerate(re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL), 1):
            found.append(pytest.param(code, id=f"{name}-{number}"))
    return found


def commands():
    """Return all lines that call the program."""
    lines = [line for block in blocks("console") for line in block.values[0].splitlines()]
    return sorted({line.partition("#")[0].strip() for line in lines if line.startswith("$ vision ")})


@pytest.fixture(scope="module")
def reference():
    """The module that makes pages from the code."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "site" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*arguments, cwd=ROOT, **variables):
    """Run a program as a reader would, and return what it has printed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("code", blocks("python"))
def test_the_programs_run(code):
    """Each block is a whole program, run from the checkout as a reader would."""
    run("-c", code)


@pytest.mark.parametrize("code", blocks('python title="openai"'))
def test_the_programs_of_the_openai_sdk_run_against_the_sandbox(code):
    """What the documentation says one comes from is what the SDK takes."""
    with SandboxServer() as server:
        run("-c", code, OPENAI_API_KEY=server.api_key, OPENAI_BASE_URL=server.url)
        assert server.requests


@pytest.mark.parametrize("library", ["litellm", "transformers", "sentence_transformers"])
def test_the_programs_of_other_libraries_import_what_these_have(library):
    """They need models or servers that are not here, and some of the libraries may not be here either."""
    (block,) = blocks(f'python title="{library}"')
    for node in ast.walk(ast.parse(block.values[0])):
        if isinstance(node, ast.ImportFrom) and importlib.util.find_spec(node.module):
            module = importlib.import_module(node.module)
            assert [each.name for each in node.names if not hasattr(module, each.name)] == []


def photos_in(folder):
    """Copy two photos into a folder."""
    for name in ("cat", "astronaut"):
        (folder / f"{name}.jpg").write_bytes((ROOT / f"benchmarks/photos/{name}.jpg").read_bytes())
    return str(folder)


def test_the_example_of_alternative_texts_runs(tmp_path):
    """It has a text for each image."""
    texts = json.loads(run("docs/examples/alt_texts.py", photos_in(tmp_path)))
    assert sorted(texts) == ["astronaut.jpg", "cat.jpg"]
    assert "cat" in texts["cat.jpg"]


def test_the_example_of_similar_photos_runs_twice(tmp_path):
    """The second time uses the index of the first."""
    folder = photos_in(tmp_path)
    first = run("docs/examples/similar_photos.py", folder, "benchmarks/photos/cat.jpg")
    (tmp_path / "astronaut.jpg").unlink()
    assert run("docs/examples/similar_photos.py", folder, "benchmarks/photos/cat.jpg") == first
    assert first.splitlines()[0] == "1.00  cat.jpg"


def test_the_example_of_a_nightly_job_asks_again_for_what_was_degraded(tmp_path):
    """And for nothing else: the server describes each image once."""
    folder = photos_in(tmp_path)
    assert run("docs/examples/nightly_job.py", folder, WAIT_S="0.1") == "0 best, 2 degraded, 0 failed\n"
    with SandboxServer() as server:
        variables = {"OPENAI_API_KEY": server.api_key, "OPENAI_BASE_URL": server.url}
        assert run("docs/examples/nightly_job.py", folder, **variables) == "2 best, 0 degraded, 0 failed\n"
        assert run("docs/examples/nightly_job.py", folder, **variables) == "0 best, 0 degraded, 0 failed\n"
        assert len(server.requests) == 2


def test_the_example_of_counting_objects_runs(tmp_path):
    """A row says how many of what are where, and who says so."""
    rows = run("docs/examples/count_objects.py", photos_in(tmp_path)).splitlines()
    assert rows[0] == "image,object,count,backend"
    assert "cat.jpg,cat,1,embedded" in rows


def test_the_example_of_a_web_service_answers():
    """It describes an image, says what is wrong with another body, and is ready."""
    spec = importlib.util.spec_from_file_location("web_service", ROOT / "docs" / "examples" / "web_service.py")
    service = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(service)
    asyncio.run(ask(service.application()))


async def ask(application):
    """Ask a web service everything that it answers."""
    import aiohttp
    from aiohttp.test_utils import TestServer

    async with TestServer(application) as server, aiohttp.ClientSession() as client:
        photo = (ROOT / "benchmarks/photos/cat.jpg").read_bytes()
        async with client.post(server.make_url("/describe"), data=photo) as reply:
            answer = await reply.json()
            assert (reply.status, answer["backend"], answer["degraded"]) == (200, "embedded", True)
        async with client.post(server.make_url("/describe"), data=b"no image") as reply:
            assert (reply.status, (await reply.json())["error"]) == (400, "invalid_image")
        async with client.get(server.make_url("/ready")) as reply:
            assert (reply.status, await reply.json()) == (200, {"backend": "embedded"})


def test_every_example_is_tested_and_belongs_to_a_recipe():
    """A script that nobody runs breaks unseen; one that no page shows is not found."""
    tests = Path(__file__).read_text(encoding="utf-8")
    pages = "".join(text for name, text in DOCUMENTS.items() if name.startswith("docs/cookbook/"))
    assert len(EXAMPLES) >= 5
    assert [name for name in EXAMPLES if f"{name}.py" not in tests] == []
    assert [name for name in EXAMPLES if f"(../examples/{name}.py)" not in pages] == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_notebook_runs(name):
    """Its cells in order, in its folder; what a cell ends with is shown as a notebook would, cards too."""
    cells = json.loads((ROOT / f"docs/notebooks/{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    program = ""
    for cell in cells:
        if cell["cell_type"] == "code":
            tree = ast.parse("".join(cell["source"]))
            if isinstance(tree.body[-1], ast.Expr):
                shown = ast.Call(ast.Name("print", ast.Load()), [tree.body[-1].value], [])
                tree.body[-1] = ast.Expr(shown)
            program += ast.unparse(ast.fix_missing_locations(tree)) + "\n"
    printed = run("-c", program, cwd=ROOT / "docs" / "notebooks")
    shown = [each["data"] for cell in cells for each in cell.get("outputs", []) if "data" in each]
    assert any("<figure" in "".join(data.get("text/html", [])) for data in shown)
    said = [line for cell in cells for each in cell.get("outputs", []) for line in each.get("text", ["picture"])]
    assert len(said) > 5
    assert len(printed.splitlines()) >= len(said)


@pytest.mark.parametrize("table", blocks("toml"))
def test_the_configuration_is_valid(table, tmp_path):
    """It makes a router."""
    from vision_backends import Router

    path = tmp_path / "vision.toml"
    path.write_text(table, encoding="utf-8")
    with Router.from_config(path) as router:
        assert router.explain("describe").chosen is not None


@pytest.mark.parametrize("line", commands())
def test_the_command_and_its_options_exist(line):
    """They are those of the program's own help."""
    words = line.split()[2:]
    if words[0].startswith("--"):
        command, options = "", words[:1]
    else:
        command = max((name for name in HELP if name and f"{' '.join(words)} ".startswith(f"{name} ")), key=len)
        options = [word for word in words if word.startswith("-")]
    assert [option for option in options if f"\n{option} " not in HELP[command]] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name, reference):
    """To a file of the checkout or a page that is made from the code, and to a heading of it where they name one."""
    made = {f"docs/{page}": text for page, text in reference.pages().items()}
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", DOCUMENTS[name]):
        path = os.path.normpath((ROOT / name).parent / target if target else ROOT / name)
        page = os.path.relpath(path, ROOT)
        assert page in made or Path(path).exists(), target
        text = made.get(page) or (Path(path).read_text(encoding="utf-8") if heading else "")
        headings = [re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in HEADING.findall(text)]
        assert not heading or heading in headings or f'<a id="{heading}">' in text, f"{target}#{heading}"


def test_every_page_is_reached_from_the_navigation():
    """A page that nothing links to is not read."""
    navigation = (ROOT / "docs/site/mkdocs.yml").read_text(encoding="utf-8")
    pages = [name.removeprefix("docs/") for name in DOCUMENTS if name.startswith("docs/")]
    pages += [f"notebooks/{name}.md" for name in NOTEBOOKS]
    assert [page for page in pages if not re.search(rf"[ :]{re.escape(page)}$", navigation, re.MULTILINE)] == []


def test_every_public_name_has_a_docstring_and_a_page(reference):
    """Of the package and of what it has for tests, and no page shows what is not there."""
    pages = "".join(reference.pages().values())
    for module in (vision_backends, vision_backends.results, vision_backends.search, vision_backends.testing):
        for name in module.__all__:
            assert f"::: {module.__name__}.{name}\n" in pages, name
            thing = getattr(module, name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                assert (thing.__doc__ or "").strip(), name
    for path in re.findall(r"^::: (\S+)$", pages, re.MULTILINE):
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name), path


def test_every_public_method_has_a_docstring():
    """The reference shows no name without words."""
    for name in vision_backends.__all__:
        thing = getattr(vision_backends, name)
        for member, value in vars(thing).items() if isinstance(thing, type) else ():
            method = value.__func__ if isinstance(value, classmethod | staticmethod) else value
            is_method = callable(method) or isinstance(method, property)
            if is_method and not member.startswith("_"):
                assert (method.__doc__ or "").strip(), f"{name}.{member}"


def test_the_page_of_keys_has_every_key_and_its_variable(reference):
    """Those of the schema, each with words and a variable."""
    from vision_backends.config.settings import KINDS, Settings

    page = reference.pages()["reference/configuration.md"]
    tables = reference.tables()
    assert {*KINDS, *Settings.model_fields} <= {*tables[""], *tables, "backends"}
    for table, keys in tables.items():
        for name, key in keys.items():
            assert key["description"], f"{table}.{name}"
            assert f'<a id="{f"{table}.{name}" if table else name}">' in page
    assert "`VISION_OPENAI__TIMEOUT_S`" in page
    assert "`clock`" not in page  # which only a program can pass


def test_the_page_of_commands_has_every_command_and_option(reference):
    """As the program's own help has them."""
    page = reference.pages()["reference/commands.md"]
    for command, text in HELP.items():
        assert f"`vision {command}`".replace(" `", "`") in page
        for option in re.findall(r"^(--[a-z-]+) ", text, re.MULTILINE):
            assert option in page.split(f"`vision {command}`".replace(" `", "`"), 1)[1], f"{command} {option}"


def test_the_map_names_every_room_and_recipes_name_files_that_are_there():
    """A file that is moved takes its recipe along."""
    text = DOCUMENTS["CONTRIBUTING.md"]
    rooms = [path.name for path in (ROOT / "vision_backends").iterdir() if (path / "__init__.py").exists()]
    assert [room for room in rooms if f"`{room}/`" not in text] == []
    paths = re.findall(r"`((?:vision_backends|tests|docs|benchmarks)/[\w/.]+)`", text)
    assert len(paths) > 20
    assert [path for path in paths if "NAME" not in path and not (ROOT / path).exists()] == []


def test_the_short_commands_are_those_of_the_project():
    """In CONTRIBUTING.md and in the hooks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    tasks = set(project["tool"]["poe"]["tasks"])
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `poe (\w+)`", DOCUMENTS["CONTRIBUTING.md"], re.MULTILINE)) == tasks
    assert set(re.findall(r"entry: poe (\w+)", hooks)) < tasks


def test_the_version_is_the_one_of_the_package():
    """The changelog has what is released, or what is coming."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"[{project['version']}]" in changelog or "[Unreleased]" in changelog
