"""Stable Diffusion 1.5 with AnimateDiff and SparseCtrl: clips from texts, a keyframe and a start.

Source: AnimateDiff (arXiv 2307.04725), SparseCtrl (arXiv 2311.16933), by diffusers (Apache 2.0); frames,
noise and prompts as in NEURONS (arXiv 2503.11167) and NeuroClips.
"""

from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field, model_validator

from brainhive_cli.core import hub, parts, weights
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.core.needs import Need, to_download
from brainhive_cli.models import single_file
from brainhive_cli.models.generators import _components
from brainhive_cli.models.generators._architecture import Architecture
from brainhive_cli.models.generators._clips import ClipDiffusion, Timing
from brainhive_cli.models.generators._components import RANDOM
from brainhive_cli.models.generators._motion import in_motion, merge_adapter, normalise_frame_by_frame
from brainhive_cli.models.generators._stable_diffusion import TINY_NETWORKS
from brainhive_cli.models.generators._texts import STEM, clip_text
from brainhive_cli.models.generators._video_prompts import VideoPrompts
from brainhive_cli.models.generators.sd15_ip import SD15, check_unet

MOTION, SPARSE = "motion", "sparse_control"
"""In an architecture: arguments of these networks that do not follow from the U-Net's."""
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_schedule": "linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
    "clip_sample": False,
}
"""AnimateDiff's, whatever the folder's is; 25 steps begin at 961."""
ARCHITECTURE: Architecture = {
    "unet": SD15["unet"],
    "vae": SD15["vae"],
    "scheduler": SCHEDULER,
    MOTION: {"use_motion_mid_block": False, "motion_num_attention_heads": 8, "motion_max_seq_length": 32},
    SPARSE: {"conditioning_channels": 4},
}
"""config.json of the components; what is left out is diffusers' default."""
SUFFIX = ", 8k uhd, dslr, soft lighting, high quality, film grain, Fujifilm XT3"
NEGATIVE = (
    "semi-realistic, cgi, 3d, render, sketch, cartoon, drawing, anime, text, close up, cropped, out of "
    "frame, worst quality, low quality, jpeg artifacts, ugly, duplicate, morbid, mutilated, extra "
    "fingers, mutated hands, poorly drawn hands, poorly drawn face, mutation, deformed, blurry, "
    "dehydrated, bad anatomy, bad proportions, extra limbs, cloned face, disfigured, gross proportions, "
    "malformed limbs, missing arms, missing legs, extra arms, extra legs, fused fingers, too many "
    "fingers, long neck"
)
"""AnimateDiff v3's example prompts, which NeuroClips and NEURONS use."""


class Config(parts.Config):
    """A folder of Stable Diffusion 1's kind, motion modules, SparseCtrl and a domain adapter.

    Conditions: `texts` (captions or sd15-text tokens), `images` (keyframes, with SparseCtrl), `start`
    (latents [B, F, C, h, w], blurry frames [B, F, 3, H, W], or one picture), `masks` [B, F, 1, H, W] on it.
    NEURONS samples 25 steps at guidance 8.5 and strength 1, at which a clip still begins from its start,
    under the noise of the first step (961).
    """

    source: str = Field(
        "hub:stable-diffusion-v1-5/stable-diffusion-v1-5",
        description="hub:OWNER/NAME, a folder, demo:NAME, or `random`; NEURONS: a Realistic Vision 6 folder.",
    )
    variant: str | None = Field(None, description="Variant of the source's weight files, such as fp16.")
    motion: str = Field(
        "hub:guoyww/animatediff-motion-adapter-v1-5-3",
        description="Folder of motion modules: AnimateDiff v3.",
    )
    sparse_control: str | None = Field(
        "hub:guoyww/animatediff-sparsectrl-rgb",
        description="Folder of SparseCtrl for keyframes; null: clips without a keyframe (video to video).",
    )
    domain_adapter: str | None = Field(
        "hub:guoyww/animatediff/v3_sd15_adapter.ckpt",
        description="AnimateDiff v3's domain adapter, merged into the U-Net: a path, hub:OWNER/NAME/FILE, "
        "or null.",
    )
    domain_scale: float = Field(1.0, ge=0, description="Weight of the domain adapter.")
    noise: Literal["animatediff", "source"] = Field(
        "animatediff",
        description="Noise schedule: AnimateDiff's, or that of the source, where motion modules learned it.",
    )
    mode: Literal["right", "published"] = Field(
        "right",
        description="right: each clip has noise of its own, and blurry frames exact thirds between them; "
        "published, as NEURONS' code: the noise of seed 0 for every clip, and weights of .33 and .67.",
    )
    frames: int = Field(16, gt=0, description="Frames sampled; at most the motion modules' 32.")
    kept: tuple[int, ...] = Field(
        (4, 6, 8, 10, 12, 14),
        min_length=1,
        description="Frames that are the result, from 0; NEURONS: 4, 6 … 14. Blurry ones lie at 0, 3 … 15.",
    )
    mask_floor: float = Field(
        0.5, ge=0, le=1, description="Weight of the start outside of masks; NEURONS: 0.5."
    )
    prompt_suffix: str = Field(SUFFIX, description="Added to captions.")
    negative_prompt: str = Field(
        NEGATIVE, description="What guidance moves away from, if the recipe says nothing."
    )
    unconditional: Literal["encoded", "zeros"] = Field(
        "encoded", description="Other side of guidance: the negative prompt, encoded, or zeros."
    )
    architecture: Architecture | None = Field(
        None,
        description="Arguments of unet, vae, scheduler, motion and sparse_control for source `random`.",
    )
    seed: int = Field(0, ge=0, description="Seed of the weights for source `random`.")

    @model_validator(mode="after")
    def _keeps_its_frames(self) -> "Config":
        if not all(0 <= each < self.frames for each in self.kept):
            raise RecipeError(
                f"kept is {[*self.kept]}, and there are {self.frames} frames, from 0",
                f"keep some of 0 … {self.frames - 1}",
            )
        return self

    def build(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> ClipDiffusion:
        """Load the generator, frozen, onto a device.

        Raises:
            MissingData: if a folder, one of its components or the adapter is absent or half-downloaded.
            BrainhiveError: if the networks are not of one kind.
            RecipeError: if there are more frames than the motion modules know.
        """
        device = torch.device(device)
        if self.source == RANDOM:
            return self._drawn(device, dtype, self.architecture or ARCHITECTURE)
        self._check_together()
        components = self._loaded(dtype)
        return self._of(components, device)

    def check(self) -> str:
        """Describe the generator and how much of it would be downloaded; raises as `build` does."""
        if self.source == RANDOM:
            return "random weights"
        self._check_together()
        _components.check_configs(self.source, check_unet)
        others = filter(None, (self.motion, self.sparse_control, self.domain_adapter))
        return f"{self.source} with {', '.join(others)}, {to_download(self.needs())}"

    def needs(self) -> list[Need]:
        """Look for the weights of every network."""
        if self.source == RANDOM:
            return []
        listed = _components.needs(self.source, self.variant, (*_components.STEMS, STEM))
        for folder in filter(None, (self.motion, self.sparse_control)):
            listed += _components.needs(folder, None, (_components.WEIGHTS,))
        return listed + ([single_file.need(self.domain_adapter)] if self.domain_adapter is not None else [])

    def skeleton(self, dtype: torch.dtype) -> ClipDiffusion:
        """Make the generator as `build` would, of shapes alone, on the meta device."""
        folders = {"unet": "unet", "vae": "vae"}
        architecture = _components.architecture_of(
            self, ARCHITECTURE, folders, lambda: {"scheduler": self._scheduler, **self._read_configs()}
        )
        return self._drawn(torch.device("meta"), dtype, architecture)

    @property
    def _scheduler(self) -> dict[str, Any]:
        if self.noise == "animatediff":
            return SCHEDULER
        return _components.read_config(self.source, "scheduler")

    def _read_configs(self) -> Architecture:
        named = {MOTION: self.motion, SPARSE: self.sparse_control}
        return {
            name: _components.read(hub.folder(folder, allow=["config.json"]), "")
            for name, folder in named.items()
            if folder is not None
        }

    def _check_together(self) -> None:
        """Refuse networks that do not fit each other, by their configs alone."""
        configs, unet = self._read_configs(), _components.read_config(self.source, "unet")
        check_unet(unet, self.source)
        if configs[MOTION].get("use_motion_mid_block", True) and (self.sparse_control or self.domain_adapter):
            raise BrainhiveError(
                f"{self.motion} is not AnimateDiff v3's: it has a motion module in the middle, as v2",
                "generator.motion=hub:guoyww/animatediff-motion-adapter-v1-5-3, or sparse_control and "
                "domain_adapter null",
            )
        if not configs.get(SPARSE, {}).get("use_simplified_condition_embedding", True):
            raise BrainhiveError(
                f"{self.sparse_control} is SparseCtrl for sketches, not for keyframes",
                "generator.sparse_control=hub:guoyww/animatediff-sparsectrl-rgb",
            )
        self._check_frames(configs[MOTION])
        for name, config in configs.items():
            wanted = list(unet["block_out_channels"])
            if (own := list(config.get("block_out_channels", wanted))) != wanted:
                raise BrainhiveError(
                    f"{getattr(self, name)} is for a U-Net of widths {own}, {self.source} has {wanted}",
                    "use a U-Net of Stable Diffusion 1.5, such as "
                    "hub:stable-diffusion-v1-5/stable-diffusion-v1-5",
                )

    def _check_frames(self, motion: dict[str, Any]) -> None:
        most = motion.get("motion_max_seq_length", 32)
        if self.frames > most:
            raise RecipeError(
                f"frames is {self.frames}, and the motion modules know {most}", f"generator.frames={most}"
            )

    def _loaded(self, dtype: torch.dtype) -> dict[str, Any]:
        import diffusers

        found = _components.load(
            _components.folder_of(self.source, self.variant), torch.float32, self.variant, check_unet
        )
        if self.domain_adapter is not None:
            file = single_file.find(self.domain_adapter)
            merge_adapter(found["unet"], weights.read(file), file, self.domain_scale)
        motion = _components.pretrained_folder(diffusers.MotionAdapter, self.motion, torch.float32)
        sparse = None
        if self.sparse_control is not None:
            sparse = _components.pretrained_folder(
                diffusers.SparseControlNetModel, self.sparse_control, dtype
            )
            normalise_frame_by_frame(sparse)
        where = f"motion modules of {self.motion}"
        with weights.reading(where, "use AnimateDiff v3's", BrainhiveError, problem="do not fit"):
            unet = _components.cast(in_motion(found["unet"], motion), dtype)
        scheduler = _components.scheduler(self._scheduler, self.source)
        vae = _components.cast(found["vae"], dtype)
        return {"unet": unet, "vae": vae, "scheduler": scheduler, SPARSE: sparse}

    def _drawn(self, device: torch.device, dtype: torch.dtype, architecture: Architecture) -> ClipDiffusion:
        import diffusers

        where, hint = f"the architecture of the generator {self.source}", "compare it with the published one"
        with weights.reading(where, hint, RecipeError, problem="cannot be built"):
            weights.check_sizes(architecture, where, hint, RecipeError)
            follows = _following(architecture["unet"])

            def change(unet: Any) -> Any:
                motion: Any = diffusers.MotionAdapter.from_config({**follows[MOTION], **architecture[MOTION]})
                return in_motion(unet, motion)

            components = _components.draw(architecture, device, dtype, self.seed, change)
            components[SPARSE] = None
            if self.sparse_control is not None:
                given = {**follows[SPARSE], **architecture.get(SPARSE, {})}
                components[SPARSE] = _draw_sparse_control(given, device, dtype, self.seed)
            self._check_frames(architecture[MOTION])
            return self._of(components, device)

    def _of(self, components: dict[str, Any], device: torch.device) -> ClipDiffusion:
        is_right, unet = self.mode == "right", components["unet"]
        seed, decimals = (None, None) if is_right else (0, 2)
        prompts = VideoPrompts(
            partial(clip_text, self.source, self.variant),
            self.prompt_suffix,
            self.negative_prompt,
            self.unconditional == "encoded" and self.source != RANDOM and device.type != "meta",
            unet.config.cross_attention_dim,
            (device, unet.dtype),
        )
        timing = Timing(self.frames, self.kept, decimals, seed, self.mask_floor)
        return ClipDiffusion(components, prompts, timing, device)


TINY = Config(
    source=RANDOM,
    architecture={
        **TINY_NETWORKS,
        "scheduler": SCHEDULER,
        MOTION: {**ARCHITECTURE[MOTION], "motion_num_attention_heads": 2},
        SPARSE: {"conditioning_channels": 4, "motion_num_attention_heads": 2},
    },
)
"""Small enough for tests; its VAE shrinks frames 4 times."""


def _following(unet: dict[str, Any]) -> Architecture:
    """Derive from a U-Net's arguments those of the motion modules and of SparseCtrl that belong to it."""
    layers, groups = unet.get("layers_per_block", 2), unet.get("norm_num_groups", 32)
    widths, types = unet["block_out_channels"], unet.get("down_block_types")
    motion = {
        "motion_layers_per_block": layers,
        "motion_norm_num_groups": groups,
        "block_out_channels": widths,
    }
    names = ("layers_per_block", "norm_num_groups", "cross_attention_dim", "attention_head_dim")
    sparse = {name: unet[name] for name in names if name in unet} | {"block_out_channels": widths}
    if types is not None:
        sparse["down_block_types"] = [each.replace("Block2D", "BlockMotion") for each in types]
    return {MOTION: motion, SPARSE: sparse}


def _draw_sparse_control(
    config: dict[str, Any], device: torch.device, dtype: torch.dtype, seed: int
) -> torch.nn.Module:
    """Draw SparseCtrl with random weights; its zero convolutions too, as they would hide the keyframe."""
    import diffusers

    with torch.random.fork_rng([device] if device.type == "cuda" else []), device:
        torch.manual_seed(seed)
        found: Any = diffusers.SparseControlNetModel.from_config(config)
        zeroed = (found.controlnet_cond_embedding, found.controlnet_mid_block, found.controlnet_down_blocks)
        for weight in (each for module in zeroed for each in module.parameters()):
            torch.nn.init.normal_(weight, std=0.1)
    return _components.cast(normalise_frame_by_frame(found), dtype)
