"""Networks in whose features metrics compare pictures and clips."""

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

from brainhive_cli.core.base import MissingData, console, first_line
from brainhive_cli.core.files import Input, hub
from brainhive_cli.core.results import measurements
from brainhive_cli.core.runs import describe_match, read, reading
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

FeatureMetric = tuple[str, str, MetricPart]
"""Key of a network, name of its node, and metric of the features of the node."""
IMAGENET_COLOURS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Colours in the training of torchvision's networks and SwAV."""
CLIP_COLOURS = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)
"""Colours in the training of CLIP."""
VIT_COLOURS = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Colours in the training of ViT."""
DINO = "hub:facebook/dino-vitb16"
CLIP = "hub:openai/clip-vit-large-patch14"
TEXT_FILES = ("config.json", "vocab.txt", "tokenizer_config.json")
"""Files, besides the weights, of networks that read or write text."""

Colours = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of red, green and blue."""


@dataclass(frozen=True)
class MetricNetwork:
    """Network whose features are compared, before it is loaded.

    Attributes:
        title: Name of the network in messages.
        side_px: Side of the pictures that the network takes.
        outputs: Functions that read a node's features from the module's output, keyed
            by node. A node is a layer whose features are compared.
        source: Address of the weights: a URL or `hub:OWNER/NAME`.
        load: Function that builds the module from the path of `fetch`.
        colours: Mean and standard deviation by which pictures are normalised.
        takes_clips: True if the module takes clips, not pictures.
        weights: Name of the weight file at the hub.
        files: Names of the other files at the hub.
    """

    title: str
    side_px: int
    outputs: Mapping[str, Callable[[Any], Tensor]]
    source: str
    load: Callable[[Path], nn.Module]
    colours: Colours = IMAGENET_COLOURS
    takes_clips: bool = False
    weights: str = "model.safetensors"
    files: tuple[str, ...] = ("config.json",)

    def is_here(self) -> bool:
        """Return True if all files are on this machine."""
        if self.source.startswith("hub:"):
            return bool(hub.find_weights(self.source, self.files, [self.weights]))
        return cached_file(self.source).is_file()

    def fetch(self) -> Path:
        """Download the files of the network if they are not on this machine.

        Returns:
            Path of the weight file if `source` is a URL, else of the folder with the
            files.

        Raises:
            MissingData: if the files cannot be downloaded.
        """
        if self.source.startswith("hub:"):
            # the repository may have the weights in further formats, so name the files
            return hub.folder(
                self.source, allow=(*self.files, self.weights), local=self.is_here()
            )
        return fetch_file(self.source, self.title)

    def find_input(self) -> Input:
        """Look for the files of the network on this machine, without downloading.

        Returns:
            Optional input of a command. If a file is missing, the input has an error
            with the command line that downloads it.
        """
        name = f"weights of {self.title}"
        if self.is_here():
            return Input(name)
        if self.source.startswith("hub:"):
            repository = hub.Repository.parse(self.source)
            line = repository.download_line([*self.files, self.weights])
        else:
            line = f"curl -L --create-dirs -o {cached_file(self.source)} {self.source}"
        error = MissingData(f"the {name} are not here", line)
        return Input(name, None, error, is_optional=True)

    def build(self, device: torch.device) -> "Features":
        """Load the network onto a device, in evaluation mode and without gradients.

        Raises:
            MissingData: if the files cannot be downloaded or are damaged.
        """
        # an error in `load` becomes MissingData with a hint
        path = self.fetch()
        with reading(f"{self.title} in {path}", refetch_hint(path)):
            module = self.load(path)
        return Features(module.eval().requires_grad_(False).to(device), self, device)


class Features:
    """Loaded network that computes features of pictures or clips.

    Args:
        module: Module that takes normalised pictures or clips.
        network: Description of the network.
        device: Device of the module.
    """

    def __init__(
        self, module: nn.Module, network: MetricNetwork, device: torch.device
    ) -> None:
        self._module = module
        self._network = network
        mean, std = network.colours
        self._mean = torch.tensor(mean, device=device).view(3, 1, 1)
        self._std = torch.tensor(std, device=device).view(3, 1, 1)
        self._last_media: Tensor | None = None
        self._last_features: dict[str, Tensor] = {}

    @torch.inference_mode()
    def __call__(self, media: Tensor) -> dict[str, Tensor]:
        """Compute the features of pictures or clips at all nodes of the network.

        Args:
            media: Pictures [B, 3, H, W] or clips [B, F, 3, H, W] with values in 0..1.

        Returns:
            Features [B, D], keyed by node, or [B, F, D] of clips if the network takes
            pictures.
        """
        # resize and normalise the frames of all clips as pictures
        network = self._network
        batch_shape = media.shape[:-3]
        frames = resize(media.reshape(-1, *media.shape[-3:]), network.side_px)
        normalised = (frames - self._mean) / self._std
        if network.takes_clips:
            normalised = normalised.unflatten(0, batch_shape)
        output = self._module(normalised)

        # features of each node, with a row for each frame if the network takes pictures
        features = {}
        for node, read_output in network.outputs.items():
            values = read_output(output).flatten(1)
            if not network.takes_clips:
                values = values.unflatten(0, batch_shape)
            features[node] = values
        return features

    def compute_node(
        self, media: Tensor, *, node: str, prepare: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Compute the features of a node, a layer of the network.

        The features of all nodes are kept until another tensor is passed.

        Args:
            media: Pictures [B, 3, H, W] or clips [B, F, 3, H, W] with values in 0..1.
            node: Name of the node.
            prepare: Function of the features, such as a normalisation.

        Returns:
            Result of `prepare` for features [B, D] or [B, F, D].
        """
        if self._last_media is not media:
            self._last_features = self(media)
            self._last_media = media
        return prepare(self._last_features[node])


def _torchvision(
    name: str, weights: str, title: str, side_px: int, file: str, nodes: Sequence[str]
) -> MetricNetwork:
    """Describe a network of torchvision, without loading it.

    Args:
        name: Name of the model in torchvision, such as "alexnet".
        weights: Name of the weights, such as "AlexNet_Weights.IMAGENET1K_V1".
        file: Name of the weight file at download.pytorch.org.
        nodes: Layers whose outputs are compared, such as "features.4".
    """

    def load(path: Path) -> nn.Module:
        from torchvision.models import get_model

        # torchvision would run code hidden in the file, but `read` raises an error
        read(path, refetch_hint(path))
        return _cut(get_model(name, weights=weights), nodes)

    return MetricNetwork(
        title=title,
        side_px=side_px,
        outputs={node: itemgetter(node) for node in nodes},
        source=f"https://download.pytorch.org/models/{file}",
        load=load,
    )


def _swav(path: Path) -> nn.Module:
    """Load SwAV, a ResNet-50 whose output is a dict of the layer `avgpool`."""
    from torchvision.models import resnet50

    model = resnet50()
    model.fc = nn.Identity()  # type: ignore[assignment]

    # leave out the weights of SwAV's own last layers, which ResNet-50 lacks
    model_state = model.state_dict()
    saved_state = read(path, refetch_hint(path))
    state = {name: value for name, value in saved_state.items() if name in model_state}
    model.load_state_dict(state)
    return _cut(model, ["avgpool"])


def _cut(model: nn.Module, nodes: Sequence[str]) -> nn.Module:
    """Return a module that computes a dict of the outputs of nodes, keyed by node."""
    from torchvision.models.feature_extraction import create_feature_extractor

    return create_feature_extractor(
        model.eval(), list(nodes), suppress_diff_warning=True
    )


def refetch_hint(path: Path) -> str:
    """Return the hint that a damaged file must be deleted and fetched again."""
    return f"delete {path} and fetch it again"


def cached_file(url: str) -> Path:
    """Return the path of a downloaded file in the cache of torch.hub."""
    return Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])


def fetch_file(url: str, title: str) -> Path:
    """Download a weight file into the cache of torch.hub if it is not there.

    Args:
        url: Address of the file.
        title: Name of the network in messages.

    Returns:
        Path of the file in the cache.

    Raises:
        MissingData: if the file is not in the cache, and the download fails or
            HF_HUB_OFFLINE is set.
    """
    from huggingface_hub import constants

    path = cached_file(url)
    if path.is_file():
        return path
    hint = f"on a machine with a network: curl -L --create-dirs -o {path} {url}"
    if constants.HF_HUB_OFFLINE:
        raise MissingData(f"the weights of {title} are not on this machine", hint)

    # names such as "alexnet-owt-7be5be79.pth" end in digits of the content's digest
    digest = path.stem.rpartition("-")[2] if "-" in path.stem else None
    os.makedirs(path.parent, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), digest, progress=False)
    except (OSError, RuntimeError) as error:
        # download_url_to_file raises RuntimeError if the digest differs
        raise MissingData(
            f"the weights of {title} are not on this machine: {first_line(error)}", hint
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
    """Describe a network of transformers that takes pictures or frames of 224 px.

    Args:
        kind: Name of a class in transformers, such as "ViTModel".
        outputs: Functions that read a node's features from the output, keyed by node.
        options: Further arguments of `from_pretrained`.
    """
    return MetricNetwork(
        title=title,
        side_px=224,
        outputs=outputs,
        source=source,
        load=partial(_load_pretrained, kind, **options),
        colours=colours,
        takes_clips=takes_clips,
        weights=weights,
    )


def _load_pretrained(kind: str, folder: Path, **options: Any) -> Any:
    """Load a network of transformers in float32.

    Args:
        kind: Name of a class in transformers, such as "ViTModel".
        options: Further arguments of `from_pretrained`.

    Raises:
        ValueError: if weights of the network are missing.
    """
    import transformers

    # transformers warns of unused weights in the file, such as CLIP's text encoder
    network_class = getattr(transformers, kind)
    with console.mute_libraries():
        network, report = network_class.from_pretrained(
            folder, output_loading_info=True, dtype=torch.float32, **options
        )

    # transformers would fill missing weights with random numbers, without an error
    missing_names = report["missing_keys"]
    if missing_names:
        raise ValueError(describe_match(missing_names, len(network.state_dict())))
    return network


def _load_detector(folder: Path) -> nn.Module:
    """Load MM-Grounding-DINO as a detector of SEED's categories."""
    from transformers import BertTokenizer

    network = _load_pretrained("MMGroundingDinoForObjectDetection", folder)
    return CategoryScores(network, BertTokenizer.from_pretrained(folder))


def _load_captioner(folder: Path) -> nn.Module:
    """Load GIT from a folder, and MiniLM, which embeds GIT's captions."""
    from transformers import BertTokenizer

    reader = NETWORKS["minilm"]
    reader_folder = reader.fetch()
    return CaptionEmbeddings(
        captioner=_load_pretrained("GitForCausalLM", folder),
        reader=reader.load(reader_folder).eval(),
        tokenizer=BertTokenizer.from_pretrained(folder),
        reader_tokenizer=BertTokenizer.from_pretrained(reader_folder),
    )


def normalise(features: Tensor) -> Tensor:
    """Scale features [..., D] to unit length, in float32."""
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
        CLIP_COLOURS,
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
    # Address of the file that
    # `torch.hub.load("facebookresearch/swav:main", "resnet50")` downloads.
    "swav": MetricNetwork(
        "SwAV",
        224,
        {"avgpool": itemgetter("avgpool")},
        "https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar",
        _swav,
    ),
    "vit": _transformer(
        "ViT-B/16",
        "hub:google/vit-base-patch16-224",
        "ViTForImageClassification",
        VIT_COLOURS,
        {"logits": lambda computed: computed.logits},
    ),
    "videomae": _transformer(
        "VideoMAE",
        "hub:MCG-NJU/videomae-base-finetuned-kinetics",
        "VideoMAEForVideoClassification",
        IMAGENET_COLOURS,
        {
            "logits": lambda computed: computed.logits,
            "features": lambda computed: computed.hidden_states[-1].mean(1),
        },
        takes_clips=True,
        # Number of frames of the clips that VideoMAE takes (NEURONS, NeuroClips).
        num_frames=6,
        output_hidden_states=True,
    ),
    "dino": _transformer(
        "DINO ViT-B/16",
        DINO,
        "ViTModel",
        IMAGENET_COLOURS,
        {"class token": lambda computed: computed.last_hidden_state[:, 0]},
        "pytorch_model.bin",
        add_pooling_layer=False,
    ),
    "detector": MetricNetwork(
        "MM-Grounding-DINO",
        800,
        {"scores": Tensor.float},
        # SEED's detector, converted to transformers
        "hub:openmmlab-community/mm_grounding_dino_large_all",
        _load_detector,
        files=TEXT_FILES,
    ),
    "git": MetricNetwork(
        "GIT",
        224,
        {"caption": normalise},
        "hub:microsoft/git-large-coco",
        _load_captioner,
        CLIP_COLOURS,
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
"""Networks by key. Sizes of pictures come from MindEye2's evaluation code (arXiv
2403.11207), colours of transformers' networks from their preprocessor_config.json.
"""


CLASSIFIERS = {"video": ("videomae", n_way), "frame": ("vit", n_way_of_frames)}
"""Network and function of n-way classification, by the beginning of a metric's name."""
USUAL_WAYS = (2, 50)
"""Numbers of ways that are measured by default."""
MAX_WAYS = 398
"""Largest number of ways: 397 wrong classes leave 3 of VideoMAE's 400 classes."""


def _classify(beginning: str, n_ways: int, is_strict: bool) -> FeatureMetric:
    """Describe a metric of n-way classification of clips.

    Args:
        beginning: Key of `CLASSIFIERS`.
        n_ways: Number of classes in a trial, where all right classes count as 1.
        is_strict: True for a single right class of a stimulus.
    """
    network, compare = CLASSIFIERS[beginning]
    # Number of right classes of a stimulus in n-way classification
    # (NEURONS, NeuroClips, MinD-Video).
    n_labels = 1 if is_strict else 3
    chance = n_way_chance(n_ways, n_labels)
    metric = MetricPart(
        features=Tensor.float,
        compare=partial(compare, n_ways=n_ways, n_labels=n_labels),
        medium="clip",
        scale=MetricScale(0.0, 1.0, chance=chance, pool=n_ways),
    )
    return network, "logits", metric


def _list_classifications() -> dict[str, FeatureMetric]:
    """Describe the usual metrics of n-way classification of clips, by name."""
    metrics = {}
    for beginning in CLASSIFIERS:
        for ending in ("", "_strict"):
            for n_ways in USUAL_WAYS:
                metric = _classify(beginning, n_ways, bool(ending))
                metrics[f"{beginning}_{n_ways}way{ending}"] = metric
    return metrics


IDENTIFICATION = MetricPart(
    standardise,
    two_way_identification,
    scale=MetricScale(0.0, 1.0, chance=0.5),
    is_identification=True,
)
DISTANCE = MetricPart(standardise, correlation_distance, scale=MetricScale(0.0, 2.0))
CONSISTENCY = MetricPart(
    normalise,
    consistency,
    "clip",
    MetricScale(sorts_items=False),
    is_reference_free=True,
)
FEATURE_METRICS: dict[str, FeatureMetric] = {
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
    **_list_classifications(),
    "videomae": ("videomae", "features", replace(IDENTIFICATION, medium="clip")),
    "dino": ("dino", "class token", MetricPart(normalise, frame_similarity, "clip")),
    "clip_pcc": ("clip", "embedding", CONSISTENCY),
    "clip_pcc_neighbours": (
        "clip",
        "embedding",
        replace(CONSISTENCY, compare=partial(consistency, neighbours_only=True)),
    ),
}
"""Network, node and metric, keyed by the metric's name in recipes. The function
`features` of a metric takes features of the node until `load_metrics` replaces it.
"""


def find_feature_metric(name: str) -> FeatureMetric | None:
    """Find a metric of a network by its name, such as `video_40way` for any number."""
    match = measurements.N_WAY.fullmatch(name)
    if match is None:
        return FEATURE_METRICS.get(name)
    n_ways = int(match["ways"])
    if not 2 <= n_ways <= MAX_WAYS:
        return None
    return _classify(match["medium"], n_ways, bool(match["strict"]))


def load_metrics(
    name: str, metrics: Iterable[str], device: torch.device
) -> dict[str, MetricPart]:
    """Load a network, and complete the metrics that compare its features.

    Args:
        name: Key of the network in `NETWORKS`.
        metrics: Names of the metrics, which `find_feature_metric` finds.
        device: Device of the network.

    Returns:
        Metrics, keyed by name. Their `features` compute features of pictures or clips.

    Raises:
        MissingData: if the files cannot be downloaded or are damaged.
    """
    # metrics with the same function `features` share the computed features
    network = NETWORKS[name].build(device)
    functions = dict[Any, Callable[..., Tensor]]()
    completed = {}
    for metric in metrics:
        feature_metric = find_feature_metric(metric)
        assert feature_metric is not None
        _, node, part = feature_metric
        key = (node, part.features)
        if key not in functions:
            functions[key] = partial(
                network.compute_node, node=node, prepare=part.features
            )
        completed[metric] = replace(part, features=functions[key])
    return completed
