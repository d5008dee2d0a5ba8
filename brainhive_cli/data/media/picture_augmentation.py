"""Pictures varied before an encoder sees them, drawn anew at each training step."""

from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from brainhive_cli.core.recipe import Names, Section, refuse_idle

if TYPE_CHECKING:
    from PIL import Image

AUGMENTED = "_augmented"
"""After the name of a head: the target of the augmented picture."""
JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}
"""Largest changes of colour; MindEye1's."""

MIN_CROP_AREA = 0.6
"""Share of the picture that a crop keeps at least (MindEye1's training)."""


class PictureAugment(Section):
    """Which targets are computed of augmented pictures, and how these are augmented; MindEye1's chances."""

    heads: Names = Field(
        [],
        description="heads whose encoder sees an augmented picture at each step: terms find what it gives as "
        "the target HEAD_augmented",
    )
    crop: float = Field(0.3, ge=0, le=1, description="chance that a crop of the picture takes its place")
    flip: float = Field(0.5, ge=0, le=1, description="chance that left and right are exchanged")
    jitter: float = Field(0.3, ge=0, le=1, description="chance that colours are changed")
    grey: float = Field(0.3, ge=0, le=1, description="chance that it becomes grey")

    @model_validator(mode="after")
    def _every_key_has_an_effect(self) -> Self:
        if not self.heads:
            idle = [key for key in type(self).model_fields if key != "heads"]
            refuse_idle(self, idle, "where no head is named", "train.augment_pictures.heads=[...]")
        return self


def augmented(picture: "Image.Image", config: PictureAugment) -> "Image.Image":
    """Crop, flip, recolour or grey a picture by chance; torch's random numbers are used.

    Source: MindEye1 (arXiv 2305.18274), Train_MindEye.py.
    """
    from torchvision.transforms import v2

    crop = v2.RandomResizedCrop((picture.height, picture.width), scale=(MIN_CROP_AREA, 1.0))
    steps = v2.Compose(
        [
            v2.RandomApply([crop], config.crop),
            v2.RandomHorizontalFlip(config.flip),
            v2.RandomApply([v2.ColorJitter(**JITTER)], config.jitter),
            v2.RandomGrayscale(config.grey),
        ]
    )
    varied: Any = steps(picture)
    return varied
