"""Mask of the key object of a clip, frame by frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from brainhive_cli.models.encoders import AnnotationConfig, Encoder

if TYPE_CHECKING:
    from torch import Tensor


class Config(AnnotationConfig):
    """Mask [1, side, side] of 0 and 1, with 1 in the key object.

    Source: xmed-lab/NEURONS, the target of its segmentation (nearest neighbour).
    """

    reads: ClassVar[Literal["masks"]] = "masks"
    shape = (1, "side", "side")
    store_dtype = "uint8"

    side: int = Field(
        64, gt=0, le=1024, description="height and width of the mask, pixels"
    )

    def build(self) -> Encoder:
        """Prepare the resizing of masks."""
        import torch
        from torch.nn.functional import interpolate

        def preprocess(mask: Any) -> Tensor:
            # `interpolate` reads [B, C, H, W]; any value above 0 is the object
            pixels = torch.from_numpy(mask)[None, None].gt(0).to(torch.uint8)
            # [1, side, side]
            return interpolate(pixels, (self.side, self.side), mode="nearest")[0]

        return Encoder(
            network=torch.nn.Identity(),
            preprocess=preprocess,
            preprocessing=f"nearest neighbour to {self.side} × {self.side}, 0 and 1",
            reads=self.reads,
        )


TINY = Config(side=8)
