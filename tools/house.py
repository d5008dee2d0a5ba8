"""The size of the package, and a record of its behaviour (`python -m tools.house
--help`).

The record survives a change of the code's shape. It holds fingerprints of recipes, the
names of weights and parameters of every part in order, and the tensors and metrics of
quick demos (one killed and resumed) and of small runs of other commands. Stores are
read through the api, models as safetensors.
"""

import argparse
import ast
import hashlib
import importlib
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from itertools import chain
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
from pydantic import BaseModel
from safetensors.numpy import load_file

from brainhive_cli.core.base.errors import BrainhiveError
from tools.shared_folders import SHARED

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "brainhive_cli"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(
        ".__init__"
    ): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
COMMANDS = ("train_align", "reconstruct", "report")
"""Commands whose imported files are counted."""
CODE_SPAN = re.compile(r"^(?: {4}.*|```.*?^```)|`[^`\n]+`", re.M | re.S)
"""A block of code in a page, or a word of code in a sentence."""
KEY_WITH_VALUE = re.compile(
    r"(?<![\w.-])([a-z](?:[\w*-]|\.(?=[\w*]))*)['\"]?(?:=(?!=)|:(?=[ \n\[{]))"
)
"""A dotted name before a value, in code."""
KEY_IN_COMMENT = re.compile(r"^ *[a-z]\w*: |\{[^{}]*\}")
"""A key without effect in a comment of a recipe, or a part in braces."""
FILLED_IN = ("digests", "recipe_name", "decoder_layers")
"""Keys that commands fill in, or read from the file of published weights."""
FUNCTION_LENGTHS = (5, 12, 40, 80)
SMALL_FILE_LINES = 50
BLANK_TOKENS = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
)
SYSTEMS = ("brainhive", "havir", "neurons")
CHANGES_FROM_RUN_TO_RUN = re.compile(
    r"seconds|time|date|created|version|host|memory|duration|path|folder|latenc|^samples$|^events$"
)
"""Keys of documents that are not compared."""
ABSOLUTE = re.compile(r"(?<==)/\S+")
"""A path of this machine, in command lines."""
FINGERPRINT = re.compile(r"-[0-9a-f]{10}\b")
"""The fingerprint in the name of a run. Fingerprints are recorded separately."""
PROGRAM = """if True:
    from brainhive_cli.training.alignment.training import cell_folder
    from brainhive_cli.__main__ import main
    cell_folder.CHECKPOINT_INTERVAL_S = 1.0  # so that a short training leaves one, too
    main()
"""
SMALL_RUNS = {
    "explain": ("draws=20", "window.step_ms=400"),
    "calibrate": ("draws=1", "pictures=4", "alignments=coral", "arms=scratch,transfer"),
    "design": ("people=5", "train_pictures=40", "train_repetitions=1"),
    "live": ("--recipe", "demo", "--windows", "5", "page=false", "source.speed=20"),
    "report": (),
}
"""A small run of each command that no demo runs, in the home of the first demo."""
KILLED_TRAINING = (
    "train-align",
    "--recipe",
    "demo",
    "train.epochs=4",
    "seeds=1",
    "paths.runs=killed",
)
Key = tuple[type[BaseModel], str]
"""A key: the most general class that declares it, and its attribute."""
Steps = tuple[str, ...]
"""The dotted name of a key, split at its dots."""


def read_code(path: Path) -> Iterator[tokenize.TokenInfo]:
    """Yield the tokens of a file without comments, blank lines and docstrings."""
    source = path.read_text(encoding="utf-8")
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        statements = getattr(node, "body", [])
        if not isinstance(statements, list):  # the expression of a lambda
            continue
        for statement in statements:
            # docstrings of constants, too
            if isinstance(statement, ast.Expr) and isinstance(
                statement.value, ast.Constant
            ):
                last_line = statement.end_lineno or 0
                docstrings.update(range(statement.lineno, last_line + 1))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        is_code = token.type not in BLANK_TOKENS and token.string
        if is_code and token.start[0] not in docstrings:
            yield token


def count_code_lines(path: Path) -> int:
    """Count the lines of a file that hold code, not comments or docstrings."""
    code: set[int] = set()
    for token in read_code(path):
        code.update(range(token.start[0], token.end[0] + 1))
    return len(code)


def count_tokens(folder: Path) -> Counter[str]:
    """Count the tokens of code below a folder, by the name of its subfolder.

    Files that lie in the folder itself count for ".".
    """
    counts = Counter[str]()
    for path in sorted(folder.rglob("*.py")):
        room = path.relative_to(folder).parts[0]
        counts[room if path.parent != folder else "."] += len([*read_code(path)])
    return counts


@cache
def read_door(room: str) -> dict[str, str]:
    """Return the names that a room offers, each with the module that defines it."""
    stub = MODULES[room].with_suffix(".pyi") if room in MODULES else None
    if stub is None or not stub.is_file():
        return {}
    return {
        alias.name: f"{room}.{node.module}"
        for node in ast.parse(stub.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def list_imports(module: str, tree: ast.Module | None = None) -> Iterator[str]:
    """Yield the modules of the package that a module imports, anywhere in its file.

    A name that is imported from a room counts as an import of the module that defines
    it.

    Args:
        module: Name of the module.
        tree: Its syntax tree, if it is parsed already.
    """
    if tree is None:
        tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if name not in MODULES:
                    source = str(node.module)
                    name = read_door(source).get(alias.name, source)
                names.append(name)
        for name in names:
            if name in MODULES:
                yield name


def collect_closure(module: str) -> set[str]:
    """Collect a module, the modules that it imports, and all that these import."""
    closure, pending = {module}, [module]
    while pending:
        new_modules = set(list_imports(pending.pop())) - closure
        closure |= new_modules
        pending += sorted(new_modules)
    return closure


def measure_functions() -> list[int]:
    """List the number of lines of each function, without its docstring."""
    lengths = []
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef):
                continue
            first_statement = node.body[0]
            if ast.get_docstring(node) and len(node.body) > 1:
                first_statement = node.body[1]
            lengths.append((node.end_lineno or 0) - first_statement.lineno + 1)
    return lengths


def list_idle_keys(is_used: Mapping[str, bool] | None = None) -> list[str]:
    """List the keys that no flag, shipped recipe, row, TINY part or guide sets.

    Inherited keys count once. A guide sets a key if it shows a value.

    Args:
        is_used: Result of `find_used_keys`, if the caller has it.
    """
    if is_used is None:
        is_used = find_used_keys()
    return [name for name in is_used if not is_used[name]]


def find_used_keys() -> dict[str, bool]:
    """Return True for each key that is set somewhere.

    Keys are named after the first command or part that has them.
    """
    from brainhive_cli.cli.table import COMMANDS as commands
    from brainhive_cli.commands.recipes import import_recipe
    from brainhive_cli.core.recipes import parts

    set_keys, written_names = _collect_recipe_keys()
    written_names |= _collect_guide_names()
    names: dict[Key, str] = {}
    is_used: dict[str, bool] = {}

    # keys of commands: guides write the whole dotted name, or its end
    for command in commands:
        flags = set(command.flags) | {command.positional_key}
        for path, key in _list_keys(import_recipe(command.name)):
            name = names.setdefault(key, path)
            is_set = key in set_keys or path in flags
            if is_set or _is_written(path, written_names):
                is_used[name] = True
            is_used.setdefault(name, False)

    # keys of parts, which stand below any key of a command
    for shelf in parts.SHELVES:
        rows = parts.read_rows(shelf)
        for kind in parts.list_kinds(shelf):
            part = parts.load(shelf, kind)
            set_keys |= _collect_set_keys(part.TINY)
            if kind in rows:
                defaults = rows[kind].model_extra or {}
                set_keys |= _collect_row_keys(part.Config, defaults)
    step_names = set(chain.from_iterable(written_names))
    for shelf in parts.SHELVES:
        rows = parts.read_rows(shelf)
        for kind in parts.list_kinds(shelf):
            if kind in rows:
                continue
            for path, key in _list_keys(parts.load(shelf, kind).Config):
                name = names.setdefault(key, f"{shelf}/{kind} {path}")
                if key in set_keys or path.rpartition(".")[2] in step_names:
                    is_used[name] = True
                is_used.setdefault(name, False)

    for name in is_used:
        is_used[name] |= name.rpartition(".")[2].rpartition(" ")[2] in FILLED_IN
    return is_used


def _is_written(path: str, written_names: set[Steps]) -> bool:
    """Return True if a text writes a dotted name, its end, or a name below it."""
    steps = tuple(path.split("."))
    for name in written_names:
        if name[: len(steps)] == steps or steps[-len(name) :] == name:
            return True
    return False


def _list_keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Key]]:
    """Yield the dotted name and the key of all fields of a recipe or part.

    The keys of a section follow the section itself.
    """
    from brainhive_cli.core.recipes import parts
    from tools.keys_page import find_section

    for attribute, field in model.model_fields.items():
        name = field.alias or attribute
        yield prefix + name, _find_key(model, attribute)
        section = find_section(field.annotation)
        if section is not None and not issubclass(section, parts.Config):
            yield from _list_keys(section, f"{prefix}{name}.")


def _find_key(model: type[BaseModel], attribute: str) -> Key:
    """Find the most general class that declares a field."""
    owner = model
    for base in model.__mro__:
        if issubclass(base, BaseModel) and attribute in base.model_fields:
            owner = base
    return owner, attribute


def _collect_set_keys(value: Any) -> set[Key]:
    """Collect the keys that are set in a recipe or part, and in its contents."""
    keys: set[Key] = set()
    elements: Iterable[Any] = []
    if isinstance(value, BaseModel):
        elements = []
        for attribute in value.model_fields_set:
            keys.add(_find_key(type(value), attribute))
            elements.append(getattr(value, attribute))
    elif isinstance(value, dict):
        elements = value.values()
    elif isinstance(value, Iterable) and not isinstance(value, str):
        elements = value
    for element in elements:
        keys |= _collect_set_keys(element)
    return keys


def _collect_row_keys(model: type[BaseModel], defaults: Mapping[str, Any]) -> set[Key]:
    """Collect the keys for which a row of a shelf has another default."""
    keys: set[Key] = set()
    for name in defaults:
        field = model.model_fields.get(name)
        if field is not None:
            keys.add(_find_key(model, name))
            keys |= _collect_set_keys(field.get_default(call_default_factory=True))
    return keys


def _collect_recipe_keys() -> tuple[set[Key], set[Steps]]:
    """Collect the keys of shipped recipes.

    Returns:
        The keys that they set; the dotted names that they sweep, override or show in a
        comment.
    """
    from brainhive_cli.cli.table import COMMANDS as commands
    from brainhive_cli.commands.recipes import import_recipe

    set_keys: set[Key] = set()
    written_names: set[Steps] = set()
    command_names = [command.name for command in commands]
    for path in sorted((ROOT / "recipes").rglob("*.yaml")):
        if path.stem not in command_names:  # a section that other recipes extend
            continue
        text = path.read_text(encoding="utf-8")
        if path.stem != "workflow":  # its overrides are text
            keys_in_comments = []
            for comment in re.findall(r"#(.*)", text):
                keys_in_comments += KEY_IN_COMMENT.findall(comment)
            text = "\n".join(keys_in_comments)
        written_names |= _find_key_names(text)
        recipe = import_recipe(path.stem).resolve(path.stem, str(path), {}, [])
        set_keys |= _collect_set_keys(recipe)
        swept_keys = getattr(recipe, "sweep", {})
        written_names |= {tuple(name.split(".")) for name in swept_keys}
    return set_keys, written_names


def _collect_guide_names() -> set[Steps]:
    """Collect the dotted names of keys that guides show with a value."""
    code: list[str] = []
    guides = list((ROOT / "docs").glob("*.md"))
    for path in guides + [ROOT / "README.md"]:
        code += CODE_SPAN.findall(path.read_text(encoding="utf-8"))
    for path in (ROOT / "docs").glob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            code.append("".join(cell["source"]))
    return _find_key_names("\n".join(code))


def _find_key_names(code: str) -> set[Steps]:
    """Find the dotted names to which a text gives a value: `train.lr=1`, `lr: 1`."""
    return {tuple(name.split(".")) for name in KEY_WITH_VALUE.findall(code)}


def print_size() -> None:
    """Print sizes of rooms, closures, functions and files, and the idle keys."""
    # lines and files by room
    rooms = Counter[str]()
    files = Counter[str]()
    n_lines = n_small = 0
    importers = Counter[str]()
    for module, path in MODULES.items():
        room = module.split(".")[1] if path.parent != PACKAGE else "."
        rooms[room] += count_code_lines(path)
        files[room] += 1
        file_lines = len(path.read_text().splitlines())
        n_lines += file_lines
        n_small += 0 < file_lines < SMALL_FILE_LINES
        importers.update(set(list_imports(module)))
    for room, count in rooms.most_common():
        print(f"{room:<20}{count:>7} code lines{files[room]:>5} files")
    print(
        f"{'all':<20}{rooms.total():>7} code lines{len(MODULES):>5} files, "
        f"{n_lines} lines"
    )
    for command in COMMANDS:
        closure = collect_closure(f"brainhive_cli.commands.{command}")
        print(f"import closure of {command}: {len(closure)} files")

    # functions, small files and idle keys
    lengths = measure_functions()
    shares = []
    for limit in FUNCTION_LENGTHS:
        n_short = sum(length <= limit for length in lengths)
        shares.append(f"≤ {limit}: {n_short}")
    print(f"functions: {len(lengths)}; of lines {', '.join(shares)}")
    print(f"files with one importer: {list(importers.values()).count(1)}")
    print(f"files under {SMALL_FILE_LINES} lines: {n_small}")
    is_used = find_used_keys()
    idle_keys = list_idle_keys(is_used)
    print(
        f"{len(idle_keys)} of {len(is_used)} keys that no flag, shipped recipe, row or "
        "TINY sets, and no guide shows with a value:"
    )
    print("\n".join(map("  {}".format, idle_keys)))


def digest_array(values: Any) -> str:
    """Hash an array with its shape and dtype."""
    array = np.asarray(values)
    content = array.tobytes()
    if array.dtype == object:
        content = str(array.tolist()).encode()
    content_digest = hashlib.sha256(content).hexdigest()[:16]
    return f"{array.dtype}{list(array.shape)} {content_digest}"


def _drop_changes(value: Any) -> Any:
    """Drop the values of a document that differ between two runs of the same code."""
    if isinstance(value, dict):
        stable = {}
        for key, content in value.items():
            if not CHANGES_FROM_RUN_TO_RUN.search(key):
                stable[key] = _drop_changes(content)
        return stable
    if isinstance(value, list):
        return list(map(_drop_changes, value))
    if isinstance(value, str):
        return ABSOLUTE.sub("", FINGERPRINT.sub("", value))
    return value


def record_home(home: Path) -> dict[str, list[Any]]:
    """Collect the digests of all tensors and the metrics in a home, by file name."""
    record: dict[str, list[Any]] = {}
    for path in sorted(home.rglob("*")):
        relative_path = path.relative_to(home)
        content: Any
        if path.suffix == ".safetensors":
            tensors = load_file(path)
            digests = {name: digest_array(tensors[name]) for name in sorted(tensors)}
            content = _drop_changes(digests)
        elif path.suffix == ".h5" and relative_path.parts[0] in (
            "embeddings",
            "signals",
        ):
            content = _digest_store(home, relative_path)
        elif path.name == "metrics.json":
            content = _drop_changes(json.loads(path.read_text()))
        elif path.suffix in (".html", ".csv", ".tex"):
            content = path.name
        else:
            continue
        name = FINGERPRINT.sub("", relative_path.as_posix())
        record.setdefault(name, []).append(content)
    for contents in record.values():
        contents.sort(key=json.dumps)
    return record


def _digest_store(home: Path, relative_path: Path) -> dict[str, str]:
    """Hash the arrays of a store as the api reads it."""
    from brainhive_cli import api

    os.environ["BRAINHIVE_HOME"] = str(home)
    kind, dataset, folder, name = relative_path.with_suffix("").parts
    if kind == "embeddings":
        arrays = ("embedding", "image_ids", "concepts", "done")
        stores = {"": api.open_store(dataset, folder, name)}
    else:  # the folder names the preparation, the file the subject
        arrays = ("signal", "image_ids", "sessions", "runs", "onset_s")
        store = api.open_signals(dataset, int(name.removeprefix("sub-")), folder)
        stores = {split: _arrange(store[split]) for split in store.splits}
    digests = {}
    for split, store in stores.items():
        for array in arrays:
            values = getattr(store, array, None)
            if values is not None:
                digests[f"{split}/{array}"] = digest_array(values)
    return digests


def _arrange(trials: Any) -> SimpleNamespace:
    """Arrange the columns of trials by picture, as [N, R, ...] with padding."""
    columns: dict[str, Any] = {"image_ids": trials.pictures}
    paddings = {"signal": 0, "sessions": -1, "runs": -1, "onset_s": np.nan}
    for name, padding in paddings.items():
        values = getattr(trials, name)
        if values is not None:
            columns[name] = trials.as_repetitions(np.asarray(values), padding)
    return SimpleNamespace(**columns)


def _start_brainhive(
    home: Path, *arguments: str, environment: Mapping[str, str] = MappingProxyType({})
) -> subprocess.Popen[bytes]:
    """Start a command in a home, without a GPU and without output."""
    variables = {
        "BRAINHIVE_HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
    }
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=home,
        env={**os.environ, **variables, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def record_demos() -> dict[str, Any]:
    """Run the demos, small runs, and a training that is killed and resumed."""
    record: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for system in SYSTEMS:
            home = Path(folder, system)
            home.mkdir()
            code = _start_brainhive(home, "demo", "--system", system, "--quick").wait()
            record[f"demo {system}"] = {"exit code": code, **record_home(home)}
        home = Path(folder, "real")
        home.mkdir()
        code = _start_brainhive(home, "demo", "--real").wait()
        record["demo of recordings"] = {"exit code": code, **record_home(home)}

        # commands that no demo runs
        home = Path(folder, SYSTEMS[0])
        for command, arguments in SMALL_RUNS.items():
            code = _start_brainhive(home, command, *arguments).wait()
            contents = record_home(home / "runs" / command)
            record[command] = {"exit code": code, **contents}
        record["push"] = record_push(home)

        # kill a training after its first checkpoint, and resume it
        process = _start_brainhive(home, *KILLED_TRAINING)
        while process.poll() is None and not any(
            home.glob("killed/**/checkpoints/*.pt")
        ):
            time.sleep(0.05)
        process.kill()
        codes = [process.wait(), _start_brainhive(home, *KILLED_TRAINING).wait()]
        contents = record_home(home / "killed")
        record["killed and resumed"] = {"exit codes": codes, **contents}
    return record


def record_push(home: Path) -> dict[str, Any]:
    """Push the first run of train-align to a hub on this machine, and list its files.

    The program of the hub lies in the folder `SHARED`. The record is empty without it.
    """
    server = SHARED / "data/mini_hub_server.py"
    spec = importlib.util.spec_from_file_location("mini_hub", server)
    if spec is None or spec.loader is None or not server.is_file():
        return {}
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    run = min((home / "runs/train-align").iterdir())
    with module.MiniHub() as hub:
        address = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": hub.token,
            "HF_HUB_DISABLE_XET": "1",
        }
        command = f"push {run.name} hub:me/demo --data-terms-checked --licence mit"
        process = _start_brainhive(home, *command.split(), environment=address)
        code = process.wait()
        files = hub.repos["me/demo"].at("main")[2] if code == 0 else {}
        return {"exit code": code, "files": sorted(files)}


def record_recipes() -> dict[str, str]:
    """Return the fingerprint of every shipped recipe, by its path."""
    from brainhive_cli.commands.recipes import import_recipe

    fingerprints = {}
    for path in sorted((ROOT / "recipes").rglob("*.yaml")):
        recipe = import_recipe(path.stem).resolve(path.stem, str(path), {}, [])
        name = path.relative_to(ROOT / "recipes").as_posix()
        fingerprints[name] = recipe.fingerprint()
    return fingerprints


def record_parts() -> dict[str, Any]:
    """Return the settings, weights, shapes and parameters of every TINY part."""
    from brainhive_cli.core.base.errors import MissingExtra
    from brainhive_cli.core.recipes import parts

    record: dict[str, Any] = {}
    for shelf in parts.SHELVES:
        for kind in parts.list_kinds(shelf):
            tiny = parts.load(shelf, kind).TINY
            entry: dict[str, Any] = {"settings": tiny.model_dump(mode="json")}
            if shelf == "encoders":
                entry["store"] = tiny.name
            module = None
            try:
                module = _build_module(shelf, tiny)
            except MissingExtra as error:
                entry["missing"] = error.message
            if module is not None:
                weights = []
                for name, tensor in module.state_dict().items():
                    weights.append(f"{name} {list(tensor.shape)}")
                entry["weights"] = weights
                entry["parameters"] = [name for name, _ in module.named_parameters()]
            record[f"{shelf}/{kind}"] = entry
    return record


def _build_module(shelf: str, tiny: Any) -> Any:
    """Build a TINY part as a torch module; None if it needs more than sizes."""
    if shelf == "backbones" and not tiny.takes_spec:
        return tiny.build(5, 160, 16)
    if shelf == "fusers":
        from brainhive_cli.models import fusers

        dims = {"one": 6, "other": 6}  # some fusers need equal widths
        return fusers.build_fuser(tiny, dims, tiny.token_dim(dims, 8), 2)
    if shelf in ("losses", "encoders", "generators"):
        part = tiny.build()
        if hasattr(part, "state_dict"):
            return part
        for name in dir(part):
            with suppress(BrainhiveError):  # weights that are not on this machine
                value = getattr(part, name)
                if hasattr(value, "state_dict"):
                    return value
    return None


def record_behaviour(is_quick: bool = False) -> dict[str, Any]:
    """Record recipes and parts, and the demos unless the record is quick."""
    demos = {} if is_quick else record_demos()
    return {"recipes": record_recipes(), "parts": record_parts(), **demos}


def list_differences(expected: Any, actual: Any, path: str = "") -> Iterator[str]:
    """Yield a line for each difference between two records, with its path in them."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key in sorted(expected.keys() | actual.keys()):
            name = f"{path}/{key}" if path else key
            if not expected.get(key) and not actual.get(key):
                continue  # an absent value equals an empty value
            if key not in expected or key not in actual:
                yield f"{name}: only {'after' if key in actual else 'before'}"
            else:
                yield from list_differences(expected[key], actual[key], name)
    elif (
        isinstance(expected, list)
        and isinstance(actual, list)
        and len(expected) == len(actual)
    ):
        for index, value in enumerate(expected):
            yield from list_differences(value, actual[index], f"{path}[{index}]")
    elif expected != actual:
        yield f"{path}: {str(expected)[:80]} → {str(actual)[:80]}"


def main() -> None:
    """Print the size, write a record, or compare the behaviour with a record.

    A difference ends with exit code 1.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", type=Path, metavar="FILE")
    parser.add_argument("--compare", type=Path, metavar="FILE")
    parser.add_argument(
        "--quick", action="store_true", help="leave out the demos, which take minutes"
    )
    options = parser.parse_args()
    if options.record:
        record = record_behaviour(options.quick)
        options.record.write_text(json.dumps(record, indent=1, sort_keys=True))
    elif options.compare:
        expected = json.loads(options.compare.read_text())
        actual = json.loads(json.dumps(record_behaviour(options.quick)))
        compared = {name: expected[name] for name in actual}
        differences = list(list_differences(compared, actual))
        print("\n".join(differences) or "no difference")
        sys.exit(bool(differences))
    else:
        print_size()


if __name__ == "__main__":
    main()
