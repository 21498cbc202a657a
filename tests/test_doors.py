"""
Rooms and doors: which module may import which, held by reading every import, those inside functions too.

The order is that of docs/design.md. When this fails, the door is wrong more often than the order: what two rooms
need both ways belongs in a third room below them.
"""

import ast
import json
import os
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "corpus_guard"

ROOMS = """
    errors taxonomy yamlfile shipped policy config
    findings verdicts
    sampling statistics
    places shards store
    text
    keywords
    classifiers
    screens
    sources
    executors
    review
    report
    progress
    steps
    demo doctor
    cli
""".split()
"""Every room, each above those it may import from."""

OWNERS = {
    "ahocorasick": {"keywords.engine"},
    "datasketch": {"screens.near_duplicate"},
    "fastapi": {"review.app"},
    "hyperscan": {"keywords.engine"},
    "langdetect": {"screens.language"},
    "matplotlib": {"report.pictures"},
    "ray": {"executors.ray"},
    "scipy": {"statistics", "classifiers.train"},  # exact intervals; and sparse matrices, in training only
    "tldextract": {"shards.documents"},
    "uvicorn": {"review.app"},
}
"""One file per heavy library."""

ONE_FILE = ("tokenizers", "torch", "transformers")
"""Heavy libraries with one file, wherever in the classifiers it is."""

NEVER_AT_THE_FRONT_DOOR = ["torch", "ray", "transformers", "scipy", "matplotlib", "fastapi", "datasketch", "langdetect"]


def modules():
    """Dotted name below the package (``report.model``) to file; a package goes by its own name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imported(path):
    """Every module a file imports, with the line; ``from a import b`` is ``a.b`` if that is one of ours, else ``a``."""
    package = ".".join(("corpus_guard", *path.relative_to(PACKAGE).parent.parts))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base]).rstrip(".")
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield (whole if whole.removeprefix("corpus_guard.") in MODULES else base), node.lineno


MODULES = modules()
DOORS = {
    name: sorted(
        {
            (target.removeprefix("corpus_guard."), line)
            for target, line in imported(path)
            if target.removeprefix("corpus_guard.") in MODULES and target.startswith("corpus_guard.")
        }
    )
    for name, path in MODULES.items()
}


def room(name):
    return name.split(".")[0]


def test_every_module_is_in_a_room_of_the_map():
    assert {room(name) for name in MODULES if name} <= set(ROOMS)


def test_a_room_opens_doors_only_to_rooms_above_it():
    wrong = [
        f"corpus_guard/{name.replace('.', '/')} line {line} imports {target}, which is below it"
        for name, doors in DOORS.items()
        for target, line in doors
        if name and ROOMS.index(room(target)) > ROOMS.index(room(name))
    ]

    assert wrong == []


def test_no_module_needs_itself_by_way_of_others():
    try:
        list(TopologicalSorter({name: {target for target, _ in doors} for name, doors in DOORS.items()}).static_order())
    except CycleError as circle:
        pytest.fail("a circle of imports: " + " -> ".join(circle.args[1]))


@pytest.mark.parametrize("library", OWNERS)
def test_a_heavy_library_has_one_file(library):
    assert users(library) <= OWNERS[library]


@pytest.mark.parametrize("library", ONE_FILE)
def test_a_model_library_has_one_file(library):
    assert len(users(library)) <= 1
    assert {room(name) for name in users(library)} <= {"classifiers"}


def users(library):
    """Modules that import *library*, in whatever way."""
    return {
        name for name, path in MODULES.items() for target, _ in imported(path) if target.split(".")[0] == library
    }


def test_there_is_no_room_for_odds_and_ends():
    odd = {"utils", "util", "helpers", "helper", "common", "misc"}

    assert odd.isdisjoint(part for name in MODULES for part in name.split("."))


def loaded_after(program):
    """The heavy libraries that a fresh interpreter has loaded after *program*."""
    names = json.dumps(NEVER_AT_THE_FRONT_DOOR)
    told = f"import sys\n{program}\nprint('LOADED', [name for name in {names} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", told],
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rpartition("LOADED ")[2].strip()


def test_importing_the_package_loads_no_heavy_library():
    assert loaded_after("import corpus_guard") == "[]"


@pytest.mark.skipif("cli" not in MODULES, reason="there is no command line yet")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["report", "--help"]])
def test_asking_for_help_loads_no_heavy_library(arguments):
    program = (
        f"sys.argv[1:] = {arguments!r}\n"
        "from corpus_guard.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code"
    )

    assert loaded_after(program) == "[]"
