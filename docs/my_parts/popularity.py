"""my_parts/popularity.py: similarities without each picture's mean."""

from collections.abc import Callable

from torch import Tensor

from brainhive_cli import api


class Config(api.Config):
    """No keys; corrected ranks are shown as a control, never as a result."""

    def build(self) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """Build a map from similarities [N, M] and the tokens of signals and gallery to
        similarities.
        """
        return lambda similarities, signals, gallery: (
            similarities - similarities.mean(0)
        )


TINY = Config()
