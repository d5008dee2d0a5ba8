"""The architecture: what may import what, what a part is, and what the shipped files
hold.
"""

import ast
import importlib
import os
import re
import runpy
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

import pytest

from brainhive_cli.cli.table import COMMANDS
from brainhive_cli.core.recipes import parts
from brainhive_cli.core.recipes.recipe import shipped_recipes
from brainhive_cli.core.results.facts import ROOMS
from tools import keys_page
from tools.house import (
    MODULES,
    PACKAGE,
    count_code_lines,
    list_idle_keys,
    list_imports,
    read_door,
)

CHECKOUT = Path(__file__).resolve().parents[1]
SHELVES = {parts.shelf_module_name(shelf) for shelf in parts.SHELVES}
LAYERS = (
    *(
        {""},
        {"core"},
        {"measurement"},
        {"demo", "models"},
        {"data"},
        {"reports"},
        {"training"},
    ),
    *({"aligner"}, {"evaluation"}, {"commands"}, {"cli"}, {"api"}, {"app"}),
    {"__main__"},
)
"""The rooms from the ground up; a module imports from its own room and from those
below.
"""
OPENED = (
    "cells",
    "model",
    "model_files",
    "recipe",
    "references",
    "stages",
    "terms",
    "trained",
    "training.batches",
    "training.run",
)
"""Modules and rooms of alignment that evaluation may import: recipes and their cells,
finished runs and their models, what calibrate fits models with, and trainings as a
step of its runs.
"""
RECIPES = sorted(shipped_recipes().rglob("*.yaml"))
LIBRARIES = {
    "torch",
    "diffusers",
    "transformers",
    "timm",
    "accelerate",
    "h5py",
    "numpy",
    "yaml",
    "PIL",
}
HEAVY = {*LIBRARIES, "pydantic"}


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    """The code of each module."""
    return {module: ast.parse(path.read_text()) for module, path in MODULES.items()}


@pytest.fixture(scope="module")
def imports(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Which modules of ours each module imports."""
    return {module: {*list_imports(module, tree)} for module, tree in trees.items()}


def shelf_or_room(module: str) -> str:
    """Name the shelf that a module lies on, or the folder of its room."""
    shelves = (shelf for shelf in SHELVES if f"{module}.".startswith(f"{shelf}."))
    return next(shelves, ".".join(module.split(".")[:3]))


def room(module: str) -> str:
    """Name the folder or file below the package that a module belongs to."""
    return "".join(module.split(".")[1:2])


def layer(module: str) -> int:
    return next(height for height, rooms in enumerate(LAYERS) if room(module) in rooms)


def test_imports_point_down(imports: dict[str, set[str]]) -> None:
    """To the own room and those below; from no shelf, kind of training or evaluation to
    another.
    """
    for module, imported in (
        (m, other) for m, others in imports.items() for other in others
    ):
        message = f"{module} imports {imported}"
        assert layer(imported) < layer(module) or room(imported) == room(module), (
            f"{message}, which is no lower"
        )
        here, there = map(shelf_or_room, (module, imported))
        assert here == there or not {here, there} <= SHELVES, (
            f"{message}: another shelf"
        )
        are_siblings = room(module) == room(imported) and room(module) in (
            "training",
            "evaluation",
        )
        assert here == there or not are_siblings, f"{message}: another {room(module)}"
        is_guest = (
            there == f"{PACKAGE.name}.training.alignment"
            and room(module) == "evaluation"
        )
        opened = imported.removeprefix(f"{PACKAGE.name}.training.alignment.")
        assert not is_guest or opened.startswith(OPENED), message
        names = imported.split(".")
        packages = [
            ".".join(names[:i])
            for i, name in enumerate(names)
            if re.match("_(?!_)", name)
        ]
        assert all(f"{module}.".startswith(f"{package}.") for package in packages), (
            f"{message}: private"
        )


KIND_OF_PRIOR_OR_GENERATOR = re.compile(
    r"(?<!dif)fusion[_-]prior|FusionPrior|sdxl(?!-turbo)|SDXL|versatile[_-]diffusion|sd15|\.(?:unet|vae|scheduler)\b|[\"'](?:identity|chain)[\"']"
)


def test_no_command_or_domain_names_a_kind_of_prior_or_generator() -> None:
    for module in (
        m
        for m in MODULES
        if room(m) in ("commands", "evaluation", "training", "reports")
    ):
        found = KIND_OF_PRIOR_OR_GENERATOR.findall(MODULES[module].read_text())
        assert not found, (
            f"{module} knows of {found}: put it into priors/ or generators/"
        )


def test_templates_name_no_kind_of_part() -> None:
    """A part says what it is called in a sentence (`called` of its Config)."""
    shelves = ("backbones", "generators", "priors", "normalisations")
    kinds = {kind for shelf in shelves for kind in parts.list_kinds(shelf)}
    templates = [
        path
        for path in (PACKAGE / "reports").rglob("*.*")
        if path.suffix in (".txt", ".html", ".md", ".tex", ".yaml")
    ]
    assert len(templates) > 30
    for path in templates:
        quoted = re.findall(r"[\"']([\w-]+)[\"']", path.read_text())
        assert not kinds & {*quoted}, f"{path.name} names {kinds & {*quoted}}"


def test_no_module_imports_itself_through_others(
    imports: dict[str, set[str]],
) -> None:
    left = dict(imports)
    while free := {
        module for module, others in left.items() if not others & left.keys()
    }:
        left = {module: others for module, others in left.items() if module not in free}
    assert not left, "modules in or above a circle"


MAX_ARROWS = {"core": 12, "reports": 8, "data": 45, "training.alignment": 3}
"""Most pairs of rooms inside a folder of which one imports the other; its loose files
are one room, below all others.
"""


def rooms_inside(
    imports: dict[str, set[str]], folder: str
) -> dict[tuple[str, str], list[str]]:
    """List the imports between the rooms inside a folder, by the names of both."""
    start = f"{PACKAGE.name}.{folder}."
    arrows: dict[tuple[str, str], list[str]] = {}
    for module, others in imports.items():
        for other in others:
            if not (module.startswith(start) and other.startswith(start)):
                continue
            rooms = []
            for name in (module, other):
                first = name.removeprefix(start).split(".")[0]
                is_room = (PACKAGE / folder.replace(".", "/") / first).is_dir()
                rooms.append(first if is_room else "")
            if rooms[0] != rooms[1]:
                arrows.setdefault((rooms[0], rooms[1]), []).append(
                    f"{module} → {other}"
                )
    return arrows


@pytest.mark.parametrize("folder", MAX_ARROWS)
def test_imports_between_rooms_point_one_way(
    imports: dict[str, set[str]], folder: str
) -> None:
    arrows = rooms_inside(imports, folder)
    assert 0 < len(arrows) <= MAX_ARROWS[folder], sorted(arrows)

    # take away the rooms that import none of those that are left
    left = {room for pair in arrows for room in pair}
    while left:
        free = {
            room
            for room in left
            if not any(one == room and other in left for one, other in arrows)
        }
        circle = [arrows[pair] for pair in arrows if {*pair} <= left]
        assert free, f"rooms that import each other: {circle}"
        left -= free


NOT_AT_A_DOOR = {"audit", "build_store_path", "model_input"}
"""Names of two things in a room, of which one may be a module."""


def test_a_room_is_entered_through_its_door(trees: dict[str, ast.Module]) -> None:
    """Modules outside a room import its names from the room, not from its modules."""
    doors = {module: read_door(module) for module in MODULES if read_door(module)}
    assert len(doors) > 20
    used_names: dict[str, set[str]] = {room: set() for room in doors}
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom):
                continue
            source = str(node.module)
            names = {alias.name for alias in node.names}
            used_names.get(source, set()).update(names)
            room = source.rpartition(".")[0]
            is_outside = module.rpartition(".")[0] != room
            is_file = source in MODULES and MODULES[source].stem != "__init__"
            if room in doors and is_outside and is_file:
                assert names <= NOT_AT_A_DOOR, (
                    f"{module} imports from {source}: import from {room}, and list "
                    f"the name in {MODULES[room].with_suffix('.pyi')}"
                )
    for room, door in doors.items():
        assert {*door} <= used_names[room], f"a name of {room} that no room imports"


def test_data_has_no_loose_file() -> None:
    files = [path.name for path in (PACKAGE / "data").iterdir() if path.is_file()]
    assert files == ["__init__.py"]


def mirrors_a_module(test: Path) -> bool:
    """Tell whether a test file lies where the module that it tests does.

    `tests/core/runs/test_run_folder.py` and
    `tests/core/runs/run_folder/test_moved_home.py` both test
    `brainhive_cli/core/runs/run_folder.py`. Tests of tools and benchmarks mirror these
    folders. Tests of docs mirror its pages and folders.
    """
    below = test.relative_to(CHECKOUT / "tests")
    page = CHECKOUT / below.parent / test.stem.removeprefix("test_").replace("_", "-")
    if below.parts[0] == "docs" and (
        page.is_dir() or page.with_suffix(".md").is_file()
    ):
        return True
    for root in (PACKAGE, CHECKOUT):
        module = root / below.parent / test.stem.removeprefix("test_")
        for path in (module, root / below.parent):
            contract = path / "__init__.py"
            has_contract = contract.is_file() and count_code_lines(contract) > 20
            if path.with_suffix(".py").is_file() or has_contract:
                return True
    return False


def test_tests_mirror_the_package() -> None:
    tests = [*(CHECKOUT / "tests").rglob("test_*.py")]
    others = [test.name for test in tests if not mirrors_a_module(test)]
    assert len(tests) > 400 and len(others) <= len(tests) / 20, others


def test_a_module_opens_by_saying_what_it_is_for(
    trees: dict[str, ast.Module],
) -> None:
    for module, tree in trees.items():
        opening = (ast.get_docstring(tree) or "").partition("\n\n")[0]
        assert opening.endswith(".") and len(opening.splitlines()) <= 2, module


def test_only_the_console_writes_to_the_terminal(
    trees: dict[str, ast.Module],
) -> None:
    writes = {"typer.echo", "typer.secho", "sys.stdout", "sys.stderr"}
    for module in trees.keys() - {"brainhive_cli.core.base.console"}:
        for node in ast.walk(trees[module]):
            match node:
                case ast.Name(name):
                    assert name != "print", module
                case ast.Attribute(ast.Name(library), name):
                    assert f"{library}.{name}" not in writes, module


def test_every_part_exports_its_config_and_a_tiny_instance() -> None:
    """What parts do is tested in `test_devices.py`."""
    for shelf, kind in [
        (name, kind) for name in parts.SHELVES for kind in parts.list_kinds(name)
    ]:
        part = parts.load(shelf, kind)
        assert (
            issubclass(part.Config, parts.Config) and type(part.TINY) is part.Config
        ), kind
        written = part.TINY.model_dump(mode="json")
        assert parts.resolve(shelf, written).model_dump(mode="json") == written, kind
        assert [
            name
            for name, knob in part.Config.model_fields.items()
            if not knob.description
        ] == [], kind


def test_every_shipped_recipe_is_the_same_when_it_is_read_again() -> None:
    for path in RECIPES:
        pipeline = importlib.import_module(
            f"brainhive_cli.commands.{path.stem.replace('-', '_')}"
        )
        recipe = pipeline.Recipe.resolve(path.stem, str(path), {}, [])
        again = type(recipe).model_validate(recipe.model_dump(mode="json"))
        assert again.fingerprint() == recipe.fingerprint(), path


def test_every_file_that_the_page_on_developing_names_exists() -> None:
    named = re.findall(
        r"`([a-z_/]+\.py)`", (CHECKOUT / "docs/developing.md").read_text()
    )
    assert (
        len(named) > 20
        and [name for name in named if not (PACKAGE / name).is_file()] == []
    )


def test_every_command_has_its_room_and_file() -> None:
    assert [command.name for command in COMMANDS] == [*ROOMS], REGENERATE
    commands = {name.replace("-", "_") for name in ROOMS}
    files = {
        path.stem for path in (PACKAGE / "commands").glob("*.py") if path.stem[0] != "_"
    }
    recipes = {path.stem.replace("-", "_") for path in shipped_recipes().glob("*.yaml")}
    # a command without a default recipe begins with the defaults of its keys
    assert commands == files - {"facts"} and recipes <= commands
    assert [name for name in ROOMS.values() if not (PACKAGE / name).is_dir()] == []


def start(words: list[str], **environment: str) -> tuple[str, set[str]]:
    """Run a command line in a new process; return what it shows, and the packages that
    it has imported.
    """
    program = """if True:
        import sys
        from brainhive_cli.app import app
        try:
            app(prog_name="brainhive")
        finally:
            print("IMPORTED:", *{name.split(".")[0] for name in sys.modules})
    """
    variables = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    shown, _, imported = done.stdout.partition("IMPORTED:")
    return shown + done.stderr, set(imported.split())


def test_help_and_completion_import_nothing_heavy() -> None:
    line = "brainhive embed --encoders vae,clip-h"
    typed = {
        "_BRAINHIVE_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": "3",
    }
    for words, environment, shown in (
        (["train-align", "--help"], {}, "--mode"),
        ([], typed, "vae,clip-h14"),
    ):
        told, imported = start(words, **environment)
        assert shown in told
        # Typer imports pydantic for the help of a command
        assert (
            "typer" in imported and imported & (LIBRARIES if words else HEAVY) == set()
        )


def test_commands_load_no_library_that_they_do_not_use(
    world: Path, evaluation_result: Any, tmp_path: Path
) -> None:
    """Not even numpy to show runs."""
    page = f"to={tmp_path / 'page.html'}"
    for words, needed in (
        (["runs", "show", evaluation_result.folder.name], {"yaml"}),
        (
            # its checklist reads signal stores
            ["report", str(evaluation_result.folder), page],
            {"yaml", "PIL", "numpy", "matplotlib", "h5py"},
        ),
    ):
        shown, imported = start(words)
        assert "error:" not in shown and "folder: /" in shown, shown
        assert (
            imported & {*LIBRARIES, "torchvision", "scipy", "matplotlib", "pandas"}
            == needed
        ), words


def test_checks_and_finished_runs_load_no_torch(
    align_overrides: tuple[str, ...], trained_run: Path, evaluation_result: Any
) -> None:
    training = ["train-align", *align_overrides, "run.device=cpu"]
    evaluation = [
        "eval-retrieval",
        f"run={trained_run}",
        "sheet_rows=0",
        "run.device=cpu",
    ]
    for line, folder in (
        (training, trained_run),
        (evaluation, evaluation_result.folder),
    ):
        for words, fact in (([*line, "--check"], "Inputs"), (line, folder.name)):
            shown, imported = start(words)
            assert fact in shown and "error:" not in shown, shown
            assert imported & {"torch", "scipy", "transformers"} == set(), words


REGENERATE = "run python -m tools.regenerate, and read the difference"


def test_completions_are_current() -> None:
    build = runpy.run_path(str(CHECKOUT / "completions/build.py"))
    written = {name: build["script"](shell) for shell, name in build["SCRIPTS"].items()}
    written["encoders.txt"] = build["encoders"]()
    written["keys.txt"] = build["keys"]()
    written["commands.json"] = build["commands"]()
    for name, text in written.items():
        assert (CHECKOUT / "completions" / name).read_text() == text, REGENERATE


def test_the_pages_of_recipe_keys_are_current() -> None:
    current = {path.name: path.read_text() for path in keys_page.FOLDER.iterdir()}
    assert current == keys_page.write_pages(), REGENERATE


def test_every_key_has_somebody_who_sets_it() -> None:
    assert list_idle_keys() == [], (
        "make it a constant with its source, or show in a guide a line that sets it"
    )


def test_a_name_of_a_type_has_one_meaning(trees: dict[str, ast.Module]) -> None:
    """Classes and aliases of types, such as `Amount = int | list[str]`."""
    homes: dict[str, set[str]] = {}
    for module, tree in trees.items():
        names = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        for node in tree.body:
            if isinstance(node, ast.Assign):
                names += [target.id for target in node.targets if is_type_name(target)]
        for name in names:
            homes.setdefault(name, set()).add(module)

    # each command has a recipe and a job, each part a Config
    ambiguous = {
        name: sorted(modules) for name, modules in homes.items() if len(modules) > 1
    }
    for name in ("Config", "Recipe", "Job"):
        del ambiguous[name]
    assert ambiguous == {}


def is_type_name(target: ast.expr) -> TypeGuard[ast.Name]:
    """Tell whether an assigned name is written as types are, such as `NameList`."""
    return isinstance(target, ast.Name) and bool(re.match("[A-Z][a-z]", target.id))


def test_a_call_that_a_library_will_break_fails_the_suite():
    """Libraries name the caller of what they will change in a FutureWarning."""
    for module, is_ours in (("brainhive_cli.models.electrodes", True), ("mne", False)):
        call = partial(warnings.warn_explicit, "gone", FutureWarning, "x.py", 1)
        if is_ours:
            with pytest.raises(FutureWarning):
                call(module=module)
        else:
            call(module=module)
