"""Public Python interface for notebooks and for users' own modules.

    from brainhive_cli import api

    run = api.open_run("NAME")
    rows = run.metrics()

The names in this module stay the same when files of the package move. Importing this
module is fast, because other modules are imported when they are first used. Errors are
`BrainhiveError`, with a `message` and a `hint`. Relative paths start at the folder
`BRAINHIVE_HOME`, or at the working directory if that variable is not set.

Words of this module:

- A run is one execution of a command, and the folder that it writes.
- A sweep is a run with several variants of its settings.
- A cell is one trained model. It has training subjects, test subjects and a seed.
- A head is an output of a model, such as an embedding or a caption.
- A part is an exchangeable component of a recipe, such as a data set or an encoder.
- A caveat is a sentence on the limits of a number.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Only type checkers run these imports. The functions below import again what they need.
if TYPE_CHECKING:
    from brainhive_cli.core.arrays import Float32, Int64
    from brainhive_cli.core.artifacts import Artifact
    from brainhive_cli.core.command import Result
    from brainhive_cli.core.errors import BrainhiveError
    from brainhive_cli.core.measurements import Measurements
    from brainhive_cli.core.parts import Config
    from brainhive_cli.core.recipe import Paths
    from brainhive_cli.core.runs import RunFolder
    from brainhive_cli.data.datasets import Dataset
    from brainhive_cli.data.files.ids import Names
    from brainhive_cli.data.media.stimuli import StimulusSet
    from brainhive_cli.data.signals.normalisations import Normaliser
    from brainhive_cli.data.signals.spaces import Grid, Sensors, Surface, Voxels
    from brainhive_cli.data.signals.trials import Trials
    from brainhive_cli.data.stores.signal_store import SignalStore
    from brainhive_cli.data.stores.target_store import TargetStore
    from brainhive_cli.data.targets.model_input import model_input
    from brainhive_cli.measurement.metrics import MetricPart
    from brainhive_cli.models.backbones import BackboneConfig
    from brainhive_cli.models.encoders import Encoder, EncoderConfig
    from brainhive_cli.models.fusers import FuserConfig
    from brainhive_cli.models.generators import Sampling
    from brainhive_cli.models.heads import Conditioning, Decoded
    from brainhive_cli.models.losses import LossConfig, LossContext
    from brainhive_cli.models.priors import Description
    from brainhive_cli.models.signal_spec import SignalSpec
    from brainhive_cli.reports.runs_shown import RunGroup
    from brainhive_cli.training.alignment.cells import Cell
    from brainhive_cli.training.alignment.model import Aligner
    from brainhive_cli.training.alignment.trained.model import TrainedModel
    from brainhive_cli.training.alignment.trained.run import TrainedRun

MODULE_OF_NAME = {
    "BackboneConfig": "models.backbones",
    "BrainhiveError": "core.errors",
    "Conditioning": "models.heads",
    "Config": "core.parts",
    "Dataset": "data.datasets",
    "Decoded": "models.heads",
    "Description": "models.priors",
    "Encoder": "models.encoders",
    "EncoderConfig": "models.encoders",
    "FuserConfig": "models.fusers",
    "Grid": "data.signals.spaces",
    "LossConfig": "models.losses",
    "LossContext": "models.losses",
    "MetricPart": "measurement.metrics",
    "Names": "data.files.ids",
    "Normaliser": "data.signals.normalisations",
    "Paths": "core.recipe",
    "Trials": "data.signals.trials",
    "Sampling": "models.generators",
    "Sensors": "data.signals.spaces",
    "SignalSpec": "models.signal_spec",
    "StimulusSet": "data.datasets",
    "Surface": "data.signals.spaces",
    "Voxels": "data.signals.spaces",
    "model_input": "data.targets.model_input",
}
"""Module, below `brainhive_cli`, of each name that a user's own module may import."""
__all__ = [
    *MODULE_OF_NAME,
    "Comparison",
    "Predictions",
    "Ranks",
    "Run",
    "compare",
    "decode",
    "fit",
    "open_model",
    "open_run",
    "open_signals",
    "open_store",
    "run",
    "store_trials",
]
MAX_FOLDS = 5
"""Largest number of folds of `fit` if single trials are held out."""
MAX_LDA_FEATURES = 1000
"""Largest number of features per trial for which `fit` uses linear discriminant
analysis (LDA) instead of ridge regression.
"""
ARGUMENT_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "subject": ((Integral,), "a whole number"),
    "path": ((str, Path), "a name or path"),
}
"""Allowed types and their description, keyed by the name of an argument. Arguments that
are not listed are text.
"""


def __getattr__(name: str) -> Any:
    if name not in MODULE_OF_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # importing the module only now keeps `import brainhive_cli.api` fast
    module = importlib.import_module(f"brainhive_cli.{MODULE_OF_NAME[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _check_arguments(**arguments: object) -> None:
    """Raise an error if an argument has a wrong type or forbidden characters.

    Args:
        arguments: Values to check, keyed by the name of the argument. `ARGUMENT_TYPES`
            maps some names to their allowed types and a description of these types. The
            value of any other argument must be a text.

    Raises:
        RecipeError: if a value has a wrong type, or is a text that cannot be the name
            of a file. The message contains the name of the argument and its value.
    """
    from brainhive_cli.core.errors import RecipeError
    from brainhive_cli.core.files import describe_bad_text

    for name, value in arguments.items():
        allowed_types, description = ARGUMENT_TYPES.get(name, ((str,), "text"))

        # messages show the value on a single line, cut to 80 characters
        short_value = " ".join(repr(value)[:300].split())[:80]

        # no argument is a bool, but Python counts True and False as integers
        if isinstance(value, bool) or not isinstance(value, allowed_types):
            raise RecipeError(
                f"{name} is {short_value}, of type {type(value).__name__}",
                f"{name} must be {description}; see help(brainhive_cli.api)",
            )

        # The text becomes part of a file name. `describe_bad_text` says if it contains
        # control characters or is not UTF-8, and otherwise returns an empty text.
        problem = describe_bad_text(str(value)) if isinstance(value, str | Path) else ""
        if problem:
            raise RecipeError(
                f"{name} {short_value} {problem}",
                "give a name or path that a file can have",
            )


@dataclass(frozen=True)
class Predictions:
    """Predictions of a brain model for the signals of a subject and split.

    Attributes:
        image_ids: Image id [N] of the picture that was seen during each signal.
        heads: Predictions [N, *shape] of each head (output of the model), keyed by the
            name of the head.
        texts: Lists of N captions, keyed by the name of the head. Heads that predict no
            captions have no list.
        caveats: Sentences on the limits of all numbers that are computed from these
            predictions.
    """

    image_ids: list[str]
    heads: "dict[str, Float32]"
    texts: dict[str, list[str]]
    caveats: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ranks:
    """Similarity of each signal to each picture of a gallery, and the resulting ranks.

    Attributes:
        image_ids: Image id [N] of the picture that was seen during each signal. Empty
            if the seen pictures are unknown.
        ranks: Rank [N] of the seen picture in the gallery. The picture with rank 1 is
            the most similar to the signal. Empty if the seen pictures are unknown.
        gallery: Image ids [M] of the pictures in the gallery.
        similarity: Cosine similarity [N, M] between each signal and each picture of
            the gallery.
        caveats: Sentences on the limits of all numbers that are computed from these
            ranks.
        index: Position [N] of each signal among the trials passed to `decode`. That
            function leaves out trials whose picture is not in the gallery, or was used
            to train the model.
    """

    image_ids: list[str]
    ranks: "Int64"
    gallery: list[str]
    similarity: "Float32"
    caveats: list[str] = field(default_factory=list)
    index: "Int64 | None" = None


@dataclass(frozen=True)
class Run:
    """A finished run (one execution) of a command, read from its folder.

    Attributes:
        folder: Folder of the run.
        variant: Name of the variant, if the run is a sweep (several variants of its
            settings) and was opened as `RUN:VARIANT`. Empty for the whole run.
    """

    folder: "RunFolder"
    variant: str = ""

    @property
    def path(self) -> Path:
        """Path of the run's folder."""
        return self.folder.path

    @cached_property
    def measurements(self) -> "Measurements":
        """Metrics, facts, missing values and values of single items of the run."""
        return self.folder.measurements()

    def metrics(self) -> list[dict[str, Any]]:
        """Return a row for each metric, with its interval, chance level and protocol.

        A metric has one row for each scope, such as a subject or the mean of all
        subjects. `pandas.DataFrame(run.metrics())` makes a table of the rows.
        """
        return self.measurements.rows()

    def recipe(self) -> dict[str, Any]:
        """Read the settings of the run, with all defaults filled in."""
        return self.folder.recipe()

    def artifacts(self) -> "list[Artifact]":
        """Read the curves, matrices, picture sheets, maps, media and tables of the run.

        The run has written them to its folder.
        """
        from brainhive_cli.core import artifacts

        return artifacts.read(self.folder)

    def _repr_html_(self) -> str | None:
        """Return the report page of the run, which a notebook shows for the object.

        Returns:
            The page as HTML, or None if the page cannot be drawn. The notebook then
            shows the `repr` of the run, without a traceback.
        """
        from brainhive_cli.core.errors import BrainhiveError

        try:
            from brainhive_cli.reports.page import frame_page
            from brainhive_cli.reports.run_page import lay_out_page
            from brainhive_cli.reports.runs_shown import RunGroup, ShownRun

            label = self.variant or self.folder.name
            group = RunGroup([ShownRun(label, self.folder, self.variant)])
            return frame_page(lay_out_page([group]))
        except (BrainhiveError, ImportError):
            return None

    @cached_property
    def cells(self) -> "list[Cell]":
        """Cells (trained models) of a run of train-align.

        Each has a name, training subjects, test subjects and a seed.
        """
        return self._align.cells

    def aligner(self, cell: str = "", device: str = "cpu") -> "Aligner":
        """Load the PyTorch module of a cell, which is a trained model of the run.

        Args:
            cell: Name of the cell, as in `cells`. It may be empty if the run has a
                single cell.
            device: Device to load the model on, such as `cuda:0`.

        Raises:
            BrainhiveError: if the run has no cell of this name, or if the name is empty
                and the run has several cells. The hint lists the cells.
            DeviceError: if there is no such device.
        """
        return self.member(cell, device).module

    def predictions(
        self,
        subject: int | None = None,
        split: str = "test",
        cell: str = "",
        device: str = "cpu",
    ) -> Predictions:
        """Decode the signals of a subject with a cell (a trained model of the run).

        The signals of all trials with the same picture are averaged first.

        Args:
            subject: Number of the subject. None stands for the only test subject of the
                cell.
            split: Split of the data set, such as `test`. Pictures that the model was
                trained on are left out.
            cell: Name of the cell. The name may be empty if the run has a single cell.
            device: Device to compute on.

        Returns:
            Predictions for N pictures: an array [N, *shape] for each head (output of
            the model), texts, and the ids [N] of the pictures that the subject saw.
        """
        # open the model
        _check_arguments(split=split)
        member = self.member(cell, device)
        subject = _choose_subject(member, subject)

        # Decode the averaged signal of each picture that the subject saw. The array
        # `picture_rows` [N] has the row of this picture in the split.
        decoded, picture_rows = member.decoded(subject, split)
        heads = {name: tensor.cpu().numpy() for name, tensor in decoded.tensors.items()}
        return Predictions(
            image_ids=list(member.pictures(split).image_ids[picture_rows]),
            heads=heads,
            texts=decoded.texts,
            caveats=member.run.caveats(split),
        )

    def member(self, cell: str = "", device: str = "cpu") -> "TrainedModel":
        """Open a cell (a trained model of the run) together with its data.

        Args:
            cell: Name of the cell, as in `cells`. The name may be empty if the run has
                a single cell.
            device: Device to load the model on, such as `cuda:0`.

        Raises:
            BrainhiveError: if the run has no cell of this name, or if the name is empty
                and the run has several cells. The hint lists the cells.
            DeviceError: if there is no such device.
        """
        from brainhive_cli.core.launch import open_device
        from brainhive_cli.training.alignment.references import choose_cell
        from brainhive_cli.training.alignment.trained.model import TrainedModel

        _check_arguments(cell=cell)
        cell_by_name = {trained_cell.name: trained_cell for trained_cell in self.cells}
        trained_cell = choose_cell(cell_by_name, cell, self.path)
        return TrainedModel(self._align, trained_cell, open_device(device))

    @cached_property
    def _align(self) -> "TrainedRun":
        """The same run, opened with its trained models.

        Raises:
            RecipeError: if the run is not a run of train-align. Other runs have no
                folder `cells`, and so no models.
        """
        from brainhive_cli.core.errors import RecipeError
        from brainhive_cli.training.alignment.trained.run import TrainedRun

        if not (self.path / "cells").is_dir():
            raise RecipeError(f"{self.path} has no models", "open a run of train-align")
        return TrainedRun(self.folder, self.variant)


@dataclass(frozen=True)
class Comparison:
    """Comparison of the first run with each other run.

    Attributes:
        groups: Groups of runs of the same command. Each has the differences between its
            runs, and the reasons why some pairs were not compared.
    """

    groups: "list[RunGroup]"

    @property
    def differences(self) -> list[dict[str, Any]]:
        """Paired differences between runs: a dict for each, with its statistical test.

        `pandas.DataFrame(comparison.differences)` makes a table of the rows.
        """
        rows = []
        for group in self.groups:
            for pair in group.differences:
                # `p` is a property, so `model_dump` leaves it out
                rows.append(pair.model_dump() | {"p": pair.p})
        return rows

    def _repr_html_(self) -> str:
        """Return the tables of all groups as HTML for a notebook.

        The caption of a table names the statistical test and lists the caveats.
        """
        from brainhive_cli.reports.page import frame_table
        from brainhive_cli.reports.paper_tables import paper_table

        tables = []
        for group in self.groups:
            reasons = [f"Not compared: {reason}." for reason in group.refusals]
            tables.append(frame_table(paper_table(group), reasons))
        return "\n".join(tables)


def compare(*runs: "Run | str | Path", labels: "list[str] | None" = None) -> Comparison:
    """Compare runs as the command `compare` does, without writing files.

    Args:
        runs: Two or more runs. Each is an open `Run`, or a text or path from which
            `open_run` can open it.
        labels: Labels of the runs, in the order of `runs`. If None, the labels are the
            settings in which the runs differ.

    Returns:
        The comparison of the first run with each other run.

    Raises:
        BrainhiveError: if a run does not exist, or if no two runs can be compared.
    """
    from brainhive_cli.commands import compare as command
    from brainhive_cli.core.errors import RecipeError

    if len(runs) < 2:
        raise RecipeError(
            f"compare takes two runs or more, not {len(runs)}", "compare(RUN, RUN)"
        )

    # write each run as text, in the form that the command line takes
    references = []
    for compared_run in runs:
        if not isinstance(compared_run, Run):
            _check_arguments(path=compared_run)
            references.append(str(compared_run))
        elif compared_run.variant:
            references.append(f"{compared_run.path}:{compared_run.variant}")
        else:
            references.append(str(compared_run.path))

    # `resolve` checks these settings in the same way as the options of a command line
    options = {"runs": references, "labels": labels}
    recipe = command.Recipe.resolve("compare", None, options, [])
    return Comparison(command.compare_runs(recipe))


def open_run(name: str | Path) -> Run:
    """Open a finished run.

    Args:
        name: The run, as
            - the path of its folder, its name, or the end of its name
            - `RUN:VARIANT`, for one variant of a sweep (a run with several variants of
              its settings)
            - `hub:owner/name[@revision]`, for a run that `brainhive push` has uploaded.
              The run is downloaded.

    Raises:
        BrainhiveError: if there is no such run, or if several runs have this name.
    """
    from brainhive_cli.core import runs
    from brainhive_cli.core.recipe import Paths
    from brainhive_cli.core.runs import split_variant

    _check_arguments(path=name)
    # the variant is empty if the name contains none
    run_name, variant = split_variant(str(name))
    # None: the run of any command
    folder = runs.find(Paths().under_home("runs"), None, str(run_name))
    return Run(folder, variant)


def open_model(reference: str | Path, cell: str = "", device: str = "cpu") -> "Aligner":
    """Load a trained brain model as a PyTorch module.

    Args:
        reference: The model, as
            - a run of train-align, by name, path or `RUN:VARIANT` (see `open_run`)
            - the name of a recipe of train-align, for the newest run of the recipe
            - the path of a model folder, anywhere on disk
            - `hub:owner/name[@revision]`, for an uploaded run or model folder
        cell: Name of the cell, which is a trained model of the run. The name may be
            empty if the run has a single cell.
        device: Device to load the model on, such as `cuda:0`.

    Returns:
        The model on this device.

    Raises:
        BrainhiveError: if there is no such model, or if `cell` is empty and the run has
            several cells. The hint lists the cells.
        DeviceError: if there is no such device.
    """
    from brainhive_cli.core.launch import open_device
    from brainhive_cli.core.recipe import Paths
    from brainhive_cli.training.alignment import model as aligners
    from brainhive_cli.training.alignment.references import find_model, find_reference

    _check_arguments(path=reference, cell=cell)
    run_folder, variant = find_reference(str(reference), Paths())
    model_folder = find_model(run_folder, variant, cell)
    return aligners.load(model_folder).to(open_device(device))


def open_store(dataset: str, split: str, encoder: str) -> "TargetStore":
    """Open the embeddings (vectors of pictures) that the command `embed` has stored.

    Args:
        dataset: Name of the data set, which is the name of a folder in `embeddings/`.
        split: Split of the data set, such as `train` or `test`.
        encoder: Name of the encoder, such as `clip-h14`.

    Returns:
        The store of N pictures. Its arrays have a row for each picture:
        - `embedding` [N, *shape]: the output of the encoder
        - `image_ids` [N]: the name of the picture
        - `concepts` [N]: the concept that the picture shows
        - `done` [N]: True if the picture is embedded already
    """
    from brainhive_cli.core.recipe import Paths
    from brainhive_cli.data.stores import target_store

    _check_arguments(dataset=dataset, split=split, encoder=encoder)
    folder = Paths().under_home("embeddings")
    return target_store.open_all(folder, dataset, split, [encoder])[encoder]


def open_signals(dataset: str, subject: int, name: str = "default") -> "SignalStore":
    """Open the prepared signals of a subject.

    Args:
        dataset: Name of the data set, which is the name of a folder in `signals/`.
        subject: Number of the subject.
        name: Name that the signals were stored under, as in the key `signal.name`.

    Returns:
        The store. `store["test"]` gives the `Trials` of the test split, with the
        signals of N pictures, R repetitions, C channels and T samples in `signal`
        [N, R, C, T], and with `image_ids` [N].
    """
    from brainhive_cli.core.recipe import Paths
    from brainhive_cli.data.stores import signal_store

    _check_arguments(dataset=dataset, subject=subject, name=name)
    path = signal_store.path_of(Paths().under_home("signals"), dataset, name, subject)
    return signal_store.SignalStore.open(path)


def run(
    command: str,
    recipe: str | Path | None = None,
    *,
    again: bool = False,
    allow_code: bool = False,
    **keys: Any,
) -> "Result":
    """Run a command as on the command line, with the same run folder and progress bar.

    Args:
        command: Name of the command, such as `train-align`.
        recipe: Path of a YAML file, or name of a shipped recipe. If None, the default
            recipe of the command.
        again: If True, start a new run even if a run with the same settings is
            finished.
        allow_code: If True, allow code that is not part of Brainhive to run, such as
            the code of a model from the hub.
        keys: Settings that replace values of the recipe, nested (`train={"lr": 1e-3}`)
            or dotted (`**{"train.lr": 1e-3}`). A dict changes only the keys in it. The
            exception is a dict with the key `kind`, which describes a part (such as an
            encoder): it replaces the part with all its keys.

    Returns:
        Folder, tables and metrics of the run. `open_run(result.folder)` opens the run.

    Raises:
        BrainhiveError: if the command fails.
    """
    from brainhive_cli.cli import execute, table
    from brainhive_cli.core import foreign_code, launch
    from brainhive_cli.core.errors import RecipeError, guess

    _check_arguments(command=command)
    command_names = [spec.name for spec in table.COMMANDS]
    if command not in command_names:
        hint = guess(command, command_names) + ", ".join(command_names)
        raise RecipeError(f"no command {command!r}", hint)

    # write the command line, by which the other processes of a run are started
    overrides = [f"{key}={_write_override(value)}" for key, value in _list_keys(keys)]
    line = [command]
    if recipe:
        line += ["--recipe", str(recipe)]
    line += overrides
    if again:
        line.append("--again")
    if allow_code:
        line.append("--allow-code")

    # run the command in this process, or start several processes and wait for them
    token = launch.COMMAND_LINE.set(line)
    try:
        with foreign_code.allow_code(allow_code):
            module_name = command.replace("-", "_")
            module = importlib.import_module(f"brainhive_cli.commands.{module_name}")
            recipe_name = None if recipe is None else str(recipe)
            resolved = module.Recipe.resolve(command, recipe_name, {}, overrides)
            n_processes = execute.count_processes(resolved)
            if n_processes == 1:
                _, result = execute.perform(command, module, resolved, again)
                return result

            # the other processes do the work, and this process only reads the result
            if launch.relaunch(resolved.run, n_processes, resolved.MEMORY_HINT):
                raise KeyboardInterrupt
            return module.run(resolved, launch.READ_ONLY)
    finally:
        launch.COMMAND_LINE.reset(token)


def _list_keys(keys: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten nested recipe keys to pairs of a dotted key and its value.

    A dict with the key `kind` describes a part (such as an encoder). It is not
    flattened.

    Args:
        keys: Values or nested dicts, keyed by name.
        prefix: Text before each key, such as `train.`.
    """
    for key, value in keys.items():
        if isinstance(value, dict) and value and "kind" not in value:
            yield from _list_keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _write_override(value: Any) -> str:
    """Write a value as text that an override (`key=value`) can have.

    Configs become dicts, arrays become lists, and other objects (paths) become text.
    """
    import json

    from brainhive_cli.core.errors import write_value

    def convert_to_json_type(item: Any) -> Any:
        if hasattr(item, "model_dump"):
            return item.model_dump(mode="json")
        return item.tolist() if hasattr(item, "tolist") else str(item)

    return write_value(json.loads(json.dumps(value, default=convert_to_json_type)))


def store_trials(
    X: Any,
    pictures: Any = None,
    dataset: Any = "image-folder",
    subject: int = 1,
    session: Any = None,
    run: Any = None,
    *,
    name: str = "default",
    whitened: bool | None = None,
    averaged: bool | None = None,
    **axes: Any,
) -> "Trials":
    """Write trials from memory to the signal store of a subject.

    Commands read signals from this store. A store of the same name is replaced.

    Args:
        X: Signals of n trials, as an array [n, C, T] of sensors or [n, V] of voxels, as
            mne.Epochs, or as xarray.DataArray.
        pictures: Picture [n] that was seen in each trial, as
            - a list of paths, file names, image ids or categories
            - the name of a column of the MNE metadata, or of an xarray coordinate
            - None, if the names of the MNE events are the pictures
        dataset: Data set that the pictures belong to, as its kind, or as a dict of its
            keys, such as `{"kind": "image-folder", "root": FOLDER, "test_share": 0.2}`.
            The data set `categories` has no files: its pictures are the categories
            in `pictures`.
        subject: Number of the subject.
        session: Session label [n] of each trial, or None for a single session.
        run: Label [n] of the recording run (block) of each trial, or None if unknown.
        name: Name of the stored signals. Recipes name them by the key `signal.name`.
        whitened: True if the signals are whitened, False if not. If None, results have
            the caveat that earlier steps are unknown.
        averaged: True if each trial is an average of several trials, False if not. If
            None, results have the same caveat.
        axes: Axes of the signals, by name:
            - arrays: `channels` or `space` (`Sensors`, `Voxels`), `times_s` [T] from
              the onset of the picture, `rate_hz` and `unit`
            - epochs: `channels` or `types` of the channels to select
            - arrays and epochs: `onset_s` [n], the time of each trial in its recording
              run. Without it, trials must be in the order of time. If their times are
              unknown, set `onset_s="unknown"`, which adds a caveat.

    Returns:
        The m stored trials, in the order of `X`. `index` [m] has their positions in
        `X`. A trial whose picture is not in the data set is left out, with a warning.

    Raises:
        BrainhiveError: if an axis is missing or does not fit, or if no trial shows a
            picture of the data set.
    """
    from brainhive_cli.core.recipe import Paths
    from brainhive_cli.data.recordings import epochs
    from brainhive_cli.data.stores import own_arrays, signal_store

    # convert the trials, and find the path of their store
    _check_arguments(subject=subject, name=name)
    trials = epochs.as_trials(X, pictures, **axes)
    stimuli = _resolve_dataset(dataset, trials.image_ids).build(Paths())
    folder = Paths().under_home("signals")
    path = signal_store.path_of(folder, stimuli.recorded_as, name, subject)

    # steps that were applied before; a step that is not listed is unknown
    earlier_steps = {}
    if whitened is not None:
        earlier_steps["whitened"] = bool(whitened)
    if averaged is not None:
        earlier_steps["averaged"] = bool(averaged)
    return own_arrays.store(trials, stimuli, path, subject, session, run, earlier_steps)


def _resolve_dataset(dataset: Any, image_ids: Sequence[str]) -> Any:
    """Return the config of a data set, whose method `build` makes the data set.

    Args:
        dataset: The data set, in one of three forms:
            - a config, which is returned unchanged
            - the kind of the data set, such as `image-folder`
            - a dict of settings, in which the key `kind` has the kind
        image_ids: Name [n] of the picture or category of each trial. If the kind is
            `categories`, and the settings contain neither `names` nor `root`, the
            different names are the categories of the data set.

    Raises:
        RecipeError: if the categories are taken from `image_ids`, and there are fewer
            than two.
    """
    from brainhive_cli.core import parts
    from brainhive_cli.core.errors import RecipeError

    if hasattr(dataset, "build"):
        return dataset
    keys = dict(dataset) if isinstance(dataset, dict) else {"kind": dataset}

    # If the settings do not list the categories, take them from the trials. The name of
    # a trial without a category is empty.
    if keys.get("kind") == "categories" and "names" not in keys and "root" not in keys:
        categories = sorted(set(image_ids) - {""})
        if len(categories) < 2:
            raise RecipeError(
                f"all trials show {', '.join(categories) or 'nothing'}",
                "give at least two categories: pictures=[n] is the category of each "
                "trial of X",
            )
        keys["names"] = categories
    return parts.resolve("datasets", keys)


def fit(
    X: Any,
    pictures: Any = None,
    folder: str | Path | None = None,
    *,
    subject: int = 1,
    runs: Any = None,
    session: Any = None,
    test_share: float = 0.2,
    encoders: Any = None,
    keys: Mapping[str, Any] | None = None,
    **axes: Any,
) -> tuple[Run, Run]:
    """Store trials, embed their pictures, train a decoder, and evaluate it.

    Args:
        X: Signals of n trials, as an array, mne.Epochs or xarray.DataArray (see
            `store_trials`).
        pictures: Picture or category [n] that was seen in each trial.
        folder: Folder of the pictures. If None, `pictures` are categories, and the
            trials are tested by cross-validation. A fold is a recording run, or a set
            of single trials if there are no `runs`.
        subject: Number of the subject.
        runs: Label [n] of the recording run (block) of each trial, or None.
        session: Session label [n] of each trial, or None for a single session.
        test_share: Share of the concepts of the folder to test. Unused if the folder
            has a subfolder `test`.
        encoders: Names of the encoders that embed the pictures. If None, the usual
            encoders of the data set.
        keys: Settings of the training, as keys of the recipe of train-align, such as
            `{"backbone": "brain-mlp"}`.
        axes: Axes of the signals, as in `store_trials`.

    Returns:
        The run of train-align, which has the models, and the run of eval-retrieval,
        which has their scores.

    Raises:
        RecipeError: if there are too few runs, or too few trials of a category, to hold
            some out.
    """
    import numpy as np

    # store the trials together with the names of their pictures or categories
    dataset: dict[str, Any] = {"kind": "categories"}
    if folder is not None:
        dataset = {"kind": "image-folder", "root": str(Path(folder).resolve())}
        has_test_folder = (Path(folder) / "test").is_dir()
        if not has_test_folder:
            dataset["test_share"] = test_share
    trials = store_trials(X, pictures, dataset, subject, session, runs, **axes)

    # Categories are decoded by a linear model. Each fold of the trials is tested by a
    # model that was trained on the other folds.
    train_keys: dict[str, Any] = {"subjects": [subject]}
    if folder is None:
        categories = list(trials.image_ids)
        dataset["names"] = sorted(set(categories))
        dataset["holdout"] = _choose_folds(categories, runs, trials.index)
        train_keys["seeds"] = [0]

        # LDA computes the covariance of all features, which takes minutes if there are
        # many; ridge regression is then faster
        n_features = np.prod(trials.signal.shape[2:])
        ridge = {"kind": "ridge", "alpha": "auto", "standardise": False}
        train_keys["backbone"] = "lda" if n_features <= MAX_LDA_FEATURES else ridge
    train_keys |= keys or {}

    # embed the pictures, train the models, and evaluate them
    data_keys: dict[str, Any] = {"dataset": dataset}
    if encoders:
        data_keys["encoders"] = encoders
    run("embed", **data_keys)
    training_folder = run("train-align", **(data_keys | train_keys)).folder
    evaluation_folder = run("eval-retrieval", run=training_folder).folder
    return open_run(training_folder), open_run(evaluation_folder)


def _choose_folds(
    categories: Sequence[str], runs: Any, index: Any
) -> dict[str, str | int]:
    """Choose the folds of cross-validation: recording runs, or sets of single trials.

    Args:
        categories: Category [m] of each stored trial.
        runs: Label [n] of the recording run of each trial passed to `fit`, or None. If
            None, single trials are held out.
        index: Position [m] of each stored trial among the trials passed to `fit`.

    Returns:
        Keys of the recipe section `dataset.holdout`: `by` is "runs" or "trials", and
        `folds` is the number of folds.

    Raises:
        RecipeError: if the trials outside a fold are not enough to train a model.
    """
    from collections import Counter

    import numpy as np

    from brainhive_cli.core.errors import RecipeError

    # without runs, hold out single trials; there are at most as many folds as the
    # largest category has trials
    if runs is None:
        largest_category = max(Counter(categories).values())
        if largest_category < 2:
            raise RecipeError(
                f"each of the {len(categories)} trials has a category of its own in "
                "pictures",
                "a category needs two trials, to train and to test; if pictures are "
                "file names, set folder=FOLDER",
            )
        return {"by": "trials", "folds": min(MAX_FOLDS, largest_category)}

    # otherwise hold out each run once, for which two runs are needed
    run_labels = np.unique(runs)
    if len(run_labels) < 2:
        raise RecipeError(
            f"runs is {run_labels[0]} for all {len(categories)} trials of X",
            "give the run of each trial, with two runs or more: runs=[n]; without "
            "runs, single trials are held out",
        )

    # the trials outside a held-out run must show two categories or more
    run_of_trial = np.asarray(runs)[index]  # [m]
    stored_runs = np.unique(run_of_trial)
    for held_out_run in stored_runs:
        is_training = run_of_trial != held_out_run
        training_categories = np.unique(np.array(categories)[is_training])
        if len(training_categories) < 2:
            raise RecipeError(
                f"without run {held_out_run}, the trials of X show only "
                f"{', '.join(training_categories)}",
                "each run is tested by a model of the other runs, which must show two "
                "categories or more; without runs, single trials are held out",
            )
    return {"by": "runs", "folds": len(stored_runs)}


def decode(
    model: Run | str | Path,
    signal: Any,
    subject: int | None = None,
    split: str = "test",
    cell: str = "",
    device: str = "cpu",
    pictures: Any = None,
    **axes: Any,
) -> Ranks:
    """Compare each signal of a recording with all pictures of a split.

    The signals are prepared for the model as in its training: channels are selected by
    name, the window is cut by time, and the signals are normalised.

    Args:
        model: Run of train-align, as an open `Run`, or as a name or path that
            `open_run` takes.
        signal: Signals to decode, as
            - `Trials`. The repetitions of a picture are averaged.
            - an array, mne.Epochs or xarray.DataArray, as in `store_trials`. Each trial
              is decoded separately. The steps of the training's preparation that are
              possible for epochs are applied: baseline, resampling, and whitening by
              the noise of the training. A caveat names each step that is not applied.
        subject: Number of the subject. If None, the only test subject of the cell.
        split: Split of the data set. Its pictures are the gallery, the set of pictures
            to compare with. Pictures that the model was trained on are left out.
        cell: Name of the cell, which is a trained model of the run. It may be empty
            if the run has a single cell.
        device: Device to compute on.
        pictures: Picture [n] that was seen in each trial. If None, the names of MNE
            events may be the pictures. If the pictures stay unknown, the result has
            similarities but no ranks.
        axes: Axes of the signals, as in `store_trials`. If the array has the shape of
            the model's input, it has the axes of the model by default. `delay_ms` is
            the time from the event, where time is 0, to the picture on the screen. Its
            default is `preparation.delay_ms` of the training.

    Returns:
        Similarity [N, M] of each signal to each picture of the gallery, and the rank of
        the seen picture.

    Raises:
        BrainhiveError: if the recording has another sampling rate than the model, or
            lacks one of the model's channels.
    """
    import numpy as np
    from torch.nn.functional import normalize

    from brainhive_cli.core.errors import require_kind
    from brainhive_cli.core.measurements import merge_caveats
    from brainhive_cli.data.signals.trials import Trials
    from brainhive_cli.evaluation.retrieval.measure import encode_gallery, open_gallery
    from brainhive_cli.training.alignment.trained.new_trials import read_new

    # open the model, and convert the signals to trials
    usage = 'api.decode(api.open_run("NAME"), api.open_signals("DATASET", 1)["test"])'
    model = open_run(model) if isinstance(model, str | Path) else model
    require_kind("model", model, Run, usage)
    _check_arguments(split=split)
    member = model.member(cell, device)
    subject = _choose_subject(member, subject)
    preparation_caveats = list[str]()
    if not isinstance(signal, Trials):
        signal, preparation_caveats = read_new(
            member, subject, split, signal, pictures, axes
        )

    # encode each trial and each picture of the gallery as a vector (token)
    trials = member.trials(subject, split, recording=signal)
    gallery = open_gallery([member], [split])
    picture_tokens = encode_gallery([member], gallery)  # [M, D]
    signal_tokens = member.encode(trials)  # [N, D]
    similarity = normalize(signal_tokens, dim=1) @ normalize(picture_tokens, dim=1).T

    # rank the seen picture of each trial, if it is known
    image_ids = list[str]()
    ranks = np.zeros(0, np.int64)
    if len(signal.image_ids):
        scores = member.rank(trials, gallery, picture_tokens, signal_tokens)
        image_ids = list(scores.labels)
        ranks = scores.ranks

    # trials without an index are all trials of the recording
    index = np.arange(len(similarity)) if trials.index is None else trials.index
    caveats = merge_caveats(signal.caveats, member.module.learned.caveats)
    return Ranks(
        image_ids=image_ids,
        ranks=ranks,
        gallery=gallery.image_ids,
        similarity=similarity.cpu().numpy(),
        caveats=caveats + preparation_caveats,
        index=index,
    )


def _choose_subject(member: "TrainedModel", subject: int | None) -> int:
    """Return the requested subject, or the only test subject of a trained model.

    Args:
        member: Trained model. `member.cell.tested_on` lists the numbers of the subjects
            that the model is tested on.
        subject: Number of the requested subject, or None.

    Raises:
        RecipeError: if the model is not tested on the requested subject. Also if no
            subject is requested, and the model is not tested on exactly one subject.
    """
    from brainhive_cli.core.errors import RecipeError

    test_subjects = member.cell.tested_on
    if subject is None and len(test_subjects) == 1:
        return test_subjects[0]

    # otherwise a subject must be requested, and the model must be tested on it
    problem = "several subjects"
    if subject is not None:
        _check_arguments(subject=subject)
        if subject in test_subjects:
            return subject
        problem = f"other subjects than {subject}"
    raise RecipeError(
        f"{member.cell.name} is tested on {problem}",
        f"subject={' or '.join(map(str, test_subjects))}",
    )
