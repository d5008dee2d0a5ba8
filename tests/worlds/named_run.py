"""A run with a name and no work, whose folder a test opens."""

from dataclasses import dataclass, field

from brainhive_cli.core.jobs import RunJob
from brainhive_cli.core.recipe import Recipe


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
