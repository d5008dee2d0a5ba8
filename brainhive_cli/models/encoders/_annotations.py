"""What encoders of annotations have in common: nothing is learned, and the targets are whole numbers."""

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from brainhive_cli.models.encoders import Encoder, EncoderConfig


class AnnotationConfig(EncoderConfig):
    """Masks, labels or captions as they are, in the form that a head is compared with."""

    usual_cosine = (-1.0, 1.0)
    usual_repeats = 1.0
    usual_dead: ClassVar[float] = 1.0

    @property
    def is_here(self) -> bool:
        """Always: there are no weights."""
        return True

    def built(self, preprocess: Callable[[Any], Tensor], words: str) -> Encoder:
        """Make the encoder of what is read, whose preprocessing is all that it does."""
        return Encoder(nn.Identity(), preprocess, words, reads=self.encodes)
