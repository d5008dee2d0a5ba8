"""Encoders of BrainHiVE with a projection head, such as NICE, EEGNet and DeepNet."""

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainhive_cli.models import UnitDropout, count_output_samples
from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones._layers import BrainEncoder, make_projection_head

FILTERS = 40
"""Number of filters, as in NICE."""
KERNEL = 25
"""Samples of the temporal kernel, as in NICE."""
POOL, STRIDE = 51, 5
"""Samples of the mean pooling and of its stride, as in NICE."""
EEG_NET_FILTERS = (8, 16)
"""Temporal and spatial filters of EEGNet, as in BrainHiVE."""
EEG_NET_KERNELS = (64, 16)
"""Samples of the first and second temporal kernel of EEGNet, as in BrainHiVE."""
EEG_NET_POOL = 2
"""Samples of EEGNet's mean pooling, as in BrainHiVE."""
DEEP_NET_FILTERS = (25, 50, 100, 200)
"""Filters of each block of DeepNet, as in the paper."""
DEEP_NET_KERNEL = 10
"""Samples of DeepNet's kernels, as in the paper."""
DEEP_NET_POOL = 2
"""Samples of DeepNet's max pooling, as in BrainHiVE."""


class Config(BackboneConfig):
    """Settings of BrainHiVE's encoders with a projection head (arXiv 2602.07495).

    The kind `brain-projection` has the head alone. Other kinds are rows with `layers`.
    """

    cites = ("zheng2026",)
    called = "BrainHiVE's brain projection"
    layers: ClassVar[str] = ""
    """Layers before the head: a key of LAYERS, `nice`, or none. `linear` replaces the
    head.
    """

    dropout: UnitDropout = 0.3

    def build(
        self, channels: int, samples: int, dim: int, subjects: int = 1
    ) -> BrainEncoder:
        """Make the encoder for signals [B, C, T] and tokens [B, D].

        Parameters have upstream's names.

        Raises:
            BrainhiveError: if the window is shorter than the filters.
        """
        if not self.layers:
            head = make_projection_head(channels * samples, dim, self.dropout)
            return BrainEncoder(flatten=nn.Flatten(), model=head)
        if self.layers == "linear":
            return BrainEncoder(
                flatten=nn.Flatten(),
                dropout=nn.Dropout(self.dropout),
                project=nn.Linear(channels * samples, dim),
            )
        if self.layers == "nice":
            layers = make_nice_layers(channels, samples, dim, self.dropout)
            return BrainEncoder(**layers)

        make_layers, n_filters, filter_sizes = LAYERS[self.layers]
        n_samples = count_output_samples(samples, *filter_sizes)
        backbone = make_layers(channels, self.dropout)
        head = make_projection_head(n_filters * n_samples, dim, self.dropout)
        return BrainEncoder(
            picture=nn.Unflatten(1, (1, channels)),  # [B, 1, C, T]
            backbone=backbone,  # [B, F, 1, T']
            project=nn.Sequential(nn.Flatten(), *head),
        )


TINY = Config(dropout=0.1)
"""Settings with the dropout of the rows."""


class PooledConvolution(nn.Conv2d):
    """`Conv2d(1, filters, (1, kernel))` and `AvgPool2d((1, pool), (1, stride))` in one.

    Both are linear, so a single convolution with the averaged kernel is equal, and
    computes only the pooled samples. On a CPU, NICE trains four (fp32) to six times
    (bf16) as fast. Parameters have the names of Conv2d.

    Args:
        filters: Number F of filters.
        kernel: Samples of the kernel.
        pool: Samples of the pooling window.
        stride: Samples from a window to the next.
    """

    def __init__(self, filters: int, kernel: int, pool: int, stride: int) -> None:
        super().__init__(1, filters, (1, kernel), stride=(1, stride))
        self.pool = pool

    def forward(self, signal: Tensor) -> Tensor:
        """Map [B, 1, C, T] to [B, F, C, T']."""
        # average the kernel over the window in full precision, also under autocast
        with torch.autocast(signal.device.type, enabled=False):
            window = self.weight.new_full((1, 1, 1, self.pool), 1 / self.pool)
            # [F, 1, 1, kernel + pool - 1]
            kernel = F.conv2d(self.weight, window, padding=(0, self.pool - 1))
        return F.conv2d(signal, kernel, self.bias, self.stride)


def make_ts_conv_layers(channels: int, dropout: float) -> nn.Sequential:
    """Make NICE's layers without the last projection.

    They are a temporal convolution, mean pooling and a spatial convolution.
    """
    return nn.Sequential(
        PooledConvolution(FILTERS, KERNEL, POOL, STRIDE),
        nn.Identity(),  # pooling, in upstream's names
        nn.BatchNorm2d(FILTERS),
        nn.ELU(),
        nn.Conv2d(FILTERS, FILTERS, (channels, 1)),  # over channels: [B, F, 1, T']
        nn.BatchNorm2d(FILTERS),
        nn.ELU(),
        nn.Dropout(dropout),
    )


def make_nice_layers(
    channels: int, samples: int, dim: int, dropout: float
) -> dict[str, nn.Module]:
    """Make the layers of NICE by upstream's names.

    Returns:
        `enc_eeg` from signals [B, C, T] to flattened patches [B, T' · F], and
        `proj_eeg` from these to tokens [B, D].
    """
    from torchvision.ops import Permute

    n_patches = count_output_samples(samples, (KERNEL, 1), (POOL, STRIDE))
    patch_embedding = OrderedDict(
        picture=nn.Unflatten(1, (1, channels)),  # [B, 1, C, T]
        tsconv=make_ts_conv_layers(channels, dropout),  # [B, F, 1, T']
        projection=nn.Sequential(nn.Conv2d(FILTERS, FILTERS, 1)),
        sequence=Permute([0, 3, 2, 1]),  # [B, T', 1, F]
    )
    return {
        "enc_eeg": nn.Sequential(nn.Sequential(patch_embedding), nn.Flatten()),
        "proj_eeg": make_projection_head(FILTERS * n_patches, dim, dropout),
    }


def make_shallow_net_layers(channels: int, dropout: float) -> nn.Sequential:
    """Make a temporal and a spatial convolution, and mean pooling over long windows."""
    return nn.Sequential(
        nn.Conv2d(1, FILTERS, (1, KERNEL)),  # over time: [B, F, C, T']
        nn.Conv2d(FILTERS, FILTERS, (channels, 1)),  # over channels: [B, F, 1, T']
        nn.BatchNorm2d(FILTERS),
        nn.ELU(),
        nn.AvgPool2d((1, POOL), (1, STRIDE)),
        nn.Dropout(dropout),
    )


def make_eeg_net_layers(channels: int, dropout: float) -> nn.Sequential:
    """Make EEGNet's temporal, spatial and second temporal convolution."""
    temporal, spatial = EEG_NET_FILTERS
    first_kernel, second_kernel = EEG_NET_KERNELS
    return nn.Sequential(
        nn.Conv2d(1, temporal, (1, first_kernel)),  # over time: [B, F, C, T']
        nn.BatchNorm2d(temporal),
        nn.Conv2d(temporal, spatial, (channels, 1)),  # over channels: [B, F, 1, T']
        nn.BatchNorm2d(spatial),
        nn.ELU(),
        nn.AvgPool2d((1, EEG_NET_POOL)),
        nn.Dropout(dropout),
        nn.Conv2d(spatial, spatial, (1, second_kernel)),  # over time
        nn.BatchNorm2d(spatial),
        nn.ELU(),
        nn.Dropout(dropout),
    )


def make_deep_net_layers(channels: int, dropout: float) -> nn.Sequential:
    """Make DeepNet's blocks of temporal convolution and max pooling.

    The first block also has a spatial convolution.
    """
    layers: list[nn.Module] = []
    for n_inputs, filters in pairwise((1, *DEEP_NET_FILTERS)):
        layers.append(nn.Conv2d(n_inputs, filters, (1, DEEP_NET_KERNEL)))
        if n_inputs == 1:  # over channels: [B, F, C, T'] to [B, F, 1, T']
            layers.append(nn.Conv2d(filters, filters, (channels, 1)))
        layers += [
            nn.BatchNorm2d(filters),
            nn.ELU(),
            nn.MaxPool2d((1, DEEP_NET_POOL)),
            nn.Dropout(dropout),
        ]
    return nn.Sequential(*layers)


Layers = tuple[Callable[[int, float], nn.Sequential], int, tuple[tuple[int, int], ...]]
LAYERS: dict[str, Layers] = {
    "ts-conv": (make_ts_conv_layers, FILTERS, ((KERNEL, 1), (POOL, STRIDE))),
    "shallow-net": (make_shallow_net_layers, FILTERS, ((KERNEL, 1), (POOL, STRIDE))),
    "eeg-net": (
        make_eeg_net_layers,
        EEG_NET_FILTERS[-1],
        (
            (EEG_NET_KERNELS[0], 1),
            (EEG_NET_POOL, EEG_NET_POOL),
            (EEG_NET_KERNELS[1], 1),
        ),
    ),
    "deep-net": (
        make_deep_net_layers,
        DEEP_NET_FILTERS[-1],
        ((DEEP_NET_KERNEL, 1), (DEEP_NET_POOL, DEEP_NET_POOL)) * len(DEEP_NET_FILTERS),
    ),
}
"""Function that makes the layers from [B, 1, C, T] to [B, F, 1, T'], number F of
filters, and (kernel, stride) of each filter that shortens T.
"""
