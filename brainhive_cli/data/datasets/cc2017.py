"""The clips of cc2017: two seconds of film each, as six frames, with captions, labels and key objects."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from brainhive_cli.core import documents, needs, parts
from brainhive_cli.core.damage import RAISED, reading
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.needs import Need
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data import datasets
from brainhive_cli.data.datasets import StimulusDataset
from brainhive_cli.data.datasets._cc2017_masks import NAMES, OBJECTS, TENSOR, masks_below
from brainhive_cli.data.published_data import FOLDERS, PUBLISHED, TensorRows, find_below
from brainhive_cli.data.stores import pickles
from brainhive_cli.data.stores.ids import Names

SPLITS = ("train", "test")
FRAMES, RATE_HZ = 6, 3.0
BLOCK = 240
"""Clips of a film of eight minutes: 18 are shown in training, 5 in the test."""
FILES = "GT_{split}_3fps.pt"
CAPTIONS = {"blip2": "GT_{split}_caption.pt", "qwen": "GT_{split}_caption_qwen.pt"}
LABELS = "qwen_{split}_caption_tag_category_id.json"
CONCEPTS = tuple(
    "animal|human|vehicle|building|clothing|weapon|plant|appliance|tool|container|body part|furniture|device|"
    "fabric|fruit|vegetable|insect|landscape feature|water body|organism|fish|reptile|mammal|accessory|"
    "sports equipment|food|drink|light source|weather phenomenon|jewelry|musical instrument|structure|"
    "flying vehicle|toy|kitchen item|writing tool|gardening tool|scientific equipment|furniture accessory|"
    "roadway|weaponry accessory|sports field|money|timekeeping device|decoration|art|stationery|"
    "kitchen appliance|rock/mineral|soil/substrate|climate/atmosphere component".split("|")
)
"""The 51 labels of a clip, in their order.

Source: xmed-lab/NEURONS (plain words).
"""
SOURCE = "brainhive fetch cc2017"


class Config(parts.Config):
    """Clips as `gongzx/cc2017_dataset` has them, with what `McGregorW/NEURONS` adds, below one folder.

    A concept is a film of eight minutes: validation holds out whole films, as neighbouring clips are alike.
    """

    root: str = Field("", description="folder of the data set; default: cc2017 below paths.data")
    captions: Literal["blip2", "qwen"] = Field(
        "blip2",
        description="whose captions: BLIP-2's of the third frame; or Qwen2.5-VL's of the clip, whose stores "
        "lie under cc2017-qwen",
    )

    def build(self, paths: Paths) -> StimulusDataset:
        """Point at the data; nothing is read yet."""
        root = paths.dataset("cc2017", self.root)
        name = "cc2017" if self.captions == "blip2" else f"cc2017-{self.captions}"
        listed = partial(_clips, root, name, CAPTIONS[self.captions])
        files = partial(_files, root, CAPTIONS[self.captions])
        return StimulusDataset(
            *(name, SPLITS, listed, "cc2017"),
            alike_by="neighbours",
            published_sizes=PUBLISHED["cc2017"],
            files=files,
        )


TINY = Config()


def _files(root: Path, captions: str, split: str, reads: str) -> list[Need]:
    """List the files of a split that hold what is read."""
    if reads == "masks":
        named = [name.format(split=split) for name in (TENSOR, NAMES, OBJECTS)]
        tensor, names, folder = (find_below(root, name) for name in named)
        archive = f"{named[2]}.tar.gz"
        return [
            needs.files(tensor or names, f"masks/{named[1]}", root, SOURCE),
            needs.files(tensor or folder or find_below(root, archive), f"masks/{archive}", root, SOURCE),
        ]
    named_by = {"pixels": FILES, "captions": captions, "labels": f"qwen_annotation/{LABELS}"}
    name = named_by[reads].format(split=split)
    return [needs.files(find_below(root, Path(name).name), name, root, SOURCE)]


@dataclass(frozen=True)
class Frames:
    """Opens clips of a tensor [N, F, 3, H, W] in 0..1 that stays on disk."""

    rows: TensorRows

    def __call__(self, index: int) -> datasets.Clip:
        """Read a clip."""
        try:
            return datasets.Clip(_bytes(self.rows[index]), RATE_HZ)
        except RAISED as error:
            raise datasets.bad_picture(f"clip {index} of {self.rows.path}", error) from error


@dataclass(frozen=True)
class Texts:
    """Gives the caption of a clip."""

    texts: Names

    def __call__(self, index: int) -> list[str]:
        """Give it in a list, which is empty where there is none."""
        return [text for text in [self.texts[index]] if text.strip()]


class _Labelled(BaseModel):
    """An entry of the list of labels; it has more."""

    category_id: list[Literal[0, 1]] = Field(min_length=len(CONCEPTS), max_length=len(CONCEPTS))


def _bytes(frames: NDArray[Any]) -> NDArray[np.uint8]:
    """Turn frames [F, 3, H, W] in 0..1, or of bytes, into bytes [F, H, W, 3]."""
    if frames.dtype != np.uint8:
        low, high = frames.min(), frames.max()
        if not 0 <= low <= high <= 1:  # NaN, too
            raise ValueError(f"its values lie in {low:g} to {high:g}, not in 0 to 1")
        frames = np.rint(frames * np.float32(255)).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(frames, 1, -1))


def _clips(root: Path, name: str, captions: str, split: str) -> datasets.StimulusSet:
    datasets.check_split(name, split, SPLITS)
    frames = _frames(root, split)
    count = _count(frames)
    names = {"captions": captions.format(split=split), "labels": LABELS.format(split=split)}
    texts, labels = (find_below(root, name) for name in names.values())
    absent = {
        what: f"{SOURCE} gets {name}"
        for (what, name), path in zip(names.items(), (texts, labels), strict=True)
        if path is None
    }
    return datasets.StimulusSet(
        name,
        split,
        Names.of(f"{split}/{index}" for index in range(count)),
        Names.of(f"{split}/film-{index // BLOCK + 1:02d}" for index in range(count)),
        Frames(frames),
        captions=_captions(texts, count) if texts else None,
        captions_each=1 if texts else 0,
        frames=FRAMES,
        masks=masks_below(root, split, (count, FRAMES), SOURCE, absent),
        labels=_labels(labels, count).__getitem__ if labels else None,
        label_names=CONCEPTS if labels else (),
        absent=absent,
    )


def _frames(root: Path, split: str) -> TensorRows:
    name = FILES.format(split=split)
    if path := find_below(root, name):
        return TensorRows(path)
    other_rates = sorted(path.name for folder in FOLDERS for path in root.glob(f"{folder}GT_{split}_*fps.pt"))
    if other_rates:
        raise MissingData(
            f"cc2017: {root} has frames of another rate, {other_rates[0]}, and no {name}", SOURCE
        )
    raise MissingData(f"cc2017: no {root}/{name}", SOURCE)


def _count(frames: TensorRows) -> int:
    """Count the clips, and check their form; no frame is read."""
    shape = frames.shape("N, F, 3, H, W", SOURCE)
    if shape[2] != 3:
        raise MissingData(f"{frames.path} has frames {list(shape)}, not [N, F, 3, H, W]", SOURCE)
    if shape[1] != FRAMES:
        raise MissingData(
            f"{frames.path} has {shape[1]} frames a clip, not {FRAMES} ({RATE_HZ:g} a second of two)", SOURCE
        )
    return shape[0]


def _captions(path: Path, count: int) -> Texts:
    with reading(path, SOURCE):
        texts = pickles.array(pickles.load(path)).reshape(-1)
        if texts.dtype.kind not in "UO" or not all(isinstance(text, str) for text in texts.tolist()):
            raise ValueError(f"it holds {texts.dtype}, not captions")
    return Texts(Names.of(_one_a_clip(path, texts, count, "captions").tolist()))


def _labels(path: Path, count: int) -> NDArray[np.uint8]:
    entries = documents.read(path, list[_Labelled], SOURCE, MissingData)
    return np.array([entry.category_id for entry in _one_a_clip(path, entries, count, "labels")], np.uint8)


def _one_a_clip(path: Path, values: Any, count: int, what: str) -> Any:
    if len(values) != count:
        raise MissingData(f"{path} has {what} of {len(values)} clips, and there are {count}", SOURCE)
    return values
