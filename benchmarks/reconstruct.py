"""How fast `brainhive reconstruct` is, next to bare calls of diffusers' pipeline, batched and one by one.

With a tiny generator, and with SDXL's architecture at random weights: on a GPU where one is, else with few
pictures on the CPU. Each ratio comes from one run, its sides in turns; `--only` takes the names of parts.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from figures import peak_bytes, reset_peak, show

from brainhive_cli.core import launch
from brainhive_cli.core.memory_estimate import size_of
from brainhive_cli.core.recipe import Run
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.evaluation.reconstruction.conditions import DecodedSet
from brainhive_cli.evaluation.reconstruction.generation import DTYPES, GenerationJob, Sampler, seed_of
from brainhive_cli.evaluation.reconstruction.recipe import Output
from brainhive_cli.models.generators import Sampling, sdxl
from brainhive_cli.models.heads import Decoded
from brainhive_cli.models.priors import fusion_prior

TINY = sdxl.TINY.architecture
NARROW = {**TINY, "unet": {**TINY["unet"], "block_out_channels": (32, 64)}}
"""A picture takes 13 ms on a core, so that writing its file (half a millisecond) weighs as on a GPU."""

ANYWHERE = Run()
WIDE, USUAL = sdxl.Config(source=sdxl.RANDOM), Output()
"""SDXL's architecture at random weights, in the sizes that a command takes by default."""
SAMPLING = Sampling()


@dataclass(frozen=True)
class Setting:
    """How everything is measured.

    Attributes:
        home: A folder to write in.
        busy: Whether others use the machine: seconds are then those that this process had a core.
    """

    home: Path
    busy: bool

    def timed(self, work: Callable[[], Any]) -> float:
        """Return the seconds that `work` takes."""
        start = self._now()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return self._now() - start

    def _now(self) -> float:
        if not self.busy:
            return time.perf_counter()
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime


class Studio:
    """A generator with random weights, a prior attached to it, and tokens to generate from.

    Args:
        config: The generator.
        output: Size, precision and pictures at once.
        items: How many.
        repeats: Pictures of each.
        home: A folder to write in.
        run: On which device; by default a GPU where one is.
    """

    def __init__(
        self, config: sdxl.Config, output: Output, items: int, repeats: int, home: Path, run: Run = ANYWHERE
    ) -> None:
        self.output, self.repeats, self.home, self.here = output, repeats, home, launch.start(run)
        self.generator = config.build(self.here.device, DTYPES[output.precision])
        self.prior = fusion_prior.Config().build({"vae": 8}, self.generator).to(self.here.device).eval()
        self.sampler = Sampler(
            lambda device, dtype: self.generator, self.prior, output, SAMPLING, self.here.device
        )
        ids = [f"item-{n}" for n in range(items)]
        random = torch.Generator().manual_seed(0)
        tokens = torch.randn(items, self.prior.dim, generator=random).to(self.here.device)
        self.decoded_set = DecodedSet("images", None, None, ids, ids, Decoded({"token": tokens}))
        warm = Decoded({"token": tokens[:1].expand(output.batch_size, -1)})
        self.sampler.sample(warm, range(output.batch_size))  # attached, and warm

    @property
    def count(self) -> int:
        """How many pictures are generated."""
        return self.repeats * len(self.decoded_set.image_ids)

    def ours(self) -> None:
        """Generate as the command does: PNG files in a run folder."""
        folder = RunFolder(self.home / f"run-{len(list(self.home.iterdir()))}")
        generation = GenerationJob(self.sampler, self.repeats, 0)
        generation.generate(self.decoded_set, folder, self.here)

    @torch.inference_mode()
    def bare(self, batch_size: int) -> None:
        """Call the pipeline itself for pictures that nobody keeps."""
        text, pooled = self.generator.empty_prompt(1)
        tokens = self.prior.tokens(self.decoded_set.decoded.tensors["token"]).to(self.generator.unet.dtype)
        drawn = [(n, repeat) for n in range(len(tokens)) for repeat in range(self.repeats)]
        for start in range(0, len(drawn), batch_size):
            some = drawn[start : start + batch_size]
            batch = torch.stack([tokens[n] for n, _ in some])
            seeds = [seed_of(0, self.decoded_set.image_ids[n], repeat) for n, repeat in some]
            latents = self.generator.pipeline(
                prompt_embeds=text.expand(len(batch), -1, -1),
                pooled_prompt_embeds=pooled.expand(len(batch), -1),
                cross_attention_kwargs={"ip_hidden_states": batch},
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                num_inference_steps=SAMPLING.steps,
                guidance_scale=0.0,
                height=self.output.resolution_px,
                width=self.output.resolution_px,
                output_type="latent",
            ).images
            vae = self.generator.vae  # in float32, in which the pipeline would not give it latents of float16
            pixels = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample
            self.generator.pipeline.image_processor.postprocess(pixels, output_type="pil")


def compare(on: Setting, title: str, studio: Studio, rounds: int = 3) -> None:
    """Show both ratios of one setting."""
    count, size = studio.count, studio.output.batch_size
    sides = (studio.ours, lambda: studio.bare(size), lambda: studio.bare(1))
    ours, bare, single = (
        min(times) for times in zip(*[[on.timed(side) for side in sides] for _ in range(rounds)], strict=True)
    )
    rates = f"{count / ours:.3g} of {count / bare:.3g} pictures/s"
    show(f"{title}: of the bare pipeline, batch {size}", bare / ours, 0.95, rates)
    show(f"{title}: over one item at a time", single / ours, 2.0, f"{count / single:.3g} pictures/s")


def tiny(on: Setting) -> None:
    """Compare at tiny width."""
    output = Output(resolution_px=64, batch_size=20, precision="fp32")
    compare(on, "tiny", Studio(sdxl.Config(source=sdxl.RANDOM, architecture=NARROW), output, 6, 10, on.home))


def wide(on: Setting) -> None:
    """Compare at SDXL's width, 512 px, 4 steps: in fp16 on a GPU, in bf16 with few pictures on a CPU."""
    if torch.cuda.is_available():
        gpu(on)
        return
    output = Output(batch_size=4, precision="bf16")
    compare(on, "SDXL, on a CPU", Studio(WIDE, output, 1, 4, on.home), rounds=1)


def gpu(
    on: Setting, config: sdxl.Config = WIDE, output: Output = USUAL, items: int = 8, repeats: int = 10
) -> None:
    """Compare at SDXL's width on a GPU, and the peak of memory with what the plan estimates."""
    studio = Studio(config, output, items, repeats, on.home)
    skeleton = config.skeleton(DTYPES[output.precision])
    estimate = skeleton.memory_estimate(output.batch_size, output.resolution_px) + size_of(studio.prior)
    reset_peak()
    studio.ours()
    held, reserved = peak_bytes()
    words = f"{held / 1e9:.2f} of {estimate / 1e9:.2f} GB; {reserved / 1e9:.2f} reserved"
    show("reconstruct: peak allocated over its estimate", held / estimate, 1.1, words, at_most=True)
    compare(on, "reconstruct, SDXL's width", studio, rounds=2)


PARTS = {part.__name__: part for part in (tiny, wide)}


def main() -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--busy", action="store_true", help="count seconds on a core: others use the machine")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        for name in args.only:
            PARTS[name](Setting(Path(home), args.busy))


if __name__ == "__main__":
    main()
