"""The stages of a cell's training: what each starts from, what it freezes, and its learner."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from torch import nn

from brainhive_cli.core import weights
from brainhive_cli.core.checkpoints import ANEW
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.training.alignment.model import Aligner
from brainhive_cli.training.alignment.objective import Objective
from brainhive_cli.training.alignment.optimisation import Learner, is_below
from brainhive_cli.training.alignment.settings import Stage, Train
from brainhive_cli.training.alignment.starts import Start


class Stages:
    """The stages of a training, whose epochs have `steps` steps, one after another.

    Parameters that do not require gradients, as a prior's, never change. `starts` is what stages start from,
    by the stage's number.

    Raises:
        RecipeError: if a stage freezes an unknown part, or everything.
    """

    def __init__(
        self,
        aligner: Aligner,
        objective: Objective,
        train: Train,
        steps: int,
        starts: Mapping[int, Sequence[Start]],
    ) -> None:
        self.aligner, self.objective, self.train, self.steps = aligner, objective, train, steps
        self.all, self.starts = train.all_stages(steps), starts
        self.stops = list(accumulate(stage.epochs for stage in self.all))
        self.learnable = [name for name, parameter in self._parameters() if parameter.requires_grad]
        for number, stage in enumerate(self.all):
            self._check(number, stage)

    def enter(self, epoch: int, saved: dict[str, Any] | None = None) -> Learner:
        """Make the learner of the stage that an epoch is in; it continues from the saved state, if any."""
        number = next(place for place, stop in enumerate(self.stops) if epoch < stop)
        stage = self.all[number]
        if saved is None and number in self.starts:
            fixed = {k: p.detach().clone() for k, p in self._parameters() if k not in self.learnable}
            for start in self.starts[number]:
                start.give(self.aligner)
            self.aligner.load_state_dict(fixed, strict=False)
            self.objective.continue_from(self.aligner.losses)
        for name, parameter in self._parameters():
            if name in self.learnable:
                parameter.requires_grad_(not is_below(name, stage.freeze))
        learner = Learner(self.aligner, self.objective, self.train, stage, self.steps, self.stops[number])
        if saved is not None:
            with weights.reading(f"the checkpoint of epoch {epoch}", ANEW, BrainhiveError):
                learner.load_state_dict(saved)
        return learner

    def _parameters(self) -> list[tuple[str, nn.Parameter]]:
        return list(self.aligner.named_parameters())

    def _check(self, number: int, stage: Stage) -> None:
        names = [name for name, _ in self.aligner.named_modules() if name]
        started = [start.part for start in self.starts.get(number, ()) if start.part]
        for done, parts in (("freezes", stage.freeze), ("starts", started)):
            if unknown := [part for part in parts if part not in names]:
                top = ", ".join(name for name in names if name.count(".") < 2)
                raise RecipeError(f"train.stages[{number}] {done} {unknown[0]!r}", f"there are: {top}")
        if all(is_below(name, stage.freeze) for name in self.learnable):
            raise RecipeError(f"train.stages[{number}] freezes all that could learn", "freeze less")
