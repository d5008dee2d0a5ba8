"""Speed and memory of `brainhive reconstruct` next to diffusers' pipelines.

Weights are random. On a CPU the networks are narrow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from harness import OVERHEAD_NOTE, Bench, main, read_peak_bytes, reset_peak
from shapes import sampling_bytes
from torch import Tensor

from brainhive_cli.core.base.device_memory import count_bytes
from brainhive_cli.core.runs.launch import Launch
from brainhive_cli.core.runs.run_folder import RunFolder
from brainhive_cli.data.media.media_files import to_bytes
from brainhive_cli.evaluation.reconstruction.generation import (
    DTYPES,
    DecodedSet,
    Sampler,
    derive_noise_seed,
    generate_set,
)
from brainhive_cli.evaluation.reconstruction.recipe import Recipe
from brainhive_cli.models import priors
from brainhive_cli.models.generators import (
    Sampling,
    animatediff,
    sdxl,
    sdxl_unclip,
    versatile_diffusion,
)
from brainhive_cli.models.generators.animatediff import interpolate_frames
from brainhive_cli.models.heads import Decoded
from brainhive_cli.models.priors import fusion_prior

CARD = 24e9
"""Memory in bytes of the GPU for recipes that end in -24gb."""
TARGET = 0.95


def narrow(config: Any, **unet: Any) -> Any:
    """Widen the U-Net of a tiny generator.

    A picture then takes 10 ms of a core, so writing it costs as little as on a GPU.
    """
    unet_config = config.architecture["unet"] | {"block_out_channels": [32, 64]} | unet
    architecture = config.architecture | {"unet": unet_config}
    return config.model_copy(update={"source": "random", "architecture": architecture})


@dataclass
class Studio:
    """Generator, prior and predicted heads, as in `reconstruct`.

    Attributes:
        bench: Settings of the measurement.
        generator: Generator with random weights.
        prior: Prior that conditions the generator.
        output: Size, precision and batch size.
        sampling: Steps and guidance.
        heads: Predictions [N, *shape], keyed by head.
        device: Device of the generator.
    """

    bench: Bench
    generator: Any
    prior: Any
    output: Recipe
    sampling: Sampling
    heads: dict[str, Tensor]
    device: torch.device

    def __post_init__(self) -> None:
        """Attach the prior, and derive the seeds of both sides from names."""
        self.decoded = Decoded(self.heads).to(self.device)
        self.ids = [f"item-{n}" for n in range(len(self.decoded))]
        self.seeds = [derive_noise_seed(0, name, 0) for name in self.ids]
        self.sampler = Sampler(
            lambda *_: self.generator,
            self.prior,
            self.output,
            self.sampling,
            self.device,
        )

    def generate(self) -> None:
        """Generate files in a run folder as the command does."""
        decoded_set = DecodedSet("images", None, None, self.ids, self.decoded)
        launch = Launch(0, 1, self.device)
        run = RunFolder(self.bench.make_folder())
        generate_set(self.sampler, decoded_set, run, launch, 1, 0)

    def batches(self) -> list[slice]:
        """Cut the items into batches."""
        size = self.output.batch_size
        return [slice(start, start + size) for start in range(0, len(self.ids), size)]

    def compare(
        self,
        label: str,
        peer: Callable[[], None],
        unit: str,
        target: float | None = TARGET,
        note: str = "",
    ) -> None:
        """Compare with a peer that writes no files, and show the peak on a GPU."""
        reset_peak()
        notes = f"{self.output.precision}, batch {self.output.batch_size}"
        if note:
            notes = f"{notes}, {note}"
        self.bench.compare(
            label,
            self.generate,
            torch.inference_mode()(peer),
            count=len(self.ids),
            unit=unit,
            target=target,
            note=notes,
        )
        if self.device.type == "cuda":
            allocated, reserved = read_peak_bytes()
            self.bench.show(
                f"{label.split(':')[0]}: peak",
                allocated / 1e9,
                unit="GB",
                target=CARD / 1e9,
                at_most=True,
                note=f"{reserved / 1e9:.2f} reserved",
            )


def build_sdxl_studio(
    bench: Bench, config: sdxl.Config, output: Recipe, items: int, device: torch.device
) -> Studio:
    """Build SDXL with a Fusion Prior."""
    generator = config.build(device, DTYPES[output.precision])
    prior = fusion_prior.Config().build({"vae": 8}, generator).to(device).eval()
    tokens = torch.randn(items, prior.dim, generator=torch.Generator().manual_seed(0))
    return Studio(
        bench, generator, prior, output, Sampling(), {"token": tokens}, device
    )


def pictures(bench: Bench) -> None:
    """Compare SDXL with diffusers' pipeline, and its memory with an estimate."""
    config, output, items = bench.pick(
        (sdxl.TINY, Recipe(resolution_px=16, batch_size=2, precision="fp32"), 4),
        (
            narrow(sdxl.TINY),
            Recipe(resolution_px=64, batch_size=20, precision="fp32"),
            60,
        ),
        (sdxl.Config(source=sdxl.RANDOM), Recipe(), 80),
    )
    studio = build_sdxl_studio(bench, config, output, items, bench.device)
    generator, prior = studio.generator, studio.prior
    if bench.device.type == "cuda":
        shapes = config.build("meta", DTYPES[output.precision])
        estimate = sampling_bytes(shapes, output.batch_size, output.resolution_px)
        estimate += count_bytes(prior)
        reset_peak()
        studio.generate()
        allocated, _ = read_peak_bytes()
        bench.show(
            "reconstruct: peak allocated over its estimate",
            allocated / 1e9,
            estimate / 1e9,
            unit="GB",
            target=1.1,
            at_most=True,
        )

    def peer() -> None:
        text, pooled = generator.embed_empty_prompt(1)
        tokens = prior.project(studio.decoded.tensors["token"]).to(generator.unet.dtype)
        for rows in studio.batches():
            seeds = studio.seeds[rows]
            latents = generator.pipeline(
                prompt_embeds=text.expand(len(seeds), -1, -1),
                pooled_prompt_embeds=pooled.expand(len(seeds), -1),
                cross_attention_kwargs={"ip_hidden_states": tokens[rows]},
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                num_inference_steps=studio.sampling.steps,
                guidance_scale=0.0,
                height=output.resolution_px,
                width=output.resolution_px,
                output_type="latent",
            ).images
            # decode in float32, because the pipeline fails with latents in float16
            vae = generator.vae
            scaled = latents.to(vae.dtype) / vae.config.scaling_factor
            pixels = vae.decode(scaled).sample
            generator.pipeline.image_processor.postprocess(pixels, output_type="pil")

    # attach the prior to the U-Net
    studio.generate()
    studio.compare("pictures, SDXL: of diffusers' pipeline", peer, "pictures/s")


def havir(bench: Bench) -> None:
    """Compare HAVIR with bare calls of the same sampling loop."""
    config, output, items, steps = bench.pick(
        (
            versatile_diffusion.TINY,
            Recipe(resolution_px=32, precision="fp32", batch_size=2),
            2,
            2,
        ),
        (
            versatile_diffusion.TINY,
            Recipe(resolution_px=32, precision="fp32", batch_size=8),
            24,
            8,
        ),
        (
            versatile_diffusion.Config(source="random"),
            Recipe(precision="fp16", batch_size=8),
            16,
            50,
        ),
    )
    generator: Any = config.build(bench.device, DTYPES[output.precision])
    width = generator.networks[0].config.cross_attention_dim
    shapes = {
        "latent": generator.latent_shape(output.resolution_px),
        "image": (257, width),
        "text": (77, width),
    }
    sampling = Sampling(steps=steps, strength=0.75, guidance=7.5, scheduler="ddim")
    heads = _draw_heads(items, shapes)
    prior = priors.load("identity")
    studio = Studio(bench, generator, prior, output, sampling, heads, bench.device)

    def peer() -> None:
        for rows in studio.batches():
            seeds = studio.seeds[rows]
            pictures = generator.generate(
                prior.condition(studio.decoded[rows], seeds),
                seeds,
                output.resolution_px,
                sampling,
                null=prior.null(len(seeds), seeds),
            )
            to_bytes(pictures)

    studio.compare(
        "pictures, HAVIR: of a bare sampling loop",
        peer,
        "pictures/s",
        note=f"{OVERHEAD_NOTE} and sampler",
    )


def keyframes(bench: Bench) -> None:
    """Compare NEURONS' keyframes with a bare loop over diffusers' networks."""
    from diffusers import EulerDiscreteScheduler

    wider = narrow(sdxl_unclip.TINY, norm_num_groups=8, attention_head_dim=(2, 4))
    config, px, items, steps, precision = bench.pick(
        (sdxl_unclip.TINY, 32, 1, 2, "fp32"),
        (wider, 128, 2, 8, "fp32"),
        (sdxl_unclip.Config(source="random"), 768, 2, 15, "fp16"),
    )
    generator: Any = config.build(bench.device, DTYPES[precision])
    vae, unet = generator.vae, generator.unet
    guidance = 5
    tokens = _draw_heads(items, {"tokens": (256, unet.config.cross_attention_dim)})
    output = Recipe(resolution_px=px, precision=precision, batch_size=2)
    sampling = Sampling(steps=steps, guidance=guidance)
    studio = Studio(
        bench,
        generator,
        priors.load("identity"),
        output,
        sampling,
        tokens,
        bench.device,
    )
    scheduler: Any = EulerDiscreteScheduler.from_config(
        sdxl_unclip.ARCHITECTURE["scheduler"]
    )

    def peer() -> None:
        for rows in studio.batches():
            text = studio.decoded.tensors["tokens"][rows].to(unet.dtype)
            scheduler.set_timesteps(steps, device=bench.device)
            latents = torch.randn(len(text), *generator.latent_shape(px)).to(
                bench.device
            )
            latents = latents * scheduler.init_noise_sigma
            embeds = torch.cat([torch.randn_like(text), text])
            time_ids = text.new_tensor([[768.0, 768.0, 0, 0]]).expand(len(embeds), -1)
            conditions = {
                "text_embeds": text.new_empty(len(embeds), 0),
                "time_ids": time_ids,
            }
            for step in scheduler.timesteps:
                model_input = torch.cat([latents, latents])
                scaled = scheduler.scale_model_input(model_input, step).to(unet.dtype)
                prediction = unet(
                    scaled,
                    step,
                    embeds,
                    added_cond_kwargs=conditions,
                    return_dict=False,
                )
                unconditional, conditional = prediction[0].float().chunk(2)
                noise = unconditional + guidance * (conditional - unconditional)
                latents = scheduler.step(noise, step, latents).prev_sample
            latents = (latents / vae.config.scaling_factor).to(vae.dtype)
            pixels = vae.decode(latents).sample
            to_bytes((pixels.float() * 0.8 + 0.2).clamp(0, 1))

    studio.compare("keyframes, NEURONS: of diffusers' networks", peer, "keyframes/s")


def clips(bench: Bench) -> None:
    """Compare NEURONS' clips with diffusers' pipeline, which makes a clip at a time."""
    from diffusers import AnimateDiffSparseControlNetPipeline, DDIMScheduler

    wider = narrow(animatediff.TINY, norm_num_groups=8)
    config, px, keyframe_px, items, steps, precision = bench.pick(
        (animatediff.TINY, 32, 32, 1, 1, "fp32"),
        (wider, 64, 128, 2, 5, "fp32"),
        (animatediff.Config(source="random"), 256, 768, 2, 10, "fp16"),
    )
    generator: Any = config.build(bench.device, DTYPES[precision])
    latent_px = generator.latent_shape(px)[-1]
    dtype = generator.unet.dtype
    shapes = {
        "texts": (77, generator.unet.config.cross_attention_dim),
        "start": (6, 4, latent_px, latent_px),
        "images": (3, keyframe_px, keyframe_px),
    }
    heads = _draw_heads(items, shapes)
    heads["images"] = heads["images"].sigmoid()
    sampling = Sampling(steps=steps, guidance=8.5, strength=1)
    scheduler = DDIMScheduler.from_config(animatediff.SCHEDULER_CONFIG)
    pipeline: Any = AnimateDiffSparseControlNetPipeline(
        unet=generator.unet,
        vae=generator.vae,
        controlnet=generator.sparse_control,
        text_encoder=None,
        tokenizer=None,
        motion_adapter=None,
        scheduler=scheduler,
    )
    pipeline.set_progress_bar_config(disable=True)

    for batch_size in (1, 2):
        output = Recipe(resolution_px=px, precision=precision, batch_size=batch_size)
        studio = Studio(
            bench,
            generator,
            priors.load("identity"),
            output,
            sampling,
            heads,
            bench.device,
        )
        text = studio.decoded.tensors["texts"]
        start = studio.decoded.tensors["start"]
        images = studio.decoded.tensors["images"]

        def peer() -> None:
            for row, seed in enumerate(studio.seeds):  # noqa: B023
                frames = interpolate_frames(generator.decode(start[row : row + 1]), 16)  # noqa: B023
                latents = generator.encode(frames).transpose(1, 2)
                scheduler.set_timesteps(steps, device=bench.device)
                noise = torch.randn(
                    latents.shape, generator=torch.Generator().manual_seed(seed)
                )
                noised = scheduler.add_noise(
                    latents, noise.to(bench.device), scheduler.timesteps[:1]
                )
                video = pipeline(
                    prompt_embeds=text[row : row + 1].to(dtype),  # noqa: B023
                    negative_prompt_embeds=torch.zeros_like(text[:1], dtype=dtype),  # noqa: B023
                    latents=noised.to(dtype),
                    conditioning_frames=images[row : row + 1],  # noqa: B023
                    controlnet_frame_indices=[0],
                    num_inference_steps=steps,
                    guidance_scale=sampling.guidance,
                    output_type="pt",
                    height=px,
                    width=px,
                ).frames
                to_bytes(video[:, list(config.kept)].float())

        label = f"clips, {batch_size} at once, NEURONS: of diffusers' pipeline"
        target = TARGET if batch_size == 1 else None
        studio.compare(label, peer, "clips/s", target)


def _draw_heads(items: int, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Draw random predictions [N, *shape] of each head."""
    random = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(items, *shape, generator=random)
        for name, shape in shapes.items()
    }


CASES = (pictures, havir, keyframes, clips)

if __name__ == "__main__":
    main(__doc__, CASES, {})
