"""Stable Diffusion 1.5 with AnimateDiff and SparseCtrl, which generates clips.

Source: AnimateDiff (arXiv 2307.04725), SparseCtrl (arXiv 2311.16933) and diffusers
(Apache 2.0). Frames, noise and prompts as in NEURONS (arXiv 2503.11167) and NeuroClips.
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from brainhive_cli.core.base import BrainhiveError, MissingData, RecipeError, console
from brainhive_cli.core.files import Input, hub
from brainhive_cli.core.runs import weights
from brainhive_cli.models import Conditioning, find_file_input, find_weight_file
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
    Request,
    StableDiffusion,
    compute_mask_weights,
    get_vae_scale_factor,
    resize,
)

MOTION = "motion"
SPARSE = "sparse_control"
"""Keys in an architecture for arguments of these networks that do not follow from the
U-Net.
"""
ARCHITECTURE = ARCHITECTURES["animatediff"]
SCHEDULER_CONFIG = ARCHITECTURE["scheduler"]
"""Scheduler of AnimateDiff, which replaces the scheduler of the source."""
PROMPT_SUFFIX = ", 8k uhd, dslr, soft lighting, high quality, film grain, Fujifilm XT3"
NEGATIVE_PROMPT = (
    "semi-realistic, cgi, 3d, render, sketch, cartoon, drawing, anime, text, close up, "
    "cropped, out of frame, worst quality, low quality, jpeg artifacts, ugly, "
    "duplicate, morbid, mutilated, extra fingers, mutated hands, poorly drawn hands, "
    "poorly drawn face, mutation, deformed, blurry, dehydrated, bad anatomy, bad "
    "proportions, extra limbs, cloned face, disfigured, gross proportions, malformed "
    "limbs, missing arms, missing legs, extra arms, extra legs, fused fingers, too "
    "many fingers, long neck"
)
"""Example prompts of AnimateDiff v3, which NeuroClips and NEURONS use."""

LORA_WEIGHT = re.compile(
    r"(?:module\.)?(?P<layer>.+)\.processor\.(?P<name>to_\w+?)_lora\.(?P<half>down|up)\.weight"
)
"""Name of a weight in the checkpoint of AnimateDiff's domain adapter."""


class Config(_latent_diffusion.Config):
    """Stable Diffusion 1 with motion modules, SparseCtrl and a domain adapter.

    Conditions: `texts` (captions or sd15-text tokens), `images` (keyframes, with
    SparseCtrl), `start` (latents [B, F, C, h, w], blurry frames [B, F, 3, H, W] or a
    picture), and `masks` [B, F, 1, H, W] of the start. NEURONS samples 25 steps at
    guidance 8.5 and strength 1. The clip then begins from its start under the noise of
    the first timestep (961).
    """

    cites = ("guo2024", "guo2024sparsectrl", "rombach2022")
    called = "AnimateDiff with SparseCtrl"
    published_architecture = ARCHITECTURE

    source: str = Field(
        "hub:stable-diffusion-v1-5/stable-diffusion-v1-5",
        description=(
            "hub:OWNER/NAME, a folder, demo:NAME, or `random`. NEURONS: a folder of "
            "Realistic Vision 6."
        ),
    )
    motion: str = Field(
        "hub:guoyww/animatediff-motion-adapter-v1-5-3",
        description="Folder of motion modules, such as AnimateDiff v3.",
    )
    sparse_control: str | None = Field(
        "hub:guoyww/animatediff-sparsectrl-rgb",
        description=(
            "Folder of SparseCtrl for keyframes, or null for clips without them."
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
            "Noise schedule: AnimateDiff's, or the source's if the motion modules "
            "learned it."
        ),
    )
    mode: Literal["right", "published"] = Field(
        "right",
        description="With right, each clip has noise of its own, and frames between "
        "blurry frames have exact thirds as weights. With published, as in NEURONS' "
        "code, every clip has the noise of seed 0, and the weights are .33 and .67.",
    )
    frames: PositiveInt = Field(
        16, description="Number of sampled frames, at most 32 for AnimateDiff v3."
    )
    kept: tuple[int, ...] = Field(
        (4, 6, 8, 10, 12, 14),
        min_length=1,
        description=(
            "Sampled frames that are returned, counted from 0. NEURONS: 4, 6 … 14, "
            "with blurry frames at 0, 3 … 15."
        ),
    )
    prompt_suffix: str = Field(
        PROMPT_SUFFIX, description="Text that is added to captions."
    )
    negative_prompt: str = Field(
        NEGATIVE_PROMPT,
        description="Text that guidance moves away from, if the recipe gives none.",
    )

    @model_validator(mode="after")
    def _check_kept_frames(self) -> "Config":
        if not all(0 <= frame < self.frames for frame in self.kept):
            raise RecipeError(
                f"kept is {list(self.kept)}, and there are {self.frames} frames, "
                "from 0",
                f"keep some of 0 … {self.frames - 1}",
            )
        return self

    def inputs(self) -> list[Input]:
        """List the weights of every network, with their states."""
        if self.source == RANDOM:
            return []
        stems = _components.NETWORK_STEMS + ("text_encoder/model",)
        inputs = _components.list_inputs(self.source, stems)
        for folder in (self.motion, self.sparse_control):
            if folder:
                inputs += _components.list_inputs(folder, (_components.WEIGHTS_STEM,))
        if self.domain_adapter is not None:
            inputs.append(find_file_input(self.domain_adapter))
        return inputs

    def read_configs(self) -> Architecture:
        """Read the architecture of all networks."""
        architecture = super().read_configs()
        if self.noise == "animatediff":
            architecture["scheduler"] = SCHEDULER_CONFIG
        for name, reference in ((MOTION, self.motion), (SPARSE, self.sparse_control)):
            if reference is not None:
                folder = hub.folder(reference, allow=["config.json"])
                architecture[name] = _components.read_config(folder, "")
        return architecture

    def check(self) -> None:
        """Raise an error if the configs show networks that do not fit each other."""
        if self.source == RANDOM:
            return

        # only AnimateDiff v3 has SparseCtrl and a domain adapter
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

    def load_components(
        self, dtype: torch.dtype, folder: Path | None = None
    ) -> dict[str, Any]:
        """Load all networks. Motion modules and adapter become part of the U-Net."""
        import diffusers

        # add the adapter in float32, because rounding first would lose parts of it
        self.check()
        components = super().load_components(torch.float32, folder)
        if self.domain_adapter is not None:
            file = find_weight_file(self.domain_adapter)
            hint = (
                "use the adapter of Stable Diffusion 1.5, or "
                "generator.domain_adapter=null"
            )
            with weights.reading(
                file, hint, BrainhiveError, problem="does not fit the U-Net"
            ):
                merge_domain_adapter(components["unet"], weights.read(file), file)

        motion_adapter = _components.load_network_folder(
            diffusers.MotionAdapter, self.motion, torch.float32
        )
        components[SPARSE] = None
        if self.sparse_control is not None:
            sparse_control = _components.load_network_folder(
                diffusers.SparseControlNetModel, self.sparse_control, dtype
            )
            components[SPARSE] = normalise_frame_by_frame(sparse_control)

        # add the motion modules, and change to the requested data type
        with weights.reading(
            f"motion modules of {self.motion}",
            "use AnimateDiff v3's",
            BrainhiveError,
            problem="do not fit",
        ):
            unet = add_motion_modules(components["unet"], motion_adapter)
            components["unet"] = _components.change_dtype(unet, dtype)
        components["vae"] = _components.change_dtype(components["vae"], dtype)
        if self.noise == "animatediff":
            components["scheduler"] = _components.make_scheduler(
                SCHEDULER_CONFIG, self.source
            )
        return components

    def draw_components(
        self, architecture: Architecture, device: torch.device, dtype: torch.dtype
    ) -> dict[str, Any]:
        """Make all networks with random weights."""
        import diffusers

        derived = _derive_architecture(architecture["unet"])
        motion_config = derived[MOTION] | architecture[MOTION]

        def add_motion(unet: Any) -> Any:
            motion_adapter = diffusers.MotionAdapter.from_config(motion_config)
            return add_motion_modules(unet, motion_adapter)

        components = _components.draw_components(
            architecture, device, dtype, add_motion
        )
        components[SPARSE] = None
        if self.sparse_control is not None:
            sparse_control = _draw_sparse_control(
                derived[SPARSE] | architecture[SPARSE], device
            )
            components[SPARSE] = _components.change_dtype(
                normalise_frame_by_frame(sparse_control), dtype
            )
        self._check_frames(architecture[MOTION])
        return components

    def assemble(
        self, components: dict[str, Any], device: torch.device
    ) -> "AnimateDiff":
        """Make the generator from its components."""
        return AnimateDiff(self, components, device)

    def _check_frames(self, motion_config: dict[str, Any]) -> None:
        """Raise an error if there are more frames than the motion modules take."""
        max_frames = motion_config.get("motion_max_seq_length", 32)
        if self.frames > max_frames:
            raise RecipeError(
                f"frames is {self.frames}, and the motion modules know {max_frames}",
                f"generator.frames={max_frames}",
            )


TINY = Config(source=RANDOM, architecture=ARCHITECTURES["animatediff TINY"])
"""Config for tests, whose latents have a fourth of the frames' side."""


class Keyframe(NamedTuple):
    """Input of SparseCtrl.

    Attributes:
        latents: Latents [B, C, F, h, w] of keyframes. They are zeros in other frames.
        mask: Mask [B, 1, F, h, w] of the keyframes.
    """

    latents: Tensor
    mask: Tensor


class AnimateDiff(StableDiffusion):
    """Generator of clips from noise or blurry frames, with a keyframe or without."""

    pipeline_classes = ()
    refused_conditions = ("embeddings",)

    def add_components(self, components: dict[str, Any]) -> None:
        """Add SparseCtrl, if the config has it."""
        super().add_components(components)
        self.sparse_control = components[SPARSE]
        if self.sparse_control is not None:
            self.networks += (self.sparse_control,)

    def check_conditioning(
        self, conditioning: Conditioning, rows: int, sampling: Sampling | None = None
    ) -> None:
        """Raise an error if conditions are missing or have no effect."""
        super().check_conditioning(conditioning, rows)
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

        # masks weigh the start, which is pictures or latents of this VAE
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

        Source: AnimateDiffSparseControlNetPipeline and AnimateDiffVideoToVideoPipeline
        of diffusers (Apache 2.0). They have a single keyframe for all clips of a batch,
        and do not combine a keyframe with a start.
        """
        conditioning = request.conditioning
        sampling = request.sampling
        rows = len(request.seeds)
        self.check_conditioning(conditioning, rows, sampling)

        # condition on text and keyframe, with guidance on the unconditional rows first
        text_tokens = self._embed_captions(conditioning.texts, sampling.prompt, rows)
        keyframe = self._encode_keyframe(conditioning.images, request.size_px)
        if sampling.guidance > 1:
            unconditional_tokens = self.prepare_text_tokens(
                request.null.texts,
                sampling.negative_prompt,
                rows,
                text_tokens,
                default_text=self.config.negative_prompt,
            )
            text_tokens = torch.cat([unconditional_tokens, text_tokens])
            if keyframe is not None:
                keyframe = Keyframe(
                    latents=torch.cat([keyframe.latents] * 2),
                    mask=torch.cat([keyframe.mask] * 2),
                )

        # draw the noise [B, C, F, h, w] of each clip from its seed
        seeds = request.seeds
        if self.config.mode == "published":
            seeds = [0] * rows
        rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
        channels, height, width = self.latent_shape(request.size_px)
        shape = (1, channels, self.config.frames, height, width)
        noises = [torch.randn(shape, generator=rng) for rng in rngs]
        noise = torch.cat(noises).to(self.device)

        # encode the start of each clip
        start = self._interpolate_start(conditioning, request.size_px)
        if start is not None:
            start = self.encode(start).transpose(1, 2)

        # remove the noise step by step
        self.placement.use(*self.denoising_networks)
        predict = partial(
            self._predict_clips, text_tokens=text_tokens, keyframe=keyframe
        )
        latents = _denoising.denoise(
            self._scheduler, sampling, noise, start, predict, rngs, request.on_step
        )
        return latents.transpose(1, 2)

    def decode_media(self, latents: Tensor) -> GeneratedMedia:
        """Decode the frames `kept` of the config."""
        return self.decode(latents[:, list(self.config.kept)])

    def predict(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        sizes: Tensor | None = None,
    ) -> Tensor:
        """Predict the noise of latents [B, F, C, h, w]. `sizes` have no effect."""
        size_px = latents.shape[-1] * get_vae_scale_factor(self.vae)
        text_tokens = self._embed_captions(conditioning.texts, "", len(latents))
        keyframe = self._encode_keyframe(conditioning.images, size_px)
        noise_pred = self._predict_clips(
            latents.transpose(1, 2), timesteps, text_tokens, keyframe
        )
        return noise_pred.transpose(1, 2)

    def _predict_clips(
        self,
        latents: Tensor,
        timesteps: Tensor,
        text_tokens: Tensor,
        keyframe: Keyframe | None,
    ) -> Tensor:
        """Predict the noise of latents [B, C, F, h, w] from text tokens [B, S, D]."""
        n_frames = latents.shape[2]
        latents = latents.to(self.unet.dtype)
        timesteps = timesteps.to(self.device)
        # the U-Net takes the text of each frame
        frame_tokens = text_tokens.repeat_interleave(n_frames, 0)

        # the U-Net adds the outputs of SparseCtrl to its own
        residuals = {}
        if keyframe is not None:
            down_residuals, mid_residual = self.sparse_control(
                latents,
                timesteps,
                frame_tokens,
                keyframe.latents,
                conditioning_mask=keyframe.mask,
                return_dict=False,
            )
            residuals["down_block_additional_residuals"] = down_residuals
            residuals["mid_block_additional_residual"] = mid_residual
        return self.run_unet(latents, timesteps, frame_tokens, **residuals)

    def _embed_captions(
        self, texts: Tensor | list[str] | None, prompt: str, rows: int
    ) -> Tensor:
        """Return text tokens [B, S, D]. Captions get the prompt suffix."""
        if isinstance(texts, list):
            texts = [text + self.config.prompt_suffix for text in texts]
        return self.prepare_text_tokens(texts, prompt, rows)

    def _encode_keyframe(self, images: Tensor | None, size_px: int) -> Keyframe | None:
        """Return the input of SparseCtrl, or None without images or SparseCtrl.

        Args:
            images: Keyframes [B, 3, H, W], or clips [B, F, 3, H, W] that begin with
                them.
            size_px: Height and width of the frames.
        """
        if images is None or self.sparse_control is None:
            return None
        pictures = images[:, 0] if images.ndim == 5 else images
        encoded = self.encode(resize(pictures, size_px)[:, None])
        encoded = encoded.transpose(1, 2)  # [B, C, 1, h, w]

        # the keyframe is the first frame
        rows, channels, _, height, width = encoded.shape
        shape = (rows, channels, self.config.frames, height, width)
        latents = encoded.new_zeros(shape)
        latents[:, :, :1] = encoded
        mask = torch.zeros_like(latents[:, :1])
        mask[:, :, 0] = 1
        dtype = self.sparse_control.dtype
        return Keyframe(latents.to(dtype), mask.to(dtype))

    def _interpolate_start(
        self, conditioning: Conditioning, size_px: int
    ) -> Tensor | None:
        """Interpolate the start to all frames [B, F, 3, H, W]. None without a start."""
        if conditioning.start is None:
            return None
        start = conditioning.start
        if start.ndim == 4:
            start = start[:, None]  # [B, F, C, H, W]

        # masks weigh latents, so pictures are encoded for them
        masks = conditioning.masks
        if masks is not None or start.shape[2] != 3:
            if start.shape[2] == 3:
                latents = self.encode(start)
            else:
                latents = start.to(self.device)
            if masks is not None:
                mask_weights = compute_mask_weights(masks, latents.shape[-1])
                latents = latents * mask_weights.to(latents)
            start = self.decode(latents)

        frames = resize(start.flatten(0, 1), size_px).unflatten(0, start.shape[:2])
        decimals = 2 if self.config.mode == "published" else None
        return interpolate_frames(frames, self.config.frames, decimals)


def _draw_sparse_control(config: dict[str, Any], device: torch.device) -> Any:
    """Make SparseCtrl with random weights, the same in each call."""
    import diffusers

    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(gpus), device:
        torch.manual_seed(0)
        network = diffusers.SparseControlNetModel.from_config(config)
        # these layers would start with zeros, and hide the keyframe
        for layers in (
            network.controlnet_cond_embedding,
            network.controlnet_mid_block,
            network.controlnet_down_blocks,
        ):
            for weight in layers.parameters():
                torch.nn.init.normal_(weight, std=0.1)
    return network


def _derive_architecture(unet_config: dict[str, Any]) -> Architecture:
    """Derive the configs of motion modules and SparseCtrl from a U-Net's config."""
    # a motion module follows each block of the U-Net
    widths = unet_config["block_out_channels"]
    motion_config = {
        "motion_layers_per_block": unet_config.get("layers_per_block", 2),
        "motion_norm_num_groups": unet_config.get("norm_num_groups", 32),
        "block_out_channels": widths,
    }

    # SparseCtrl copies the U-Net's down blocks, with motion modules in them
    sparse_config: dict[str, Any] = {}
    for name in (
        "layers_per_block",
        "norm_num_groups",
        "cross_attention_dim",
        "attention_head_dim",
    ):
        if name in unet_config:
            sparse_config[name] = unet_config[name]
    sparse_config["block_out_channels"] = widths
    block_types = unet_config.get("down_block_types")
    if block_types is not None:
        sparse_config["down_block_types"] = [
            block_type.replace("Block2D", "BlockMotion") for block_type in block_types
        ]
    return {MOTION: motion_config, SPARSE: sparse_config}


class FrameNorm(nn.GroupNorm):
    """Group normalisation of each frame, with which AnimateDiff was trained.

    diffusers also normalises over the frames, which changes SparseCtrl's output by up
    to 40 %.

    Source: AnimateDiff's InflatedGroupNorm (Apache 2.0), and diffusers issue 9508.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, C, F, h, w]."""
        frames = x.transpose(1, 2).flatten(0, 1)  # [B F, C, h, w]
        return super().forward(frames).unflatten(0, (len(x), -1)).transpose(1, 2)


def normalise_frame_by_frame(network: nn.Module) -> nn.Module:
    """Make the motion modules of diffusers normalise each frame by itself."""
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


def add_motion_modules(unet: Any, motion_adapter: Any) -> Any:
    """Add the modules of a motion adapter to a 2D U-Net."""
    from diffusers import UNetMotionModel

    with console.mute_libraries():
        motion_unet = UNetMotionModel.from_unet2d(unet, motion_adapter)
    return normalise_frame_by_frame(motion_unet)


def merge_domain_adapter(
    unet: nn.Module, state_dict: Mapping[str, Tensor], file: object
) -> None:
    """Add a domain adapter to the attention weights of a 2D U-Net: W += up · down.

    Raises:
        MissingData: if there are no weights of an adapter.
    """
    # pair the matrices of each layer
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, value in state_dict.items():
        match = LORA_WEIGHT.fullmatch(name)
        if match is None:
            continue
        layer = f"{match['layer']}.{match['name']}"
        if match["name"] == "to_out":
            layer += ".0"
        pairs.setdefault(layer, {})[match["half"]] = value
    if not pairs:
        raise MissingData(
            f"{file} holds no to_q_lora.down.weight",
            "give AnimateDiff's v3_sd15_adapter.ckpt",
        )

    # add their product to the layer's weight, in float32
    parameters = dict(unet.named_parameters())
    for layer, pair in pairs.items():
        weight = parameters[f"{layer}.weight"]
        with torch.no_grad():
            weight.add_((pair["up"].float() @ pair["down"].float()).to(weight))


def interpolate_frames(
    frames: Tensor, n_frames: int, decimals: int | None = None
) -> Tensor:
    """Interpolate frames linearly in time. The first and last frame stay.

    Args:
        frames: Frames [B, F, …]. A single frame is repeated.
        n_frames: Number of frames of the result.
        decimals: Number of decimals to which weights are rounded, or None. NEURONS: 2.

    Returns:
        Frames [B, n_frames, …].
    """
    # position of each new frame among the old frames
    last = frames.shape[1] - 1
    steps = torch.arange(n_frames, dtype=torch.float64)
    positions = steps * last / max(n_frames - 1, 1)
    previous = positions.floor().long()
    following = (previous + 1).clamp(max=last)

    # mix the previous and the following frame
    weights_of_following = positions - previous
    if decimals is not None:
        weights_of_following = weights_of_following.round(decimals=decimals)
    share_shape = [n_frames] + [1] * (frames.ndim - 2)
    share = weights_of_following.to(frames).view(share_shape)
    return frames[:, previous] * (1 - share) + frames[:, following] * share
