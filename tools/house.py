"""The size of the house, and a record of its behaviour (`python -m tools.house
--help`).

What is recorded must survive a change of the code's shape: fingerprints of recipes,
names and order of weights and parameters of every part, all tensors and metrics of the
quick demos (one killed and resumed) and of a small run of the other commands. Arrays of
stores are read through the api, models as safetensors.
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
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from pydantic import BaseModel
from safetensors.numpy import load_file

from brainhive_cli.core.errors import BrainhiveError

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "brainhive_cli"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(
        ".__init__"
    ): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
COMMANDS = ("train_align", "reconstruct", "report")
"""Whose import closures are counted: what a reader of the command may have to open."""
CODE_SPAN = re.compile(r"^(?: {4}.*|```.*?^```)|`[^`\n]+`", re.M | re.S)
"""In a page: a block of code, or a word of code in a sentence."""
KEY_WITH_VALUE = re.compile(
    r"(?<![\w.-])([a-z](?:[\w*-]|\.(?=[\w*]))*)['\"]?(?:=(?!=)|:(?=[ \n\[{]))"
)
"""In code: a dotted name before a value."""
KEY_IN_COMMENT = re.compile(r"^ *[a-z]\w*: |\{[^{}]*\}")
"""In a comment of a recipe: a key that is shown but not set, or a part in braces."""
FILLED_IN = ("digests", "recipe_name", "decoder_layers")
"""Keys that commands fill in, or read from the file of published weights."""
FUNCTION_LENGTHS = (5, 12, 40, 80)
SMALL_FILE_LINES = 50
SYSTEMS = ("brainhive", "havir", "neurons")
CHANGES_FROM_RUN_TO_RUN = re.compile(
    r"seconds|time|date|created|version|host|memory|duration|path|folder|latenc|^samples$|^events$"
)
"""Keys of documents that are not compared."""
ABSOLUTE = re.compile(r"(?<==)/\S+")
"""In lines of commands: a path of this machine."""
FINGERPRINT = re.compile(r"-[0-9a-f]{10}\b")
"""In the names of runs: that of a recipe is recorded by itself."""
PROGRAM = """if True:
    from brainhive_cli.training.alignment.training import cell_folder
    from brainhive_cli.__main__ import main
    cell_folder.CHECKPOINT_INTERVAL_S = 1.0  # so that a short training leaves one, too
    main()
"""
SMALL_RUNS = {
    "explain": ("draws=20", "window.step_ms=400"),
    "calibrate": ("draws=1", "pictures=4", "alignments=coral", "arms=scratch,transfer"),
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


def count_code_lines(path: Path) -> int:
    """Count the lines of a file that hold code: no blank line, comment or docstring."""
    source = path.read_text(encoding="utf-8")
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        for statement in (
            getattr(node, "body", [])
            if not isinstance(node, ast.Lambda | ast.IfExp)
            else []
        ):
            if isinstance(statement, ast.Expr) and isinstance(
                statement.value, ast.Constant
            ):  # constants' too
                docstrings.update(
                    range(statement.lineno, (statement.end_lineno or 0) + 1)
                )
    nothing = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
    }
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in nothing and token.string:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - docstrings)


def imports_of(module: str, tree: ast.Module | None = None) -> Iterator[str]:
    """Read which of our modules a module imports, wherever in the file, which may be
    parsed already.
    """
    for node in ast.walk(
        tree or ast.parse(MODULES[module].read_text(encoding="utf-8"))
    ):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else str(node.module) for name in names]
        yield from (name for name in names if name in MODULES)


def import_closure(module: str) -> set[str]:
    """Collect the modules that a module imports, and those that these import."""
    reached, left = {module}, [module]
    while left:
        new = set(imports_of(left.pop())) - reached
        reached |= new
        left += sorted(new)
    return reached


def function_lengths() -> list[int]:
    """List how many lines each function has, docstring left out."""
    lengths = []
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                body = (
                    node.body[1:]
                    if ast.get_docstring(node) and len(node.body) > 1
                    else node.body
                )
                lengths.append((node.end_lineno or 0) - body[0].lineno + 1)
    return lengths


def idle_keys() -> list[str]:
    """List the keys that nobody sets: no flag, no shipped recipe, row or TINY has a
    value for them, and no guide shows a line that sets them.

    A key belongs to the class that declares it, so a key that several commands or parts
    inherit counts once. A guide that names a key without a value does not use it.
    """
    keys, is_used = count_uses()
    return [name for name in keys if not is_used[name]]


def count_uses() -> tuple[list[str], dict[str, bool]]:
    """List all keys, each under the first command or part that has it, and tell whether
    somebody sets it.
    """
    from brainhive_cli.cli.table import COMMANDS as commands, LAUNCH_OPTIONS
    from brainhive_cli.core import parts

    set_keys, written = _keys_of_recipes()
    written |= _keys_in_guides()
    names: dict[tuple[type[BaseModel], str], str] = {}
    is_used: dict[str, bool] = {}

    # keys of commands, whose names in guides have the whole path, or end as it does
    for command in commands:
        flags = {
            *command.flags,
            command.positional_key,
            *(f"run.{name}" for name in LAUNCH_OPTIONS),
        }
        for path, key in _declared_keys(_recipe_model(command.name)):
            name = names.setdefault(key, path)
            steps = tuple(path.split("."))
            is_shown = any(
                word[: len(steps)] == steps or steps[-len(word) :] == word
                for word in written
            )
            is_used[name] = (
                is_used.get(name, False) or key in set_keys or path in flags or is_shown
            )

    # keys of parts, which stand below any key of a command
    words = {step for name in written for step in name}
    for shelf in parts.SHELVES:
        rows = parts.read_rows(shelf)
        for kind in parts.list_kinds(shelf):
            part = parts.load(shelf, kind)
            set_keys |= _set_keys(part.TINY)
            if kind in rows:
                knobs = rows[kind].model_extra or {}
                set_keys |= _set_keys_of_row(part.Config, knobs)
    for shelf in parts.SHELVES:
        for kind in parts.list_kinds(shelf):
            if kind in parts.read_rows(shelf):
                continue
            for path, key in _declared_keys(parts.load(shelf, kind).Config):
                name = names.setdefault(key, f"{shelf}/{kind} {path}")
                is_shown = path.rpartition(".")[2] in words
                is_used[name] = is_used.get(name, False) or key in set_keys or is_shown
    for name in is_used:
        is_used[name] |= name.rpartition(".")[2].rpartition(" ")[2] in FILLED_IN
    return [*is_used], is_used


def _recipe_model(command: str) -> Any:
    """Import the Recipe of a command."""
    module = f"brainhive_cli.commands.{command.replace('-', '_')}"
    return importlib.import_module(module).Recipe


def _declared_keys(
    model: type[BaseModel], prefix: str = ""
) -> Iterator[tuple[str, tuple[type[BaseModel], str]]]:
    """List the keys of a recipe or part by dotted name, each with the class that
    declares it, those of sections below their section.
    """
    from brainhive_cli.core import parts
    from tools.keys_page import section_of

    for attribute, field in model.model_fields.items():
        name = field.alias or attribute
        yield prefix + name, _key(model, attribute)
        section = section_of(field.annotation)
        if section is not None and not issubclass(section, parts.Config):
            yield from _declared_keys(section, f"{prefix}{name}.")


def _key(model: type[BaseModel], attribute: str) -> tuple[type[BaseModel], str]:
    """Name a key by the most general class that has it."""
    owners = [
        base
        for base in model.__mro__
        if issubclass(base, BaseModel) and attribute in base.model_fields
    ]
    return owners[-1], attribute


def _set_keys(value: Any) -> set[tuple[type[BaseModel], str]]:
    """Collect the keys that are set in a recipe or part, and in all that it holds."""
    found: set[tuple[type[BaseModel], str]] = set()
    if isinstance(value, BaseModel):
        fields = value.model_fields_set
        found = {_key(type(value), attribute) for attribute in fields}
        value = [getattr(value, attribute) for attribute in fields]
    elif isinstance(value, dict):
        value = value.values()
    if not isinstance(value, str):
        for element in value if isinstance(value, Iterable) else ():
            found |= _set_keys(element)
    return found


def _set_keys_of_row(
    model: type[BaseModel], knobs: Mapping[str, Any]
) -> set[tuple[type[BaseModel], str]]:
    """Collect the keys that a row of a shelf has another default for."""
    fields = model.model_fields
    found = {_key(model, name) for name in knobs if name in fields}
    for name in knobs:
        if name in fields:
            found |= _set_keys(fields[name].get_default(call_default_factory=True))
    return found


def _keys_of_recipes() -> tuple[set[tuple[type[BaseModel], str]], set[tuple[str, ...]]]:
    """Collect the keys that shipped recipes set, and the dotted names of those that
    they sweep, override, or show in a comment.
    """
    from brainhive_cli.cli.table import COMMANDS as commands

    set_keys: set[tuple[type[BaseModel], str]] = set()
    written: set[tuple[str, ...]] = set()
    names = {command.name for command in commands}
    for path in sorted((ROOT / "recipes").rglob("*.yaml")):
        if path.stem not in names:  # a part of a recipe that others extend
            continue
        text = path.read_text(encoding="utf-8")
        if path.stem != "workflow":  # whose overrides are text
            text = "\n".join(
                found
                for comment in re.findall(r"#(.*)", text)
                for found in KEY_IN_COMMENT.findall(comment)
            )
        written |= _written_keys(text)
        recipe = _recipe_model(path.stem).resolve(path.stem, str(path), {}, [])
        set_keys |= _set_keys(recipe)
        for changes in (
            getattr(recipe, "sweep", {}),
            *getattr(recipe, "ablations", {}).values(),
        ):
            written |= {tuple(name.split(".")) for name in changes}
    return set_keys, written


def _keys_in_guides() -> set[tuple[str, ...]]:
    """Collect the dotted names of keys that guides show with a value."""
    guides = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    code = [
        "\n".join(CODE_SPAN.findall(path.read_text(encoding="utf-8")))
        for path in guides
    ]
    for path in (ROOT / "docs").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code += ["".join(cell["source"]) for cell in cells]
    return _written_keys("\n".join(code))


def _written_keys(code: str) -> set[tuple[str, ...]]:
    """Find the dotted names that a text gives a value: `train.lr=1`, `lr: 1`."""
    return {tuple(name.split(".")) for name in KEY_WITH_VALUE.findall(code)}


def print_size() -> None:
    """Print lines and files by room, closures, lengths of functions, small files and
    idle keys.
    """
    code = {module: count_code_lines(path) for module, path in MODULES.items()}
    lines = {
        module: len(path.read_text().splitlines()) for module, path in MODULES.items()
    }
    rooms = Counter[str]()
    files = Counter[str]()
    for module in MODULES:
        room = module.split(".")[1] if MODULES[module].parent != PACKAGE else "."
        rooms[room] += code[module]
        files[room] += 1
    for room, count in rooms.most_common():
        print(f"{room:<20}{count:>7} code lines{files[room]:>5} files")
    print(
        f"{'all':<20}{sum(code.values()):>7} code lines{len(MODULES):>5} files, "
        f"{sum(lines.values())} lines"
    )
    for command in COMMANDS:
        print(
            f"import closure of {command}: "
            f"{len(import_closure(f'brainhive_cli.commands.{command}'))} files"
        )
    lengths = function_lengths()
    shares = ", ".join(
        f"≤ {most}: {sum(length <= most for length in lengths)}"
        for most in FUNCTION_LENGTHS
    )
    print(f"functions: {len(lengths)}; of lines {shares}")
    importers = Counter(
        imported for module in MODULES for imported in set(imports_of(module))
    )
    print(
        f"files with one importer: {sum(importers[module] == 1 for module in MODULES)}"
    )
    small = [module for module, count in lines.items() if 0 < count < SMALL_FILE_LINES]
    print(f"files under {SMALL_FILE_LINES} lines: {len(small)}")
    keys, is_used = count_uses()
    idle = [name for name in keys if not is_used[name]]
    print(
        f"{len(idle)} of {len(keys)} keys that no flag, shipped recipe, row or TINY "
        "sets, and no guide shows with a value:"
    )
    print(*(f"  {key}" for key in idle), sep="\n")


def digest(array: Any) -> str:
    """Digest an array with its shape and dtype."""
    array = np.asarray(array)
    content = (
        str(array.tolist()).encode()
        if array.dtype == object
        else np.ascontiguousarray(array).tobytes()
    )
    return (
        f"{array.dtype}{list(array.shape)} {hashlib.sha256(content).hexdigest()[:16]}"
    )


def _stable(value: Any) -> Any:
    """Leave out what differs between two runs of the same code."""
    if isinstance(value, dict):
        return {
            key: _stable(each)
            for key, each in value.items()
            if not CHANGES_FROM_RUN_TO_RUN.search(key)
        }
    if isinstance(value, list):
        return [_stable(element) for element in value]
    return (
        ABSOLUTE.sub("", FINGERPRINT.sub("", value))
        if isinstance(value, str)
        else value
    )


def record_home(home: Path) -> dict[str, list[Any]]:
    """Digest every tensor, and take every metric, of all files that commands left in a
    home, by file name.
    """
    record: dict[str, list[Any]] = {}
    for path in sorted(home.rglob("*")):
        where = path.relative_to(home)
        if path.suffix == ".safetensors":
            content: Any = _stable(
                {key: digest(array) for key, array in sorted(load_file(path).items())}
            )
        elif path.suffix == ".h5" and where.parts[0] in ("embeddings", "signals"):
            content = _digest_store(home, where)
        elif path.name == "metrics.json":
            content = _stable(json.loads(path.read_text()))
        elif path.suffix in (".html", ".csv", ".tex"):
            content = path.name
        else:
            continue
        record.setdefault(FINGERPRINT.sub("", where.as_posix()), []).append(content)
    return {name: sorted(contents, key=json.dumps) for name, contents in record.items()}


def _digest_store(home: Path, where: Path) -> dict[str, str]:
    """Digest the arrays of a store as the api reads it."""
    from brainhive_cli import api

    os.environ["BRAINHIVE_HOME"] = str(home)
    kind, dataset, split, name = where.with_suffix("").parts
    if kind == "embeddings":
        names = ("embedding", "image_ids", "concepts", "done")
        stores = {"": api.open_store(dataset, split, name)}
    else:  # by preparation and subject
        names = ("signal", "image_ids", "sessions", "runs", "onset_s")
        store = api.open_signals(dataset, int(name.removeprefix("sub-")), split)
        stores = {part: store[part] for part in store.splits}
    return {
        f"{part}/{array}": digest(np.asarray(values))
        for part, store in stores.items()
        for array in names
        if (values := getattr(store, array, None)) is not None
    }


def _brainhive(
    home: Path, *words: str, environment: Mapping[str, str] = MappingProxyType({})
) -> subprocess.Popen[bytes]:
    own = {
        "BRAINHIVE_HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
    }
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=home,
        env={**os.environ, **own, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def record_demos() -> dict[str, Any]:
    """Run the quick demos, and a training that is killed after its first checkpoint and
    resumed.
    """
    record: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for system in SYSTEMS:
            home = Path(folder, system)
            home.mkdir()
            code = _brainhive(home, "demo", "--system", system, "--quick").wait()
            record[f"demo {system}"] = {"exit code": code, **record_home(home)}
        home = Path(folder, "real")
        home.mkdir()
        code = _brainhive(home, "demo", "--real").wait()
        record["demo of recordings"] = {"exit code": code, **record_home(home)}

        # commands that no demo runs
        home = Path(folder, SYSTEMS[0])
        for command, words in SMALL_RUNS.items():
            code = _brainhive(home, command, *words).wait()
            record[command] = {
                "exit code": code,
                **record_home(home / "runs" / command),
            }
        record["push"] = record_push(home)
        process = _brainhive(home, *KILLED_TRAINING)
        while process.poll() is None and not [*home.glob("killed/**/checkpoints/*.pt")]:
            time.sleep(0.05)
        process.kill()
        codes = [process.wait(), _brainhive(home, *KILLED_TRAINING).wait()]
        record["killed and resumed"] = {
            "exit codes": codes,
            **record_home(home / "killed"),
        }
    return record


def record_push(home: Path) -> dict[str, Any]:
    """Push the first run of train-align to a hub on this machine, and list the files
    that it then has.

    The program of the hub lies in the folder that BRAINHIVE_SHARED names. The record is
    empty without it.
    """
    folder = os.environ.get("BRAINHIVE_SHARED")
    if not folder:
        return {}
    server = Path(folder, "data/mini_hub_server.py")
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
        words = (
            "push",
            run.name,
            "hub:me/demo",
            "--data-terms-checked",
            "--licence",
            "mit",
        )
        code = _brainhive(home, *words, environment=address).wait()
        files = hub.repos["me/demo"].at("main")[2] if code == 0 else {}
        return {"exit code": code, "files": sorted(files)}


def record_recipes() -> dict[str, str]:
    """Give the fingerprint of every shipped recipe."""
    fingerprints = {}
    for path in sorted((ROOT / "recipes").rglob("*.yaml")):
        pipeline = importlib.import_module(
            f"brainhive_cli.commands.{path.stem.replace('-', '_')}"
        )
        recipe = pipeline.Recipe.resolve(path.stem, str(path), {}, [])
        fingerprints[path.relative_to(ROOT / "recipes").as_posix()] = (
            recipe.fingerprint()
        )
    return fingerprints


def record_parts() -> dict[str, Any]:
    """Give of every TINY part its settings, and the weights and parameters in the order
    of what it builds.
    """
    from brainhive_cli.core import parts
    from brainhive_cli.core.errors import MissingExtra

    record: dict[str, Any] = {}
    for shelf in parts.SHELVES:
        for kind in parts.list_kinds(shelf):
            tiny = parts.load(shelf, kind).TINY
            entry: dict[str, Any] = {"settings": tiny.model_dump(mode="json")}
            if shelf == "encoders":
                entry["store"] = tiny.name
            try:
                module = _module_of(shelf, tiny)
            except MissingExtra as error:
                entry["missing"], module = error.message, None
            if module is not None:
                entry["weights"] = [
                    f"{key} {list(value.shape)}"
                    for key, value in module.state_dict().items()
                ]
                entry["parameters"] = [name for name, _ in module.named_parameters()]
            record[f"{shelf}/{kind}"] = entry
    return record


def _module_of(shelf: str, tiny: Any) -> Any:
    """Build a TINY part where that takes no more than sizes; others are seen in the
    demos.
    """
    if shelf == "backbones" and not tiny.takes_spec:
        return tiny.build(5, 160, 16)
    if shelf == "fusers":
        from brainhive_cli.models import fusers

        dims = {"one": 6, "other": 6}  # one width, which some need
        return fusers.build_fuser(tiny, dims, tiny.token_dim(dims, 8), 2)
    if shelf in ("losses", "encoders", "generators"):
        part = tiny.build()
        if hasattr(part, "state_dict"):
            return part
        for name in dir(part):
            with suppress(BrainhiveError):  # of weights that are not here
                if hasattr(value := getattr(part, name), "state_dict"):
                    return value
    return None


def record(is_quick: bool = False) -> dict[str, Any]:
    """Record the behaviour; a quick record is of recipes and parts alone."""
    demos = {} if is_quick else record_demos()
    return {"recipes": record_recipes(), "parts": record_parts(), **demos}


def differences(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """List where two records differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            name = f"{where}/{key}" if where else key
            if not before.get(key) and not after.get(key):
                continue  # a fact that is left out is an empty one
            if key not in before or key not in after:
                yield f"{name}: only {'after' if key in after else 'before'}"
            else:
                yield from differences(before[key], after[key], name)
    elif (
        isinstance(before, list)
        and isinstance(after, list)
        and len(before) == len(after)
    ):
        for place, pair in enumerate(zip(before, after, strict=True)):
            yield from differences(*pair, f"{where}[{place}]")
    elif before != after:
        yield f"{where}: {str(before)[:80]} → {str(after)[:80]}"


def main() -> None:
    """Print the size; or write a record; or compare with one, and end with 1 where
    something differs.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", type=Path, metavar="FILE")
    parser.add_argument("--compare", type=Path, metavar="FILE")
    parser.add_argument(
        "--quick", action="store_true", help="leave out the demos, which take minutes"
    )
    asked = parser.parse_args()
    if asked.record:
        asked.record.write_text(
            json.dumps(record(asked.quick), indent=1, sort_keys=True)
        )
    elif asked.compare:
        before = json.loads(asked.compare.read_text())
        after = json.loads(json.dumps(record(asked.quick)))
        lines = [*differences({name: before[name] for name in after}, after)]
        print(*lines or ["no difference"], sep="\n")
        sys.exit(bool(lines))
    else:
        print_size()


if __name__ == "__main__":
    main()
