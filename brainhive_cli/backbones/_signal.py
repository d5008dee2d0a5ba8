"""The check that a signal is of the size that a brain encoder was built for."""

from torch import Tensor

from brainhive_cli.errors import BrainhiveError


def check(signal: Tensor, channels: int, samples: int) -> None:
    """Refuse a signal that is not [B, C, T].

    Raises:
        BrainhiveError: naming both sizes.
    """
    if signal.ndim != 3 or signal.shape[1:] != (channels, samples):
        raise BrainhiveError(
            f"the brain encoder takes signals [B, {channels}, {samples}] (batch, channels, samples), "
            f"got {list(signal.shape)}",
            "choose the channels and the window that it was trained on",
        )
