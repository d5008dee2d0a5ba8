"""Stable Diffusion 1.5 with AnimateDiff and SparseCtrl: clips from texts, a keyframe
and a start.

Source: AnimateDiff (arXiv 2307.04725), SparseCtrl (arXiv 2311.16933), by diffusers
(Apache 2.0); frames, noise and prompts as in NEURONS (arXiv 2503.11167) and NeuroClips.
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from brainhive_cli.core import console, hub, weights
from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import BrainhiveError, MissingData, RecipeError
from brainhive_cli.models.foreign_weights import find_file_input, find_weight_file
from brainhive_cli.models.generators import (
    GeneratedMedia,
    Sampling,
    _components,
    _denoising,
    _latent_diffusion,
)
from brainhive_cli.models.generators._components import (
    ARCHITECTURES,
    RANDOM,
    Architecture,
)
from brainhive_cli.models.generators._latent_diffusion import (
    TEXT_STEM,
    Request,
    StableDiffusion,
    mask_weights,
    resize,
    shrink_factor,
)
from brainhive_cli.models.heads import Conditioning

MOTION, SPARSE = "motion", "sparse_control"
"""In an architecture: arguments of these networks that do not follow from the
U-Net's.
"""
ARCHITECTURE = ARCHITECTURES["animatediff"]
SCHEDULER = ARCHITECTURE["scheduler"]
"""AnimateDiff's own, whatever the folder's is."""
SUFFIX = ", 8k uhd, dslr, soft lighting, high quality, film grain, Fujifilm XT3"
NEGATIVE = (
    "semi-realistic, cgi, 3d, render, sketch, cartoon, drawing, anime, text, close up, "
    "cropped, out of frame, worst quality, low quality, jpeg artifacts, ugly, "
    "duplicate, morbid, mutilated, extra fingers, mutated hands, poorly drawn hands, "
    "poorly drawn face, mutation, deformed, blurry, dehydrated, bad anatomy, bad "
    "proportions, extra limbs, cloned face, disfigured, gross proportions, malformed "
    "limbs, missing arms, missing legs, extra arms, extra legs, fused fingers, too "
    "many fingers, long neck"
)
"""AnimateDiff v3's example prompts, which NeuroClips and NEURONS use."""


LOW_RANK = re.compile(
    r"(?:module\.)?(?P<layer>.+)\.processor\.(?P<name>to_\w+?)_lora\.(?P<half>down|up)\.weight"
)
"""A weight of AnimateDiff's domain adapter, as its checkpoint names it."""


class Config(_latent_diffusion.Config):
    """A folder of Stable Diffusion 1's kind, motion modules, SparseCtrl and a domain
    adapter.

    Conditions: `texts` (captions or sd15-text tokens), `images` (keyframes, with
    SparseCtrl), `start` (latents [B, F, C, h, w], blurry frames [B, F, 3, H, W], or one
    picture), `masks` [B, F, 1, H, W] on it. NEURONS samples 25 steps at guidance 8.5
    and strength 1, at which a clip still begins from its start, under the noise of the
    first step (961).
    """

    cites = ("guo2024", "guo2024sparsectrl", "rombach2022")
    published = ARCHITECTURE

    source: str = Field(
        "hub:stable-diffusion-v1-5/stable-diffusion-v1-5",
        description=(
            "hub:OWNER/NAME, a folder, demo:NAME, or `random`; NEURONS: a Realistic "
            "Vision 6 folder."
        ),
    )
    motion: str = Field(
        "hub:guoyww/animatediff-motion-adapter-v1-5-3",
        description="Folder of motion modules: AnimateDiff v3.",
    )
    sparse_control: str | None = Field(
        "hub:guoyww/animatediff-sparsectrl-rgb",
        description=(
            "Folder of SparseCtrl for keyframes; null: clips without a keyframe (video "
            "to video)."
        ),
    )
    domain_adapter: str | None = Field(
        "hub:guoyww/animatediff/v3_sd15_adapter.ckpt",
        description="AnimateDiff v3's domain adapter, merged into the U-Net: a path, "
        "hub:OWNER/NAME/FILE, or null.",
    )
    noise: Literal["animatediff", "source"] = Field(
        "animatediff",
        description=(
            "Noise schedule: AnimateDiff's, or that of the source, where motion "
            "modules learned it."
        ),
    )
    mode: Literal["right", "published"] = Field(
        "right",
        description="right: each clip has noise of its own, and blurry frames exact "
        "thirds between them; published, as NEURONS' code: the noise of "
        "seed 0 for every clip, and weights of .33 and .67.",
    )
    frames: PositiveInt = Field(
        16, description="Frames sampled; at most the motion modules' 32."
    )
    kept: tuple[int, ...] = Field(
        (4, 6, 8, 10, 12, 14),
        min_length=1,
        description=(
            "Frames that are the result, from 0; NEURONS: 4, 6 … 14. Blurry ones lie "
            "at 0, 3 … 15."
        ),
    )
    prompt_suffix: str = Field(SUFFIX, description="Added to captions.")
    negative_prompt: str = Field(
        NEGATIVE,
        description="What guidance moves away from, if the recipe says nothing.",
    )

    @model_validator(mode="after")
    def _keeps_its_frames(self) -> "Config":
        if not all(0 <= frame < self.frames for frame in self.kept):
            raise RecipeError(
                f"kept is {[*self.kept]}, and there are {self.frames} frames, from 0",
                f"keep some of 0 … {self.frames - 1}",
            )
        return self

    def inputs(self) -> list[Input]:
        """Look for the weights of every network."""
        if self.source == RANDOM:
            return []
        needs = _components.list_inputs(self.source, (*_components.STEMS, TEXT_STEM))
        for folder in filter(None, (self.motion, self.sparse_control)):
            needs += _components.list_inputs(folder, (_components.WEIGHTS,))
        return needs + (
            [find_file_input(self.domain_adapter)]
            if self.domain_adapter is not None
            else []
        )

    def read_configs(self) -> Architecture:
        """Read the architecture of all networks."""
        architecture = super().read_configs()
        # AnimateDiff's schedule replaces that of the source
        if self.noise == "animatediff":
            architecture["scheduler"] = SCHEDULER
        for name, folder in ((MOTION, self.motion), (SPARSE, self.sparse_control)):
            if folder is not None:
                architecture[name] = _components.read_config(
                    hub.folder(folder, allow=["config.json"]), ""
                )
        return architecture

    def check(self) -> None:
        """Refuse networks that do not fit each other, by their configs alone."""
        if self.source == RANDOM:
            return

        # AnimateDiff v3 alone has SparseCtrl and a domain adapter
        configs = self.read_configs()
        self.check_unet(configs["unet"], self.source)
        if configs[MOTION].get("use_motion_mid_block", True) and (
            self.sparse_control or self.domain_adapter
        ):
            raise BrainhiveError(
                f"{self.motion} is not AnimateDiff v3's: it has a motion module in "
                "the middle, as v2",
                "generator.motion=hub:guoyww/animatediff-motion-adapter-v1-5-3, or "
                "sparse_control and domain_adapter null",
            )
        if not configs.get(SPARSE, {}).get("use_simplified_condition_embedding", True):
            raise BrainhiveError(
                f"{self.sparse_control} is SparseCtrl for sketches, not for keyframes",
                "generator.sparse_control=hub:guoyww/animatediff-sparsectrl-rgb",
            )

        self._check_frames(configs[MOTION])

    def load(self, dtype: torch.dtype, folder: Path | None = None) -> dict[str, Any]:
        """Load all networks, and put motion modules and the domain adapter into the
        U-Net, in float32.
        """
        import diffusers

        # the adapter is added in float32, as rounding before would lose parts of it
        self.check()
        components = super().load(torch.float32, folder)
        if self.domain_adapter is not None:
            file = find_weight_file(self.domain_adapter)
            way = (
                "use the adapter of Stable Diffusion 1.5, or "
                "generator.domain_adapter=null"
            )
            with weights.reading(
                file, way, BrainhiveError, problem="does not fit the U-Net"
            ):
                merge_adapter(components["unet"], weights.read(file), file)

        # load motion modules and SparseCtrl
        motion = _components.load_network_folder(
            diffusers.MotionAdapter, self.motion, torch.float32
        )
        components[SPARSE] = None
        if self.sparse_control is not None:
            sparse = _components.load_network_folder(
                diffusers.SparseControlNetModel, self.sparse_control, dtype
            )
            components[SPARSE] = normalise_frame_by_frame(sparse)

        # put the modules into the U-Net, and bring all to the dtype that is asked for
        where = f"motion modules of {self.motion}"
        with weights.reading(
            where, "use AnimateDiff v3's", BrainhiveError, problem="do not fit"
        ):
            components["unet"] = _components.cast(
                in_motion(components["unet"], motion), dtype
            )
        components["vae"] = _components.cast(components["vae"], dtype)
        if self.noise == "animatediff":
            components["scheduler"] = _components.make_scheduler(SCHEDULER, self.source)
        return components

    def draw(
        self, architecture: Architecture, device: torch.device, dtype: torch.dtype
    ) -> dict[str, Any]:
        """Make all networks with random weights."""
        import diffusers

        derived = _derive_architecture(architecture["unet"])

        def add_motion(unet: Any) -> Any:
            motion = diffusers.MotionAdapter.from_config(
                {**derived[MOTION], **architecture[MOTION]}
            )
            return in_motion(unet, motion)

        # SparseCtrl is drawn apart: diffusers would set its last convolutions to zero
        components = _components.draw_components(
            architecture, device, dtype, add_motion
        )
        components[SPARSE] = None
        if self.sparse_control is not None:
            # its zero convolutions are drawn too, as they would hide the keyframe
            with (
                torch.random.fork_rng([device] if device.type == "cuda" else []),
                device,
            ):
                torch.manual_seed(0)
                network = diffusers.SparseControlNetModel.from_config(
                    {**derived[SPARSE], **architecture[SPARSE]}
                )
                for zeroed in (
                    network.controlnet_cond_embedding,
                    network.controlnet_mid_block,
                    network.controlnet_down_blocks,
                ):
                    for weight in zeroed.parameters():
                        torch.nn.init.normal_(weight, std=0.1)
            components[SPARSE] = _components.cast(
                normalise_frame_by_frame(network), dtype
            )
        self._check_frames(architecture[MOTION])
        return components

    def assemble(
        self, components: dict[str, Any], device: torch.device
    ) -> "AnimateDiff":
        """Make the generator of its components."""
        return AnimateDiff(self, components, device)

    def _check_frames(self, motion: dict[str, Any]) -> None:
        # motion modules have an embedding for each position of a frame
        most = motion.get("motion_max_seq_length", 32)
        if self.frames > most:
            raise RecipeError(
                f"frames is {self.frames}, and the motion modules know {most}",
                f"generator.frames={most}",
            )


TINY = Config(source=RANDOM, architecture=ARCHITECTURES["animatediff TINY"])
"""Small enough for tests; its VAE shrinks frames 4 times."""


Keyframe = tuple[Tensor, Tensor]
"""Input of SparseCtrl: latents [B, C, F, h, w] of keyframes and zeros, and their mask
[B, 1, F, h, w].
"""


class AnimateDiff(StableDiffusion):
    """Clips by a U-Net with motion modules: from noise or blurry frames, with a
    keyframe or without.
    """

    pipelines = ()
    refused = ("embeddings",)

    def prepare(self, components: dict[str, Any]) -> None:
        """Take SparseCtrl, if there is one."""
        super().prepare(components)
        self.sparse_control = components[SPARSE]
        self.networks += () if self.sparse_control is None else (self.sparse_control,)

    def check_conditioning(
        self, conditioning: Conditioning, rows: int, sampling: Sampling | None = None
    ) -> None:
        """Refuse conditions that are missing, or that have no effect."""
        super().check_conditioning(conditioning, rows)

        # a keyframe and SparseCtrl belong together
        images = conditioning.images
        start = conditioning.start
        channels = self.vae.config.latent_channels
        if images is None and self.sparse_control is not None:
            raise BrainhiveError(
                "SparseCtrl needs a keyframe, and the conditioning has no images",
                "a chain whose first stage makes it (receives: images), or "
                "generator.sparse_control=null",
            )
        if images is not None and self.sparse_control is None:
            raise BrainhiveError(
                "keyframes have no effect without SparseCtrl",
                "generator.sparse_control, or another prior",
            )

        # masks weigh a start, and a start is pictures or this VAE's latents
        if conditioning.masks is not None and start is None:
            raise BrainhiveError(
                "masks have no effect without a start", "use a prior that gives one"
            )
        if start is not None and start.shape[-3] not in (3, channels):
            raise BrainhiveError(
                f"latents to start from have {start.shape[-3]} channels, the "
                f"generator's {channels}",
                "use a head that predicts the encoder sd15-vae",
            )

    @torch.no_grad()
    def sample(self, request: Request) -> Tensor:
        """Sample the latents [B, F, C, h, w] of all frames.

        Source: diffusers' AnimateDiffSparseControlNetPipeline and
        AnimateDiffVideoToVideoPipeline (Apache
        2.0), which take one keyframe for all clips of a batch, and a keyframe or a
        start.
        """
        conditioning = request.conditioning
        sampling = request.sampling
        config = self.config
        rows = len(request.seeds)
        self.check_conditioning(conditioning, rows, sampling)

        # condition on text and keyframe; guidance doubles the rows, the unconditional
        # first
        text = self._embed_captions(conditioning.texts, sampling.prompt, rows)
        keyframe = self._encode_keyframe(conditioning.images, request.size_px)
        if sampling.guidance > 1:
            prompt = sampling.negative_prompt
            absent = config.negative_prompt
            away = self.text_tokens(
                request.null.texts, prompt, rows, text, absent=absent
            )
            text = torch.cat([away, text])
            keyframe = keyframe and (
                torch.cat([keyframe[0]] * 2),
                torch.cat([keyframe[1]] * 2),
            )

        # draw the noise of each clip, [B, C, F, h, w], and encode the frames that it is
        # added to
        seeds = [0] * rows if config.mode == "published" else request.seeds
        random = [torch.Generator().manual_seed(seed) for seed in seeds]
        channels, *sides = self.latent_shape(request.size_px)
        shape = (1, channels, config.frames, *sides)
        noise = torch.cat([torch.randn(shape, generator=row) for row in random]).to(
            self.device
        )
        start = self._interpolate_start(conditioning, request.size_px)
        if start is not None:
            start = self.encode(start).transpose(1, 2)

        # remove the noise step by step
        self.placement.use(*self.denoisers)
        predict = partial(self._predict, text=text, keyframe=keyframe)
        latents = _denoising.denoise(
            self._scheduler, sampling, noise, start, predict, random, request.on_step
        )
        return latents.transpose(1, 2)

    def to_media(self, latents: Tensor) -> GeneratedMedia:
        """Decode the frames that are the result."""
        return self.decode(latents[:, list(self.config.kept)])

    def predict(
        self,
        latents: Tensor,
        times: Tensor,
        conditioning: Conditioning,
        sizes: Tensor | None = None,
    ) -> Tensor:
        """Predict the noise of latents [B, F, C, h, w], or what else the U-Net
        predicts; sizes: no effect.
        """
        # keyframes need the size of the frames that these latents decode to
        size_px = latents.shape[-1] * shrink_factor(self.vae)
        text = self._embed_captions(conditioning.texts, "", len(latents))
        keyframe = self._encode_keyframe(conditioning.images, size_px)
        return self._predict(latents.transpose(1, 2), times, text, keyframe).transpose(
            1, 2
        )

    def _predict(
        self, latents: Tensor, times: Tensor, text: Tensor, keyframe: Keyframe | None
    ) -> Tensor:
        """Predict the noise of latents [B, C, F, h, w], or what else the U-Net
        predicts.
        """
        # the U-Net takes text for each frame
        latents, frames = latents.to(self.unet.dtype), latents.shape[2]
        times = times.to(self.device)
        text = text.repeat_interleave(frames, 0)

        # SparseCtrl's outputs are added inside the U-Net
        residuals = {}
        if keyframe is not None:
            latents_of_keyframe, mask = keyframe
            down, mid = self.sparse_control(
                latents,
                times,
                text,
                latents_of_keyframe,
                conditioning_mask=mask,
                return_dict=False,
            )
            residuals = {
                "down_block_additional_residuals": down,
                "mid_block_additional_residual": mid,
            }
        return self.run_unet(latents, times, text, **residuals)

    def _embed_captions(
        self, texts: Tensor | list[str] | None, prompt: str, rows: int
    ) -> Tensor:
        """Give text tokens [B, S, D] of B rows; captions have the suffix."""
        if isinstance(texts, list):
            texts = [words + self.config.prompt_suffix for words in texts]
        return self.text_tokens(texts, prompt, rows)

    def _encode_keyframe(self, images: Tensor | None, size_px: int) -> Keyframe | None:
        """Give keyframes [B, 3, H, W], or those of clips, as SparseCtrl takes them at
        the first frame.
        """
        if images is None or self.sparse_control is None:
            return None
        images = images[:, 0] if images.ndim == 5 else images
        # [B, C, 1, h, w]
        encoded = self.encode(resize(images, size_px)[:, None]).transpose(1, 2)
        latents = encoded.new_zeros(
            *encoded.shape[:2], self.config.frames, *encoded.shape[3:]
        )
        latents[:, :, :1] = encoded
        mask = torch.zeros_like(latents[:, :1])
        mask[:, :, 0] = 1
        dtype = self.sparse_control.dtype
        return latents.to(dtype), mask.to(dtype)

    def _interpolate_start(
        self, conditioning: Conditioning, size_px: int
    ) -> Tensor | None:
        """Make the frames [B, F, 3, H, W] to start from, of latents or pictures and
        their masks.
        """
        start = conditioning.start
        masks = conditioning.masks
        if start is None:
            return None
        start = start[:, None] if start.ndim == 4 else start  # [B, F, C, H, W]

        # masks weigh latents, so pictures are encoded for them
        if masks is not None or start.shape[2] != 3:
            latents = (
                self.encode(start) if start.shape[2] == 3 else start.to(self.device)
            )
            if masks is not None:
                latents = latents * mask_weights(masks, latents.shape[-1]).to(latents)
            start = self.decode(latents)

        # resize frames, and fill the time between them
        frames = resize(start.flatten(0, 1), size_px).unflatten(0, start.shape[:2])
        return in_between(
            frames, self.config.frames, 2 if self.config.mode == "published" else None
        )


def _derive_architecture(unet: dict[str, Any]) -> Architecture:
    """Derive from a U-Net's arguments those of the motion modules and of SparseCtrl
    that belong to it.
    """
    # a motion module stands behind each block of the U-Net
    layers = unet.get("layers_per_block", 2)
    groups = unet.get("norm_num_groups", 32)
    widths = unet["block_out_channels"]
    types = unet.get("down_block_types")
    motion = {
        "motion_layers_per_block": layers,
        "motion_norm_num_groups": groups,
        "block_out_channels": widths,
    }

    # SparseCtrl copies the U-Net's way down, with motion modules in its blocks
    names = (
        "layers_per_block",
        "norm_num_groups",
        "cross_attention_dim",
        "attention_head_dim",
    )
    sparse = {name: unet[name] for name in names if name in unet} | {
        "block_out_channels": widths
    }
    if types is not None:
        sparse["down_block_types"] = [
            block.replace("Block2D", "BlockMotion") for block in types
        ]
    return {MOTION: motion, SPARSE: sparse}


class FrameNorm(nn.GroupNorm):
    """Normalises each frame by itself, as AnimateDiff's weights were trained.

    diffusers normalises [B, C, F, h, w] over the frames too, which is up to 40 % off in
    SparseCtrl's output.

    Source: AnimateDiff's InflatedGroupNorm (Apache 2.0); diffusers issue 9508.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, C, F, h, w]."""
        frames = x.transpose(1, 2).flatten(0, 1)  # [B F, C, h, w]
        return super().forward(frames).unflatten(0, (len(x), -1)).transpose(1, 2)


def normalise_frame_by_frame(network: nn.Module) -> nn.Module:
    """Let the motion modules of a network of diffusers normalise each frame by itself;
    weights are kept.
    """
    from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D

    for module in network.modules():
        if isinstance(module, AnimateDiffTransformer3D):
            norm = module.norm
            module.norm = FrameNorm(
                norm.num_groups, norm.num_channels, norm.eps, device="meta"
            )
            module.norm.weight = norm.weight
            module.norm.bias = norm.bias
    return network


def in_motion(unet: Any, motion: Any) -> Any:
    """Put motion modules into a 2D U-Net."""
    from diffusers import UNetMotionModel

    with console.mute_libraries():
        return normalise_frame_by_frame(UNetMotionModel.from_unet2d(unet, motion))


def merge_adapter(unet: nn.Module, state: Mapping[str, Tensor], where: object) -> None:
    """Add a domain adapter to the attentions of a 2D U-Net: W += up · down.

    Raises:
        MissingData: if it holds no such weights.
    """
    # pair the halves of each layer, by the layer's name in today's diffusers
    halves: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        if match := LOW_RANK.fullmatch(name):
            layer = f"{match['layer']}.{match['name']}" + (
                ".0" if match["name"] == "to_out" else ""
            )
            halves.setdefault(layer, {})[match["half"]] = value
    if not halves:
        raise MissingData(
            f"{where} holds no to_q_lora.down.weight",
            "give AnimateDiff's v3_sd15_adapter.ckpt",
        )

    # add their product to the layer's weight, in float32
    parameters = dict(unet.named_parameters())
    for layer, pair in halves.items():
        weight = parameters[f"{layer}.weight"]
        with torch.no_grad():
            weight.add_((pair["up"].float() @ pair["down"].float()).to(weight))


def in_between(frames: Tensor, count: int, decimals: int | None = None) -> Tensor:
    """Interpolate frames [B, F, …] in time to as many as `count`, linearly, ends kept.

    Args:
        frames: The frames; of one all are made.
        count: How many are wanted.
        decimals: Round the weights to these; NEURONS: 2.
    """
    # position of each new frame between two old ones
    positions = (
        torch.arange(count, dtype=torch.float64)
        * (frames.shape[1] - 1)
        / max(count - 1, 1)
    )
    before = positions.floor().long()
    after = (before + 1).clamp(max=frames.shape[1] - 1)

    # mix them by nearness
    share = positions - before  # [count]
    share = (share if decimals is None else share.round(decimals=decimals)).to(frames)
    share = share.view(-1, *[1] * (frames.ndim - 2))
    return frames[:, before] * (1 - share) + frames[:, after] * share
