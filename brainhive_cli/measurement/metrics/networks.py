"""The networks in whose features metrics compare pictures and clips, each loaded by its
own library.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from brainhive_cli.core import console, hub
from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import MissingData, first_line
from brainhive_cli.core.weights import describe_match, read, reading
from brainhive_cli.measurement.metrics import MetricPart, MetricScale
from brainhive_cli.measurement.metrics.image import (
    correlation,
    correlation_distance,
    resize,
    standardise,
    two_way_identification,
)
from brainhive_cli.measurement.metrics.semantics import (
    CaptionEmbeddings,
    CategoryScores,
    object_f1,
)
from brainhive_cli.measurement.metrics.video import (
    consistency,
    frame_similarity,
    n_way,
    n_way_chance,
    n_way_of_frames,
)

RIGHT_CLASSES = 3
"""Classes of the stimulus that count as right in the field's definition (NEURONS,
NeuroClips, MinD-Video).
"""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of the colours that torchvision's networks and SwAV were
trained with.
"""
OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""The same of CLIP."""
VIT = "hub:google/vit-base-patch16-224"
DINO = "hub:facebook/dino-vitb16"
VIDEOMAE = "hub:MCG-NJU/videomae-base-finetuned-kinetics"
FRAMES = 6
"""Frames that VideoMAE is built for: those of a clip of cc2017 (NEURONS,
NeuroClips).
"""
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Mean and standard deviation of ViT's colours."""
SWAV = "https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar"
"""The file that `torch.hub.load("facebookresearch/swav:main", "resnet50")` fetches."""
CLIP = "hub:openai/clip-vit-large-patch14"
TEXT_FILES = ("config.json", "vocab.txt", "tokenizer_config.json")
"""Files of networks that read or write text."""

Colours = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class MetricNetwork:
    """A network and the nodes whose outputs are compared.

    Attributes:
        title: Its name for people.
        side_px: Side of the square pictures that it takes.
        outputs: Reads each output that is compared, by its node, from what the module
            gives.
        source: The address of its weights: a file's, or hub:OWNER/NAME.
        load: Builds its module, of pictures [B, 3, side, side], from the path that
            `fetch` returns.
        colours: Mean and standard deviation that its pictures are normalised by.
        takes_clips: Whether it takes clips [B, F, 3, side, side], and not their frames
            one by one.
        weights: The file at the hub.
        files: Other files that it needs of the hub.
    """

    title: str
    side_px: int
    outputs: Mapping[str, Callable[[Any], Tensor]]
    source: str
    load: Callable[[Path], nn.Module]
    colours: Colours = IMAGENET
    takes_clips: bool = False
    weights: str = "model.safetensors"
    files: tuple[str, ...] = ("config.json",)

    def is_here(self) -> bool:
        """Whether its weights are on this machine; no network is used."""
        # weights at the hub need their configuration too
        if self.source.startswith("hub:"):
            return bool(hub.find_weights(self.source, self.files, [self.weights]))
        return cached_file(self.source).is_file()

    def fetch(self) -> Path:
        """Find its weights, downloading them if necessary; MissingData if they cannot
        be had.
        """
        if self.source.startswith("hub:"):
            # one file of weights, as repositories may hold several formats
            return hub.folder(
                self.source, allow=(*self.files, self.weights), local=self.is_here()
            )
        return from_url(self.source, self.title)

    def find_input(self) -> Input:
        """Look for its weights; no network is used, and what they measure is left out
        without them.
        """
        # a missing file is described by the line that fetches it
        name = f"weights of {self.title}"
        scheme, _, repository = self.source.partition(":")
        if self.is_here():
            return Input(name)
        if scheme == "hub":
            files = (*self.files, self.weights)
            line = hub.download_line(repository, "model", files)
        else:
            line = f"curl -L --create-dirs -o {cached_file(self.source)} {self.source}"
        return Input(
            name, None, MissingData(f"the {name} are not here", line), is_optional=True
        )

    def build(self, device: torch.device) -> "Features":
        """Load the network onto a device.

        Raises:
            MissingData: if its weights are not there, cannot be fetched or are damaged.
        """
        # a damaged file ends in one line, with the way to fetch it again
        path = self.fetch()
        with reading(f"{self.title} in {path}", refetch_hint(path)):
            module = self.load(path)
        return Features(module.eval().requires_grad_(False).to(device), self, device)


class Features:
    """Features of media by a loaded network, whose module takes normalised media."""

    def __init__(
        self, module: nn.Module, network: MetricNetwork, device: torch.device
    ) -> None:
        self._module = module
        self._network = network
        self._mean, self._std = (
            torch.tensor(c, device=device).view(3, 1, 1) for c in network.colours
        )
        self._last: tuple[Tensor, dict[str, Tensor]] | None = None

    @torch.inference_mode()
    def __call__(self, media: Tensor) -> dict[str, Tensor]:
        """Compute features [B, D] by node of pictures [B, 3, H, W] in 0..1.

        Those of clips [B, F, 3, H, W] are [B, D], or [B, F, D] by a network of
        pictures.
        """
        # frames are one batch of pictures, in the network's size and colours
        clips = media.shape[:-3]
        network = self._network
        pictures = (
            resize(media.reshape(-1, *media.shape[-3:]), network.side_px) - self._mean
        ) / self._std
        computed = self._module(
            pictures.unflatten(0, clips) if network.takes_clips else pictures
        )
        flat = {
            node: read_output(computed).flatten(1)
            for node, read_output in network.outputs.items()
        }
        # outputs of clips have no axis of frames
        if network.takes_clips:
            return flat
        return {n: values.unflatten(0, clips) for n, values in flat.items()}

    def compute_node(
        self, media: Tensor, *, node: str, prepare: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Compute the prepared features of one node; all nodes share one pass over the
        same media.
        """
        # metrics ask node by node for the same media, so the last outputs are
        # remembered
        if self._last is None or self._last[0] is not media:
            self._last = media, self(media)
        return prepare(self._last[1][node])


def _torchvision(
    name: str, weights: str, title: str, side_px: int, file: str, nodes: Sequence[str]
) -> MetricNetwork:
    """Describe a network of torchvision, which is imported when it is needed."""

    def load(path: Path) -> nn.Module:
        from torchvision.models import get_model

        read(path, refetch_hint(path))  # torchvision itself would run code from it
        return _cut(get_model(name, weights=weights), nodes)

    outputs = {node: itemgetter(node) for node in nodes}
    return MetricNetwork(
        title, side_px, outputs, f"https://download.pytorch.org/models/{file}", load
    )


def _swav(path: Path) -> nn.Module:
    """Load SwAV, a ResNet-50."""
    from torchvision.models import resnet50

    # a ResNet-50 without its head, as SwAV has another one
    model = resnet50()
    model.fc = nn.Identity()  # type: ignore[assignment]
    needed = model.state_dict()
    saved = read(path, refetch_hint(path))
    model.load_state_dict(
        {name: value for name, value in saved.items() if name in needed}
    )
    return _cut(model, ["avgpool"])


def _cut(model: nn.Module, nodes: Sequence[str]) -> nn.Module:
    """Make a network return the outputs of some of its nodes, and compute no
    further.
    """
    from torchvision.models.feature_extraction import create_feature_extractor

    return create_feature_extractor(
        model.eval(), list(nodes), suppress_diff_warning=True
    )


def refetch_hint(path: Path) -> str:
    """Say what to do about a damaged file, which would be read again."""
    return f"delete {path} and fetch it again"


def cached_file(url: str) -> Path:
    """Return where torch's hub keeps a file."""
    return Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])


def from_url(url: str, title: str) -> Path:
    """Find a file in torch's hub cache, or fetch it unless the hub is switched off."""
    from huggingface_hub import constants

    # the file lies where torch's hub itself would put it
    path = cached_file(url)
    if path.is_file():
        return path

    # a machine that is told to stay offline fetches nothing
    way = f"on a machine with a network: curl -L --create-dirs -o {path} {url}"
    if constants.HF_HUB_OFFLINE:
        raise MissingData(f"the weights of {title} are not on this machine", way)

    # torchvision's files are named after their digests
    digest = path.stem.rpartition("-")[2] if "-" in path.stem else None
    os.makedirs(path.parent, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), digest, progress=False)
    except (OSError, RuntimeError) as error:  # no network; a digest that differs
        raise MissingData(
            f"the weights of {title} are not on this machine: {first_line(error)}", way
        ) from error
    return path


def _transformer(
    title: str,
    source: str,
    kind: str,
    colours: Colours,
    outputs: Mapping[str, Callable[[Any], Tensor]],
    weights: str = "model.safetensors",
    takes_clips: bool = False,
    **options: Any,
) -> MetricNetwork:
    """Describe a network of transformers: a class of it, and functions that read its
    outputs by node.
    """

    # transformers' networks take 224 px, whatever their class
    load = partial(_load_pretrained, kind, **options)
    return MetricNetwork(
        title, 224, outputs, source, load, colours, takes_clips, weights
    )


def _load_pretrained(kind: str, folder: Path, **options: Any) -> Any:
    """Load a network of transformers by its class; ValueError if weights are absent."""
    import transformers

    with console.mute_libraries():  # a file may hold more, as CLIP's a text tower
        network, report = getattr(transformers, kind).from_pretrained(
            folder, output_loading_info=True, dtype=torch.float32, **options
        )
    # weights that the file lacks would be random, and give no error by themselves
    if absent := report["missing_keys"]:
        raise ValueError(describe_match(absent, len(network.state_dict())))
    return network


def _load_detector(folder: Path) -> nn.Module:
    """Load MM-Grounding-DINO with the categories that it looks for."""
    from transformers import BertTokenizer

    network = _load_pretrained("MMGroundingDinoForObjectDetection", folder)
    return CategoryScores(network, BertTokenizer.from_pretrained(folder))


def _load_captioner(folder: Path) -> nn.Module:
    """Load GIT with the sentence encoder that reads its captions."""
    from transformers import BertTokenizer

    reader = NETWORKS["minilm"]
    folders = folder, reader.fetch()
    git = _load_pretrained("GitForCausalLM", folder)
    networks = git, reader.load(folders[1]).eval()
    return CaptionEmbeddings(*networks, *map(BertTokenizer.from_pretrained, folders))


def normalise(features: Tensor) -> Tensor:
    """Bring features [..., D] to unit length."""
    return functional.normalize(features.detach().float(), dim=-1)


NETWORKS = {
    "alexnet": _torchvision(
        "alexnet",
        "AlexNet_Weights.IMAGENET1K_V1",
        "AlexNet",
        256,
        "alexnet-owt-7be5be79.pth",
        ["features.4", "features.11"],
    ),
    "inception": _torchvision(
        "inception_v3",
        "Inception_V3_Weights.DEFAULT",
        "Inception v3",
        342,
        "inception_v3_google-0cc3c7bd.pth",
        ["avgpool"],
    ),
    "clip": _transformer(
        "CLIP ViT-L/14",
        CLIP,
        "CLIPVisionModelWithProjection",
        OPENAI,
        {"embedding": lambda computed: computed.image_embeds},
    ),
    "effnet": _torchvision(
        "efficientnet_b1",
        "EfficientNet_B1_Weights.DEFAULT",
        "EfficientNet-B1",
        255,
        "efficientnet_b1-c27df63c.pth",
        ["avgpool"],
    ),
    "swav": MetricNetwork("SwAV", 224, {"avgpool": itemgetter("avgpool")}, SWAV, _swav),
    "vit": _transformer(
        "ViT-B/16",
        VIT,
        "ViTForImageClassification",
        HALVES,
        {"logits": lambda computed: computed.logits},
    ),
    "videomae": _transformer(
        "VideoMAE",
        VIDEOMAE,
        "VideoMAEForVideoClassification",
        IMAGENET,
        {
            "logits": lambda computed: computed.logits,
            "features": lambda computed: computed.hidden_states[-1].mean(1),
        },
        takes_clips=True,
        num_frames=FRAMES,
        output_hidden_states=True,
    ),
    "dino": _transformer(
        "DINO ViT-B/16",
        DINO,
        "ViTModel",
        IMAGENET,
        {"class token": lambda computed: computed.last_hidden_state[:, 0]},
        "pytorch_model.bin",
        add_pooling_layer=False,
    ),
    "detector": MetricNetwork(
        "MM-Grounding-DINO",
        800,
        {"scores": Tensor.float},
        "hub:openmmlab-community/mm_grounding_dino_large_all",  # converted from SEED's
        _load_detector,
        files=TEXT_FILES,
    ),
    "git": MetricNetwork(
        "GIT",
        224,
        {"caption": normalise},
        "hub:microsoft/git-large-coco",
        _load_captioner,
        OPENAI,
        files=TEXT_FILES,
    ),
    "minilm": MetricNetwork(
        "MiniLM",
        0,
        {},
        "hub:sentence-transformers/all-MiniLM-L6-v2",
        partial(_load_pretrained, "BertModel"),
        files=TEXT_FILES,
    ),
}
"""Pictures' have the sizes of the `mindeye2` protocol's evaluation code (arXiv
2403.11207); others the colours of their repositories' preprocessor_config.json:
VideoMAE's class has others by default.
"""


def _classify(compare: Callable[..., Tensor], ways: int, labels: int) -> MetricPart:
    """Describe n-way classification by a network's logits."""
    scale = MetricScale(0.0, 1.0, chance=n_way_chance(ways, labels), pool=ways)
    return MetricPart(
        Tensor.float, partial(compare, ways=ways, labels=labels), "clip", scale
    )


IDENTIFICATION = MetricPart(
    standardise,
    two_way_identification,
    scale=MetricScale(0.0, 1.0, chance=0.5),
    is_identification=True,
)
DISTANCE = MetricPart(standardise, correlation_distance, scale=MetricScale(0.0, 2.0))
CONSISTENCY = MetricPart(
    normalise, consistency, "clip", MetricScale(ranks=False), is_of_one=True
)
FEATURE_METRICS: dict[str, tuple[str, str, MetricPart]] = {
    "alexnet2": ("alexnet", "features.4", IDENTIFICATION),
    "alexnet5": ("alexnet", "features.11", IDENTIFICATION),
    "inception": ("inception", "avgpool", IDENTIFICATION),
    "clip": ("clip", "embedding", IDENTIFICATION),
    "effnet": ("effnet", "avgpool", DISTANCE),
    "swav": ("swav", "avgpool", DISTANCE),
    "object_f1": (
        "detector",
        "scores",
        MetricPart(Tensor.float, object_f1, scale=MetricScale(0.0)),
    ),
    "cap_sim": ("git", "caption", MetricPart(normalise, correlation)),
    **{
        f"{what}_{ways}way{ending}": (
            network,
            "logits",
            _classify(compare, ways, labels),
        )
        for what, network, compare in (
            ("video", "videomae", n_way),
            ("frame", "vit", n_way_of_frames),
        )
        for ending, labels in (("", RIGHT_CLASSES), ("_strict", 1))
        for ways in (2, 50)
    },
    "videomae": ("videomae", "features", replace(IDENTIFICATION, medium="clip")),
    "dino": ("dino", "class token", MetricPart(normalise, frame_similarity, "clip")),
    "clip_pcc": ("clip", "embedding", CONSISTENCY),
    "clip_pcc_neighbours": (
        "clip",
        "embedding",
        replace(CONSISTENCY, compare=partial(consistency, is_of_neighbours=True)),
    ),
}
"""Network, node and metric by the name that recipes use; its `features` prepares what
the node gives.
"""


def parts_of(
    name: str, metrics: Iterable[str], device: torch.device
) -> dict[str, MetricPart]:
    """Load a network by its key, and bind the metrics that are computed in its
    features.

    Raises:
        MissingData: if its weights are not there, cannot be fetched or are damaged.
    """
    # one function for each node and way of preparing it, which its metrics share
    loaded = NETWORKS[name].build(device)
    bound = dict[Any, Callable[..., Tensor]]()
    parts = {}
    for metric in metrics:
        _, node, part = FEATURE_METRICS[metric]
        compute = partial(loaded.compute_node, node=node, prepare=part.features)
        features = bound.setdefault((node, part.features), compute)
        parts[metric] = replace(part, features=features)
    return parts
