"""How much memory drawing would take, found out by running the networks' shapes without their numbers."""

from collections.abc import Callable
from typing import Any
from weakref import finalize

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from brainhive_cli.generators.sdxl import VAE_BATCH
from brainhive_cli.pipelines._reconstruction.painter import DTYPES, Sampling
from brainhive_cli.priors.fusion_prior import FusionPrior

GIB = 2**30


def estimate(generator: Any, how: Sampling, prior: FusionPrior) -> str:
    """Estimate what drawing takes on a GPU: weights and the tensors that live at once, without workspaces.

    Args:
        generator: A generator's Config.
        how: How pictures are drawn.
        prior: The prior.
    """
    unet, vae = generator.skeleton(DTYPES[how.precision])
    batch = how.batch_size * (2 if how.guidance > 1 else 1)
    side = how.resolution_px // 2 ** (len(vae.config.block_out_channels) - 1)
    drawing = _peak(unet, lambda: _denoise(unet, batch, side))
    decoded = 1 if how.vae_tiling else min(how.batch_size, VAE_BATCH)
    decoding = _peak(vae, lambda: _decode(vae, decoded, side))
    unet_bytes, vae_bytes = _size(unet), _size(vae)
    held = max(unet_bytes, vae_bytes) if how.offload else unet_bytes + vae_bytes
    total = held + _size(prior) + max(drawing, decoding)
    return (
        f"{total / GIB:.1f} GiB for {how.batch_size} at once: weights {(held + _size(prior)) / GIB:.1f}, "
        f"denoising {drawing / GIB:.1f} or decoding {decoding / GIB:.1f}"
    )


def _denoise(unet: Any, batch: int, side: int) -> None:
    config, dtype = unet.config, unet.dtype
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    meta = {"device": "meta", "dtype": dtype}
    unet(
        torch.empty(batch, config.in_channels, side, side, **meta),
        torch.empty(batch, device="meta"),
        torch.empty(batch, 77, config.cross_attention_dim, **meta),
        added_cond_kwargs={
            "text_embeds": torch.empty(batch, pooled, **meta),
            "time_ids": torch.empty(batch, 6, **meta),
        },
    )


def _decode(vae: Any, batch: int, side: int) -> None:
    vae.decode(torch.empty(batch, vae.config.latent_channels, side, side, device="meta", dtype=vae.dtype))


def _size(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


def _peak(network: nn.Module, forward: Callable[[], None]) -> int:
    """Run on the meta device and return the most bytes that lived at once, the network's own left out."""
    live = _Live({p.untyped_storage()._cdata for p in network.parameters()})
    with torch.no_grad(), _FusedAttention(), live:
        forward()
    return live.peak


class _Live(TorchDispatchMode):
    """Counts the bytes of storages from when an operation makes them until they die."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self.peak, self._now, self._known = 0, 0, known

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
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


class _FusedAttention(TorchFunctionMode):
    """Attention as GPUs do it: without the matrix of all pairs."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is scaled_dot_product_attention:
            return torch.empty_like(args[0] if args else kwargs["query"])
        return func(*args, **(kwargs or {}))
