"""The job of train-align: a recipe, resolved once into what `plan` prints and `run` does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainhive_cli import priors
from brainhive_cli.alignment import finetune
from brainhive_cli.alignment.cells import Cell, cells_of
from brainhive_cli.alignment.layout import tokens_of
from brainhive_cli.alignment.published import compared_with_published
from brainhive_cli.alignment.recipe import Recipe
from brainhive_cli.alignment.sweep import variants
from brainhive_cli.core import console
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.core.launch import Launch
from brainhive_cli.data.encoder_keys import match_prior
from brainhive_cli.data.signal_stores import prepare_signals, require_signals, size_up
from brainhive_cli.data.targets import open_stores
from brainhive_cli.datasets import Dataset
from brainhive_cli.priors import Description
from brainhive_cli.stores.target_store import TargetStore


@dataclass(frozen=True)
class Job:
    """What train-align is to do; each member is resolved when it is first used, and once.

    Attributes:
        given: The recipe as it was given.
    """

    given: Recipe

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe, of a fine-tuning with what it inherits."""
        return finetune.inherit(self.given)

    @cached_property
    def variants(self) -> dict[str, Recipe]:
        """The recipe of every variant of a sweep, by label; otherwise one, labelled ""."""
        return variants(self.recipe)

    @cached_property
    def dataset(self) -> Dataset:
        """Whose signals and stimuli are used."""
        built: Dataset = self.recipe.dataset.build(self.recipe.paths)
        return built

    @cached_property
    def cells(self) -> list[Cell]:
        """The trainings, variant by variant."""
        return cells_of(self.variants, self.dataset)

    @cached_property
    def trained_on(self) -> list[int]:
        """Subjects that some cell is trained on."""
        return sorted({subject for cell in self.cells for subject in cell.trained_on})

    @cached_property
    def subjects(self) -> list[int]:
        """Subjects that some cell is trained or tested on."""
        return sorted({*self.trained_on, *(subject for cell in self.cells for subject in cell.tested_on)})

    @cached_property
    def stores(self) -> dict[str, TargetStore]:
        """The stores of all variants' encoders, by name.

        Raises:
            BrainhiveError: if they are of different stimuli.
            RecipeError: if a variant fuses shapes that cannot be fused.
        """
        encoders = {config.name: config for each in self.variants.values() for config in each.encoders}
        given = (self.dataset, self.recipe.dataset, "train", list(encoders.values()), self.recipe.paths)
        stores = open_stores(*given)
        for each in self.variants.values():
            if each.fused_encoders:
                tokens_of({config.name: stores[config.name].shape for config in each.fused_encoders})
        return stores

    @cached_property
    def priors(self) -> dict[str, Description]:
        """The priors whose fusion encoders are targets, by reference; they match the variants' encoders.

        Raises:
            RecipeError: if a variant asks for another fuser or width of the token.
        """
        found = {each.prior: priors.describe(each.prior) for each in self.variants.values() if each.prior}
        for each in self.variants.values():
            if each.prior is not None:
                match_prior(each.prior, each.fused_encoders)
                made = {**found[each.prior].fuser, "dropout": each.train.prior_dropout}
                _refuse_other_sizes(each.prior, each.dim, each.fuser.model_dump(exclude_defaults=True), made)
        return found

    @cached_property
    def digests(self) -> dict[str, str]:
        """Digest of each prior's weights, by reference."""
        return {reference: prior.digest for reference, prior in self.priors.items()}

    @cached_property
    def signal(self) -> str:
        """Size of the signals, and what is still to be written, in words."""
        given = (self.dataset, self.recipe.paths)
        require_signals(*given, self.recipe.signal, self.subjects)
        signals = {repr(each.signal): each.signal for each in self.variants.values()}
        sizes = [size_up(*given, each, self.subjects) for each in signals.values()]
        (count, most, channels, samples), to_write = sizes[0]
        kept = 1 if self.recipe.signal.repetitions == "average" else 1 + most
        held = 4 * kept * count * channels * samples * max(len(cell.trained_on) for cell in self.cells)
        stores = f"signal stores: {console.size(to_write)} to write" if to_write else "signal stores: done"
        return f"{count}×{most}×{channels}×{samples}; a cell holds at most {held / 1e9:.2g} GB; {stores}"

    @cached_property
    def targets(self) -> str:
        """The priors, in words; they are loaded, to find out whether they are whole."""
        for reference in self.priors:
            priors.load(reference)
        used = dict.fromkeys(each.prior for each in self.variants.values())
        return ", ".join(prior or "a fuser of its own" for prior in used)

    @cached_property
    def label(self) -> str:
        """What the run's folder is called, before the fingerprint."""
        what = "sweep" if self.recipe.sweep else self.recipe.backbone.kind
        return f"{self.dataset.name}-{self.recipe.mode}-{what}"

    def prepare_signals(self, launch: Launch) -> None:
        """Create the signal stores that are missing."""
        for each in self.variants.values():
            needed = self.subjects if each.train.selection == "test" else self.trained_on
            prepare_signals(self.dataset, self.recipe.paths, each.signal, needed, launch)

    def published(self) -> dict[str, Any]:
        """Give what was published, if anything was, and how the set-up differs; by variant for a sweep."""
        if self.recipe.published is None:
            return {}
        found = {}
        for label, each in self.variants.items():
            tested = sorted({s for cell in self.cells if cell.variant == label for s in cell.tested_on})
            found[label] = compared_with_published(each, self.dataset.recorded_as, tested)
        return {"published": found if self.recipe.sweep else found[""]}


def held_out_of(pictures: TargetStore, share: float) -> NDArray[np.bool_]:
    """Choose whole training concepts for validation: [M]; the same for every cell of every run."""
    concepts = np.asarray(pictures.concepts)
    names = np.unique(concepts)
    chosen = np.random.default_rng(0).permutation(names)[: round(share * len(names))]
    return np.isin(concepts, chosen)


def few(names: Sequence[str]) -> str:
    """Count names, and give the first and the last."""
    return f"{len(names)}: " + (", ".join(names) if len(names) <= 4 else f"{names[0]} … {names[-1]}")


def _refuse_other_sizes(
    prior: str, dim: int | None, fuser: Mapping[str, Any], made: Mapping[str, float]
) -> None:
    """Refuse a fuser, or a width of the token, other than the prior's, which is taken as it is.

    Raises:
        RecipeError: naming both.
    """
    for name, value in {"dim": dim, **fuser}.items():
        if value is not None and value != made.get(name, value):
            key = name if name == "dim" else f"fuser.{name}"
            hint = f"train.prior_dropout={value:g}" if name == "dropout" else f"leave {key} out"
            raise RecipeError(f"{key} is {value}, but the prior {prior} has {made[name]}", hint)
