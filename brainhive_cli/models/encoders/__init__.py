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

from brainhive_cli.core import documents, hub, parts
from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import Line, MissingData, RecipeError, find_error, guess
from brainhive_cli.core.files import locate
from brainhive_cli.core.key_types import split_commas
from brainhive_cli.core.recipe import Paths, validate

if TYPE_CHECKING:
    import torch

Reads = Literal["pixels", "captions", "masks", "labels"]
"""What of a stimulus an encoder may encode."""
GRAMMAR = re.compile(r"(gaussian|fovea|low-resolution|mosaic|noise)-([1-9]\d{0,2})")
FALL_OFF, SHARP_SHARE = 3, 0.5
"""Speed at which the fovea's sharpness falls, and its share in the centre (UBP, Wu et
al., CVPR 2025).
"""
USUAL = ("clip-h14", "vae")
"""Encoders of recipes that name none: BrainHiVE's, for meaning and structure."""
EMBEDDING = "embedding"
"""The output that a family is usually used by."""
SEEN = {"pictures", "degrade", "views"}
"""Keys that say what an encoder sees of a stimulus, whatever its network."""
NAME = re.compile(
    rf"(?P<kind>.+?)(-(?P<degrade>{GRAMMAR.pattern}))?(-view-(?P<views>\d{{1,5}}))?"
)
"""The name of an encoder's store, with what it says of what is seen."""
VIEW = re.compile(r"-view-(\d{1,5})")
"""In the name of a store: the one view that is encoded."""
IMPORTED = "imported"
"""The kind of a user's own model, of which only vectors are known."""
OWN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*([_-][A-Za-z0-9]+)*")
"""What a user may call the vectors of an own model: a file name, and an attribute of a
module, everywhere.
"""
MAX_OWN_NAME = 64
"""Letters of such a name, which stands in paths, in tables and in figures."""
TINY = documents.read(
    Path(__file__).with_name("tiny_architectures.yaml"), dict[str, dict[str, Any]]
)
"""Architectures of random weights that are small enough for tests, by encoder."""
YAML_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "none"}
"""Words that a recipe reads as something else than a name."""


def check_degradation(how: str) -> str:
    """Refuse what is no degradation, and kernels without a middle."""
    # a kernel is centred on a pixel, so its width is odd
    match = GRAMMAR.fullmatch(how)
    if match is None or (match[1] in ("gaussian", "fovea") and int(match[2]) % 2 == 0):
        raise ValueError(
            "a degradation is gaussian-K or fovea-K (an odd kernel, pixels), "
            "low-resolution-N or mosaic-N (sides divided by N), or noise-SD (of 255)"
        )
    return how


Degradation = Annotated[str, AfterValidator(check_degradation)]
"""What is done to pictures, with its strength: `gaussian-15`."""


class ModelConfig(BaseModel):
    """Kind of a model, as its config.json states it."""

    model_config = ConfigDict(protected_namespaces=())

    model_type: str = ""
    class_name: str = Field("", alias="_class_name")
    architecture: str | None = None
    pretrained_cfg: dict[str, Any] | None = None
    projection_dim: PositiveInt | None = None
    """Width of the projection, which LAION's folders leave out of the towers'
    configs.
    """
    image_size: Any = None
    patch_size: Any = None
    mask_ratio: float | None = None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read it from a model's folder; MissingData if it is absent or damaged."""
        return documents.read(
            folder / "config.json", cls, documents.DOWNLOAD_HINT, MissingData
        )


@dataclass(frozen=True)
class Encoder:
    """A frozen network with its own preprocessing.

    Attributes:
        network: A module, or what loads it when `module` is first used.
        preprocess: One RGB picture to [3, H, W]; one caption, one mask [H, W] or all
            labels [K] to a tensor, where these are read.
        preprocessing: What `preprocess` does, in words; other preprocessing has other
            words.
        weights: Where the weights come from: source, revision, digest.
        reads: What of a stimulus is encoded.
    """

    network: "torch.nn.Module | Callable[[], torch.nn.Module]"
    preprocess: "Callable[[Any], torch.Tensor]"
    preprocessing: str
    weights: dict[str, str] = field(default_factory=dict)
    reads: Reads = "pixels"

    def preprocess_all(self, stimuli: Sequence[Any]) -> "torch.Tensor":
        """Preprocess several pictures, captions or masks, such as the frames of a clip:
        [K, …].
        """
        import torch

        return torch.stack([self.preprocess(stimulus) for stimulus in stimuli])

    @cached_property
    def module(self) -> "torch.nn.Module":
        """Pictures [B, 3, H, W] to targets [B, *shape]; a list of them for several
        outputs.

        It is loaded when first used, and frozen.
        """
        import torch

        network = (
            self.network
            if isinstance(self.network, torch.nn.Module)
            else self.network()
        )
        return network.eval().requires_grad_(False)

    def degraded(self, how: str) -> Self:
        """Make an encoder of degraded pictures, which shares the network: it is loaded
        once for both.

        Kernels count pixels of pictures whose short side is that of the network's
        input.
        """
        from PIL import Image

        # side of the network's input, read off a preprocessed picture [3, H, W]
        side_px = min(self.preprocess(Image.new("RGB", (64, 64))).shape[-2:])

        # `self.module` loads the network once for the plain and the degraded encoder
        return replace(
            self,
            network=lambda: self.module,
            preprocess=lambda picture: self.preprocess(degrade(picture, how, side_px)),
            preprocessing=(
                f"short side {side_px} bicubic, {how}, then {self.preprocessing}"
            ),
        )


class EncoderConfig(parts.Config):
    """Base of encoders' Configs: a name under which its stores are kept, and what is
    known of it.
    """

    upstream: ClassVar[str] = ""
    """The name that BrainHiVE's own files give this encoder (`proj_meta`)."""
    dim: ClassVar[int | None] = None
    """D of the embedding; None where it depends on the source."""
    shape: ClassVar[tuple[int | str, ...] | None] = None
    """Shape of the target of the default source, where it is no vector; a text is the
    knob of that name.
    """
    image_px: ClassVar[int | None] = None
    """Side of the picture that the network sees, pixels; None where it depends on the
    source.
    """
    licence: ClassVar[str] = ""
    """Licence of the weights."""
    config_files: ClassVar[tuple[str, ...]] = ()
    """Files that must lie next to the weights."""
    weight_files: ClassVar[tuple[str, ...]] = hub.WEIGHT_PATTERNS
    """Patterns of weight files; the first that matches is loaded. None: it has no
    weights.
    """
    also_fetched: ClassVar[tuple[str, ...]] = ()
    """Further patterns in the line that gets the weights: what a publisher has instead
    of the first.
    """
    encodes_latents: ClassVar[bool] = False
    """Whether its embeddings are an autoencoder's latents, which generators decode."""
    usual_cosine: ClassVar[tuple[float, float]] = (-1.0, 0.98)
    """The least and most that the median cosine of random pairs of its embeddings is
    known to be.
    """
    usual_repeats: ClassVar[float] = 0.5
    """The share of its embeddings with a near-duplicate that no data set is known to
    reach.
    """
    usual_dead: ClassVar[float] = 0.1
    """The share of dimensions that never change that it is not known to reach: no
    working encoder is.
    """
    is_alignment: ClassVar[bool] = False
    """Whether it is called `base+alignment`, after its file `base_alignment.py`."""
    store_dtype: ClassVar[str] = ""
    """In which its targets are kept, where that is not the recipe's choice: whole
    numbers.
    """

    pictures: str | None = Field(
        None,
        # stores name it only where it is chosen
        exclude_if=lambda pictures: pictures is None,
        description="folder of other pictures, named by the stimuli's ids, that are "
        "encoded instead, such as pictures made from captions (HAVIR, June "
        "2025)",
    )

    degrade: Degradation | list[Degradation] | None = Field(
        None,
        exclude_if=lambda degrade: degrade is None,  # as `pictures`
        description="degraded pictures are encoded, in training and test: gaussian-K "
        "or fovea-K (kernel, in pixels of the network's input), "
        "low-resolution-N, mosaic-N (sides divided by N), noise-SD (of "
        "255, the same for a picture every time); several as a list: a "
        "store each",
    )

    views: (
        Literal["each", "all", "average"] | Annotated[int, Field(ge=0, le=100_000)]
    ) = Field(
        "each",
        exclude_if=lambda views: views == "each",  # as `pictures`
        description="frames of a clip, or captions: each is a target, of which "
        "training draws one a step; all are one target [F, ...]; average: "
        "their mean, as of a category's exemplars; a number: this one "
        "alone, counted from 0",
    )

    def __str__(self) -> str:
        """Write it as a recipe names it: by its reference or own name, where that says
        all.
        """
        knobs = self.model_dump(mode="json", exclude_defaults=True)
        kind = self.kind
        source = str(knobs.get("source"))
        # two keys: kind and source alone define the encoder
        is_named = kind in ("python", "reference") or (
            kind == IMPORTED and is_own_name(source)
        )
        return source if is_named and len(knobs) == 2 else super().__str__()

    @property
    def weights_from(self) -> str:
        """Source of the weights, such as `hub:owner/name`, where it has such a key;
        else empty.
        """
        return str(getattr(self, "source", None) or "")

    @property
    def layers(self) -> str | list[str]:
        """Outputs that are asked for, where it has such a key; else the embedding."""
        return getattr(self, "output", EMBEDDING)

    @property
    def encodes(self) -> Reads:
        """Part of a stimulus that is encoded."""
        return getattr(self, "reads", "pixels")

    @model_validator(mode="after")
    def _replaces_what_it_reads(self) -> Self:
        # captions, masks and labels have no pixels to replace or to degrade
        for key in ("pictures", "degrade"):
            if getattr(self, key) is not None and self.encodes != "pixels":
                raise ValueError(f"{key} has no effect on an encoder of {self.encodes}")
        return self

    @property
    def combines(self) -> str:
        """Way in which the targets of several captions or frames become one; empty
        where each is kept.
        """
        # outputs of captions say it themselves, `views` does for all others
        if self.layers in ("average", "first"):
            return str(self.layers)
        return str(self.views) if self.views in ("all", "average") else ""

    @property
    def name(self) -> str:
        """The store's name: encoder, output, degradation, and a digest of knobs that
        are not the default.
        """
        # knobs that the name's words do not say
        unlike = {"source", "output", "degrade", "views"}
        knobs = self.model_dump(mode="json", exclude=unlike)

        # words for encoder, outputs, degradations and views
        plain = self._base_name()
        if self.layers != EMBEDDING:
            plain += "-" + "-".join(listed(self.layers)).replace(".", "-")
        if self.degrade:
            plain += "-" + "-".join(listed(self.degrade))
        if self.views != "each":
            plain += f"-{self.combines}" if self.combines else f"-view-{self.views}"

        # other knobs at their defaults leave no trace
        if knobs == type(self).model_construct().model_dump(
            mode="json", exclude=unlike
        ):
            return plain
        text = json.dumps(knobs, sort_keys=True)
        return f"{plain}-{documents.digest_text(text)[:8]}"

    @property
    def known_as(self) -> tuple[str, ...]:
        """The keys by which a prior or aligner may name this encoder."""
        is_usual = self.layers == EMBEDDING and self.degrade is None
        upstream = self.upstream if is_usual else ""
        # without duplicates, the store's name first
        return tuple(dict.fromkeys(filter(None, (self.name, upstream))))

    @property
    def outputs(self) -> list[Self]:
        """The same encoder once for each of its outputs and degradations: one store
        each.
        """
        # product of the listed outputs and degradations
        updates: list[dict[str, Any]] = [{}]
        for key in ("output", "degrade"):
            if isinstance(values := getattr(self, key, None), list):
                updates = [
                    {**update, key: value}
                    for value in dict.fromkeys(values)
                    for update in updates
                ]
        if updates != [{}]:
            return [self.model_copy(update=update) for update in updates]
        return [self]

    def seeing_as(self, name: str) -> Self:
        """Make the same encoder of what the name of a store says that is seen: a
        degradation, a view.
        """
        degrade = GRAMMAR.search(name)
        view = VIEW.search(name)
        views = int(view[1]) if view else "each"
        return self.model_copy(
            update={"degrade": degrade and degrade[0], "views": views}
        )

    @property
    def network_key(self) -> str:
        """Key that encoders with the same network have in common."""
        return json.dumps(
            self.model_dump(mode="json", exclude={"output", *SEEN}), sort_keys=True
        )

    @property
    def is_here(self) -> bool:
        """Whether the weights are on this machine, without a network; False for a
        user's function.
        """
        source = self.weights_from
        # without weights nothing is needed; without a source, or of a user's function,
        # no file is known
        if not self.weight_files or source == "random":
            return True
        if not source or source.startswith("python:"):
            return False
        return bool(hub.find_weights(source, self.config_files, self.weight_files))

    def inputs(self) -> list[Input]:
        """Look for the weights, where they are the hub's."""
        source = self.weights_from
        files = (self.config_files, self.weight_files, self.also_fetched)
        return [hub.find_input(source, *files)] if source.startswith("hub:") else []

    @property
    def known_shape(self) -> tuple[int, ...] | None:
        """Shape of a target where the defaults fix it: known before any weights are
        here.
        """
        if self.shape is None and self.dim is None:
            return None
        # degradation changes no width, and what is seen no stated shape; other keys
        # must have their defaults
        stated: tuple[int | str, ...] = self.shape or (self.dim or 0,)
        free = {"output", *SEEN, *map(str, stated)} if self.shape else {"degrade"}
        free &= type(self).model_fields.keys()
        if self.model_dump(exclude=free) != type(self)().model_dump(exclude=free):
            return None
        return tuple(
            getattr(self, size) if isinstance(size, str) else size for size in stated
        )

    def _base_name(self) -> str:
        # an import path as kind; torch's modules have no name with a dot
        name = (
            "+".join(self.kind.rsplit("-", 1))
            if self.is_alignment
            else self.kind.replace(".", "-")
        )
        default = type(self).model_fields.get("source")
        if default is None or self.weights_from == (default.default or ""):
            return name
        source = slug(self.weights_from)
        return f"{name}--{source}" if self.is_alignment else source

    def build(self) -> Encoder:
        """Prepare the preprocessing, and the network to be loaded; `degrade` is not its
        task.
        """
        raise NotImplementedError

    def prepare(self) -> Encoder:
        """Build the encoder, of degraded pictures where the recipe says so."""
        assert not isinstance(self.degrade, list)
        return self.build().degraded(self.degrade) if self.degrade else self.build()


class AnnotationConfig(EncoderConfig):
    """Masks, labels or captions as they are, in the form that a head is compared
    with.
    """

    usual_cosine = (-1.0, 1.0)
    usual_repeats = 1.0
    usual_dead = 1.0
    weight_files = ()


class ImportedConfig(EncoderConfig):
    """A user's own model, known by the vectors that `import-embeddings --as NAME` made
    stores of.
    """

    source: str = Field(description="name of its stores")

    @property
    def kind(self) -> str:
        """Kind that recipes keep: it has no file, as nothing here can build it."""
        return IMPORTED

    @property
    def weights_from(self) -> str:
        """Nothing: the model's weights are the user's."""
        return ""

    @model_validator(mode="after")
    def _is_a_name_alone(self) -> Self:
        if reason := describe_bad_own_name(self.source):
            raise RecipeError(
                f"own vectors cannot be called {self.source[:80]!r}: {reason}",
                OWN_NAME_HINT,
            )
        # no picture is encoded, so there is nothing to replace, degrade or choose
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
        """Say that pictures cannot be encoded, where somebody would have to."""
        return [Input(f"encoder {self.source}", error=find_error(self.build))]

    def build(self) -> Encoder:
        """Refuse: only vectors were imported.

        Raises:
            MissingData: always.
        """
        line = Line(
            "import-embeddings", "FILE", ("as", self.source), ("dataset", "NAME")
        )
        raise MissingData(
            f"{self.source} was imported as vectors, so nothing here can encode "
            "pictures as it does",
            f"{line}, or another encoder",
        )


OWN_NAME_HINT = (
    f"up to {MAX_OWN_NAME} letters and digits, with - or _ between them: --as my-model"
)
"""What a user may call own vectors, in words."""


def describe_bad_own_name(name: str) -> str:
    """Say why own vectors cannot have a name: no file name, or one of a shipped
    encoder's stores; else "".
    """
    if not OWN_NAME.fullmatch(name) or len(name) > MAX_OWN_NAME:
        return "it must be a plain file name"
    if name.lower() in YAML_WORDS:
        return "recipes read this word as a value"

    # outputs, sizes and knobs of a shipped encoder follow its name after a hyphen
    folded = parts.kind_from_file_name(name).lower()
    if kind := next(
        (
            kind
            for kind in parts.list_kinds("encoders")
            if f"{folded}-".startswith(f"{kind}-")
        ),
        "",
    ):
        return f"stores of the shipped encoder {kind} are called so"

    # names that end as those of degraded pictures or of a single view
    seen = NAME.fullmatch(name)
    if seen and (seen["degrade"] or seen["views"]):
        return "stores of degraded pictures and of views end so"
    return ""


def is_own_name(name: str) -> bool:
    """Whether a store at home has a name that only own vectors may have."""
    return name in own_names()


def own_names() -> list[str]:
    """List the names of own vectors, of all data sets at home: those that only own
    vectors may have.
    """
    # one store a file: embeddings/DATASET/SPLIT/NAME.h5
    names = {path.stem for path in Paths().under_home("embeddings").glob("*/*/*.h5")}
    return sorted(name for name in names if not describe_bad_own_name(name))


def listed(values: str | list[str]) -> list[str]:
    """Make a list of a key that holds one name or several."""
    return [values] if isinstance(values, str) else values


def located(source: str) -> Any:
    """Make the field `source` with a default."""
    return Field(source, description="the same layout elsewhere, or `random`")


def slug(source: str) -> str:
    """Make a file name, which is also a module's name, of a reference.

    `hub:owner/name` becomes `owner--name`; a folder `local--name`, so that it never
    takes an encoder's name.
    """
    below = (
        source.partition(":")[2].replace("/", "--")
        if ":" in source
        else f"local--{Path(source).name}"
    )
    return below.replace(":", "-").replace(".", "-")


def joined(configs: Sequence[EncoderConfig]) -> EncoderConfig:
    """Join Configs of the same network into one, whose module gives their outputs as a
    list, in order.
    """
    if len(configs) == 1:
        return configs[0]
    return configs[0].model_copy(
        update={"output": [config.layers for config in configs]}
    )


def resolve(reference: Any) -> EncoderConfig:
    """Turn an encoder's name, reference or mapping into its Config.

    A reference is `name[:output]`, the name of own vectors in a store,
    `hub:owner/name`, a local folder, or `python:package.module:function`.
    """
    # a slash is left only where a reference names neither a repository nor a folder
    # that exists
    knobs = _knobs(reference) if isinstance(reference, str) else reference
    kind = knobs.get("kind") if isinstance(knobs, Mapping) else knobs
    if isinstance(kind, str) and "/" in kind:  # neither a name nor an import path
        raise RecipeError(
            f"no encoder or folder {kind!r}", "hub:OWNER/NAME, or a folder that exists"
        )

    # own vectors, of which there is no part
    if kind == IMPORTED and isinstance(knobs, Mapping):
        return validate(
            ImportedConfig,
            {key: knobs[key] for key in knobs if key != "kind"},
            "encoder",
        )
    if (
        isinstance(kind, str)
        and not parts.is_kind("encoders", kind)
        and not describe_bad_own_name(kind)
    ):
        known = [*parts.list_kinds("encoders"), *own_names()]
        way = (
            f"there are: {', '.join(known)}; own vectors: "
            f"{Line('import-embeddings', 'FILE', ('as', kind))}"
        )
        raise RecipeError(
            f"no encoder called {kind!r}",
            guess(parts.kind_from_file_name(kind), known) + way,
        )

    # build the Config of the kind
    config: EncoderConfig = parts.resolve("encoders", knobs)
    if not config.name:
        raise RecipeError(
            f"the reference {reference!r} names no encoder",
            "hub:owner/name, or a folder",
        )
    return config


def _knobs(reference: str) -> Any:
    # references that say by their prefix what they are
    if reference.startswith("python:"):
        return {"kind": "python", "source": reference}
    if reference.startswith(("hub:", "demo:")):
        return {"kind": "reference", "source": reference}

    # the name of a kind, with an output
    name, _, output = reference.partition(":")
    if parts.is_kind("encoders", name):  # also where there is a folder of that name
        return {"kind": name, "output": output} if output else {"kind": name}

    # the name of own vectors, which are what they are
    if is_own_name(name):
        if output:
            raise RecipeError(
                f"{name} was imported, and has no output {output!r}",
                f"--encoders {name}",
            )
        return {"kind": IMPORTED, "source": name}

    # a folder, or what is refused by its name
    if os.path.isdir(locate(reference)):
        return {"kind": "reference", "source": reference}
    return reference


def resolve_all(references: Any) -> Any:
    """Turn a list of references, or `a,b`, into Configs, one an output, each once."""
    references = split_commas(references)
    if not isinstance(references, list | tuple):
        return references
    configs = [
        config for reference in references for config in resolve(reference).outputs
    ]

    # duplicates are dropped, the first mention decides the order
    return list({config.model_dump_json(): config for config in configs}.values())


Encoders = Annotated[list[SerializeAsAny[EncoderConfig]], BeforeValidator(resolve_all)]
"""A recipe's list of encoders: names, references or mappings; `a,b` is a list too; one
Config an output.
"""


def degrade(picture: Any, how: str, side_px: int) -> Any:
    """Degrade a picture whose short side is brought to `side_px` before, so that
    kernels count its pixels.

    Noise depends on the picture and its strength alone.

    Source: UBP (fovea), Visual Blur Perception (gaussian), NeuroBridge (gaussian,
    noise, low resolution and mosaic in one mean), whose code uses OpenCV: its
    arithmetic differs by one grey value at most.
    """
    from torchvision.transforms.v2 import functional as F

    # bring the picture to the size in which strengths are counted
    match = GRAMMAR.fullmatch(how)
    assert match
    kind = match[1]
    strength = int(match[2])
    resized = F.resize(picture, [side_px], F.InterpolationMode.BICUBIC)
    pixels = F.pil_to_tensor(resized)  # [3, H, W]
    sides = [*pixels.shape[1:]]
    small = [max(1, side // strength) for side in sides]

    # pixels stay bytes, as encoders take pictures
    if kind == "gaussian":
        pixels = _blur(pixels, strength)
    elif kind == "fovea":
        sharp = fovea_mask(*sides)
        pixels = (pixels * sharp + _blur(pixels, strength) * (1 - sharp)).round().byte()
    elif kind == "low-resolution":
        pixels = F.resize(F.resize(pixels, small), sides)
    elif kind == "mosaic":
        pixels = F.resize(pixels, small, antialias=False)
        pixels = F.resize(pixels, sides, F.InterpolationMode.NEAREST)
    else:
        # seeded by pixels and strength: the same noise in every epoch
        random = np.random.default_rng(
            [zlib.crc32(np.asarray(resized).tobytes()), strength]
        )
        noise = random.normal(scale=strength, size=pixels.shape)
        pixels = (pixels + noise).round().clamp(0, 255).byte()
    return F.to_pil_image(pixels)


def fovea_mask(height: int, width: int) -> "torch.Tensor":
    """Give the share of the sharp picture at each pixel, [H, W]."""
    import torch

    y = torch.arange(height) - height // 2
    x = torch.arange(width) - width // 2
    distance = torch.hypot(y[:, None].float(), x.float())
    # in sides of even length the first row and column are farther than the last, by
    # which UBP divides
    return SHARP_SHARE * torch.exp(
        -FALL_OFF * (distance / distance[-1, -1]).clamp(max=1)
    )


def _blur(pixels: "torch.Tensor", kernel_px: int) -> "torch.Tensor":
    """Blur by a Gaussian of sd .3 ((K - 1) / 2 - 1) + .8, borders mirrored:
    torchvision's default too.
    """
    from torchvision.transforms.v2 import functional as F

    if kernel_px // 2 >= (side_px := min(pixels.shape[1:])):
        raise RecipeError(
            f"a kernel of {kernel_px} pixels is too large for pictures of {side_px}",
            f"{side_px} at most",
        )
    return F.gaussian_blur(pixels, [kernel_px, kernel_px])
