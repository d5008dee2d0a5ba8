"""check: data sets, stores, runs, recipes and priors: what is there, what is missing, what is damaged."""

import importlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from brainhive_cli.core import console, hub, parts, run_files, shared_runs
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.recipe import Names, Paths, Run, Subjects, shipped_recipes
from brainhive_cli.core.recipe import Recipe as BaseRecipe
from brainhive_cli.core.results import Plan, Result
from brainhive_cli.core.runs import RunFolder, is_run
from brainhive_cli.core.tables import Table
from brainhive_cli.data import inventory
from brainhive_cli.data.datasets import alike_of
from brainhive_cli.data.signal_stores import COUNTED, RECORDED, count_rows, describe_store, recorded_row
from brainhive_cli.data.stores.hdf5 import short_name
from brainhive_cli.data.stores.health import COLUMNS, FAILED, PASSED, health_row, health_table
from brainhive_cli.data.stores.recordings import SignalStore, is_signal_store
from brainhive_cli.data.stores.target_store import TargetStore, expand_patterns, list_stores
from brainhive_cli.data.targets.target_stores import problem_of
from brainhive_cli.evaluation.explanation.signal_page import write_signal_page
from brainhive_cli.measurement.units import Alike
from brainhive_cli.models import priors

KINDS = ("documents", "weights", "checkpoints", "pictures")
"""The files of a run that are counted."""


COMMANDS = (
    "prepare",
    "embed",
    "train-align",
    "eval-retrieval",
    "train-prior",
    "train-autoencoder",
    "reconstruct",
)
"""Whose recipes are checked."""


class Recipe(BaseRecipe):
    """Recipe of check: data sets, stores, runs, recipes and priors."""

    computes: ClassVar[bool] = False

    stores: Names | None = Field(
        None,
        description="data sets (things-eeg), stores (files, folders or patterns), runs (folders or names), "
        "recipes (COMMAND.yaml, papers/nice) and priors (hub:NAME, folders); default: all stores below "
        "paths.embeddings",
    )
    dataset: Any = Field(None, description="a data set with its keys, as {kind: image-folder, root: FOLDER}")
    subjects: Subjects = Field(None, description="subjects of data sets; default: all")
    plots: bool = Field(
        False, description="draw the reliability of signal stores, also those of data sets: one page a store"
    )
    run: Run = Run(device="cpu")  # reads files only: one process does


@dataclass
class Named:
    """Names that are checked, sorted by kind."""

    datasets: list[Any] = field(default_factory=list)
    stores: list[Path] = field(default_factory=list)
    runs: list[Path] = field(default_factory=list)
    recipes: list[tuple[str, str]] = field(default_factory=list)
    priors: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, recipe: Recipe) -> "Named":
        """Sort the words of a recipe; all stores if there are none."""
        named = cls([parts.resolve("datasets", recipe.dataset)] if recipe.dataset else [])
        if recipe.stores is None:
            named.stores = [] if recipe.dataset else list_stores(None, recipe.paths)
            return named

        # each word: a data set, a recipe, a prior; else a run or a path
        runs, patterns = recipe.paths.under_home("runs"), []
        run_by_name = {path.name: path for path in runs.glob("*/*") if path.name in recipe.stores}
        for word in recipe.stores:
            if parts.is_kind("datasets", word):
                named.datasets.append(parts.resolve("datasets", word))
            elif commands := _commands_of(word):
                named.recipes += [(command, word) for command in commands]
            else:
                # a folder with a model and neither stores nor a run is a prior; the cache may have a run
                path = Path(word)
                if word.startswith(hub.SCHEME) and (cached := _find_cached_run(word)):
                    named.runs.append(cached)
                    continue
                has_config = (path / "config.json").is_file() or any(path.glob("*/config.json"))
                is_model = path.is_dir() and has_config and not is_run(path)
                if word.startswith(("hub:", "demo:")) or is_model:
                    named.priors.append(word)
                else:
                    patterns.append(str(run_by_name.get(word, word)))

        # paths: runs, and the rest is stores
        paths = expand_patterns(patterns)
        named.runs += [path for path in paths if is_run(path)]
        stores = [str(path) for path in paths if path not in named.runs]
        named.stores = list_stores(stores, recipe.paths) if stores else []
        return named


def _find_cached_run(reference: str) -> Path | None:
    """Find a run of the hub in its cache, without a network; None where it has none, as of a prior."""
    with suppress(MissingData):
        folder = hub.folder(reference, allow=[shared_runs.MANIFEST], local=True)
        manifest = shared_runs.read_manifest(folder)
        return folder if manifest and manifest.command == "train-align" else None
    return None


def _commands_of(word: str) -> list[str]:
    """List the commands that a recipe is for: a file called after one, or the folder of shipped ones."""
    path = Path(word)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        if path.stem not in COMMANDS:
            raise RecipeError(
                f"{word} does not say which command it is for", f"call it {COMMANDS[2]}.yaml, say"
            )
        return [path.stem]
    return (
        []
        if path.exists()
        else [name for name in COMMANDS if (shipped_recipes() / word / f"{name}.yaml").is_file()]
    )


def plan(recipe: Recipe) -> Plan:
    """List what would be checked."""

    def name_all() -> str:
        named = Named.of(recipe)
        datasets = [f"data set {config.kind}" for config in named.datasets]
        recipes = [f"{word} ({command})" for command, word in named.recipes]
        return ", ".join([*datasets, *map(str, named.stores), *map(str, named.runs), *recipes, *named.priors])

    return Plan.of({"checked": name_all})


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Check everything that is named; each that fails is warned of.

    All rows of stores are verified, and all files of runs; of data sets some pictures and trials, or with
    `again` all. The health of targets is measured again with `again`.

    Raises:
        MissingData: if there is none.
    """
    named = Named.of(recipe)
    problems: list[tuple[str, str, int]] = []  # what is wrong, the way out, the exit code

    # stores: of signals, then of targets
    signals: list[Path] = []
    for path in named.stores:
        with suppress(BrainhiveError):  # an unreadable file is checked as a target store
            signals += [path] if is_signal_store(path) else []
    targets = [path for path in named.stores if path not in signals]
    if recipe.plots:
        # and the signal stores of data sets, of the subjects that are checked
        names = [f"sub-{subject:02d}.h5" for subject in recipe.subjects or ()] or ["sub-*.h5"]
        for config in named.datasets:
            with suppress(MissingData):  # its inventory reports this
                folder = recipe.paths.under_home("signals") / config.build(recipe.paths).recorded_as
                stored = [path for name in names for path in sorted(folder.glob(f"*/{name}"))]
                signals += [path for path in stored if path not in signals]
        if not signals and named.datasets:
            kinds = ", ".join(config.kind for config in named.datasets)
            message = f"plots are of signal stores, and {kinds} has none"
            raise MissingData(message, "brainhive prepare")
        if not signals:
            way = "name a data set, or stores below signals/"
            raise RecipeError("plots are of signal stores, and none is named", way)
    stores, target_rows = {}, []
    with console.progress("checking stores", len(signals) + len(targets)) as bar:
        for path in signals:
            stores[str(path)] = _check_signals(path)
            bar.advance(1, short_name(path))
        for path in targets:
            row, stores[str(path)] = _check_targets(path, again)
            target_rows.append(row)
            bar.advance(1, short_name(path))
    for name, figures in stores.items():
        if problem := figures["problem"]:
            problems.append((f"{name} failed its health check: {problem}", "", BrainhiveError.exit_code))

    # a page for each signal store, with the reliability that it measures
    pages: dict[str, Path] = {}
    for path in signals if recipe.plots else []:
        if not stores[str(path)]["problem"]:
            store = SignalStore.open(path)
            with console.progress(f"drawing the page of {short_name(path)}"):
                page, reliability = write_signal_page(
                    store, path.with_suffix(""), _alike(store, recipe.paths)
                )
            pages[f"page of {short_name(path)}"], stores[str(path)]["reliability"] = page, reliability

    # data sets, runs, recipes and priors
    datasets, runs = [], {}
    with console.progress("checking data sets and runs", len(named.datasets) + len(named.runs)) as bar:
        for config in named.datasets:
            datasets.append(inventory.take(config, recipe.paths, recipe.subjects, again))
            bar.advance()
        for path in named.runs:
            runs[str(path)] = run_files.check(path)
            bar.advance()
    lacking = {f"{word} ({command})": _missing_for(command, word) for command, word in named.recipes}
    lacking |= {word: _problem_of_prior(word) for word in named.priors}

    # their problems, each with its way out
    for dataset in datasets:
        problems += [(error.message, error.hint, dataset.exit_code) for error in dataset.errors]
    for files in runs.values():
        problems += [(problem, "", BrainhiveError.exit_code) for problem in files.problems]
    for word, reason in lacking.items():
        if reason is not None:
            problems.append((f"{word}: {reason.in_one_line}", "", reason.exit_code))
    for message, hint, _ in problems:
        console.warn(message)
        if hint:
            console.say(f"  try: {hint}")

    # a table for each kind of thing
    tables = [dataset.table() for dataset in datasets]
    tables += [health_table(target_rows)] if target_rows else []
    tables += _tables_of_signals({path: stores[str(path)] for path in signals})
    if runs:
        rows = []
        for run_path, files in runs.items():
            counts = [files.counts.get(kind, 0) for kind in KINDS]
            state = FAILED if files.problems else PASSED
            rows.append(
                (RunFolder(Path(run_path)).name, *counts, "yes" if files.has_digests else "none", state)
            )
        tables.append(Table("Files of runs", ("run", *KINDS, "digests", "check"), rows))
    if lacking:
        states = {
            word: PASSED if error is None else "missing" if isinstance(error, MissingData) else FAILED
            for word, error in lacking.items()
        }
        tables.append(Table("Recipes and priors", ("what", "check"), tuple(states.items())))

    # the same for programs; a missing file ends with its own code, even beside another problem
    notes = {
        "stores": stores,
        "runs_checked": {path: asdict(files) for path, files in runs.items()},
        "datasets": {dataset.name: dataset.as_dict() for dataset in datasets},
        "others": {word: error.in_one_line if error else "" for word, error in lacking.items()},
    }
    exit_codes = {code for _, _, code in problems}
    is_missing = MissingData.exit_code in exit_codes
    below: Any = "runs" if runs else "data" if datasets else "embeddings" if target_rows else "signals"
    return Result(
        recipe.paths.under_home(below),
        tuple(tables),
        Measurements(notes={name: note for name, note in notes.items() if note or name == "stores"}),
        files=pages,
        exit_code=MissingData.exit_code if is_missing else max(exit_codes, default=0),
    )


def _check_signals(path: Path) -> dict[str, Any]:
    """Verify all rows of a signal store; describe it, or give its problem."""
    try:
        store = SignalStore.open(path)
        store.verify()
    except BrainhiveError as error:
        return {"problem": error.in_one_line}
    return {"problem": "", **describe_store(store)}


def _check_targets(path: Path, again: bool) -> tuple[tuple[object, ...], dict[str, Any]]:
    """Give one store's row and figures; one that does not open has failed too."""
    try:
        store = TargetStore.open(path)
        store.verify()
        health = store.measured() if again else store.health
        problem = problem_of(store, health)
    except BrainhiveError as error:
        unknown = ["–"] * (len(COLUMNS) - 2)
        return (path.name, *unknown, FAILED), {"problem": error.in_one_line}
    return health_row(store.path, health, bool(problem)), {**asdict(health), "problem": problem}


def _missing_for(command: str, word: str) -> BrainhiveError | None:
    """Give what a recipe lacks: what `COMMAND --recipe WORD --check` says first."""
    module = importlib.import_module(f"brainhive_cli.commands.{command.replace('-', '_')}")
    try:
        missing = module.plan(module.Recipe.resolve(command, word, {}, ())).missing
    except BrainhiveError as error:
        return error
    more = f"; and {len(missing) - 1} more" if len(missing) > 1 else ""
    return MissingData(missing[0] + more) if missing else None


def _problem_of_prior(reference: str) -> BrainhiveError | None:
    """Read a prior whole, without a network; give what is wrong with it."""
    try:
        is_kind = parts.is_kind("priors", reference)
        priors.load(reference if is_kind else str(hub.folder(reference, owner=priors.OWNER, local=True)))
    except hub.Unreachable as error:
        return MissingData(f"{reference} is not on this machine", error.hint)
    except BrainhiveError as error:
        return error
    return None


def _tables_of_signals(figures: Mapping[Path, Mapping[str, Any]]) -> list[Table]:
    """Show the trials of each store, and how it was recorded."""
    # two rows a store: what it holds, and how it was recorded
    counted: list[tuple[object, ...]] = []
    recorded: list[tuple[object, ...]] = []
    datasets = sorted({path.parts[-3] for path in figures if len(path.parts) > 3})
    for path, store_figures in figures.items():
        name = short_name(path).split("/", 1)[-1] if len(datasets) == 1 else short_name(path)
        if store_figures["problem"]:
            counted.append((name, *"–" * len(COUNTED), FAILED))
            continue
        counted += [(name, *row, PASSED) for row in count_rows(store_figures)]
        recorded.append((name, *recorded_row(store_figures)))

    title = f"Signal stores of {', '.join(datasets)}"
    tables = [
        Table(title, ("store", *COUNTED, "check"), tuple(counted)),
        Table("How they were recorded", ("store", *RECORDED), tuple(recorded)),
    ]
    return [table for table in tables if table.rows]


def _alike(store: SignalStore, paths: Paths) -> dict[str, Alike]:
    """Ask the data set below whose name a store lies which stimuli are alike; {} if it is none of ours."""
    name = store.path.parts[-3] if len(store.path.parts) > 2 else ""
    if not parts.is_kind("datasets", name):
        return {}
    try:
        dataset = parts.resolve("datasets", name).build(paths)
    except BrainhiveError:  # it needs keys that the store does not tell, as the folder of its pictures
        return {}
    alike = dict.fromkeys(store.splits, Alike(dataset.alike_by))
    for split in store.splits:
        with suppress(BrainhiveError):  # the pictures may be elsewhere
            stimuli = dataset.images(split)
            alike[split] = alike_of(dataset, stimuli.image_ids, stimuli.concepts)
    return alike
