"""Multi-label targets: the concepts that a stimulus shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from brainhive_cli.core.base import RecipeError
from brainhive_cli.models.encoders import AnnotationConfig, Encoder

if TYPE_CHECKING:
    from torch import Tensor


class Config(AnnotationConfig):
    """Vector of 0 and 1, with a 1 for each concept that the stimulus shows."""

    reads: ClassVar[Literal["labels"]] = "labels"
    shape = ("count",)
    store_dtype = "uint8"

    count: PositiveInt = Field(
        51, description="number of concepts of the data set; cc2017 has 51"
    )

    def build(self) -> Encoder:
        """Prepare the labels.

        Raises:
            RecipeError: later, if a stimulus has another number of labels.
        """
        import torch

        def preprocess(labels: Any) -> Tensor:
            # the recipe fixes the width of the target
            if len(labels) != self.count:
                raise RecipeError(
                    f"a stimulus has {len(labels)} labels, and {self.name} is of "
                    f"{self.count}",
                    f"{{kind: concepts, count: {len(labels)}}}",
                )
            return torch.from_numpy(labels).gt(0).to(torch.uint8)  # [K]

        return Encoder(
            network=torch.nn.Identity(),
            preprocess=preprocess,
            preprocessing=f"{self.count} labels, 0 and 1",
            reads=self.reads,
        )


TINY = Config()
