"""The key object's masks of cc2017: a tensor of them, or the masks of all objects, of which it is chosen.

Words and choice are those of xmed-lab/NEURONS (plain words), as its scripts list them.
"""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brainhive_cli.core import documents
from brainhive_cli.core.errors import MissingData
from brainhive_cli.data import datasets
from brainhive_cli.data.published_data import TensorRows, find_below

TENSOR = "key_objects_masks_{split}.pt"
OBJECTS = "mask_cls_{split}_qwen_video"
NAMES = "mask_cls_dict_{split}_qwen_video.json"
PUBLISHED_ROWS = 4320
"""Rows of the published tensors, also of that of the 1200 test clips."""
MIN_SHARE = 0.5
"""Share of the clips that have objects, at least: masks of fewer are those of other clips."""
LARGE = 0.5
"""Share of the picture from which on an object is taken for its setting."""
BACKGROUND = (
    "None|air|airport|alley|area|arena|avenue|back|background|bale|baseball field|beach|bone|boulevard|"
    "building|center|classroom|cloud|collar|color|column|construction site|coral reef|couch|counter top|"
    "court|courtyard|crowd|darkness|desert|dirt|dock|doorway|drawing|drive|driveway|edge|event|expressway|"
    "fall|field|fire|fireplace|floor|forest|freeway|garage|garden|golf course|ground|gymnasium|hall|highway|"
    "hill|hillside|hut|island|lane|leaf|legging|light|liquid|lobby|market|motion|mountain|mud|night|ocean|"
    "overall|panel|park|parking lot|path|platter|playground|position|precinct|push up|rack|railroad|"
    "railroad track|range|redwood|river|road|roadway|room|route|row|rubble|sailboat|sand|server rack|shack|"
    "shore|sidewalk|sign|sky|skyline|stack|stadium|step|stream|street|student|substance|subway|sun|surface|"
    "swamp|tag|tank|thoroughfare|town|track|trail|trash|tray|tugboat|tunnel|tv|valley|village|wall|water|way|"
    "weed|wood|woods|world|writing|yard"
).split("|")
"""Names of masks that are no key object."""
PRIORITY = (
    "man|baby|woman|child|bull|panda cub|dog|bear|horse|sheep|cat|chicken|duck|elephant|monkey|penguin|"
    "labrador retriever|panda|bison|chihuahua|antelope|gazelle|dolphin|whale|whale shark|tugboat|tug boat|"
    "deer|lion|buffalo|ant|hammock|butterfly|butterfly fish|stingray|parrot fish|parrotfish|fish|eagle|owl|"
    "turtle"
).split("|")
"""Names of persons and animals, one of which is the key object if it moves."""
Masks = Callable[[int], NDArray[np.uint8]]


def masks_below(
    root: Path, split: str, shape: tuple[int, int], source: str, absent: dict[str, str]
) -> Masks | None:
    """Find the masks of a split.

    Args:
        root: The folder of the data set.
        split: Which one.
        shape: How many clips and frames there are.
        source: How to get the files.
        absent: Takes how masks are had, where there are none.

    Raises:
        MissingData: if they are of other clips.
    """
    paths = {
        name: find_below(root, name)
        for name in (name.format(split=split) for name in (TENSOR, NAMES, OBJECTS, f"{OBJECTS}.tar.gz"))
    }
    tensor, names, folder, archive = paths.values()
    if tensor:
        return _of_tensor(TensorRows(tensor), shape, source)
    if names and folder:
        return _of_objects(folder, names, shape, source)
    is_packed = names and archive
    unpack = shlex.join(["tar", "-xf", str(archive), "-C", str(archive.parent)]) if archive else ""
    absent["masks"] = unpack if is_packed else f"{source} gets {NAMES.format(split=split)} and its masks"
    return None


@dataclass(frozen=True)
class Tensor:
    """Gives masks of a tensor [N, F, H, W] that stays on disk."""

    rows: TensorRows

    def __call__(self, index: int) -> NDArray[np.uint8]:
        """Read the masks [F, H, W] of a clip."""
        return (self.rows[index] > 0).astype(np.uint8)


def _of_tensor(rows: TensorRows, shape: tuple[int, int], source: str) -> Tensor:
    count, frames, *_ = rows.shape("N, F, H, W", source)
    if count not in (shape[0], max(shape[0], PUBLISHED_ROWS)) or frames != shape[1]:
        raise MissingData(
            f"{rows.path} has masks of {count} clips of {frames} frames, and there are {shape[0]} of "
            f"{shape[1]}",
            source,
        )
    return Tensor(rows)


@dataclass(frozen=True)
class Objects:
    """Chooses the key object of a clip among the masks of all objects, one picture an object and frame.

    Attributes:
        folder: Of mask_{clip}_f{frame}_{label}.png, not 0 where the object is.
        names: What each label of each frame is called.
        frames: F.
        source: How to get the files.
    """

    folder: Path
    names: Path
    frames: int
    source: str

    def __call__(self, index: int) -> NDArray[np.uint8]:
        """Read the masks [F, H, W] of a clip's key object; empty, perhaps [F, 1, 1], without one."""
        names = _names(self.names, self.source)
        by_name: dict[str, dict[int, NDArray[np.bool_]]] = {}
        for frame in range(self.frames):
            for label, name in names.get(f"mask_{index}_f{frame}", {}).items():
                mask, frames = self._read(f"mask_{index}_f{frame}_{label}.png"), by_name.setdefault(name, {})
                frames[frame] = mask | frames.get(frame, np.zeros_like(mask))
        sizes = {mask.shape for frames in by_name.values() for mask in frames.values()}
        if len(sizes) > 1:
            raise MissingData(f"{self.folder} has masks of several sizes of clip {index}", self.source)
        empty = np.zeros(next(iter(sizes), (1, 1)), bool)
        masks = {
            name: np.stack([frames.get(n, empty) for n in range(self.frames)])
            for name, frames in by_name.items()
        }
        chosen = key_object(masks)
        return (masks[chosen] if chosen else np.stack([empty] * self.frames)).astype(np.uint8)

    def _read(self, name: str) -> NDArray[np.bool_]:
        path = self.folder / name
        if not path.is_file():
            raise MissingData(f"{path} is missing, though {self.names.name} lists it", self.source)
        return np.asarray(datasets.decode(str(path), path)).max(-1) > 0


def _of_objects(folder: Path, names: Path, shape: tuple[int, int], source: str) -> Objects:
    clips = {int(key.split("_")[1]) for key in _names(names, source)}
    if not clips or max(clips) >= shape[0]:
        raise MissingData(
            f"{names} has masks of clip {max(clips, default='none')}, and there are {shape[0]}", source
        )
    if len(clips) < MIN_SHARE * shape[0]:
        raise MissingData(f"{names} has masks of {len(clips)} clips, and there are {shape[0]}", source)
    return Objects(folder, names, shape[1], source)


@cache  # 26,000 frames, which every clip is looked up in
def _names(path: Path, source: str) -> dict[str, dict[str, str]]:
    names = documents.read(path, dict[str, dict[str, str]], source, MissingData)
    if odd := next((key for key in names if not _is_key(key)), None):
        raise MissingData(f"{path}: {odd!r} is not mask_CLIP_fFRAME", source)
    return names


def _is_key(key: str) -> bool:
    mask, clip, frame = [*key.split("_"), "", ""][:3]
    return mask == "mask" and clip.isdecimal() and frame[:1] == "f" and frame[1:].isdecimal()


def key_object(masks: Mapping[str, NDArray[np.bool_]]) -> str | None:
    """Choose the object that moves most; a person or an animal before others, a small one before a large one.

    Args:
        masks: [F, H, W] where each named object is; a frame in which it is not seen is empty.

    Returns:
        Its name; None where there is nothing but background.

    Source: xmed-lab/NEURONS, which masks teach its segmentation.
    """
    known = {name: mask for name, mask in masks.items() if name not in BACKGROUND and mask.any()}
    scores = {name: _path_px(mask) * (2 if name in PRIORITY else 1) for name, mask in known.items()}
    moving = [name for name in known if name in PRIORITY and scores[name] > 0]
    small = [name for name, mask in known.items() if _last_share(mask) < LARGE]
    return max(moving or small or known, key=scores.__getitem__, default=None)


def _path_px(mask: NDArray[np.bool_]) -> float:
    """Add up how far the centre moves between frames that both show the object, in pixels."""
    centres = [np.argwhere(frame).mean(0) if frame.any() else None for frame in mask]
    return sum(
        float(np.linalg.norm(after - before))
        for before, after in pairwise(centres)
        if before is not None and after is not None
    )


def _last_share(mask: NDArray[np.bool_]) -> float:
    """Say how much of the last frame that shows the object is covered by it."""
    return float(next(frame for frame in mask[::-1] if frame.any()).mean())
