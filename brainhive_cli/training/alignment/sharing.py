"""Files of a trained run that may leave home, what is left out of them, and the terms of their data."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np

from brainhive_cli.core import documents, weights
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.lines import Line
from brainhive_cli.core.measurements import Measurements
from brainhive_cli.core.private_texts import cut_paths, find_private
from brainhive_cli.core.recipe import write_yaml
from brainhive_cli.core.run_files import check
from brainhive_cli.core.runs import FINISHED, RunFolder
from brainhive_cli.core.shared_runs import CARD, FORMAT, MANIFEST, PRIOR, Manifest
from brainhive_cli.data.electrodes import are_standard, standard_positions
from brainhive_cli.data.exchange.downloads import SOURCES
from brainhive_cli.data.targets.target_stores import IDENTITIES
from brainhive_cli.data.trials import SELECTING
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.learned import FILE, LEARNED_FILE, Learned, LearnedPictures
from brainhive_cli.training.alignment.model import WEIGHTS, read_config
from brainhive_cli.training.alignment.references import TRAINING
from brainhive_cli.training.alignment.trained import TrainedRun

PRIOR_TRAINING = "train-prior"
DEMO_LICENCES = {"demo": "apache-2.0", "demo-films": "apache-2.0"}
"""Data sets that Brainhive draws and simulates, and the licence of models of them."""
RECORDING_LICENCES = {
    "simulated": "apache-2.0",
    "things-eeg": SOURCES["things-eeg"].model_licence,
    "things-meg": SOURCES["things-meg"].model_licence,
    "things-prepared": SOURCES["things-eeg"].model_licence,
}
"""Preparations whose recordings are known, and the licence of models of them. All others read anyone's files:
their signals may be own recordings, however the data set is called."""
SHARED_FACTS = {"command", "mode", "dataset", "caveats", "is_closed_form"}
"""Facts of a run that are shared as they are."""
LOCAL_SECTIONS = ("paths", "run")
"""Sections of a recipe that say where and how it was run; they change no result."""
OWN_FILES = {"recording", "betas", "bold"}
"""Preparations of one's own recordings."""
PUBLISHED_BETAS = {"nsd", "nsd-imagery", "laion-fmri", "simulated"}
"""Preparations whose key `betas` names a published version; of others it may be a pattern of own files."""
STATISTICS = re.compile(r"(^|\.)(mean|basis)$")
"""Weights that are the mean or principal components of a person's signals, as of the backbone `ridge`."""
METADATA = {"format", "learned", "weights", weights.DIGEST}
"""Keys of the metadata that weights of ours have."""
IDENTITY = {"store", "weights", "preprocessing", "network", "pictures"}
"""Keys of the description of embeddings."""
POSITIONS = "digitised positions of the sensors: other caps are mapped by standard positions of their names"
ALL_POSITIONS = "digitised positions of the sensors: recordings of other caps cannot be mapped by splines"
WHITENERS = "whiteners of subject {people}: `live` measures those of a session by --whiten-trials"
NORMALISERS = "normalisers of subject {people}: they are measured again on the training recordings"
TRIALS = "digests of the trials of subject {people}: a copy of them under another number is not found"
MEAN_NORMALISER = (
    "the mean normaliser of subject {people}: new people are normalised by recordings of their own, and "
    "results say so"
)
PICTURES = (
    "digests of the private pictures that were learned from: their copies among tested pictures are not "
    "found, and results say `pictures unknown`"
)
OTHERS = "{count} other files in the folder of the model, which no prior consists of"
"""What may be left out of a model, and what that means for its use."""
Files = dict[str, Path | bytes]
"""Files by name: one of this machine, or content that was written for sharing."""


@dataclass(frozen=True)
class SharedRun:
    """A run as it may be shared.

    Attributes:
        run: The run at home, unchanged.
        files: By name in the repository, without card, manifest and digests, which `pack` adds.
        left_out: What was left out of its models, a sentence each; the manifest lists it, too.
        learned: What all its models learned from, together.
        layout: Architecture of the first cell's model; None of a prior.
        cells: Names of the cells.
        licence: Of the weights, by the hub's list; empty where nothing says it.
        unknown_terms: Why nobody knows that the terms of the data allow it; empty where they are known to.
        terms: Terms of each public data set, by name.
        recipe: Its recipe, as it is shared.
    """

    run: RunFolder
    files: Files
    left_out: list[str]
    learned: Learned
    layout: Layout | None
    cells: list[str]
    licence: str
    unknown_terms: str
    terms: Mapping[str, str]
    recipe: Mapping[str, Any]

    @classmethod
    def of(cls, run: RunFolder, with_positions: bool = False, with_whiteners: bool = False) -> Self:
        """Collect what may be shared of a finished run of train-align or train-prior.

        Args:
            run: The run.
            with_positions: Share digitised positions of sensors on a person's head.
            with_whiteners: Share whiteners, normalisers and other statistics of one person's recordings.

        Raises:
            RecipeError: if the run is of another command.
            BrainhiveError: if a file is damaged, has numbers that are not finite, or what no shared one may.
        """
        # a whole run of one of the two commands
        command = run.command
        if command not in (TRAINING, PRIOR_TRAINING):
            raise RecipeError(
                f"{run.path} is a run of {command}; aligners and priors are shared",
                Line("push", run.measurements().facts.run or "RUN"),
            )
        if problems := check(run.path).problems:
            raise BrainhiveError(problems[0], documents.AGAIN_OR_DELETE)

        # the models: every cell's, or the prior
        models = TrainedRun(run).model_folders if command == TRAINING else {"": run.path / "model"}
        files, subjects_of, histories, layouts = Files(), dict[str, set[int]](), [], []
        for cell, folder in models.items():
            model_files, absent, history, layout = (
                share_aligner(folder, with_positions, with_whiteners)
                if command == TRAINING
                else share_prior(folder)
            )
            inside = f"cells/{cell}/model/" if cell else ""
            files |= {f"{inside}{name}": content for name, content in model_files.items()}
            for sentence, subjects in absent.items():
                subjects_of.setdefault(sentence, set()).update(subjects)
            histories.append(history)
            layouts.append(layout)
        learned = reduce(lambda first, second: first.after(second), histories)

        # embeddings of its training; of private pictures without their digest
        if command == TRAINING:
            shared = IDENTITY - (set() if are_public(learned) else {"pictures"})
            identities = {
                name: {key: value for key, value in identity.items() if key in shared}
                for name, identity in run.read_json(IDENTITIES, dict[str, dict[str, str]]).items()
            }
            files[IDENTITIES] = _write_json(cut_paths(identities))

        # the recipe without this machine
        resolved: dict[str, Any] = run.recipe()
        recipe = cut_paths({key: value for key, value in resolved.items() if key not in LOCAL_SECTIONS})
        listed = (recipe["dataset"].get("holdout") or {}).get("test") or []
        if any(isinstance(name, str) for name in listed) and not are_public(learned):
            raise BrainhiveError(
                f"dataset.holdout.test names private pictures ({listed[0]}), which would be shared",
                "hold out by folds or a share, and train again",
            )
        for label in recipe.get("preparation", {}).get("subject_numbers") or ():
            _refuse_private(f"sub-{label.removeprefix('sub-')}", b"")
        files["recipe.yaml"] = write_yaml(recipe).encode()
        files[FINISHED] = _write_json(share_metrics(run.measurements(), learned).as_dict())

        # a last look at every text and number
        for name, content in files.items():
            _refuse_private(name, content)
        left_out = [
            sentence.format(people=", ".join(map(str, sorted(subjects))))
            for sentence, subjects in subjects_of.items()
        ]
        priors = {layout.prior for layout in layouts if layout and layout.prior}
        foreign = sorted(cut_paths(prior) for prior in priors if not prior.startswith("demo:"))
        terms, cells = find_terms(learned, command == PRIOR_TRAINING, foreign), [*filter(None, models)]
        return cls(run, files, left_out, learned, layouts[0], cells, *terms, recipe)

    def pack(self, card: str) -> Files:
        """Add card, manifest and list of digests to the files; the same run gives the same bytes."""
        environment: dict[str, Any] = self.run.read_json("environment.json")
        manifest = Manifest(
            format=FORMAT,
            brainhive=str(environment.get("versions", {}).get("brainhive", "")),
            command=self.run.command,
            run=self.run.path.name,
            left_out=self.left_out,
            card=hashlib.sha256(card.encode()).hexdigest(),
        )
        files = {**self.files, MANIFEST: _write_json(manifest.model_dump())}
        lines = ""
        for name, content in sorted(files.items()):
            if isinstance(content, bytes):
                digest = hashlib.sha256(content).hexdigest()
            else:
                digest = documents.digest_file(content)
            lines += f"{digest}  {name}\n"
        return {**files, documents.SHA256SUMS: lines.encode(), CARD: card.encode()}


SharedModel = tuple[Files, dict[str, Collection[int]], Learned, Layout | None]
"""The folder of one model, as it may be shared: files by name, sentences on what was left out of it with the
subjects that each is of, its history at home, and its architecture, None of a prior."""


def share_prior(folder: Path) -> SharedModel:
    """Leave out of a prior the digests of private pictures, and what no prior consists of."""
    learned, left_out = Learned.read(folder), dict[str, Collection[int]]()
    files: Files = {name: folder / name for name in PRIOR if (folder / name).is_file()}
    others = sum(not path.is_dir() for path in folder.rglob("*")) - len(files)
    left_out |= {OTHERS.format(count=others): ()} if others else {}
    if len(learned.pictures) and not are_public(learned):
        left_out[PICTURES] = ()
        with TemporaryDirectory() as scratch:
            replace(learned, pictures=LearnedPictures()).write(Path(scratch), folder)
            files |= {name: (Path(scratch) / name).read_bytes() for name in (FILE, LEARNED_FILE)}
    return files, left_out, learned, None


def share_aligner(folder: Path, with_positions: bool, with_whiteners: bool) -> SharedModel:
    """Leave out of a brain model what tells of one person or of private pictures; weights stay."""
    fields, learned = read_config(folder)
    layout = documents.check(fields, str(folder / "config.json"), Layout)
    state = weights.read(folder / WEIGHTS[0])
    spec = layout.spec
    shared, shared_spec, left_out = learned, spec, dict[str, Collection[int]]()

    # positions on the head of a person, unless they are a template's
    if spec.positions and not with_positions and not are_standard(spec.names, spec.positions):
        if any(name.endswith("channel_map") for name in state):
            raise BrainhiveError(
                f"{folder}: weights hold a map of channels that was computed from digitised positions",
                "--with-positions, if the person agrees; or preparation.montage=NAME, and train again",
            )
        shared_spec = replace(shared_spec, positions=None)
        have_standard = bool(np.isfinite(standard_positions(spec.names)).all())
        left_out[POSITIONS if have_standard else ALL_POSITIONS] = ()

    # statistics of one person's recordings; means of several models give each person's back
    if not with_whiteners:
        if statistics := [name for name in state if STATISTICS.search(name)]:
            raise BrainhiveError(
                f"{folder}: the weights {statistics[0]} are statistics of one person's recordings",
                "--with-whiteners, if the person agrees; or another brain encoder",
            )
        kinds = {*learned.recording_kinds}
        is_public = bool(kinds) and kinds <= {*RECORDING_LICENCES}
        trials = learned.trials if is_public else Learned().trials
        shared = replace(shared, whiteners={}, normalisers={}, normaliser=None, trials=trials)
        for sentence, subjects in (
            (WHITENERS, learned.whiteners),
            (NORMALISERS, learned.normalisers),
            (MEAN_NORMALISER, () if learned.normaliser is None else learned.subjects),
            (TRIALS, () if is_public else learned.subjects),
        ):
            left_out |= {sentence: subjects} if subjects else {}

    # digests of private pictures, and names of own files
    if len(learned.pictures) and not are_public(learned):
        shared = replace(shared, pictures=LearnedPictures())
        left_out[PICTURES] = ()
    if withheld := spec.preparation.keys() & find_file_keys(learned):
        steps = {key: value for key, value in spec.preparation.items() if key not in withheld}
        shared_spec = replace(shared_spec, preparation=steps)

    # documents are written again only where they differ
    files: Files = {name: folder / name for name in ("config.json", WEIGHTS[0], FILE)}
    layout = replace(layout, spec=shared_spec)
    if left_out or shared_spec is not spec:
        with TemporaryDirectory() as scratch:
            shared_block = shared.save(Path(scratch), folder / WEIGHTS[0])
            files[FILE] = (Path(scratch) / FILE).read_bytes()
        files["config.json"] = _write_json(cut_paths({**layout.as_dict(), "learned": shared_block}))
    return files, left_out, learned, layout


def are_public(learned: Learned) -> bool:
    """Whether all pictures that were learned from are known to be of published data sets."""
    return bool(learned.stimulus_kinds) and {*learned.stimulus_kinds} <= {*SOURCES, *DEMO_LICENCES}


def find_file_keys(learned: Learned) -> set[str]:
    """Find the keys of preparations whose values may name files, people or places."""
    return SELECTING if {*learned.recording_kinds} <= PUBLISHED_BETAS else SELECTING | {"betas"}


def find_terms(
    learned: Learned, is_prior: bool, priors: Sequence[str] = ()
) -> tuple[str, str, dict[str, str]]:
    """Find the terms of all data that models learned from.

    Args:
        learned: Their history.
        is_prior: Whether they are of a prior, which learned from pictures alone.
        priors: Priors whose fusion encoder is part of brain models, and which have terms of their own.

    Returns:
        Licence of the weights, what terms are unknown, and those of each public data set, as in `SharedRun`.
    """
    # the licence that models of each data set may have; that of the recordings binds most
    licences, kinds = dict(DEMO_LICENCES), learned.stimulus_kinds
    if not is_prior:
        licences |= {name: source.model_licence for name, source in SOURCES.items()}
    known = [RECORDING_LICENCES.get(kind, "") for kind in learned.recording_kinds]
    known += [licences.get(name, "") for name in kinds]
    licence = next((one for one in ("cc-by-4.0", "apache-2.0", "cc0-1.0") if one in known), "")
    sources = {name: SOURCES[name].about for name in kinds if name in SOURCES}
    sources |= {name: "drawn and simulated by Brainhive" for name in kinds if name in DEMO_LICENCES}

    # reasons why a person has to look
    unknown = [
        f"models of {name if name in SOURCES else f'own data ({name})'}"
        for name in kinds
        if not licences.get(name)
    ]
    if others := sorted({*learned.recording_kinds} - {*RECORDING_LICENCES, "unknown"}):
        whose = "own recordings" if OWN_FILES & {*others} else "recordings"
        unknown.append(f"{whose} prepared by {', '.join(others)}")
    if priors:
        unknown.append(f"weights of the prior {', '.join(priors)}, which are part of the model")
    is_recorded_elsewhere = "unknown" in (learned.recording_kinds or ("unknown",))
    if not kinds or not learned.has_all_subjects or (is_recorded_elsewhere and not is_prior):
        unknown.append("models of data of unknown origin")
    return "" if unknown else licence, " and ".join(unknown), sources


def share_metrics(measured: Measurements, learned: Learned) -> Measurements:
    """Choose what is shared of a run's metrics: no values of single items, and no facts of this machine."""
    facts, withheld = measured.facts, {f"preparation.{key}" for key in find_file_keys(learned)}
    set_up = {
        key: value for key, value in facts.set_up.items() if ".".join(key.split(".")[:2]) not in withheld
    }

    # time and memory of a cell tell of the machine
    cells = {name: cell.model_copy(update={"took": {}}) for name, cell in facts.cells.items()}
    shared = type(facts)(**facts.model_dump(include=SHARED_FACTS), set_up=cut_paths(set_up), cells=cells)
    return Measurements(measured.scopes, cut_paths(measured.missing), shared)


def _refuse_private(name: str, content: Path | bytes) -> None:
    """Refuse names and texts with what no shared one may hold, and weights that are not finite."""
    texts = [name]
    if Path(name).suffix != ".safetensors":
        texts.append((content if isinstance(content, bytes) else content.read_bytes()).decode("utf-8"))
    else:
        with TemporaryDirectory() as scratch:
            path = Path(scratch) / "weights.safetensors"
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                path = content
            about, state = weights.metadata_of(path), weights.read(path)
        for key, value in state.items():
            if value.is_floating_point() and not value.isfinite().all():
                raise BrainhiveError(f"{name}: {key} holds numbers that are not finite", "train again")
        if not METADATA >= about.keys() >= {weights.DIGEST}:
            further = ", ".join(sorted(about.keys() - METADATA)) or "no digest"
            raise BrainhiveError(
                f"{name} was not written by brainhive: its metadata hold {further}", "train again"
            )
        texts += [*about.values(), *state]
    if problem := next(find_private("\n".join(texts)), ""):
        raise BrainhiveError(f"{name} holds {problem}, which would be shared", "rename it, and train again")


def _write_json(document: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(document, indent=2, ensure_ascii=False)}\n".encode()
