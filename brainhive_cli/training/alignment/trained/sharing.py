"""Files of a trained run that are shared, and the terms of the data behind them."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from brainhive_cli.core.base import BrainhiveError, Line, RecipeError
from brainhive_cli.core.files import (
    MANIFEST,
    MODEL_CARD,
    MODEL_FILES,
    PRIOR_FILES,
    RUN_FORMAT,
    Manifest,
    documents,
    make_portable,
)
from brainhive_cli.core.recipes import write_yaml
from brainhive_cli.core.results import Measurements
from brainhive_cli.core.runs import (
    ENVIRONMENT_FILE,
    METRICS_FILE,
    Environment,
    RunFolder,
    check,
    weights,
)
from brainhive_cli.data.downloads import SOURCES
from brainhive_cli.data.stores import TrainingHistory
from brainhive_cli.data.targets import IDENTITIES
from brainhive_cli.training.alignment import (
    TRAINING,
    Layout,
    list_model_folders,
    read_config,
)

PATH_PART = r"[^\s/:'\",;()\[\]{}|]+"
ABSOLUTE_PATH = re.compile(
    rf"""
    (?<![\w/.~\\]) (?:~[\w.-]*)? /(?:{PATH_PART}/)+(?:{PATH_PART})?  # /home/jane/x
    | (?<![\w/.~\\]) ~[\w.-]*[/\\]{PATH_PART}            # ~/x and ~jane/x
    | (?<!\w) [A-Za-z]:[\\/](?!/)[^\s'",;]+            # C:\Users\jane and C:/Users/jane
    | \\{{2,4}}[\w.-]+\\{{1,2}}[^\s'",;]+              # \\server\jane
    """,
    re.VERBOSE,
)
"""An absolute path, which may name people and machines."""
Files = dict[str, Path | bytes]
"""Files keyed by name: a path on this machine, or content made for sharing."""


@dataclass(frozen=True)
class SharedRun:
    """Content of a trained run that is shared.

    Attributes:
        run: Folder of the run, which is not changed.
        files: Files keyed by their name in the repository, without those that `pack`
            adds.
        learned: Training history of all models together.
        layout: Architecture of the first cell's model. None for a prior.
        cells: Names of the cells.
        licence: Licence of the weights, as the hub names it. Empty if it is unknown.
        unknown_terms: Reasons why the terms of the data are unknown. Empty if they are
            known.
        terms: Terms of each public data set, keyed by its name.
        recipe: Recipe in its shared form.
    """

    run: RunFolder
    files: Files
    learned: TrainingHistory
    layout: Layout | None
    cells: list[str]
    licence: str
    unknown_terms: str
    terms: Mapping[str, str]
    recipe: Mapping[str, Any]

    @classmethod
    def from_run(cls, run: RunFolder) -> Self:
        """Collect the content of a finished run of train-align or train-prior.

        Raises:
            RecipeError: if the run is of another command.
            BrainhiveError: if a file is damaged, or has an absolute path or numbers
                that are not finite.
        """
        command = run.command
        prior_training = "train-prior"
        if command not in (TRAINING, prior_training):
            raise RecipeError(
                f"{run.path} is a run of {command}, but only aligners and priors are "
                "shared",
                Line("push", run.measurements().facts.run or "RUN"),
            )
        problems = check(run.path)[1]
        if problems:
            raise BrainhiveError(problems[0], documents.CHANGED_HINT)

        # the files of each model; other files in its folder are not shared
        files = Files()
        layouts = dict[str, Layout]()
        if command == TRAINING:
            histories = []
            for cell, folder in list_model_folders(run).items():
                fields, history = read_config(folder)
                config_file = str(folder / MODEL_FILES[0])
                layouts[cell] = documents.check(fields, config_file, Layout)
                histories.append(history)
                files |= {
                    f"cells/{cell}/model/{name}": folder / name for name in MODEL_FILES
                }
            files[IDENTITIES] = _write_json(cut_paths(run.read_json(IDENTITIES)))
        else:
            folder = run.path / "model"
            histories = [TrainingHistory.read(folder)]
            files |= {name: folder / name for name in PRIOR_FILES}
        # not every model has all of these files
        files = {
            name: file
            for name, file in files.items()
            if isinstance(file, bytes) or file.is_file()
        }

        # recipe and metrics without facts of this machine
        run_recipe: dict[str, Any] = run.recipe()
        # Sections of a recipe that change no result and are not shared.
        for section in ("paths", "run"):
            run_recipe.pop(section, None)
        recipe = cut_paths(run_recipe)
        files["recipe.yaml"] = write_yaml(recipe).encode()
        files[METRICS_FILE] = _write_json(share_metrics(run.measurements()).as_dict())
        for name, content in files.items():
            _refuse_unfit(name, content)

        # terms of all data of the training
        learned = histories[0]
        for history in histories[1:]:
            learned = learned.inherit(history)
        priors = {layout.prior for layout in layouts.values() if layout.prior}
        foreign_priors = sorted(
            cut_paths(prior) for prior in priors if not prior.startswith("demo:")
        )
        licence, unknown_terms, terms = find_terms(
            learned, command == prior_training, foreign_priors
        )
        return cls(
            run=run,
            files=files,
            learned=learned,
            layout=next(iter(layouts.values()), None),
            cells=list(layouts),
            licence=licence,
            unknown_terms=unknown_terms,
            terms=terms,
            recipe=recipe,
        )

    def pack(self, card: str) -> Files:
        """Add the model card `card`, a manifest and digests to the files.

        The same run gives equal bytes.
        """
        environment = self.run.read_json(ENVIRONMENT_FILE, Environment)
        manifest = Manifest(
            format=RUN_FORMAT,
            brainhive=environment.versions.get("brainhive", ""),
            command=self.run.command,
            run=self.run.path.name,
        )
        files = {**self.files, MANIFEST: _write_json(manifest.model_dump())}
        lines = ""
        for name, content in sorted(files.items()):
            if isinstance(content, bytes):
                digest = hashlib.sha256(content).hexdigest()
            else:
                digest = documents.digest_file(content)
            lines += f"{digest}  {name}\n"
        files[documents.SHA256SUMS] = lines.encode()
        files[MODEL_CARD] = card.encode()
        return files


def find_terms(
    learned: TrainingHistory, is_prior: bool, priors: Sequence[str] = ()
) -> tuple[str, str, dict[str, str]]:
    """Find the licence of models, and the terms of all data of their training.

    Args:
        learned: Training history of the models.
        is_prior: True for a prior, which is trained on pictures alone.
        priors: Priors whose fusion encoder is part of the models, and which have their
            own terms.

    Returns:
        The licence ("" if unknown), the reasons why terms are unknown ("" if none), and
        the terms of each public data set, keyed by name.
    """
    # the most binding licence of all recordings and stimuli
    stimulus_kinds = learned.stimulus_kinds
    # Licence of models of each data set that Brainhive simulates.
    demo_licences = {"demo": "apache-2.0", "demo-films": "apache-2.0"}
    stimulus_licences = dict(demo_licences)
    if not is_prior:
        stimulus_licences |= {name: SOURCES[name].model_licence for name in SOURCES}
    licences = {stimulus_licences.get(kind, "") for kind in stimulus_kinds}
    # Licence of models of each preparation that reads only published recordings. Other
    # preparations may read the user's own recordings, whatever the data set.
    recording_licences = {
        "simulated": "apache-2.0",
        "things-eeg": SOURCES["things-eeg"].model_licence,
        "things-meg": SOURCES["things-meg"].model_licence,
        "things-prepared": SOURCES["things-eeg"].model_licence,
    }
    licences |= {recording_licences.get(kind, "") for kind in learned.recording_kinds}
    # Licences of models, from the most to the least binding.
    licence = next(
        (name for name in ("cc-by-4.0", "apache-2.0", "cc0-1.0") if name in licences),
        "",
    )

    # terms of each public data set
    terms = {kind: SOURCES[kind].summary for kind in stimulus_kinds if kind in SOURCES}
    for kind in stimulus_kinds:
        if kind in demo_licences:
            terms[kind] = "drawn and simulated by Brainhive"

    # reasons why the user must check the terms
    reasons = []
    for kind in stimulus_kinds:
        if not stimulus_licences.get(kind):
            name = kind if kind in SOURCES else f"own data ({kind})"
            reasons.append(f"models of {name}")
    unlicensed_kinds = set(learned.recording_kinds) - set(recording_licences)
    unlicensed_kinds.discard("unknown")
    if unlicensed_kinds:
        # Preparations of the user's own recordings.
        is_own = {"recording", "betas", "bold"} & unlicensed_kinds
        noun = "own recordings" if is_own else "recordings"
        reasons.append(f"{noun} prepared by {', '.join(sorted(unlicensed_kinds))}")
    if priors:
        reasons.append(
            f"weights of the prior {', '.join(priors)}, which are part of the model"
        )
    has_unknown_recordings = not is_prior and (
        not learned.recording_kinds or "unknown" in learned.recording_kinds
    )
    is_complete = bool(stimulus_kinds) and learned.has_all_subjects
    if not is_complete or has_unknown_recordings:
        reasons.append("models of data of unknown origin")
    return "" if reasons else licence, " and ".join(reasons), terms


def share_metrics(measured: Measurements) -> Measurements:
    """Copy the metrics of a run without single items and facts of this machine."""
    facts = measured.facts
    cells = {
        name: cell.model_copy(update={"took": {}})  # time and memory
        for name, cell in facts.cells.items()
    }
    shared_facts = type(facts)(
        # Facts of a run that are shared unchanged.
        **facts.model_dump(
            include={"command", "mode", "dataset", "caveats", "is_closed_form"}
        ),
        set_up=cut_paths(facts.set_up),
        cells=cells,
    )
    return Measurements(measured.scopes, cut_paths(measured.missing), shared_facts)


def cut_paths(value: Any) -> Any:
    """Shorten all absolute paths in a JSON value, in keys too.

    Paths below home are written relative to it. Others keep their last part.
    """
    if isinstance(value, Mapping):
        return {cut_paths(key): cut_paths(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return list(map(cut_paths, value))
    if not isinstance(value, str):
        return value

    # the whole value may be a path with spaces
    text = str(make_portable(value))
    if os.path.isabs(text):
        return Path(text).name
    return ABSOLUTE_PATH.sub(_find_last_part, text)


def _find_last_part(match: re.Match[str]) -> str:
    """Return the last part of a path of Unix or Windows."""
    return re.split(r"[/\\]", match[0].rstrip("/\\"))[-1]


def _refuse_unfit(name: str, content: Path | bytes) -> None:
    """Raise an error for weights that are not finite, or for absolute paths."""
    if isinstance(content, Path) and content.suffix == ".safetensors":
        for key, value in weights.read(content).items():
            if value.is_floating_point() and not value.isfinite().all():
                raise BrainhiveError(
                    f"{name}: {key} holds numbers that are not finite", "train again"
                )
        return
    if isinstance(content, Path):
        content = content.read_bytes()
    match = ABSOLUTE_PATH.search(content.decode("utf-8"))
    if match:
        raise BrainhiveError(
            f"{name} holds an absolute path ({match[0]}), which would be shared",
            "write the path relative to home in the recipe, and train again",
        )


def _write_json(document: Mapping[str, Any]) -> bytes:
    """Write a document as indented JSON in UTF-8."""
    return f"{json.dumps(document, indent=2, ensure_ascii=False)}\n".encode()
