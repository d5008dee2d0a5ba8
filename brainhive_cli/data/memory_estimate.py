"""How much memory networks would take, found out by running their shapes without their numbers."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import finalize

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from brainhive_cli.generators.sdxl import VAE_BATCH

MIB, GIB = 2**20, 2**30


@dataclass(frozen=True)
class Footprint:
    """Bytes that work takes on a GPU.

    Attributes:
        at_once: Pictures that are worked on at once.
        held: What is there all the time, by name.
        moments: What comes and goes, by when that is: one at a time.
    """

    at_once: int
    held: dict[str, int]
    moments: dict[str, int]

    @property
    def total(self) -> int:
        """The most that is there at any time."""
        return sum(self.held.values()) + max(self.moments.values())

    def __str__(self) -> str:
        """Say it in one line."""
        held, moments = (
            [f"{name} {in_words(count)}" for name, count in each.items()]
            for each in (self.held, self.moments)
        )
        told = f"{', '.join(held)}, {' or '.join(moments)}"
        return f"{in_words(self.total)} for {self.at_once} at once: {told}"


def in_words(count: int) -> str:
    """Write bytes as GiB, or as MiB where they are less than one."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{math.ceil(count / MIB)} MiB"


def size_of(held: nn.Module | Iterable[Tensor]) -> int:
    """Count the bytes of a module's weights, or of tensors."""
    tensors = held.parameters() if isinstance(held, nn.Module) else held
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def peak(work: Callable[[], object], *networks: nn.Module) -> int:
    """Run on the meta device and return the most bytes that lived at once, the networks' own left out.

    Gradients that the work leaves in the networks are counted; they are there at its end.
    """
    live = Live(*networks)
    with _fused_attention(), live:
        work()
    return live.peak


def drawing(generator: Any, batch: int, decoded: int, resolution_px: int) -> tuple[int, int]:
    """Count what denoising a batch of latents takes, and decoding `decoded` of them.

    Args:
        generator: A generator on the meta device.
        batch: Latents that the U-Net sees at once; with guidance two a picture.
        decoded: Pictures that the VAE is given at once; it takes `VAE_BATCH` at a time.
        resolution_px: Height and width.
    """
    unet, vae = generator.unet, generator.vae
    side = resolution_px // generator.pipeline.vae_scale_factor
    with torch.no_grad():
        denoising = peak(lambda: _denoise(generator, batch, side), unet)
        decoding = peak(lambda: _decode(vae, min(decoded, VAE_BATCH), side), vae)
    return denoising, decoding


def _denoise(generator: Any, batch: int, side: int) -> None:
    unet = generator.unet
    text, pooled = generator.empty_prompt(batch)
    meta = {"device": "meta", "dtype": unet.dtype}
    unet(
        torch.empty(batch, unet.config.in_channels, side, side, **meta),
        torch.empty(batch, device="meta"),
        text,
        added_cond_kwargs={"text_embeds": pooled, "time_ids": torch.empty(batch, 6, **meta)},
    )


def _decode(vae: Any, batch: int, side: int) -> None:
    vae.decode(torch.empty(batch, vae.config.latent_channels, side, side, device="meta", dtype=vae.dtype))


class Live(TorchDispatchMode):
    """Counts the bytes of storages from when an operation makes them until they die.

    Args:
        networks: Their weights are not counted.
    """

    def __init__(self, *networks: nn.Module) -> None:
        super().__init__()
        self.peak, self._now = 0, 0
        self._known = {p.untyped_storage()._cdata for network in networks for p in network.parameters()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do the operation, and count what it made."""
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: Any) -> None:
        if (key := storage._cdata) in self._known:
            return
        self._known.add(key)
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        finalize(storage, self._died, key, storage.nbytes())

    def _died(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Let attention be as on GPUs: without the matrix of all pairs.

    It is put in place of torch's, as a mode of torch would not see what checkpoints compute anew.
    """
    attend = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = lambda query, key, value, *_, **__: _Attention.apply(
        query, key, value
    )
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = attend


class _Attention(torch.autograd.Function):
    """The shapes of fused attention: a sum a query is kept beside the output, so that it can go backward."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        sums = torch.empty(query.shape[:-1], device=query.device)
        ctx.save_for_backward(query, key, value, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])
