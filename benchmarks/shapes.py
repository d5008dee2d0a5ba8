"""The memory that work takes on a GPU, by the shapes of its tensors on the meta device:
no GPU is needed.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import finalize

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from brainhive_cli.core.device_memory import count_bytes
from brainhive_cli.models.generators._latent_diffusion import VAE_BATCH_SIZE
from brainhive_cli.models.generators.animatediff import AnimateDiff, Keyframe
from brainhive_cli.models.heads import Conditioning


def peak(work: Callable[[], object], *networks: Any) -> int:
    """Run work on the meta device; return the most bytes that lived at once, weights of
    networks left out.
    """
    live = LiveBytes(*networks)
    with _fused_attention(), live:
        work()
    return live.peak


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages until they are freed, weights of networks left
    out.
    """

    def __init__(self, *networks: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak, self._now = 0, 0
        self._known = {
            p.untyped_storage()._cdata
            for network in networks
            for p in network.parameters()
        }

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run the operation, and count what it made."""
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
        finalize(storage, self._freed, key, storage.nbytes())

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Let attention be as on GPUs: without the matrix of all pairs.

    It replaces torch's function, as a mode of torch would not see what checkpoints
    recompute.
    """
    attend = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = lambda query, key, value, *_, **__: (
        _Attention.apply(query, key, value)
    )
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = attend


class _Attention(torch.autograd.Function):
    """The shapes of fused attention: it keeps one sum a query next to the output for
    its backward pass.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        sums = torch.empty(query.shape[:-1], device=query.device)
        ctx.save_for_backward(query, key, value, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


def sampling_bytes(
    generator: Any, batch: int, size_px: int, guidance: float = 0.0
) -> int:
    """Estimate the bytes that sampling takes, weights included, of a generator on the
    meta device.

    Args:
        generator: What its Config builds for the device "meta".
        batch: Pictures or clips at once.
        size_px: Height and width.
        guidance: Above 1 the U-Net takes two rows for each picture.
    """
    # blank latents of a step of sampling, and of the pictures that are decoded at once
    is_clip = isinstance(generator, AnimateDiff)
    frames = (generator.config.frames,) if is_clip else ()
    rows, shape = (
        batch * (2 if guidance > 1 else 1),
        (*frames, *generator.latent_shape(size_px)),
    )
    latents = torch.empty(rows, *shape, device="meta", dtype=generator.unet.dtype)
    at_once = min(batch * math.prod(frames), VAE_BATCH_SIZE)
    first = torch.empty(at_once, *shape[-3:], device="meta", dtype=generator.vae.dtype)
    times, sizes = torch.empty(rows, device="meta"), torch.empty(rows, 6, device="meta")

    def denoise() -> None:
        if not is_clip:
            generator.predict(latents, times, Conditioning(), sizes)
            return
        blank = torch.empty_like(
            latents.transpose(1, 2), memory_format=torch.contiguous_format
        )
        keyframe = None
        if generator.sparse_control is not None:
            keyframe = Keyframe(blank, blank[:, :1])
        generator._predict_clips(
            blank, times, generator.prepare_text_tokens(None, "", rows), keyframe
        )

    # only the larger of both steps counts, as they come one after the other
    weights = sum(map(count_bytes, generator.networks))
    with torch.no_grad():
        decoding = peak(lambda: generator.vae.decode(first), generator.vae)
        denoising = peak(denoise, *generator.denoising_networks) + latents.nbytes
    return weights + max(denoising, decoding)
