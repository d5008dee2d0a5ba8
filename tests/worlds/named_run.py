"""A run with a name and no work, whose folder a test opens."""

from dataclasses import dataclass, field

from brainhive_cli.core.recipes.recipe import Recipe
from brainhive_cli.core.runs.jobs import RunJob


@dataclass(frozen=True)
class NamedRun(RunJob):
    """Job of a run without work.

    Attributes:
        command: Name of the command.
        recipe: Settings of the run.
        name: First part of the name of the run folder.
    """

    command: str
    recipe: Recipe = field(default_factory=Recipe)
    name: str = "tiny"

    @property
    def short_name(self) -> str:
        """First part of the name of the run folder."""
        return self.name
