"""How fast `brainhive reconstruct` generates next to diffusers' pipelines, and in what
memory.

Weights are random: SDXL's and HAVIR's pictures, NEURONS' keyframes and clips, narrow on
a CPU.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from harness import OVERHEAD_NOTE, Bench, main, read_peak_bytes, reset_peak
from shapes import sampling_bytes
from torch import Tensor

from brainhive_cli.core.device_memory import count_bytes
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.runs import RunFolder
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
"""Bytes of the card that the recipes ending in -24gb are for."""
TARGET = 0.95


def narrow(config: Any, **unet: Any) -> Any:
    """Widen a tiny generator's U-Net: a picture takes a core 10 ms, so that files weigh
    as on a GPU.
    """
    architecture = config.architecture
    widened = {**architecture["unet"], "block_out_channels": [32, 64], **unet}
    return config.model_copy(
        update={"source": "random", "architecture": {**architecture, "unet": widened}}
    )


@dataclass
class Studio:
    """A generator, a prior, and heads to generate from, as `reconstruct` has them.

    Attributes:
        on: How everything is measured.
        generator: With random weights.
        prior: What gives conditions.
        output: Size, precision and pictures at once.
        sampling: Steps and guidance.
        heads: [N, *shape] by name.
        device: Of the generator.
    """

    on: Bench
    generator: Any
    prior: Any
    output: Recipe
    sampling: Sampling
    heads: dict[str, Tensor]
    device: torch.device

    def __post_init__(self) -> None:
        """Attach the prior, and give the items names, whose seeds both sides use."""
        self.decoded = Decoded(self.heads).to(self.device)
        self.ids = [f"item-{n}" for n in range(len(self.decoded))]
        self.seeds = [derive_noise_seed(0, each, 0) for each in self.ids]
        self.sampler = Sampler(
            lambda *_: self.generator,
            self.prior,
            self.output,
            self.sampling,
            self.device,
        )

    def generate(self) -> None:
        """Generate as the command does: files in a run folder."""
        decoded_set = DecodedSet("images", None, None, self.ids, self.decoded)
        launch = Launch(0, 1, self.device)
        generate_set(
            self.sampler, decoded_set, RunFolder(self.on.make_folder()), launch, 1, 0
        )

    def batches(self) -> list[slice]:
        """Cut the items into those that are generated at once."""
        size = self.output.batch_size
        return [slice(start, start + size) for start in range(0, len(self.ids), size)]

    def compare(
        self,
        what: str,
        peer: Callable[[], None],
        unit: str,
        target: float | None = TARGET,
        note: str = "",
    ) -> None:
        """Compare with a peer that keeps nothing, and show the peak of a GPU's
        memory.
        """
        reset_peak()
        words = ", ".join(
            filter(
                None, [f"{self.output.precision}, batch {self.output.batch_size}", note]
            )
        )
        self.on.compare(
            what,
            self.generate,
            torch.inference_mode()(peer),
            len(self.ids),
            unit,
            target,
            words,
        )
        if self.device.type == "cuda":
            allocated, reserved = read_peak_bytes()
            note = f"{reserved / 1e9:.2f} reserved"
            limit, shown = CARD / 1e9, f"{what.split(':')[0]}: peak"
            self.on.show(
                shown, allocated / 1e9, unit="GB", target=limit, at_most=True, note=note
            )


def sdxl_studio(
    on: Bench, config: sdxl.Config, output: Recipe, items: int, device: torch.device
) -> Studio:
    """Build an SDXL with a Fusion Prior."""
    generator = config.build(device, DTYPES[output.precision])
    prior = fusion_prior.Config().build({"vae": 8}, generator).to(device).eval()
    tokens = torch.randn(items, prior.dim, generator=torch.Generator().manual_seed(0))
    return Studio(on, generator, prior, output, Sampling(), {"token": tokens}, device)


def pictures(on: Bench) -> None:
    """Compare SDXL's pictures with diffusers' pipeline, and the memory with an estimate
    from shapes.
    """
    config, output, items = on.pick(
        (sdxl.TINY, Recipe(resolution_px=16, batch_size=2, precision="fp32"), 4),
        (
            narrow(sdxl.TINY),
            Recipe(resolution_px=64, batch_size=20, precision="fp32"),
            60,
        ),
        (sdxl.Config(source=sdxl.RANDOM), Recipe(), 80),
    )
    studio = sdxl_studio(on, config, output, items, on.device)
    generator, prior = studio.generator, studio.prior
    if on.device.type == "cuda":
        shapes = config.build("meta", DTYPES[output.precision])
        estimate = sampling_bytes(
            shapes, output.batch_size, output.resolution_px
        ) + count_bytes(prior)
        reset_peak()
        studio.generate()
        what = "reconstruct: peak allocated over its estimate"
        on.show(
            what, read_peak_bytes()[0] / 1e9, estimate / 1e9, "GB", 1.1, at_most=True
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
            # in float32, in which the pipeline would not give it latents of float16
            vae = generator.vae
            pixels = vae.decode(
                latents.to(vae.dtype) / vae.config.scaling_factor
            ).sample
            generator.pipeline.image_processor.postprocess(pixels, output_type="pil")

    studio.generate()  # attaches the prior
    studio.compare("pictures, SDXL: of diffusers' pipeline", peer, "pictures/s")


def havir(on: Bench) -> None:
    """Compare HAVIR's pictures with bare calls of the same sampling loop."""
    config, output, items, steps = on.pick(
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
    generator: Any = config.build(on.device, DTYPES[output.precision])
    width = generator.networks[0].config.cross_attention_dim
    shapes = {
        "latent": generator.latent_shape(output.resolution_px),
        "image": (257, width),
    }
    sampling = Sampling(steps=steps, strength=0.75, guidance=7.5, scheduler="ddim")
    heads = _draw(items, shapes | {"text": (77, width)})
    prior = priors.load("identity")
    studio = Studio(on, generator, prior, output, sampling, heads, on.device)

    def peer() -> None:
        for rows in studio.batches():
            seeds = studio.seeds[rows]
            conditioning, null = (
                prior.condition(studio.decoded[rows], seeds),
                prior.null(len(seeds), seeds),
            )
            to_bytes(
                generator.generate(
                    conditioning, seeds, output.resolution_px, sampling, null=null
                )
            )

    studio.compare(
        "pictures, HAVIR: of a bare sampling loop",
        peer,
        "pictures/s",
        note=f"{OVERHEAD_NOTE} and sampler",
    )


def keyframes(on: Bench) -> None:
    """Compare NEURONS' keyframes with U-Net, scheduler and VAE of diffusers in a bare
    loop.
    """
    from diffusers import EulerDiscreteScheduler

    wider = narrow(sdxl_unclip.TINY, norm_num_groups=8, attention_head_dim=(2, 4))
    config, px, items, steps, precision = on.pick(
        (sdxl_unclip.TINY, 32, 1, 2, "fp32"),
        (wider, 128, 2, 8, "fp32"),
        (sdxl_unclip.Config(source="random"), 768, 2, 15, "fp16"),
    )
    generator: Any = config.build(on.device, DTYPES[precision])
    vae, unet, guidance = generator.vae, generator.unet, 5
    tokens = _draw(items, {"tokens": (256, unet.config.cross_attention_dim)})
    output = Recipe(resolution_px=px, precision=precision, batch_size=2)
    sampling = Sampling(steps=steps, guidance=guidance)
    studio = Studio(
        on, generator, priors.load("identity"), output, sampling, tokens, on.device
    )
    scheduler: Any = EulerDiscreteScheduler.from_config(
        sdxl_unclip.ARCHITECTURE["scheduler"]
    )

    def peer() -> None:
        for rows in studio.batches():
            text = studio.decoded.tensors["tokens"][rows].to(unet.dtype)
            scheduler.set_timesteps(steps, device=on.device)
            latents = torch.randn(len(text), *generator.latent_shape(px)).to(on.device)
            latents = latents * scheduler.init_noise_sigma
            both = torch.cat([torch.randn_like(text), text])
            ids = text.new_tensor([[768.0, 768.0, 0, 0]]).expand(len(both), -1)
            added = {"text_embeds": text.new_empty(len(both), 0), "time_ids": ids}
            for step in scheduler.timesteps:
                scaled = scheduler.scale_model_input(torch.cat([latents] * 2), step).to(
                    unet.dtype
                )
                predicted = unet(
                    scaled, step, both, added_cond_kwargs=added, return_dict=False
                )[0]
                away, towards = predicted.float().chunk(2)
                latents = scheduler.step(
                    away + guidance * (towards - away), step, latents
                ).prev_sample
            pixels = vae.decode(
                (latents / vae.config.scaling_factor).to(vae.dtype)
            ).sample
            to_bytes((pixels.float() * 0.8 + 0.2).clamp(0, 1))

    studio.compare("keyframes, NEURONS: of diffusers' networks", peer, "keyframes/s")


def clips(on: Bench) -> None:
    """Compare NEURONS' clips with diffusers' pipeline, which takes one at a time."""
    from diffusers import AnimateDiffSparseControlNetPipeline, DDIMScheduler

    wider = narrow(animatediff.TINY, norm_num_groups=8)
    config, px, keyframe_px, items, steps, precision = on.pick(
        (animatediff.TINY, 32, 32, 1, 1, "fp32"),
        (wider, 64, 128, 2, 5, "fp32"),
        (animatediff.Config(source="random"), 256, 768, 2, 10, "fp16"),
    )
    generator: Any = config.build(on.device, DTYPES[precision])
    side, dtype = generator.latent_shape(px)[-1], generator.unet.dtype
    shapes = {
        "texts": (77, generator.unet.config.cross_attention_dim),
        "start": (6, 4, side, side),
    }
    heads = _draw(items, {**shapes, "images": (3, keyframe_px, keyframe_px)})
    heads["images"] = heads["images"].sigmoid()
    sampling = Sampling(steps=steps, guidance=8.5, strength=1)
    scheduler = DDIMScheduler.from_config(animatediff.SCHEDULER_CONFIG)
    networks = {
        "unet": generator.unet,
        "vae": generator.vae,
        "controlnet": generator.sparse_control,
    }
    without = dict.fromkeys(("text_encoder", "tokenizer", "motion_adapter"))
    pipeline: Any = AnimateDiffSparseControlNetPipeline(
        **networks, **without, scheduler=scheduler
    )
    pipeline.set_progress_bar_config(disable=True)

    for at_once in (1, 2):
        output = Recipe(resolution_px=px, precision=precision, batch_size=at_once)
        studio = Studio(
            on, generator, priors.load("identity"), output, sampling, heads, on.device
        )
        text, start, images = (
            studio.decoded.tensors[name] for name in ("texts", "start", "images")
        )

        def peer() -> None:
            for row, seed in enumerate(studio.seeds):  # noqa: B023
                frames = interpolate_frames(generator.decode(start[row : row + 1]), 16)  # noqa: B023
                latents = generator.encode(frames).transpose(1, 2)
                scheduler.set_timesteps(steps, device=on.device)
                noise = torch.randn(
                    latents.shape, generator=torch.Generator().manual_seed(seed)
                )
                noised = scheduler.add_noise(
                    latents, noise.to(on.device), scheduler.timesteps[:1]
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

        what = f"clips, {at_once} at once, NEURONS: of diffusers' pipeline"
        studio.compare(what, peer, "clips/s", TARGET if at_once == 1 else None)


def _draw(items: int, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(items, *shape, generator=random)
        for name, shape in shapes.items()
    }


CASES = (pictures, havir, keyframes, clips)

if __name__ == "__main__":
    main(__doc__, CASES, {})
