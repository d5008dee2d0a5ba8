"""Which align run a command takes: the one that is named, or the newest that has what the command needs."""

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from brainhive_cli.core import console, parts, runs
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.core.files import below, locate
from brainhive_cli.core.recipe import Paths, shipped_recipes
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.sweep import of_variant, variant_of, variants
from brainhive_cli.data.command_lines import are_embedded, command, only_if_recorded, write_part, write_prior
from brainhive_cli.data.targets.encoder_keys import encoders_of, match_prior, recipe_around
from brainhive_cli.models import priors
from brainhive_cli.models.encoders import EncoderConfig
from brainhive_cli.models.heads import FUSED
from brainhive_cli.models.priors import Prior
from brainhive_cli.training.alignment.layout import Layout
from brainhive_cli.training.alignment.model import Aligner, load
from brainhive_cli.training.alignment.recipe import Recipe

INHERITED = (
    *("dataset", "encoders", "heads", "head", "dim", "backbone", "fuser", "prior"),
    *("subject_layer", "similarity", "signal"),
)
"""Recipe keys of a model's architecture and data, which a fine-tuned model keeps."""
DEFAULT_DATASET = "things-eeg"
"""The default of train-align."""


@dataclass(frozen=True)
class RunNeeds:
    """What a command needs of the align run that it takes; what is empty, or None, may be anything.

    Attributes:
        paths: Where runs and data sets lie.
        dataset: Config of the data set that is tested on. A run that is named may be of another: zero-shot.
        trained_by: The train-align recipe, and overrides of it, whose kind of data set, heads and kind of
            backbone the run must have.
        head: A head that the run must have.
        prior: A prior with a fuser, whose tokens the run must predict.
        source: The reference of that prior.
        label: The run's name, but for its fingerprint.
        weights_for: Backbone, or part of one, that is to start from the run's: sizes must be equal.
        part: Where in a backbone of another kind it lies, as `brain`; empty for all of it.
        may_be_finetuned: Whether the newest may be a fine-tuned one.
        choose: What precedes the name of a run on a command line that chooses it.
    """

    paths: Paths
    dataset: Any = None
    trained_by: str | None = None
    head: str | None = None
    prior: Prior | None = None
    source: str = ""
    label: str = ""
    weights_for: parts.Config | None = None
    part: str = ""
    may_be_finetuned: bool = True
    choose: str = "--run "

    @cached_property
    def training(self) -> Recipe | None:
        """The recipe that makes such a run."""
        if not self.trained_by:
            return None
        name, *overrides = shlex.split(self.trained_by)
        return as_inherited(Recipe.resolve("train-align", name, {}, overrides))

    def find(self, reference: str | None) -> tuple[RunFolder, str]:
        """Find a run by its reference, or the newest that fits; and the variant of a sweep.

        `:VARIANT` is that of the newest sweep that has it.

        Raises:
            MissingData: if there is none, with what each run lacks and the line that makes one.
            RecipeError: if a sweep has no such variant, or the run that is named does not fit.
            BrainhiveError: if the named run predicts other tokens than the prior's; it names both.
        """
        root = self.paths.under_home("runs")
        name, variant = of_variant(reference)
        if name and name != "train-align":  # which stands for the newest, in every command
            run = runs.find(root, "train-align", name)
            recipes = variants(run.recipe(Recipe, paths=self.paths))
            chosen = [variant_of(recipes, variant, run.path.name)] if variant else [*recipes.values()]
            self._refuse(run.path, self._list_lacking(chosen, is_named=True))
            if self.prior is not None and len(chosen) == 1:
                dataset, encoders = self.dataset or chosen[0].dataset, chosen[0].encoders
                model = _load_model(run, variant)
                check_tokens(model, encoders, run.path, self.prior, self.source, self.paths, dataset)
            return run, variant

        def describe_lacking(run: RunFolder) -> str:
            recipes = variants(run.recipe(Recipe, paths=self.paths))
            if variant and variant not in recipes:
                return f"no variant {variant!r}"
            lacking = self._list_lacking([recipes[variant]] if variant else [*recipes.values()])
            if not lacking and self.prior is not None:
                is_same = _has_fuser_of(_load_model(run), self.prior, self.source)
                lacking = [] if is_same else [f"not the tokens of {self.source}"]
            return ", ".join(lacking)

        needed = " and ".join([*self.described, *([f"the variant {variant!r}"] if variant else [])])
        try:
            choice = {"needed": needed, "label": self.label, "choose": self.choose}
            return runs.newest(root, "train-align", describe_lacking, **choice), variant
        except MissingData as error:
            is_known = self.trained_by or not variant
            way = self.line if is_known else "name a run, or train one with `sweep`"
            zero_shot = "; --run NAME tests a run of another data set, zero-shot" if self.dataset else ""
            raise MissingData(error.message, way + zero_shot) from None

    @property
    def names_runs(self) -> bool:
        """Whether runs, or those of a shipped recipe, have the name `label` but for their fingerprint."""
        folder = self.paths.under_home("runs") / "train-align"
        if "/" in self.label or (folder / self.label).is_dir() or locate(self.label).is_dir():
            return False
        return any(folder.glob(f"{self.label}-*")) or bool(self._shipped)

    @property
    def described(self) -> list[str]:
        """What a run must have, in words."""
        training, dataset = self.training, ""
        if self.dataset is not None:
            dataset = self.dataset.build(self.paths).recorded_as
        elif training is not None:
            dataset = _name_dataset(training.dataset)
        needed = [
            ("data set", dataset),
            ("heads", ", ".join(training.head_targets) if training else ""),
            ("backbone", training.backbone.kind if training else ""),
            ("head", self.head),
            ("backbone", self.weights_for and write_part(self.weights_for)),
            ("tokens of", self.source if self.prior is not None else ""),
        ]
        return [f"the {what} {value}" for what, value in needed if value]

    @property
    def line(self) -> str:
        """The command line that makes such a run."""
        if self.prior is not None:
            dataset = self.dataset
            if dataset is None:  # that of the newest run
                with suppress(BrainhiveError):  # of a run of a data set that is gone
                    for run in runs.finished_runs(self.paths.under_home("runs"), "train-align")[:1]:
                        dataset = run.recipe(Recipe, paths=self.paths).dataset
            return _write_training(self.source, self.paths, dataset)
        trained_by = shlex.split(self.trained_by or self._shipped)
        more = ["--recipe", *trained_by] if trained_by else []
        return command("train-align", self.dataset, [], *more)

    @property
    def _shipped(self) -> str:
        """The shipped recipe whose runs have the label, and a backbone of the sizes; empty if none has."""
        for file in sorted(shipped_recipes().rglob("train-align.yaml")) if self.label else ():
            recipe = Recipe.resolve("train-align", str(file), {}, [])
            with suppress(MissingData):  # of pictures in a folder that is not here: nor are its runs
                if recipe.run_label(self.paths) == self.label and not self.differences(recipe):
                    return file.parent.relative_to(shipped_recipes()).as_posix()
        return ""

    def differences(self, recipe: Recipe, is_named: bool = False) -> list[str]:
        """List what a run of a recipe lacks.

        A run that is named may be of another data set than `dataset`, which is zero-shot transfer; whether it
        has `head` and the sizes of weights is seen where its models are opened.
        """
        lacking, training = [], self.training
        if self.dataset is not None:
            wanted, actual = (one.build(self.paths).recorded_as for one in (self.dataset, recipe.dataset))
            lacking += [f"data set {actual}, not {wanted}"] if actual != wanted and not is_named else []
        elif training is not None:
            wanted, actual = (_name_dataset(one) for one in (training.dataset, recipe.dataset))
            lacking += [f"data set {actual}, not {wanted}"] if actual != wanted else []
        if training is not None:
            lacking += _compare_models(training, _name_targets(recipe), recipe.backbone.kind)
        if is_named:
            return lacking
        if self.head is not None and self.head not in recipe.head_targets:
            lacking.append(f"no head {self.head}")
        if self.weights_for is not None:  # whose weights say more, shape by shape
            lacking += _compare_sizes(self.weights_for, recipe.backbone, self.part)
        if not self.may_be_finetuned and recipe.mode == "finetune":
            lacking.append("fine-tuned itself")
        return lacking

    def _list_lacking(self, recipes: Sequence[Recipe], is_named: bool = False) -> list[str]:
        """List what the first recipe lacks; nothing where one of them, as of a sweep, lacks nothing."""
        lacking = [self.differences(recipe, is_named) for recipe in recipes]
        return lacking[0] if all(lacking) else []

    def check_model(self, layout: Layout, path: Path) -> None:
        """Refuse a model folder or checkpoint that is not one of `trained_by`, which has no recipe.

        Raises:
            RecipeError: naming what differs.
        """
        if self.training is not None:
            kind = parts.name_of(parts.file_of(str(layout.backbone.get("kind", ""))))
            self._refuse(path, _compare_models(self.training, dict.fromkeys(layout.heads, ""), kind))

    def _refuse(self, path: Path, differences: Sequence[str]) -> None:
        if differences:
            raise RecipeError(
                f"{path} is no run of {self.trained_by}: {', '.join(differences)}",
                f"trained_by=null takes it as it is, or: {self.line}",
            )


def as_inherited(recipe: Recipe) -> Recipe:
    """Take over the keys that a fine-tuned model keeps of the recipe that trains what it is tuned from."""
    training = RunNeeds(recipe.paths, trained_by=recipe.finetune.trained_by).training
    return recipe if training is None or recipe.mode != "finetune" else inherited(recipe, training)


def inherited(recipe: Recipe, training: Recipe) -> Recipe:
    """Take over the keys that a model fine-tuned by a recipe keeps of the one that another has trained."""
    keys = {key: getattr(training, key) for key in INHERITED}
    if not recipe.terms and recipe.loss == type(recipe)().loss:
        keys |= {"terms": training.terms, "targets": training.targets}
    return recipe.model_copy(update=keys)


def _name_dataset(dataset: Any) -> str:
    """Name a data set by its kind, and by its own name where the kind is of any pictures."""
    name = getattr(dataset, "name", "")
    return f"{dataset.kind} {name}" if name else str(dataset.kind)


def _name_targets(recipe: Recipe) -> dict[str, str]:
    """Name what each head predicts: an encoder's store, or `fused`."""
    targets = recipe.head_targets.items()
    return {head: FUSED if target == FUSED else target.name for head, target in targets}


def _compare_models(training: Recipe, heads: Mapping[str, str], backbone: str) -> list[str]:
    """Say which heads are missing or predict something else, where that is known, and the other backbone."""
    wanted = _name_targets(training)
    absent = [name for name in wanted if name not in heads]
    lacking = [f"no head {', '.join(absent)}"] if absent else []
    for name, target in wanted.items():
        if heads.get(name) not in (None, "", target):
            lacking.append(f"head {name} of {heads[name]}, not {target}")
    is_same = backbone == training.backbone.kind
    return lacking + ([] if is_same else [f"backbone {backbone}, not {training.backbone.kind}"])


def _compare_sizes(wanted: parts.Config, backbone: Any, part: str) -> list[str]:
    """Say in which sizes a run's backbone, or its part, differs; nothing where it is of another kind."""
    for key in part.split(".") if part and backbone.kind != wanted.kind else ():
        backbone = getattr(backbone, key, None)
    if backbone is None or getattr(backbone, "kind", "") != wanted.kind:
        return []
    sizes = wanted.model_dump(mode="json"), backbone.model_dump(mode="json")
    differing = [key for key, size in sizes[0].items() if isinstance(size, int) and size != sizes[1][key]]
    return [f"{key} {sizes[1][key]}, not {sizes[0][key]}" for key in differing]


def _write_training(source: str, paths: Paths, dataset: Any) -> str:
    """Write the command lines that lead to pictures, on the data set in use or else that of the prior."""
    described = priors.describe(source)
    arguments = write_prior("train-align", source, dataset) if described.dims else []
    folder = described.folder
    if dataset is None and "--prior" in arguments and folder and (of := recipe_around(folder).get("dataset")):
        dataset = only_if_recorded(parts.resolve("datasets", of), paths)
    named = None if "--recipe" in arguments else dataset
    drawing = write_prior("reconstruct", source, dataset) or ["--prior", source]
    lines = [command("train-align", named, [], *arguments), command("reconstruct", None, [], *drawing)]
    with suppress(RecipeError):  # a prior whose encoders have no known names
        pictures, encoders = dataset or parts.resolve("datasets", DEFAULT_DATASET), encoders_of(source)
        if not are_embedded(pictures.build(paths), encoders, paths.under_home("embeddings")):
            lines.insert(0, command("embed", pictures, encoders))
    return " && ".join(lines)


def check_tokens(
    model: Aligner,
    encoders: Sequence[EncoderConfig],
    path: Path,
    prior: Prior,
    source: str,
    paths: Paths,
    dataset: Any,
) -> None:
    """Refuse a model whose tokens are not those of a prior with a fuser, and warn of another fuser.

    Raises:
        BrainhiveError: naming the run or model, `path`, the prior, `source`, and what trains on the data set.
    """
    dim = model.layout.heads[model.layout.compared[0]].width
    if dim != prior.dim:
        raise BrainhiveError(
            f"the tokens of {path} have {dim} dimensions, those of {source} {prior.dim}",
            _write_training(source, paths, dataset),
        )
    match_prior(source, encoders)
    if not _has_fuser_of(model, prior, source):
        console.warn(f"{path} was trained against another fusion encoder than that of {source}")


def _load_model(run: RunFolder, variant: str = "") -> Aligner:
    """Load one of a run's models: all cells have the same fuser."""
    cells = below(run.path / "cells", *filter(None, [variant]), source="the variant of a run,")
    return load(min(cells.glob("**/model"), default=cells))  # a sweep's lie one folder deeper


def _has_fuser_of(model: Aligner, prior: Prior, source: str) -> bool:
    """Whether a model was trained for this prior, or one of the same fusion encoder."""
    if model.layout.prior_digest and model.layout.prior_digest == priors.describe(source).digest:
        return True
    if model.fuser is None or prior.fuser is None:
        return False
    state, prior_state = model.fuser.state_dict(), prior.fuser.state_dict()
    return state.keys() == prior_state.keys() and all(
        state[key].shape == value.shape and torch.allclose(state[key], value.float().cpu())
        for key, value in prior_state.items()
    )
