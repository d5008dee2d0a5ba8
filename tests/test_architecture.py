"""The architecture: what may import what, what a part is, and what the shipped files
hold.
"""

import ast
import graphlib
import importlib
import os
import re
import runpy
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import pytest

from brainhive_cli.cli.table import COMMANDS
from brainhive_cli.core.recipes import parts, shipped_recipes
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
    {""},
    {"core"},
    {"measurement"},
    {"demo", "models"},
    {"data"},
    {"reports"},
    {"training"},
    {"aligner"},
    {"evaluation"},
    {"commands"},
    {"cli"},
    {"api"},
    {"app"},
    {"__main__"},
)
"""Rooms from the ground up. A module imports from its own room and from rooms below."""
OPEN_TO_EVALUATION = (
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
"""Modules and rooms of training.alignment that evaluation may import."""
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
HEAVY = LIBRARIES | {"pydantic"}


@pytest.fixture(scope="module")
def trees():
    """The code of each module."""
    return {module: ast.parse(path.read_text()) for module, path in MODULES.items()}


@pytest.fixture(scope="module")
def imports(trees):
    """The modules of the package that each module imports."""
    return {module: set(list_imports(module, tree)) for module, tree in trees.items()}


def shelf_or_room(module):
    """Name the shelf that a module lies on, or the folder of its room."""
    shelves = (shelf for shelf in SHELVES if f"{module}.".startswith(f"{shelf}."))
    return next(shelves, ".".join(module.split(".")[:3]))


def room(module):
    """Name the folder or file below the package that a module belongs to."""
    return "".join(module.split(".")[1:2])


def layer(module):
    return next(height for height, rooms in enumerate(LAYERS) if room(module) in rooms)


def test_imports_point_down(imports):
    """A module imports from its own room and from lower rooms."""
    for module, imported_modules in imports.items():
        for imported in imported_modules:
            is_lower = layer(imported) < layer(module)
            message = f"{module} imports {imported}, which is no lower"
            assert is_lower or room(imported) == room(module), message


def test_shelves_trainings_and_evaluations_are_apart(
    imports,
):
    """No shelf, kind of training or kind of evaluation imports another one."""
    for module, imported_modules in imports.items():
        for imported in imported_modules:
            source, target = shelf_or_room(module), shelf_or_room(imported)
            if source == target:
                continue
            message = f"{module} imports {imported}"
            assert not {source, target} <= SHELVES, f"{message}: another shelf"
            if room(module) in ("training", "evaluation"):
                assert room(imported) != room(module), f"{message}: another room"


def test_evaluation_imports_only_open_modules_of_alignment(
    imports,
):
    alignment = f"{PACKAGE.name}.training.alignment"
    for module, imported_modules in imports.items():
        if room(module) != "evaluation":
            continue
        for imported in imported_modules:
            if shelf_or_room(imported) == alignment:
                name = imported.removeprefix(f"{alignment}.")
                assert name.startswith(OPEN_TO_EVALUATION), f"{module} imports {name}"


def test_a_private_module_is_imported_beside_it_only(
    imports,
):
    """A private module, such as `models.backbones._blocks`, belongs to its folder."""
    for module, imported_modules in imports.items():
        for imported in imported_modules:
            names = imported.split(".")
            for depth, name in enumerate(names):
                if re.match("_(?!_)", name):
                    owner = ".".join(names[:depth])
                    assert f"{module}.".startswith(f"{owner}."), (module, imported)


KIND_OF_PRIOR_OR_GENERATOR = re.compile(
    r"(?<!dif)fusion[_-]prior|FusionPrior|sdxl(?!-turbo)|SDXL|versatile[_-]diffusion|sd15|\.(?:unet|vae|scheduler)\b|[\"'](?:identity|chain)[\"']"
)


def test_no_command_or_domain_names_a_kind_of_prior_or_generator():
    for module, path in MODULES.items():
        if room(module) in ("commands", "evaluation", "training", "reports"):
            kinds = KIND_OF_PRIOR_OR_GENERATOR.findall(path.read_text())
            assert not kinds, f"{module}: move {kinds} into priors/ or generators/"


def test_templates_name_no_kind_of_part():
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
        assert not kinds.intersection(quoted), path.name


def test_no_module_imports_itself_through_others(
    imports,
):
    # TopologicalSorter raises CycleError with the modules of a circle
    graphlib.TopologicalSorter(imports).prepare()


MAX_ARROWS = {"core": 12, "reports": 8, "data": 45, "training.alignment": 3}
"""Largest number of pairs of rooms in a folder of which one imports the other.

The loose files of the folder are one room.
"""


def rooms_inside(imports, folder):
    """List the imports between the rooms inside a folder, by the names of both."""
    start = f"{PACKAGE.name}.{folder}."
    arrows = {}
    for module, imported_modules in imports.items():
        for imported in imported_modules:
            if not (module.startswith(start) and imported.startswith(start)):
                continue
            rooms = []
            for name in (module, imported):
                room_name = name.removeprefix(start).split(".")[0]
                is_room = (PACKAGE / folder.replace(".", "/") / room_name).is_dir()
                rooms.append(room_name if is_room else "")
            if rooms[0] != rooms[1]:
                arrows.setdefault((rooms[0], rooms[1]), []).append(
                    f"{module} → {imported}"
                )
    return arrows


@pytest.mark.parametrize("folder", MAX_ARROWS)
def test_imports_between_rooms_point_one_way(imports, folder):
    arrows = rooms_inside(imports, folder)
    assert 0 < len(arrows) <= MAX_ARROWS[folder], sorted(arrows)

    # TopologicalSorter raises CycleError with the rooms of a circle
    graph = graphlib.TopologicalSorter[str]()
    for importing_room, imported_room in arrows:
        graph.add(importing_room, imported_room)
    graph.prepare()


NOT_AT_A_DOOR = {"audit", "build_store_path", "model_input"}
"""Names of two things in a room, of which one may be a module."""


def test_a_room_is_entered_through_its_door(trees):
    """Modules outside a room import its names from the room, not from its modules."""
    doors = {module: read_door(module) for module in MODULES if read_door(module)}
    assert len(doors) > 20
    used_names = {room: set() for room in doors}
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
        assert set(door) <= used_names[room], f"a name of {room} that no room imports"


def test_data_has_no_loose_file():
    files = [path.name for path in (PACKAGE / "data").iterdir() if path.is_file()]
    assert files == ["__init__.py"]


def mirrors_a_module(test):
    """Tell whether a test file lies where the module that it tests does.

    `tests/core/runs/test_run_folder.py` and
    `tests/core/runs/run_folder/test_moved_home.py` both test
    `brainhive_cli/core/runs/run_folder.py`. Tests of tools and benchmarks mirror these
    folders. Tests of docs mirror its pages and folders.
    """
    relative_path = test.relative_to(CHECKOUT / "tests")
    page = (
        CHECKOUT
        / relative_path.parent
        / test.stem.removeprefix("test_").replace("_", "-")
    )
    if relative_path.parts[0] == "docs" and (
        page.is_dir() or page.with_suffix(".md").is_file()
    ):
        return True
    for root in (PACKAGE, CHECKOUT):
        module = root / relative_path.parent / test.stem.removeprefix("test_")
        for path in (module, root / relative_path.parent):
            contract = path / "__init__.py"
            has_contract = contract.is_file() and count_code_lines(contract) > 20
            if path.with_suffix(".py").is_file() or has_contract:
                return True
    return False


def test_tests_mirror_the_package():
    tests = list((CHECKOUT / "tests").rglob("test_*.py"))
    unmatched_tests = [test.name for test in tests if not mirrors_a_module(test)]
    assert len(tests) > 400 and len(unmatched_tests) <= len(tests) / 20, unmatched_tests


def test_a_module_opens_by_saying_what_it_is_for(
    trees,
):
    for module, tree in trees.items():
        opening = (ast.get_docstring(tree) or "").partition("\n\n")[0]
        assert opening.endswith(".") and len(opening.splitlines()) <= 2, module


def test_only_the_console_writes_to_the_terminal(
    trees,
):
    writes = {"typer.echo", "typer.secho", "sys.stdout", "sys.stderr"}
    for module in trees.keys() - {"brainhive_cli.core.base.console"}:
        for node in ast.walk(trees[module]):
            match node:
                case ast.Name(name):
                    assert name != "print", module
                case ast.Attribute(ast.Name(library), name):
                    assert f"{library}.{name}" not in writes, module


def test_every_part_exports_its_config_and_a_tiny_instance():
    """The outputs of parts are tested in `test_devices.py`."""
    for shelf in parts.SHELVES:
        for kind in parts.list_kinds(shelf):
            part = parts.load(shelf, kind)
            assert issubclass(part.Config, parts.Config), kind
            assert type(part.TINY) is part.Config, kind
            document = part.TINY.model_dump(mode="json")
            resolved = parts.resolve(shelf, document)
            assert resolved.model_dump(mode="json") == document, kind
            for name, field in part.Config.model_fields.items():
                assert field.description, f"{kind}.{name}"


def test_every_shipped_recipe_is_the_same_when_it_is_read_again():
    for path in RECIPES:
        pipeline = importlib.import_module(
            f"brainhive_cli.commands.{path.stem.replace('-', '_')}"
        )
        recipe = pipeline.Recipe.resolve(path.stem, str(path), {}, [])
        copy = type(recipe).model_validate(recipe.model_dump(mode="json"))
        assert copy.fingerprint() == recipe.fingerprint(), path


def test_every_file_that_the_page_on_developing_names_exists():
    file_names = re.findall(
        r"`([a-z_/]+\.py)`", (CHECKOUT / "docs/developing.md").read_text()
    )
    assert len(file_names) > 20
    assert [name for name in file_names if not (PACKAGE / name).is_file()] == []


def test_every_command_has_its_room_and_file():
    assert [command.name for command in COMMANDS] == list(ROOMS), REGENERATE
    commands = {name.replace("-", "_") for name in ROOMS}
    files = {
        path.stem for path in (PACKAGE / "commands").glob("*.py") if path.stem[0] != "_"
    }
    recipes = {path.stem.replace("-", "_") for path in shipped_recipes().glob("*.yaml")}
    # a command without a default recipe begins with the defaults of its keys
    assert commands == files - {"facts"}
    assert recipes <= commands
    assert [name for name in ROOMS.values() if not (PACKAGE / name).is_dir()] == []


def run_and_list_imports(arguments, **environment):
    """Run a command in a new process. Return its output and the imported packages."""
    program = """if True:
        import sys
        from brainhive_cli.app import app
        try:
            app(prog_name="brainhive")
        finally:
            print("IMPORTED:", *{name.split(".")[0] for name in sys.modules})
    """
    variables = {**os.environ, **environment}
    process = subprocess.run(
        [sys.executable, "-c", program] + list(arguments),
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    output, _, imported = process.stdout.partition("IMPORTED:")
    return output + process.stderr, set(imported.split())


def test_help_and_completion_import_nothing_heavy():
    output, imported = run_and_list_imports(["train-align", "--help"])
    assert "--mode" in output
    assert "typer" in imported
    # Typer imports pydantic for the help of a command
    assert not imported & LIBRARIES

    completions, imported = run_and_list_imports(
        [],
        _BRAINHIVE_COMPLETE="complete_bash",
        COMP_WORDS="brainhive embed --encoders vae,clip-h",
        COMP_CWORD="3",
    )
    assert "vae,clip-h14" in completions
    assert "typer" in imported
    assert not imported & HEAVY


def test_commands_load_no_library_that_they_do_not_use(
    world, evaluation_result, tmp_path
):
    watched = LIBRARIES | {"torchvision", "scipy", "matplotlib", "pandas"}
    run_folder = evaluation_result.folder

    output, imported = run_and_list_imports(["runs", "show", run_folder.name])
    assert "error:" not in output and "folder: /" in output, output
    assert imported & watched == {"yaml"}

    page = f"to={tmp_path / 'page.html'}"
    output, imported = run_and_list_imports(["report", str(run_folder), page])
    assert "error:" not in output and "folder: /" in output, output
    # the checklist of the page reads signal stores
    assert imported & watched == {"yaml", "PIL", "numpy", "matplotlib", "h5py"}


def test_checks_and_finished_runs_load_no_torch(
    align_overrides, trained_run, evaluation_result
):
    training = ["train-align"] + list(align_overrides) + ["run.device=cpu"]
    evaluation = [
        "eval-retrieval",
        f"run={trained_run}",
        "sheet_rows=0",
        "run.device=cpu",
    ]
    for command_line, expected_text in (
        (training + ["--check"], "Inputs"),
        (training, trained_run.name),
        (evaluation + ["--check"], "Inputs"),
        (evaluation, evaluation_result.folder.name),
    ):
        output, imported = run_and_list_imports(command_line)
        assert expected_text in output and "error:" not in output, output
        assert not imported & {"torch", "scipy", "transformers"}, command_line


REGENERATE = "run python -m tools.regenerate, and read the difference"


def test_completions_are_current():
    build = runpy.run_path(str(CHECKOUT / "completions/build.py"))
    current_texts = {
        name: build["script"](shell) for shell, name in build["SCRIPTS"].items()
    }
    current_texts["encoders.txt"] = build["encoders"]()
    current_texts["keys.txt"] = build["keys"]()
    current_texts["commands.json"] = build["commands"]()
    for name, text in current_texts.items():
        assert (CHECKOUT / "completions" / name).read_text() == text, REGENERATE


def test_the_pages_of_recipe_keys_are_current():
    current = {path.name: path.read_text() for path in keys_page.FOLDER.iterdir()}
    assert current == keys_page.write_pages(), REGENERATE


def test_every_key_has_somebody_who_sets_it():
    assert list_idle_keys() == [], (
        "make it a constant with its source, or show in a guide a line that sets it"
    )


def test_a_name_of_a_type_has_one_meaning(trees):
    """Classes and aliases of types, such as `Amount = int | list[str]`."""
    homes = {}
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


def is_type_name(target):
    """Tell whether an assigned name is written as types are, such as `NameList`."""
    return isinstance(target, ast.Name) and bool(re.match("[A-Z][a-z]", target.id))


def test_a_call_that_a_library_will_break_fails_the_suite():
    """A FutureWarning names the module that called the library."""
    call = partial(warnings.warn_explicit, "gone", FutureWarning, "x.py", 1)
    with pytest.raises(FutureWarning):
        call(module="brainhive_cli.models.electrodes")
    call(module="mne")
