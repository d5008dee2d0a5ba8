"""Work of commands that test the models of a run."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from brainhive_cli.core.runs import Launch
from brainhive_cli.training.alignment.trained.models import TrainedModels
from brainhive_cli.training.alignment.trained.test_set import TestSet, open_test_set


@dataclass(frozen=True)
class TestJob:
    """Work of a command that tests the models of a run on a split of a data set.

    Attributes:
        recipe: Recipe, whose `split` is tested.
        align: Run or model folder whose models are tested.
    """

    __test__ = False  # pytest collects classes whose names begin with Test

    recipe: Any
    align: TrainedModels

    @cached_property
    def tests(self) -> TestSet:
        """Test set of the models."""
        return open_test_set(self.align, self.recipe.split)

    @property
    def short_name(self) -> str:
        """First part of the run's name."""
        return self.align.short_name

    def prepare(self, launch: Launch) -> None:
        """Make the missing signal stores."""
        self.align.prepare_signals(launch)
