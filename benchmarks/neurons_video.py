"""How fast NEURONS' keyframe and video are generated next to bare diffusers, and how much memory they need.

    python benchmarks/neurons_video.py                  # small widths on a CPU; on a GPU full ones
    python benchmarks/neurons_video.py --only memory    # estimated from shapes, at full width, on any machine

Weights are random and made here. Each ratio comes from one run, its sides in turns.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from figures import peak_bytes, reset_peak, show
from torch import Tensor

from brainhive_cli.core import parts
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.media.media_files import to_bytes
from brainhive_cli.evaluation.reconstruction.conditions import DecodedSet
from brainhive_cli.evaluation.reconstruction.generation import DTYPES, GenerationJob, Sampler, seed_of
from brainhive_cli.evaluation.reconstruction.recipe import Output
from brainhive_cli.models import priors
from brainhive_cli.models.generators import Sampling, animatediff, sdxl_unclip
from brainhive_cli.models.generators._motion import in_between
from brainhive_cli.models.heads import Decoded

CARD = 24e9
"""Bytes of the card that neurons-24gb is for."""
VIDEO = Sampling(steps=25, guidance=8.5, strength=1)
KEYFRAME = Sampling(steps=38, guidance=5)
"""NEURONS' own."""


@dataclass(frozen=True)
class Sizes:
    """What is generated.

    Attributes:
        video: With random weights.
        keyframe: With random weights.
        precision: Of both.
        video_px: Height and width of clips.
        keyframe_px: Height and width of keyframes.
        made: How many of each.
        at_once: Of keyframes, and of clips next to diffusers' one.
        share: Of the steps.
    """

    video: animatediff.Config
    keyframe: sdxl_unclip.Config
    precision: str
    video_px: int
    keyframe_px: int
    made: int
    at_once: int
    share: float = 1.0

    def sampling(self, whole: Sampling) -> Sampling:
        """Take a share of the steps."""
        return whole.model_copy(update={"steps": max(1, round(self.share * whole.steps))})


FULL = Sizes(animatediff.Config(source="random"), sdxl_unclip.Config(source="random"), "fp16", 256, 768, 4, 4)
UNETS = {"block_out_channels": [32, 64], "norm_num_groups": 8}
SMALL = Sizes(
    animatediff.TINY.model_copy(
        update={"architecture": {**(animatediff.TINY.architecture or {}), "unet": {
            **(animatediff.TINY.architecture or {})["unet"], **UNETS}}}
    ),
    sdxl_unclip.TINY.model_copy(
        update={"architecture": {**(sdxl_unclip.TINY.architecture or {}), "unet": {
            **(sdxl_unclip.TINY.architecture or {})["unet"], **UNETS, "attention_head_dim": (2, 4)}}}
    ),
    "fp32", 64, 128, 2, 2, 0.2,
)  # fmt: skip
"""A clip takes some seconds on a core."""
TINY = replace(
    SMALL, video=animatediff.TINY, keyframe=sdxl_unclip.TINY, video_px=32, keyframe_px=32, made=1, share=0.04
)
"""One step of one clip, for tests."""


@dataclass(frozen=True)
class Setting:
    """Where and at which sizes everything is measured."""

    home: Path
    sizes: Sizes
    device: torch.device
    rounds: int

    def timed(self, work: Callable[[], Any]) -> float:
        """Return the seconds that `work` takes: on a CPU its own, whatever else the machine does."""
        if self.device.type == "cpu":
            start = time.process_time()
            work()
            return time.process_time() - start
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        return time.perf_counter() - start

    def compare(
        self,
        name: str,
        unit: str,
        ours: Callable[[], Any],
        bare: Callable[[], Any],
        target: float | None = 0.95,
    ) -> None:
        """Show the ratio of the fastest of some rounds, and the peak of a GPU's memory."""
        bare()  # warm
        reset_peak()
        both = [(self.timed(ours), self.timed(bare)) for _ in range(self.rounds)]
        best = [min(times) for times in zip(*both, strict=True)]
        count = self.sizes.made
        words = f"{count / best[0]:.3g} of {count / best[1]:.3g} {unit}/s, {self.sizes.precision}"
        show(name, best[1] / best[0], target, words)
        if self.device.type == "cuda":
            held, reserved = peak_bytes()
            show(f"{unit}: peak, GB", held / 1e9, CARD / 1e9, f"{reserved / 1e9:.2f} reserved", at_most=True)


def clips(on: Setting) -> None:
    """Compare generating clips into a run folder with diffusers' pipeline, which takes one at a time."""
    sizes, steps = on.sizes, on.sizes.sampling(VIDEO)
    generator: Any = sizes.video.build(on.device, DTYPES[sizes.precision])
    width, side = generator.unet.config.cross_attention_dim, generator.latent_shape(sizes.video_px)[-1]
    random = torch.Generator().manual_seed(0)
    shapes = {
        "texts": (77, width),
        "start": (6, 4, side, side),
        "images": (3, sizes.keyframe_px, sizes.keyframe_px),
    }
    heads = {name: torch.randn(sizes.made, *shape, generator=random) for name, shape in shapes.items()}
    decoded = Decoded({**heads, "images": heads["images"].sigmoid()}).to(on.device)
    for at_once in (1, sizes.at_once):
        output = Output(resolution_px=sizes.video_px, precision=sizes.precision, batch_size=at_once)  # type: ignore[arg-type]
        ours, seeds = _job(on, generator, output, steps, decoded)
        bare = _bare_clips(on, generator, steps, decoded, seeds)
        target = 0.95 if at_once == 1 else None  # the pipeline takes one
        on.compare(f"clips, {at_once} at once: of diffusers' pipeline", "clips", ours, bare, target)


def keyframes(on: Setting) -> None:
    """Compare generating keyframes into a run folder with U-Net, scheduler and VAE in a bare loop."""
    sizes, steps = on.sizes, on.sizes.sampling(KEYFRAME)
    generator: Any = sizes.keyframe.build(on.device, DTYPES[sizes.precision])
    random = torch.Generator().manual_seed(0)
    tokens = torch.randn(sizes.made, 256, generator.unet.config.cross_attention_dim, generator=random)
    output = Output(resolution_px=sizes.keyframe_px, precision=sizes.precision, batch_size=sizes.at_once)  # type: ignore[arg-type]
    decoded = Decoded({"tokens": tokens}).to(on.device)
    ours, _ = _job(on, generator, output, steps, decoded)
    on.compare("keyframes: of a bare loop", "keyframes", ours, _bare_keyframes(on, generator, steps, tokens))


def _job(
    on: Setting, generator: Any, output: Output, sampling: Sampling, decoded: Decoded
) -> tuple[Callable[[], None], list[int]]:
    """Make what generates into a run folder as `reconstruct` does, and the seeds that it uses."""
    sampler = Sampler(lambda *_: generator, priors.load("identity"), output, sampling, on.device)
    ids = [f"item-{n}" for n in range(len(decoded))]
    decoded_set = DecodedSet("images", None, None, ids, ids, decoded)

    def work() -> None:
        folder = RunFolder(Path(tempfile.mkdtemp(dir=on.home)))
        GenerationJob(sampler, 1, 0).generate(decoded_set, folder, Launch(0, 1, on.device))

    return work, [seed_of(0, each, 0) for each in ids]


def _bare_clips(
    on: Setting, generator: Any, sampling: Sampling, decoded: Decoded, seeds: list[int]
) -> Callable[[], None]:
    from diffusers import AnimateDiffSparseControlNetPipeline, DDIMScheduler

    scheduler = DDIMScheduler.from_config(animatediff.SCHEDULER)
    networks = {"unet": generator.unet, "vae": generator.vae, "controlnet": generator.sparse_control}
    without = dict.fromkeys(("text_encoder", "tokenizer", "motion_adapter"))
    pipeline: Any = AnimateDiffSparseControlNetPipeline(**networks, **without, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    dtype, size = generator.unet.dtype, {"height": on.sizes.video_px, "width": on.sizes.video_px}
    text, start, images = (decoded.tensors[name] for name in ("texts", "start", "images"))

    @torch.inference_mode()
    def work() -> None:
        for row, seed in enumerate(seeds):
            frames = in_between(generator.decode(start[row : row + 1]), 16)
            latents = generator.encode(frames).transpose(1, 2)
            scheduler.set_timesteps(sampling.steps, device=on.device)
            noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed)).to(on.device)
            noised = scheduler.add_noise(latents, noise, scheduler.timesteps[:1])
            made = pipeline(
                prompt_embeds=text[row : row + 1].to(dtype),
                negative_prompt_embeds=torch.zeros_like(text[:1], dtype=dtype),
                latents=noised.to(dtype),
                conditioning_frames=images[row : row + 1],
                controlnet_frame_indices=[0],
                num_inference_steps=sampling.steps,
                guidance_scale=sampling.guidance,
                output_type="pt",
                **size,
            ).frames
            to_bytes(made[:, list(on.sizes.video.kept)].float())

    return work


def _bare_keyframes(on: Setting, generator: Any, sampling: Sampling, tokens: Tensor) -> Callable[[], None]:
    from diffusers import EulerDiscreteScheduler

    scheduler: Any = EulerDiscreteScheduler.from_config(sdxl_unclip.ARCHITECTURE["scheduler"])
    vae, unet = generator.vae, generator.unet
    dtype = unet.dtype

    @torch.inference_mode()
    def work() -> None:
        for given in tokens.to(on.device, dtype).split(on.sizes.at_once):
            rows = len(given)
            scheduler.set_timesteps(sampling.steps, device=on.device)
            latents = torch.randn(rows, *generator.latent_shape(on.sizes.keyframe_px)).to(on.device)
            latents = latents * scheduler.init_noise_sigma
            text = torch.cat([torch.randn_like(given), given])
            ids = text.new_tensor([[768.0, 768.0, 0, 0]]).expand(2 * rows, -1)
            added = {"text_embeds": text.new_empty(2 * rows, 0), "time_ids": ids}
            for step in scheduler.timesteps:
                both = scheduler.scale_model_input(torch.cat([latents] * 2), step).to(dtype)
                found = unet(both, step, text, added_cond_kwargs=added, return_dict=False)[0]
                away, towards = found.float().chunk(2)
                predicted = away + sampling.guidance * (towards - away)
                latents = scheduler.step(predicted, step, latents).prev_sample
            scaled = (latents / vae.config.scaling_factor).to(vae.dtype)
            pixels = torch.cat([vae.decode(each).sample for each in scaled.split(4)])
            to_bytes((pixels.float() * 0.8 + 0.2).clamp(0, 1))

    return work


def memory(on: Setting) -> None:
    """Estimate, from shapes, what full width needs, each alone and as the stages of a chain."""
    stages = [{"generator": FULL.keyframe, "resolution_px": 768, "guidance": 5}]
    stages += [{"generator": FULL.video, "receives": "images", "guidance": 8.5}]  # type: ignore[dict-item]
    whole = parts.resolve("generators", {"kind": "chain", "stages": stages})
    for name, config, px, guidance in (
        ("keyframe", FULL.keyframe, 768, 5.0),
        ("clip", FULL.video, 256, 8.5),
        ("both in a chain", whole, 256, 0.0),
    ):
        skeleton = config.skeleton(torch.float16)
        weights = sum(each.numel() for network in skeleton.networks for each in network.parameters())
        for size in (1, 4):
            needed = skeleton.memory_estimate(size, px, guidance) / 1e9
            words = f"fp16, {weights / 1e6:.0f} M weights"
            show(f"{name}, estimated, GB: {size} at once", needed, CARD / 1e9, words, at_most=True)


PARTS = {part.__name__: part for part in (memory, clips, keyframes)}


def main() -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = FULL if device.type == "cuda" else SMALL
    with tempfile.TemporaryDirectory() as home:
        for name in args.only:
            PARTS[name](Setting(Path(home), sizes, device, args.rounds))


if __name__ == "__main__":
    main()
