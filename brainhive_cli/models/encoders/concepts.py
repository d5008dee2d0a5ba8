"""Known concepts that a stimulus shows: several at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from brainhive_cli.core.errors import RecipeError
from brainhive_cli.models.encoders import AnnotationConfig, Encoder

if TYPE_CHECKING:
    from torch import Tensor


class Config(AnnotationConfig):
    """One number a concept, 1 where the stimulus shows it; cc2017 has 51."""

    reads: ClassVar[Literal["labels"]] = "labels"
    shape = ("count",)
    store_dtype = "uint8"

    count: PositiveInt = Field(
        51, description="how many concepts the data set has names of"
    )

    def build(self) -> Encoder:
        """Prepare the check of their number."""
        import torch

        def preprocess(labels: Any) -> Tensor:
            # the width of the target is fixed by the recipe, not by the data set
            if len(labels) != self.count:
                raise RecipeError(
                    f"a stimulus has {len(labels)} labels, and {self.name} is of "
                    f"{self.count}",
                    f"{{kind: concepts, count: {len(labels)}}}",
                )
            return torch.from_numpy(labels).gt(0).to(torch.uint8)  # [K]

        words = f"{self.count} labels, 0 and 1"
        return Encoder(torch.nn.Identity(), preprocess, words, reads=self.reads)


TINY = Config()
