"""Estimates of GPU memory from the shapes of tensors on the meta device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import finalize

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from brainhive_cli.core.base.device_memory import count_bytes
from brainhive_cli.models.generators._latent_diffusion import VAE_BATCH_SIZE
from brainhive_cli.models.generators.animatediff import AnimateDiff, Keyframe
from brainhive_cli.models.heads import Conditioning


def peak(work: Callable[[], object], *networks: Any) -> int:
    """Run work on the meta device, and return its peak of allocated bytes.

    The weights of the networks are not counted.
    """
    allocations = Allocations(*networks)
    with _fused_attention(), allocations:
        work()
    return allocations.peak


class Allocations(TorchDispatchMode):
    """Counter of allocated bytes, without the weights of networks."""

    def __init__(self, *networks: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._current = 0
        self._storages = set()
        for network in networks:
            for parameter in network.parameters():
                self._storages.add(parameter.untyped_storage()._cdata)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operation, and count the storages that it allocated."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._storages:
            return
        self._storages.add(key)
        self._current += storage.nbytes()
        self.peak = max(self.peak, self._current)
        finalize(storage, self._remove, key, storage.nbytes())

    def _remove(self, key: int, n_bytes: int) -> None:
        self._storages.discard(key)
        self._current -= n_bytes


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Context manager in which attention allocates no matrix of all pairs, as on GPUs.

    It replaces torch's function, because a mode of torch would not see recomputations
    of checkpoints.
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
    """Shapes of fused attention, which saves a sum per query for its backward pass."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = torch.empty_like(query)
        sums = torch.empty(query.shape[:-1], device=query.device)
        ctx.save_for_backward(query, key, value, output, sums)
        return output

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


def sampling_bytes(
    generator: Any, batch: int, size_px: int, guidance: float = 0.0
) -> int:
    """Estimate the bytes of sampling, with the weights.

    Args:
        generator: Generator that its Config built for the device "meta".
        batch: Number of pictures or clips at once.
        size_px: Height and width.
        guidance: Guidance scale. Above 1, the U-Net takes two rows for each picture.
    """
    # empty latents [B, ...] of a step, and of the pictures that are decoded together
    is_clip = isinstance(generator, AnimateDiff)
    n_frames = generator.config.frames if is_clip else 1
    n_rows = batch * (2 if guidance > 1 else 1)
    picture_shape = tuple(generator.latent_shape(size_px))
    shape = (n_rows, n_frames) + picture_shape if is_clip else (n_rows,) + picture_shape
    latents = torch.empty(shape, device="meta", dtype=generator.unet.dtype)
    n_decoded = min(batch * n_frames, VAE_BATCH_SIZE)
    decoded_latents = torch.empty(
        (n_decoded,) + picture_shape, device="meta", dtype=generator.vae.dtype
    )
    timesteps = torch.empty(n_rows, device="meta")
    sizes = torch.empty(n_rows, 6, device="meta")

    def denoise() -> None:
        if not is_clip:
            generator.predict(latents, timesteps, Conditioning(), sizes)
            return
        clips = torch.empty_like(
            latents.transpose(1, 2), memory_format=torch.contiguous_format
        )
        keyframe = None
        if generator.sparse_control is not None:
            keyframe = Keyframe(clips, clips[:, :1])
        tokens = generator.prepare_text_tokens(None, "", n_rows)
        generator._predict_clips(clips, timesteps, tokens, keyframe)

    # denoising and decoding follow each other, so only the larger peak counts
    weights = sum(count_bytes(network) for network in generator.networks)
    with torch.no_grad():
        decoding = peak(lambda: generator.vae.decode(decoded_latents), generator.vae)
        denoising = peak(denoise, *generator.denoising_networks) + latents.nbytes
    return weights + max(denoising, decoding)
