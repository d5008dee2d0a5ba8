"""BrainHiVE's encoders that end in one projection head: convolutions of published
networks, or none.

`brain-projection` goes straight into the head; the others are rows whose `layers` name
what comes before it.
"""

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones._layers import BrainEncoder, make_projection_head
from brainhive_cli.models.signal_spec import count_output_samples
from brainhive_cli.models.sizes import UnitDropout

FILTERS = 40
KERNEL = 25
POOL, STRIDE = 51, 5
"""Filters; samples of the temporal kernel, of the mean pooling and of its stride:
NICE's.
"""
EEG_NET_FILTERS, LONG, SHORT, EEG_NET_POOL = (8, 16), 64, 16, 2
"""EEGNet's filters, samples of its two temporal kernels and of the mean pooling between
them: BrainHiVE's.
"""
DEEP_FILTERS, DEEP_KERNEL, DEEP_POOL = (25, 50, 100, 200), 10, 2
"""DeepNet's filters of each block, samples of its kernels (the paper's) and max pooling
(BrainHiVE's).
"""


class Config(BackboneConfig):
    """The smallest brain encoder of BrainHiVE (arXiv 2602.07495): all channels and
    samples into the head.
    """

    cites = ("zheng2026",)
    layers: ClassVar[str] = ""
    """What comes before the head: one of LAYERS, `nice`, or nothing; `linear` replaces
    the head.
    """

    dropout: UnitDropout = 0.3

    def build(
        self, channels: int, samples: int, dim: int, subjects: int = 1
    ) -> BrainEncoder:
        """Make the encoder for signals [B, C, T] and tokens [B, D]; the parameter names
        are upstream's.

        Raises:
            BrainhiveError: if the window is shorter than the filters.
        """
        if not self.layers:
            head = make_projection_head(channels * samples, dim, self.dropout)
            return BrainEncoder(flatten=nn.Flatten(), model=head)
        if self.layers == "linear":
            linear = nn.Linear(channels * samples, dim)
            return BrainEncoder(
                flatten=nn.Flatten(), dropout=nn.Dropout(self.dropout), project=linear
            )
        if self.layers == "nice":
            return BrainEncoder(**nice_layers(channels, samples, dim, self.dropout))

        # the signal as a picture [B, 1, C, T] to [B, F, 1, T'], then to [B, F · T'] and
        # [B, D]
        make_layers, filters, shortened_by = LAYERS[self.layers]
        left = count_output_samples(samples, *shortened_by)
        layers = make_layers(channels, self.dropout)
        head = make_projection_head(filters * left, dim, self.dropout)
        return BrainEncoder(
            picture=nn.Unflatten(1, (1, channels)),
            backbone=layers,
            project=nn.Sequential(nn.Flatten(), *head),
        )


TINY = Config(dropout=0.1)
"""With the dropout of the rows."""


class PooledConvolution(nn.Conv2d):
    """`Conv2d(1, filters, (1, kernel))` and `AvgPool2d((1, pool), (1, stride))`, under
    the former's names.

    Both are linear, so they are one convolution, with the kernel smeared over the
    pooling window. It makes only the samples that pooling leaves: on a CPU, NICE trains
    four (fp32) to six times (bf16) as fast.

    Args:
        filters: F.
        kernel: Samples of the kernel.
        pool: Samples of the pooling window.
        stride: Samples from one window to the next.
    """

    def __init__(self, filters: int, kernel: int, pool: int, stride: int) -> None:
        super().__init__(1, filters, (1, kernel), stride=(1, stride))
        self.pool = pool

    def forward(self, signal: Tensor) -> Tensor:
        """Map [B, 1, C, T] to [B, F, C, T']."""
        # smear the kernel in the precision of the weights, also under autocast
        with torch.autocast(signal.device.type, enabled=False):
            window = self.weight.new_full((1, 1, 1, self.pool), 1 / self.pool)
            # [F, 1, 1, kernel + pool - 1]
            kernel = F.conv2d(self.weight, window, padding=(0, self.pool - 1))
        return F.conv2d(signal, kernel, self.bias, self.stride)


def ts_conv_layers(channels: int, dropout: float) -> nn.Sequential:
    """Make temporal convolution, pooling, then spatial convolution: NICE's without its
    last projection.
    """
    return nn.Sequential(
        PooledConvolution(FILTERS, KERNEL, POOL, STRIDE),
        nn.Identity(),  # in upstream's names the pooling
        nn.BatchNorm2d(FILTERS),
        nn.ELU(),
        nn.Conv2d(FILTERS, FILTERS, (channels, 1)),  # over channels: [B, F, 1, T']
        nn.BatchNorm2d(FILTERS),
        nn.ELU(),
        nn.Dropout(dropout),
    )


def nice_layers(
    channels: int, samples: int, dim: int, dropout: float
) -> dict[str, nn.Module]:
    """Make NICE by upstream's names: signals [B, C, T] to patches [B, T', F], and these
    to tokens [B, D].
    """
    from torchvision.ops import Permute

    patches = count_output_samples(samples, (KERNEL, 1), (POOL, STRIDE))
    patch_embedding = OrderedDict(
        picture=nn.Unflatten(1, (1, channels)),  # [B, 1, C, T]
        tsconv=ts_conv_layers(channels, dropout),  # [B, F, 1, T']
        projection=nn.Sequential(nn.Conv2d(FILTERS, FILTERS, 1)),
        sequence=Permute([0, 3, 2, 1]),  # [B, T', 1, F]
    )
    return {
        "enc_eeg": nn.Sequential(nn.Sequential(patch_embedding), nn.Flatten()),
        "proj_eeg": make_projection_head(FILTERS * patches, dim, dropout),
    }


def shallow_net_layers(channels: int, dropout: float) -> nn.Sequential:
    """Make one temporal and one spatial convolution, pooled over long windows."""
    return nn.Sequential(
        nn.Conv2d(1, FILTERS, (1, KERNEL)),  # over time: [B, F, C, T']
        nn.Conv2d(FILTERS, FILTERS, (channels, 1)),  # over channels: [B, F, 1, T']
        nn.BatchNorm2d(FILTERS),
        nn.ELU(),
        nn.AvgPool2d((1, POOL), (1, STRIDE)),
        nn.Dropout(dropout),
    )


def eeg_net_layers(channels: int, dropout: float) -> nn.Sequential:
    """Make a long temporal, a spatial and a short temporal convolution, with few
    filters.
    """
    temporal, spatial = EEG_NET_FILTERS
    return nn.Sequential(
        nn.Conv2d(1, temporal, (1, LONG)),  # over time: [B, F, C, T']
        nn.BatchNorm2d(temporal),
        nn.Conv2d(temporal, spatial, (channels, 1)),  # over channels: [B, F, 1, T']
        nn.BatchNorm2d(spatial),
        nn.ELU(),
        nn.AvgPool2d((1, EEG_NET_POOL)),
        nn.Dropout(dropout),
        nn.Conv2d(spatial, spatial, (1, SHORT)),  # over time again
        nn.BatchNorm2d(spatial),
        nn.ELU(),
        nn.Dropout(dropout),
    )


def deep_net_layers(channels: int, dropout: float) -> nn.Sequential:
    """Make four blocks of convolution and max pooling, the first with a spatial
    convolution.
    """
    layers: list[nn.Module] = []
    for before, filters in pairwise((1, *DEEP_FILTERS)):
        # convolution over time, in the first block also over channels
        layers.append(nn.Conv2d(before, filters, (1, DEEP_KERNEL)))
        if before == 1:  # [B, F, C, T'] to [B, F, 1, T']
            layers.append(nn.Conv2d(filters, filters, (channels, 1)))
        layers += [
            nn.BatchNorm2d(filters),
            nn.ELU(),
            nn.MaxPool2d((1, DEEP_POOL)),
            nn.Dropout(dropout),
        ]
    return nn.Sequential(*layers)


Layers = tuple[Callable[[int, float], nn.Sequential], int, tuple[tuple[int, int], ...]]
LAYERS: dict[str, Layers] = {
    "ts-conv": (ts_conv_layers, FILTERS, ((KERNEL, 1), (POOL, STRIDE))),
    "shallow-net": (shallow_net_layers, FILTERS, ((KERNEL, 1), (POOL, STRIDE))),
    "eeg-net": (
        eeg_net_layers,
        EEG_NET_FILTERS[-1],
        ((LONG, 1), (EEG_NET_POOL, EEG_NET_POOL), (SHORT, 1)),
    ),
    "deep-net": (
        deep_net_layers,
        DEEP_FILTERS[-1],
        ((DEEP_KERNEL, 1), (DEEP_POOL, DEEP_POOL)) * len(DEEP_FILTERS),
    ),
}
"""Layers from [B, 1, C, T] to [B, F, 1, T'], F, and the (kernel, stride) of the filters
that shorten T.
"""
