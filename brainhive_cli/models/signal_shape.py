"""How long a signal is: the check that it fits a brain encoder, and what its filters leave of it."""

from torch import Tensor

from brainhive_cli.core.errors import BrainhiveError


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


def samples_left(samples: int, *filters: tuple[int, int]) -> int:
    """Count the samples that unpadded convolutions and poolings, each (kernel, stride), leave of T.

    Raises:
        BrainhiveError: if nothing is left.
    """
    least = 1
    for kernel, stride in reversed(filters):
        least = (least - 1) * stride + kernel
    if samples < least:
        raise BrainhiveError(
            f"the window has {samples} samples, the brain encoder's filters need {least}",
            "take a longer window",
        )
    for kernel, stride in filters:
        samples = (samples - kernel) // stride + 1
    return samples
