"""cc2017: clips of two seconds of film with captions, labels and key objects, and
responses to them.
"""

from collections.abc import Mapping
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from brainhive_cli.core import documents, parts
from brainhive_cli.core.arrays import Bool, UInt8
from brainhive_cli.core.command import Input
from brainhive_cli.core.damage import report_damage
from brainhive_cli.core.errors import MissingData
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets import PUBLISHED_FACTS, ROOT_FIELD, Dataset
from brainhive_cli.data.files import pickles
from brainhive_cli.data.files.hdf5 import LazyRows
from brainhive_cli.data.files.ids import Names
from brainhive_cli.data.files.published_files import FOLDERS, fetch_line, find_below
from brainhive_cli.data.media.pictures import decode, decoding
from brainhive_cli.data.media.stimuli import Clip, StimulusSet
from brainhive_cli.data.published.prepared_files import FilesByRow, PreparedFiles
from brainhive_cli.data.signals.spaces import Voxels
from brainhive_cli.data.signals.trials import Trials

SPLITS = ("train", "test")
FRAMES, RATE_HZ = 6, 3.0
"""Frames of a clip of two seconds, and their rate."""
CLIPS_OF_A_FILM = 240
"""Clips of a film of eight minutes: 18 are shown in training, 5 in the test."""
# files of frames, captions and labels, as the two repositories call them
FILES = "GT_{split}_3fps.pt"
CAPTIONS = {"blip2": "GT_{split}_caption.pt", "qwen": "GT_{split}_caption_qwen.pt"}
LABELS = "qwen_{split}_caption_tag_category_id.json"
CONCEPTS = tuple(
    "animal|human|vehicle|building|clothing|weapon|plant|appliance|tool|container|body "
    "part|furniture|device|fabric|fruit|vegetable|insect|landscape feature|water "
    "body|organism|fish|reptile|mammal|accessory|sports equipment|food|drink|light "
    "source|weather phenomenon|jewelry|musical instrument|structure|flying "
    "vehicle|toy|kitchen item|writing tool|gardening tool|scientific "
    "equipment|furniture accessory|roadway|weaponry accessory|sports "
    "field|money|timekeeping device|decoration|art|stationery|kitchen "
    "appliance|rock/mineral|soil/substrate|climate/atmosphere component".split("|")
)
"""The 51 labels of a clip, in their order.

Source: xmed-lab/NEURONS (plain words).
"""
OBJECTS = "mask_cls_{split}_qwen_video"
"""The masks of all objects, a picture each and frame: mask_{clip}_f{frame}_{label}.png,
not 0 inside.
"""
NAMES = "mask_cls_dict_{split}_qwen_video.json"
"""Names of the labels of each frame."""
LARGE = 0.5
"""Share of the picture from which on an object is taken for its setting."""
BACKGROUND = (
    "None|air|airport|alley|area|arena|avenue|back|background|bale|baseball field|"
    "beach|bone|boulevard|building|center|classroom|cloud|collar|color|column|"
    "construction site|coral reef|couch|counter top|court|courtyard|crowd|darkness|"
    "desert|dirt|dock|doorway|drawing|drive|driveway|edge|event|expressway|fall|"
    "field|fire|fireplace|floor|forest|freeway|garage|garden|golf course|ground|"
    "gymnasium|hall|highway|hill|hillside|hut|island|lane|leaf|legging|light|liquid|"
    "lobby|market|motion|mountain|mud|night|ocean|overall|panel|park|parking lot|"
    "path|platter|playground|position|precinct|push up|rack|railroad|railroad track|"
    "range|redwood|river|road|roadway|room|route|row|rubble|sailboat|sand|"
    "server rack|shack|shore|sidewalk|sign|sky|skyline|stack|stadium|step|stream|"
    "street|student|substance|subway|sun|surface|swamp|tag|tank|thoroughfare|town|"
    "track|trail|trash|tray|tugboat|tunnel|tv|valley|village|wall|water|way|weed|"
    "wood|woods|world|writing|yard"
).split("|")
"""Names of masks that are no key object.

Source: xmed-lab/NEURONS (plain words), as the next.
"""
PRIORITY = (
    "man|baby|woman|child|bull|panda "
    "cub|dog|bear|horse|sheep|cat|chicken|duck|elephant|monkey|penguin|labrador "
    "retriever|panda|bison|chihuahua|antelope|gazelle|dolphin|whale|whale "
    "shark|tugboat|tug boat|deer|lion|buffalo|ant|hammock|butterfly|butterfly "
    "fish|stingray|parrot fish|parrotfish|fish|eagle|owl|turtle"
).split("|")
"""Names of persons and animals, one of which is the key object if it moves."""
RESPONSES = "subj{subject:02d}_{split}_fmri.pt"
REPETITIONS = {"train": 2, "test": 10}
SOURCE = fetch_line("cc2017")
"""Hint on how to get the files."""


def _open_tensor(path: Path, axes: str) -> Any:
    """Open a file of torch with one tensor or array, and check its axes, as `N, 6, H,
    W`; no row is read.
    """
    with report_damage(path, SOURCE):
        tensor = pickles.load(path, verify=False)
        shape = list(getattr(tensor, "shape", ()))
        expected = axes.split(", ")
        # letters stand for any length but 0
        fits = [
            str(length) == axis or axis.isalpha()
            for length, axis in zip(shape, expected, strict=False)
        ]
        if len(shape) != len(expected) or not all(fits) or 0 in shape:
            kind = getattr(tensor, "dtype", type(tensor).__name__)
            raise ValueError(f"it holds {kind} {shape}, not numbers [{axes}]")
        return tensor


class Clips(parts.Config):
    """The clips of cc2017: two seconds of film each, as six frames, with captions,
    labels and key objects.

    They are as `gongzx/cc2017_dataset` has them, with what `McGregorW/NEURONS` adds,
    below one folder.

    A concept is a film of eight minutes: validation holds out whole films, as
    neighbouring clips are alike.
    """

    root: str = ROOT_FIELD
    captions: Literal["blip2", "qwen"] = Field(
        "blip2",
        description="whose captions: BLIP-2's of the third frame; or Qwen2.5-VL's of "
        "the clip, whose stores lie under cc2017-qwen",
    )

    def build(self, paths: Paths) -> Dataset:
        """Point at the data; nothing is read yet."""
        root = paths.dataset("cc2017", self.root)
        # captions of another model have stores of their own
        name = "cc2017" if self.captions == "blip2" else f"cc2017-{self.captions}"
        return Dataset(
            name,
            SPLITS,
            partial(_list_clips, root, name, CAPTIONS[self.captions]),
            "cc2017",
            alike_by="neighbours",
            published_sizes=PUBLISHED_FACTS["cc2017"],
            files=partial(_list_files, root, CAPTIONS[self.captions]),
        )


def _list_files(root: Path, captions: str, split: str, reads: str) -> list[Input]:
    """List the files of a split that hold `reads`."""
    # the names of objects, and an archive of their masks
    if reads == "masks":
        names, folder, archive = _find_masks(root, split)
        packed = f"masks/{OBJECTS}.tar.gz".format(split=split)
        return [
            Input.of_file(names, root / f"masks/{NAMES.format(split=split)}", SOURCE),
            Input.of_file(folder or archive, root / packed, SOURCE),
        ]

    patterns = {
        "pixels": FILES,
        "captions": captions,
        "labels": f"qwen_annotation/{LABELS}",
    }
    name = patterns[reads].format(split=split)
    return [Input.of_file(find_below(root, Path(name).name), root / name, SOURCE)]


def _find_masks(root: Path, split: str) -> tuple[Path | None, ...]:
    """Find the names of objects, and the folder of their masks, or its archive."""
    names = NAMES, OBJECTS, f"{OBJECTS}.tar.gz"
    return tuple(find_below(root, name.format(split=split)) for name in names)


def _list_clips(root: Path, name: str, captions: str, split: str) -> StimulusSet:
    """List the clips of a split, with captions, masks and labels where their files are
    there.
    """
    frames_name = FILES.format(split=split)
    frames = find_below(root, frames_name)
    if not frames:
        raise MissingData(f"cc2017: no {root}/{frames_name}", SOURCE)
    count = len(_open_tensor(frames, f"N, {FRAMES}, 3, H, W"))

    # one caption, one list of labels, and the masks of all objects for each clip, where
    # they are here
    read_captions = labels = None
    if captions_path := find_below(root, captions.format(split=split)):
        with report_damage(captions_path, SOURCE):
            array = pickles.array(pickles.load(captions_path)).reshape(-1)
            if array.dtype.kind not in "UO" or len(array) != count:
                raise ValueError(
                    f"it holds {len(array)} {array.dtype}, not captions of {count} "
                    "clips"
                )
        read_captions = partial(_list_captions, Names.of(array.tolist()))
    names, masks, _ = _find_masks(root, split)
    if labels_path := find_below(root, LABELS.format(split=split)):
        entries = documents.read(labels_path, list[dict[str, Any]], SOURCE, MissingData)
        with report_damage(labels_path, SOURCE):
            # [N, 51]
            labels = np.array([entry["category_id"] for entry in entries], np.uint8)
            if labels.shape != (count, len(CONCEPTS)):
                raise ValueError(
                    f"it has labels {[*labels.shape]}, not {[count, len(CONCEPTS)]}"
                )

    return StimulusSet(
        name,
        split,
        Names.of(f"{split}/{index}" for index in range(count)),
        Names.of(
            f"{split}/film-{index // CLIPS_OF_A_FILM + 1:02d}" for index in range(count)
        ),
        partial(_read_clip, frames),
        captions=read_captions,
        captions_each=0 if read_captions is None else 1,
        frames=FRAMES,
        masks=partial(_choose_mask, masks, names) if masks and names else None,
        labels=None if labels is None else labels.__getitem__,
        label_names=() if labels is None else CONCEPTS,
        way_out=SOURCE,
    )


def _read_clip(path: Path, index: int) -> Clip:
    """Read a clip of a tensor in 0..1, or of bytes, that stays on disk."""
    with decoding(f"clip {index} of {path}"):
        # values in 0..1 become bytes
        pixels = pickles.array(pickles.load(path, verify=False)[index])  # [F, 3, H, W]
        if pixels.dtype != np.uint8:
            low = pixels.min()
            high = pixels.max()
            if not 0 <= low <= high <= 1:  # NaN, too
                raise ValueError(
                    f"its values lie in {low:g} to {high:g}, not in 0 to 1"
                )
            pixels = np.rint(pixels * np.float32(255)).astype(np.uint8)
        return Clip(np.ascontiguousarray(np.moveaxis(pixels, 1, -1)), RATE_HZ)


def _list_captions(texts: Names, index: int) -> list[str]:
    """List the one caption of a clip, or none."""
    return [text for text in [texts[index]] if text.strip()]


def _choose_mask(folder: Path, path: Path, index: int) -> UInt8:
    """Read the masks [F, H, W] of a clip's key object; empty, perhaps [F, 1, 1],
    without one.
    """
    # masks [H, W] of each name by frame; objects with the same name are joined
    names = _read_names(path)
    object_masks: dict[str, dict[int, Bool]] = {}
    for frame in range(FRAMES):
        for label, name in names.get(f"mask_{index}_f{frame}", {}).items():
            file = folder / f"mask_{index}_f{frame}_{label}.png"
            mask = np.asarray(decode(str(file), file)).max(-1) > 0
            frames = object_masks.setdefault(name, {})
            frames[frame] = mask | frames.get(frame, np.zeros_like(mask))

    # all frames of each object, [F, H, W]; empty where it is not seen
    sizes = {mask.shape for frames in object_masks.values() for mask in frames.values()}
    empty = np.zeros(next(iter(sizes), (1, 1)), bool)
    object_masks[""] = {}  # without a key object
    masks = {
        name: np.stack([frames.get(n, empty) for n in range(FRAMES)])
        for name, frames in object_masks.items()
    }
    return masks[key_object(masks) or ""].astype(np.uint8)


@cache  # 26,000 frames, which every clip is looked up in
def _read_names(path: Path) -> dict[str, dict[str, str]]:
    return documents.read(path, dict[str, dict[str, str]], SOURCE, MissingData)


def key_object(masks: Mapping[str, Bool]) -> str | None:
    """Choose the object that moves most; a person or an animal before others, a small
    one before a large one.

    Args:
        masks: [F, H, W] of each named object; a frame in which it is not seen is empty.

    Returns:
        Its name; None where there is nothing but background.

    Source: xmed-lab/NEURONS, which masks teach its segmentation.
    """
    # objects that are no background, by how far they move; persons and animals count
    # double
    known = {
        name: mask
        for name, mask in masks.items()
        if name not in BACKGROUND and mask.any()
    }
    scores = {
        name: _path_px(mask) * (2 if name in PRIORITY else 1)
        for name, mask in known.items()
    }

    # moving persons and animals first, then small objects, then any
    moving = [name for name in known if name in PRIORITY and scores[name] > 0]
    # by the last frame in which it is seen
    small = [
        name
        for name, mask in known.items()
        if next(filter(np.any, mask[::-1])).mean() < LARGE
    ]
    return max(moving or small or known, key=scores.__getitem__, default=None)


def _path_px(mask: Bool) -> float:
    """Add up the distances in pixels by which the centre moves between successive
    frames with the object.
    """
    # centre of the object in each frame, None where it is not seen
    centres = [np.argwhere(frame).mean(0) if frame.any() else None for frame in mask]
    return sum(
        float(np.linalg.norm(after - before))
        for before, after in pairwise(centres)
        if before is not None and after is not None
    )


class Cc2017Bold(parts.Config):
    """cc2017 as NeuroClips distributes it: one response a voxel, cortical vertices of
    the fsLR 32k surface.

    Tensors [N, R, V] of subj0N_{train,test}_fmri.pt: each training clip twice, each
    test clip ten times.

    Each run was detrended and z-scored. Which vertices are kept is not published, so
    there are no regions.
    """

    root: str = ROOT_FIELD

    def build(self, paths: Paths) -> PreparedFiles:
        """Point at the data; nothing is read yet."""
        root = paths.dataset("cc2017", self.root)
        published = PUBLISHED_FACTS["cc2017"]
        voxels = published.voxels
        patterns = {
            split: [folder + RESPONSES.replace("{split}", split) for folder in FOLDERS]
            for split in SPLITS
        }
        # as the publisher has them, in float32
        sizes = {
            split: {n: 4 * count * REPETITIONS[split] * v for n, v in voxels.items()}
            for split, count in published.stimuli.items()
        }
        return PreparedFiles("cc2017", root, SOURCE, patterns, _read_responses, sizes)


def _read_responses(files: FilesByRow, subject: int, split: str) -> Trials:
    """Open the responses of a split."""
    path = files[split][0]
    with report_damage(path, SOURCE):
        signal = pickles.array(_open_tensor(path, "N, R, V"))
    return Trials(
        LazyRows(
            (*signal.shape, 1), signal.dtype, lambda part: signal[part][..., None], path
        ),
        [f"{split}/{index}" for index in range(len(signal))],
        Voxels({}),
        np.zeros(1),
        None,
        "z-score",
        {"source": path.name},
    )
