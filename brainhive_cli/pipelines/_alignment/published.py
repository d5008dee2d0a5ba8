"""What a paper reports for a recipe, and for which measurement."""

from collections.abc import Collection
from typing import Literal

from pydantic import Field

from brainhive_cli.recipe import Section


class Published(Section):
    """What a paper reports for this recipe, to be printed beside what is measured in the same way."""

    top1: float | None = Field(None, ge=0, le=1, description="of the retrieval of test pictures")
    top5: float | None = Field(None, ge=0, le=1)
    mode: Literal["intra", "inter", "joint", "finetune"] | None = Field(
        None, description="mode that it is of; default: whichever is run"
    )
    dataset: str | None = Field(None, description="data set that it is of; default: whichever is used")
    pool: int | None = Field(None, gt=0, description="pictures searched (200 on THINGS); default: any number")
    source: str = Field(description="where it is printed")

    def is_of(self, modes: Collection[str], dataset: str, pool: int | None = None) -> bool:
        """Tell whether it was measured in one of these modes, on this data set and among so many pictures.

        Args:
            modes: Of a run; a sweep may have several.
            dataset: Name of the data set.
            pool: Pictures searched; None where none were yet.
        """
        return (
            (self.mode is None or self.mode in modes)
            and self.dataset in (None, dataset)
            and (pool is None or self.pool in (None, pool))
        )
