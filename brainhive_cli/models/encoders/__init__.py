"""Frozen vision encoders: picture to embedding."""

import json
import os
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    SerializeAsAny,
    model_validator,
)

from brainhive_cli.core.base import Line, MissingData, RecipeError, find_error, guess
from brainhive_cli.core.files import Input, documents, hub, locate
from brainhive_cli.core.recipes import Paths, parts, split_commas, validate

if TYPE_CHECKING:
    import torch

StimulusContent = Literal["pixels", "captions", "masks", "labels"]
"""Content of a stimulus that an encoder can encode."""
DEGRADATION_PATTERN = re.compile(
    r"(gaussian|fovea|low-resolution|mosaic|noise)-([1-9]\d{0,2})"
)
DEFAULT_ENCODERS = ("clip-h14", "vae")
"""Default encoders of a recipe, for meaning and structure, as in BrainHiVE."""
EMBEDDING = "embedding"
"""Default output of an encoder."""
INPUT_KEYS = {"pictures", "degrade", "views"}
"""Keys that change the input of an encoder, but not its network."""
STORE_NAME_PATTERN = re.compile(
    rf"(?P<kind>.+?)(-(?P<degrade>{DEGRADATION_PATTERN.pattern}))?"
    r"(-view-(?P<views>\d{1,5}))?"
)
"""Name of a store, with the degradation and the view that it encodes, such as
`clip-b32-gaussian-15-view-2`.
"""
IMPORTED = "imported"
"""Kind of a user's own model of which only vectors were imported."""
MAX_OWN_NAME_LETTERS = 64
"""Largest length of such a name, which appears in paths, tables and figures."""
TINY_ARCHITECTURES = documents.read(
    Path(__file__).with_name("tiny_architectures.yaml"), dict[str, dict[str, Any]]
)
"""Architectures of networks with random weights that are small enough for tests, keyed
by encoder.
"""


def check_degradation(degradation: str) -> str:
    """Return a valid degradation, such as `gaussian-15`.

    Raises:
        ValueError: if the degradation is unknown, or its kernel has an even width.
    """
    # a kernel is centred on a pixel, so its width is odd
    match = DEGRADATION_PATTERN.fullmatch(degradation)
    if match is None or (match[1] in ("gaussian", "fovea") and int(match[2]) % 2 == 0):
        raise ValueError(
            "a degradation is gaussian-K or fovea-K (an odd kernel, pixels), "
            "low-resolution-N or mosaic-N (sides divided by N), or noise-SD (of 255)"
        )
    return degradation


Degradation = Annotated[str, AfterValidator(check_degradation)]
"""Degradation of pictures and its strength, such as `gaussian-15`."""


class ModelConfig(BaseModel):
    """Kind and sizes of a model, as its config.json states them."""

    model_config = ConfigDict(protected_namespaces=())

    model_type: str = ""
    class_name: str = Field("", alias="_class_name")
    architecture: str | None = None
    pretrained_cfg: dict[str, Any] | None = None
    projection_dim: PositiveInt | None = None
    """Width of the projection. LAION's folders lack it in the configs of the towers."""
    image_size: Any = None
    patch_size: Any = None
    mask_ratio: float | None = None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the config.json of a model's folder.

        Raises:
            MissingData: if the file is absent or damaged.
        """
        return documents.read(
            folder / "config.json", cls, documents.DOWNLOAD_HINT, MissingData
        )


@dataclass(frozen=True)
class Encoder:
    """A frozen network with its own preprocessing.

    Attributes:
        network: Network, or a function that loads it when `module` is first used.
        preprocess: Converts an RGB picture to a tensor [3, H, W]. If `reads` is not
            "pixels", it converts a caption, a mask [H, W] or all labels [K].
        preprocessing: Description of `preprocess`. Different preprocessing has a
            different description.
        weights: Source, revision and digest of the weights.
        reads: Content of a stimulus that is encoded.
    """

    network: "torch.nn.Module | Callable[[], torch.nn.Module]"
    preprocess: "Callable[[Any], torch.Tensor]"
    preprocessing: str
    weights: dict[str, str] = field(default_factory=dict)
    reads: StimulusContent = "pixels"

    def preprocess_all(self, stimuli: Sequence[Any]) -> "torch.Tensor":
        """Preprocess K pictures, captions or masks to a tensor [K, …]."""
        import torch

        return torch.stack([self.preprocess(stimulus) for stimulus in stimuli])

    @cached_property
    def module(self) -> "torch.nn.Module":
        """Frozen network, loaded at the first use.

        It maps pictures [B, 3, H, W] to targets [B, *shape], or to a list of several
        outputs.
        """
        import torch

        network = self.network
        if not isinstance(network, torch.nn.Module):
            network = network()
        return network.eval().requires_grad_(False)

    def with_degradation(self, degradation: str) -> Self:
        """Make an encoder of degraded pictures that shares the loaded network.

        Args:
            degradation: Degradation, such as `gaussian-15`. Its kernel is in pixels of
                pictures as large as the network's input.
        """
        from PIL import Image

        # a preprocessed picture [3, H, W] tells the size of the network's input
        side_px = min(self.preprocess(Image.new("RGB", (64, 64))).shape[-2:])

        # `self.module` loads the network once for both encoders
        return replace(
            self,
            network=lambda: self.module,
            preprocess=lambda picture: self.preprocess(
                degrade(picture, degradation, side_px)
            ),
            preprocessing=(
                f"short side {side_px} bicubic, {degradation}, then "
                f"{self.preprocessing}"
            ),
        )


class EncoderConfig(parts.Config):
    """Base class of the Configs of encoders."""

    upstream: ClassVar[str] = ""
    """Name of the encoder in BrainHiVE's own files (`proj_meta`)."""
    dim: ClassVar[int | None] = None
    """Width D of the embedding, or None if it depends on the source."""
    shape: ClassVar[tuple[int | str, ...] | None] = None
    """Shape of a target that is not a vector, for the default source. A text is the
    name of the key that holds the size.
    """
    image_px: ClassVar[int | None] = None
    """Side in pixels of the network's input, or None if it depends on the source."""
    licence: ClassVar[str] = ""
    """Licence of the weights."""
    config_files: ClassVar[tuple[str, ...]] = ()
    """Files that must be in the folder of the weights."""
    weight_files: ClassVar[tuple[str, ...]] = hub.WEIGHT_PATTERNS
    """Patterns of weight files, of which the first with a match is loaded. Empty if the
    encoder has no weights.
    """
    also_fetched: ClassVar[tuple[str, ...]] = ()
    """Further patterns in the command that downloads the weights, for files that some
    publishers have in place of the first.
    """
    encodes_latents: ClassVar[bool] = False
    """True if the embeddings are latents of an autoencoder that a generator decodes."""
    usual_cosine: ClassVar[tuple[float, float]] = (-1.0, 0.98)
    """Plausible range of the median cosine between the embeddings of two random
    pictures.
    """
    usual_repeats: ClassVar[float] = 0.5
    """Largest plausible share of embeddings that have a near-duplicate."""
    usual_dead: ClassVar[float] = 0.1
    """Largest plausible share of dimensions that are constant."""
    is_alignment: ClassVar[bool] = False
    """True if the name is `base+alignment`, from the file `base_alignment.py`."""
    store_dtype: ClassVar[str] = ""
    """Integer type of the stored targets. Empty if the recipe chooses the type."""

    pictures: str | None = Field(
        None,
        # stores name the key only if it is set
        exclude_if=lambda pictures: pictures is None,
        description="folder of pictures that are encoded in place of the stimuli, such "
        "as pictures made from captions (HAVIR, June 2025); files are named by the "
        "stimulus ids",
    )

    degrade: Degradation | list[Degradation] | None = Field(
        None,
        exclude_if=lambda degrade: degrade is None,  # as `pictures`
        description="degradation of the pictures, in training and test: gaussian-K or "
        "fovea-K (kernel, in pixels of the network's input), low-resolution-N or "
        "mosaic-N (sides divided by N), or noise-SD (of 255, always the same for a "
        "picture); a list makes a store for each",
    )

    views: (
        Literal["each", "all", "average"] | Annotated[int, Field(ge=0, le=100_000)]
    ) = Field(
        "each",
        exclude_if=lambda views: views == "each",  # as `pictures`
        description="targets of the frames of a clip, or of several captions: each (a "
        "target for each, and training draws one in a step), all (one target "
        "[F, ...]), average (their mean, also over the exemplars of a category), or "
        "the number of a single view, counted from 0",
    )

    def __str__(self) -> str:
        """Return the form for a recipe: the reference or own name if it suffices."""
        knobs = self.model_dump(mode="json", exclude_defaults=True)
        kind = self.kind
        source = str(knobs.get("source"))
        has_short_form = kind in ("python", "reference") or (
            kind == IMPORTED and is_own_name(source)
        )
        # two keys: kind and source alone define the encoder
        if has_short_form and len(knobs) == 2:
            return source
        return super().__str__()

    @property
    def weights_source(self) -> str:
        """Source of the weights, such as `hub:owner/name`. Empty without such a key."""
        return str(getattr(self, "source", None) or "")

    @property
    def output_names(self) -> str | list[str]:
        """Requested output or outputs. `EMBEDDING` for encoders without that key."""
        return getattr(self, "output", EMBEDDING)

    @property
    def content(self) -> StimulusContent:
        """Content of a stimulus that is encoded."""
        return getattr(self, "reads", "pixels")

    @model_validator(mode="after")
    def _refuse_changed_pixels(self) -> Self:
        # captions, masks and labels have no pixels to replace or to degrade
        for key in ("pictures", "degrade"):
            if getattr(self, key) is not None and self.content != "pixels":
                raise ValueError(f"{key} has no effect on an encoder of {self.content}")
        return self

    @property
    def view_pooling(self) -> str:
        """Rule that combines the views (frames or captions) of a stimulus.

        "all", "average" or "first". Empty if each view is a target.
        """
        # encoders of captions name the rule as an output
        if self.output_names in ("average", "first"):
            return str(self.output_names)
        return str(self.views) if self.views in ("all", "average") else ""

    @property
    def name(self) -> str:
        """Name of the store: encoder, outputs, degradations and view.

        A digest of the other keys follows if they are not at their defaults.
        """
        # `name_without_digest` states these keys in words
        named_keys = {"source", "output", "degrade", "views"}
        knobs = self.model_dump(mode="json", exclude=named_keys)
        default = type(self).model_construct()
        default_knobs = default.model_dump(mode="json", exclude=named_keys)
        if knobs == default_knobs:
            return self.name_without_digest
        text = json.dumps(knobs, sort_keys=True)
        return f"{self.name_without_digest}-{documents.digest_text(text)[:8]}"

    @property
    def name_without_digest(self) -> str:
        """Words for encoder, outputs, degradations and view, as in
        `clip-rn50-gaussian-15`."""
        name = self._base_name()
        if self.output_names != EMBEDDING:
            name += "-" + "-".join(as_list(self.output_names)).replace(".", "-")
        if self.degrade:
            name += "-" + "-".join(as_list(self.degrade))
        if self.views != "each":
            pooling = self.view_pooling
            name += f"-{pooling}" if pooling else f"-view-{self.views}"
        return name

    @property
    def published_name(self) -> str:
        """Name in BrainHiVE's own files, or the name of the store without such a name.

        BrainHiVE names only the undegraded embedding.
        """
        is_embedding = self.output_names == EMBEDDING and self.degrade is None
        return self.upstream if is_embedding and self.upstream else self.name

    @property
    def store_configs(self) -> list[Self]:
        """Configs of the stores, one for each pair of output and degradation."""
        updates: list[dict[str, Any]] = [{}]
        for key in ("output", "degrade"):
            values = getattr(self, key, None)
            if not isinstance(values, list):
                continue
            combined = []
            for value in dict.fromkeys(values):
                for update in updates:
                    combined.append({**update, key: value})
            updates = combined
        if updates == [{}]:
            return [self]
        return [self.model_copy(update=update) for update in updates]

    def with_input_of(self, store_name: str) -> Self:
        """Copy the Config, with the degradation and view that a store's name states."""
        degradation = DEGRADATION_PATTERN.search(store_name)
        # Suffix of the name of a store that encodes a single view.
        view = re.search(r"-view-(\d{1,5})", store_name)
        update = {
            "degrade": degradation[0] if degradation else None,
            "views": int(view[1]) if view else "each",
        }
        return self.model_copy(update=update)

    @property
    def network_key(self) -> str:
        """Text that is equal for all encoders with the same network."""
        knobs = self.model_dump(mode="json", exclude={"output", *INPUT_KEYS})
        return json.dumps(knobs, sort_keys=True)

    @property
    def is_available(self) -> bool:
        """True if the weights are on this machine, or if there are none.

        False for a user's function, and for an encoder without a source.
        """
        source = self.weights_source
        if not self.weight_files or source == "random":
            return True
        if not source or source.startswith("python:"):
            return False
        return bool(hub.find_weights(source, self.config_files, self.weight_files))

    def inputs(self) -> list[Input]:
        """List the weights if they are on the hub, without a download."""
        source = self.weights_source
        if not source.startswith("hub:"):
            return []
        weights = hub.find_input(
            source, self.config_files, self.weight_files, self.also_fetched
        )
        return [weights]

    @property
    def static_shape(self) -> tuple[int, ...] | None:
        """Shape of a target, without loading the network.

        None if the shape depends on weights, or on keys that differ from the defaults.
        """
        if self.shape is None and self.dim is None:
            return None
        sizes: tuple[int | str, ...] = self.shape or (self.dim or 0,)

        # a degradation does not change the width, and output or input do not change a
        # stated shape; other keys must have their defaults
        free_keys = {"degrade"}
        if self.shape:
            free_keys = {"output"} | INPUT_KEYS | set(map(str, sizes))
        free_keys &= type(self).model_fields.keys()
        default = type(self)()
        if self.model_dump(exclude=free_keys) != default.model_dump(exclude=free_keys):
            return None
        return tuple(
            getattr(self, size) if isinstance(size, str) else size for size in sizes
        )

    def _base_name(self) -> str:
        # names of torch modules cannot contain a dot, as an import path does
        name = self.kind.replace(".", "-")
        if self.is_alignment:
            name = "+".join(self.kind.rsplit("-", 1))
        source_key = type(self).model_fields.get("source")
        if source_key is None or self.weights_source == (source_key.default or ""):
            return name
        slug = build_slug(self.weights_source)
        return f"{name}--{slug}" if self.is_alignment else slug

    def build(self) -> Encoder:
        """Prepare preprocessing and network. `degrade` is applied by `prepare`."""
        raise NotImplementedError

    def prepare(self) -> Encoder:
        """Build the encoder, with the degradation of the recipe."""
        assert not isinstance(self.degrade, list)
        encoder = self.build()
        return encoder.with_degradation(self.degrade) if self.degrade else encoder


class AnnotationConfig(EncoderConfig):
    """Base class of encoders without a network, for masks, labels or captions."""

    usual_cosine = (-1.0, 1.0)
    usual_repeats = 1.0
    usual_dead = 1.0
    weight_files = ()


class ImportedConfig(EncoderConfig):
    """A user's own model, whose vectors `import-embeddings --as NAME` has imported."""

    source: str = Field(description="name of its stores")

    @property
    def kind(self) -> str:
        """Kind in recipes. It has no module, because the model cannot be built."""
        return IMPORTED

    @property
    def weights_source(self) -> str:
        """Empty, because the user keeps the weights."""
        return ""

    @model_validator(mode="after")
    def _require_own_name(self) -> Self:
        reason = describe_bad_own_name(self.source)
        if reason:
            raise RecipeError(
                f"own vectors cannot be called {self.source[:80]!r}: {reason}",
                OWN_NAME_HINT,
            )
        # these keys change the pictures, but no picture is encoded
        if self.pictures or self.degrade or self.views != "each":
            raise RecipeError(
                f"{self.source} was imported, so pictures, degrade and views have "
                "no effect on it",
                f"--encoders {self.source}",
            )
        return self

    def _base_name(self) -> str:
        return self.source

    def inputs(self) -> list[Input]:
        """List the model as an input that is missing."""
        return [Input(f"encoder {self.source}", error=find_error(self.build))]

    def build(self) -> Encoder:
        """Raise an error, because only vectors were imported.

        Raises:
            MissingData: always.
        """
        line = Line(
            "import-embeddings", "FILE", ("as", self.source), ("dataset", "NAME")
        )
        raise MissingData(
            f"{self.source} was imported as vectors, without a network that could "
            "encode pictures",
            f"{line}, or use another encoder",
        )


OWN_NAME_HINT = (
    f"up to {MAX_OWN_NAME_LETTERS} letters and digits, with - or _ between them: "
    "--as my-model"
)
"""Hint of an error about the name of own vectors."""


def describe_bad_own_name(name: str) -> str:
    """Return the reason why own vectors cannot have a name, or "" for a valid name."""
    # Name that users can give to their own vectors. It is valid as a file name on every
    # system, and as the name of a module.
    if (
        not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*([_-][A-Za-z0-9]+)*", name)
        or len(name) > MAX_OWN_NAME_LETTERS
    ):
        return "it must be a plain file name"
    # Words that YAML reads as a value instead of a text.
    if name.lower() in {"null", "true", "false"}:
        return "recipes read this word as a value"

    # the stores of a shipped encoder begin with its kind and a hyphen
    prefix = parts.kind_from_file_name(name).lower() + "-"
    for kind in parts.list_kinds("encoders"):
        if prefix.startswith(f"{kind}-"):
            return f"the stores of the shipped encoder {kind} have such names"

    # the stores of degraded pictures and single views have fixed endings
    match = STORE_NAME_PATTERN.fullmatch(name)
    if match and (match["degrade"] or match["views"]):
        return "the stores of degraded pictures and of views have this ending"
    return ""


def is_own_name(name: str) -> bool:
    """Return True if a store of own vectors has this name."""
    return name in list_own_names()


def list_own_names() -> list[str]:
    """List the names of own vectors of all data sets."""
    # stores are embeddings/DATASET/SPLIT/NAME.h5
    names = {path.stem for path in Paths().under_home("embeddings").glob("*/*/*.h5")}
    return sorted(name for name in names if not describe_bad_own_name(name))


def as_list(values: str | list[str]) -> list[str]:
    """Return a list of a value that is a text or a list of texts."""
    return [values] if isinstance(values, str) else values


def source_field(source: str) -> Any:
    """Make the field `source` with a default."""
    return Field(source, description="the same layout elsewhere, or `random`")


def build_slug(source: str) -> str:
    """Build a name for files and modules from the source of weights.

    `hub:owner/name` becomes `owner--name`. A folder becomes `local--name`, which is
    never the name of an encoder.
    """
    if ":" in source:
        slug = source.partition(":")[2].replace("/", "--")
    else:
        slug = f"local--{Path(source).name}"
    return slug.replace(":", "-").replace(".", "-")


def join_outputs(configs: Sequence[EncoderConfig]) -> EncoderConfig:
    """Join Configs of the same network into one that lists their outputs, in order."""
    if len(configs) == 1:
        return configs[0]
    outputs = [config.output_names for config in configs]
    return configs[0].model_copy(update={"output": outputs})


def join_names(encoders: Sequence[EncoderConfig]) -> str:
    """Join the names of encoders for the name of a run, as in `clip-h14+vae`.

    Names beyond `max_joined_letters` are counted, as in `clip-h14+vae+3-more`. A long
    first name keeps its end, because a path or repository ends in what it names.
    """
    # Largest length of the joined names of encoders in the name of a run.
    max_joined_letters = 32
    # the fingerprint of the run tells encoders apart that differ in other keys
    joined = encoders[0].name_without_digest[-max_joined_letters:].lstrip("-._")
    for number, encoder in enumerate(encoders[1:], 1):
        longer = f"{joined}+{encoder.name_without_digest}"
        if len(longer) > max_joined_letters:
            return f"{joined}+{len(encoders) - number}-more"
        joined = longer
    return joined


def resolve(reference: Any) -> EncoderConfig:
    """Return the Config of an encoder.

    Args:
        reference: Mapping or Config, or a text: `kind[:output]`, the name of own
            vectors, `hub:owner/name`, a local folder, or
            `python:package.module:function`.

    Raises:
        RecipeError: if there is no such encoder.
    """
    knobs = _parse_reference(reference) if isinstance(reference, str) else reference
    kind = knobs.get("kind") if isinstance(knobs, Mapping) else knobs

    # a slash remains only in a reference to a folder that does not exist
    if isinstance(kind, str) and "/" in kind:
        raise RecipeError(
            f"no encoder or folder {kind!r}", "hub:OWNER/NAME, or a folder that exists"
        )

    # own vectors are not a part
    if kind == IMPORTED and isinstance(knobs, Mapping):
        knobs = dict(knobs)
        del knobs["kind"]
        return validate(ImportedConfig, knobs, "encoder")
    if (
        isinstance(kind, str)
        and not parts.is_kind("encoders", kind)
        and not describe_bad_own_name(kind)
    ):
        names = parts.list_kinds("encoders") + list_own_names()
        line = Line("import-embeddings", "FILE", ("as", kind))
        hint = f"choose from: {', '.join(names)}. To import your own vectors: {line}"
        raise RecipeError(
            f"no encoder called {kind!r}",
            guess(parts.kind_from_file_name(kind), names) + hint,
        )

    config: EncoderConfig = parts.resolve("encoders", knobs)
    if not config.name:
        raise RecipeError(
            f"the reference {reference!r} names no encoder",
            "hub:owner/name, or a folder",
        )
    return config


def _parse_reference(reference: str) -> Any:
    """Return the keys of the encoder that a text names, or else the text itself."""
    if reference.startswith("python:"):
        return {"kind": "python", "source": reference}
    if reference.startswith(("hub:", "demo:")):
        return {"kind": "reference", "source": reference}

    # a kind wins over a folder of the same name
    name, _, output = reference.partition(":")
    if parts.is_kind("encoders", name):
        return {"kind": name, "output": output} if output else {"kind": name}

    # encoders of imported vectors have no further outputs
    if is_own_name(name):
        if output:
            raise RecipeError(
                f"{name} was imported, and has no output {output!r}",
                f"--encoders {name}",
            )
        return {"kind": IMPORTED, "source": name}

    if os.path.isdir(locate(reference)):
        return {"kind": "reference", "source": reference}
    return reference


def resolve_all(references: Any) -> Any:
    """Return a Config for each store of a list of references, without duplicates.

    Args:
        references: List of references, or a text such as `a,b`. Other values are
            returned unchanged.
    """
    references = split_commas(references)
    if not isinstance(references, list | tuple):
        return references
    # the first mention of a Config decides the order
    configs = {}
    for reference in references:
        for config in resolve(reference).store_configs:
            configs[config.model_dump_json()] = config
    return list(configs.values())


Encoders = Annotated[list[SerializeAsAny[EncoderConfig]], BeforeValidator(resolve_all)]
"""Encoders of a recipe: a list of names, references or mappings, or a text such as
`a,b`. Each output has a Config.
"""


def degrade(picture: Any, degradation: str, side_px: int) -> Any:
    """Degrade a picture.

    Args:
        picture: RGB picture.
        degradation: Degradation, such as `gaussian-15`. Noise depends only on the
            picture and the strength.
        side_px: Short side, to which the picture is resized first. Kernels are in
            pixels of the resized picture.

    Source: UBP (fovea), Visual Blur Perception (gaussian), NeuroBridge (gaussian,
    noise, low resolution and mosaic in one mean). Their code uses OpenCV, which differs
    by one grey value at most.
    """
    from torchvision.transforms.v2 import functional as F

    match = DEGRADATION_PATTERN.fullmatch(degradation)
    assert match
    kind = match[1]
    strength = int(match[2])
    resized = F.resize(picture, [side_px], F.InterpolationMode.BICUBIC)
    pixels = F.pil_to_tensor(resized)  # [3, H, W]
    height, width = pixels.shape[1:]
    small = [max(1, height // strength), max(1, width // strength)]

    # pixels stay bytes, because encoders take pictures
    if kind == "gaussian":
        pixels = _blur(pixels, strength)
    elif kind == "fovea":
        sharpness = build_fovea_mask(height, width)
        blurred = _blur(pixels, strength)
        pixels = (pixels * sharpness + blurred * (1 - sharpness)).round().byte()
    elif kind == "low-resolution":
        pixels = F.resize(F.resize(pixels, small), [height, width])
    elif kind == "mosaic":
        pixels = F.resize(pixels, small, antialias=False)
        pixels = F.resize(pixels, [height, width], F.InterpolationMode.NEAREST)
    else:
        # the seed depends on the pixels, so the noise is the same in every epoch
        checksum = zlib.crc32(np.asarray(resized).tobytes())
        rng = np.random.default_rng([checksum, strength])
        noise = rng.normal(scale=strength, size=pixels.shape)
        pixels = (pixels + noise).round().clamp(0, 255).byte()
    return F.to_pil_image(pixels)


def build_fovea_mask(height: int, width: int) -> "torch.Tensor":
    """Compute the share [H, W] of the sharp picture in each pixel."""
    import torch

    y = torch.arange(height) - height // 2
    x = torch.arange(width) - width // 2
    distance = torch.hypot(y[:, None].float(), x.float())
    # UBP divides by the distance of the last corner; along sides of even length the
    # first row and column are farther away
    relative_distance = (distance / distance[-1, -1]).clamp(max=1)
    # Share of the sharp picture in the centre (UBP).
    fovea_centre_sharpness = 0.5
    # Rate at which sharpness falls with the distance from the centre, which is 1 in the
    # corner (UBP, Wu et al., CVPR 2025).
    return fovea_centre_sharpness * torch.exp(-3 * relative_distance)


def _blur(pixels: "torch.Tensor", kernel_px: int) -> "torch.Tensor":
    """Blur pixels [3, H, W] by a Gaussian of width K pixels, with mirrored borders.

    The standard deviation is .3 ((K - 1) / 2 - 1) + .8, torchvision's default.
    """
    from torchvision.transforms.v2 import functional as F

    side_px = min(pixels.shape[1:])
    if kernel_px // 2 >= side_px:
        raise RecipeError(
            f"a kernel of {kernel_px} pixels is too large for pictures of {side_px}",
            f"{side_px} at most",
        )
    return F.gaussian_blur(pixels, [kernel_px, kernel_px])
