"""cc2017: clips of two seconds of film with annotations, and fMRI responses to them."""

from collections.abc import Mapping, Sequence
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from brainhive_cli.core.base import Array, Bool, MissingData, UInt8
from brainhive_cli.core.files import Input, documents, report_damage
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.data.datasets import PUBLISHED_FACTS, ROOT_FIELD, Dataset
from brainhive_cli.data.files import (
    FOLDERS,
    LazyRows,
    Names,
    fetch_line,
    find_below,
    pickles,
)
from brainhive_cli.data.media import Clip, StimulusSet, decode, report_bad_picture
from brainhive_cli.data.published.prepared_files import FilesByRow, PreparedFiles
from brainhive_cli.data.signals import Trials, Voxels

FETCH_HINT = fetch_line("cc2017")

FRAMES_PER_CLIP = 6
FRAMES = "GT_{split}_3fps.pt"
CAPTIONS = {"blip2": "GT_{split}_caption.pt", "qwen": "GT_{split}_caption_qwen.pt"}
"""Files of frames and of captions, by the model that wrote them. Source:
gongzx/cc2017_dataset and McGregorW/NEURONS on Hugging Face.
"""
LABELS = "qwen_{split}_caption_tag_category_id.json"
"""File of labels, a list with an object per clip, in which `category_id` has the flags
[51].
"""
LABEL_NAMES = tuple(
    "animal|human|vehicle|building|clothing|weapon|plant|appliance|tool|container|body "
    "part|furniture|device|fabric|fruit|vegetable|insect|landscape feature|water "
    "body|organism|fish|reptile|mammal|accessory|sports equipment|food|drink|light "
    "source|weather phenomenon|jewelry|musical instrument|structure|flying "
    "vehicle|toy|kitchen item|writing tool|gardening tool|scientific "
    "equipment|furniture accessory|roadway|weaponry accessory|sports "
    "field|money|timekeeping device|decoration|art|stationery|kitchen "
    "appliance|rock/mineral|soil/substrate|climate/atmosphere component".split("|")
)
"""Names of the 51 labels of a clip, in the order of the file.

Source: xmed-lab/NEURONS (plain words).
"""
MASKS = "mask_cls_{split}_qwen_video"
MASK = "mask_{clip}_f{frame}"
"""Folder of the masks of all objects, and name of a frame. The mask of an object is the
picture mask_{clip}_f{frame}_{label}.png, which is not 0 inside.
"""
MASK_NAMES = "mask_cls_dict_{split}_qwen_video.json"
"""File of the names of the labels of each frame."""
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
"""Names of masks that are no key object. Source: xmed-lab/NEURONS (plain words)."""
PRIORITY = (
    "man|baby|woman|child|bull|panda "
    "cub|dog|bear|horse|sheep|cat|chicken|duck|elephant|monkey|penguin|labrador "
    "retriever|panda|bison|chihuahua|antelope|gazelle|dolphin|whale|whale "
    "shark|tugboat|tug boat|deer|lion|buffalo|ant|hammock|butterfly|butterfly "
    "fish|stingray|parrot fish|parrotfish|fish|eagle|owl|turtle"
).split("|")
"""Names of persons and animals, which win over other objects if they move. Source:
xmed-lab/NEURONS (plain words).
"""


class Clips(parts.Config):
    """The clips of cc2017: two seconds of film each, as six frames, with captions,
    labels and key objects.

    The files of `gongzx/cc2017_dataset` and the annotations of `McGregorW/NEURONS` lie
    below the same folder.

    A concept is a film of eight minutes. Validation holds out whole films, because
    neighbouring clips are alike.
    """

    root: str = ROOT_FIELD
    captions: Literal["blip2", "qwen"] = Field(
        "blip2",
        description="model that wrote the captions: BLIP-2 for the third frame, or "
        "Qwen2.5-VL for the clip, with stores under cc2017-qwen",
    )

    def build(self, paths: Paths) -> Dataset:
        """Make the data set. No file is read yet."""
        root = paths.dataset("cc2017", self.root)
        captions = CAPTIONS[self.captions]
        # captions of another model have stores of their own
        name = "cc2017" if self.captions == "blip2" else f"cc2017-{self.captions}"
        return Dataset(
            name,
            ("train", "test"),
            partial(_list_clips, root, name, captions),
            recorded_as="cc2017",
            alike_by="neighbours",
            published_sizes=PUBLISHED_FACTS["cc2017"],
            files=partial(_list_files, root, captions),
        )


class Cc2017Bold(parts.Config):
    """cc2017 as NeuroClips distributes it: a response per cortical vertex of the fsLR
    32k surface.

    The tensors [N, R, V] of subj0N_{train,test}_fmri.pt have each training clip twice,
    and each test clip ten times.

    Each run was detrended and z-scored. The kept vertices are not published, so there
    are no regions.
    """

    root: str = ROOT_FIELD

    def build(self, paths: Paths) -> PreparedFiles:
        """Make the preparation. No file is read yet."""
        root = paths.dataset("cc2017", self.root)
        published = PUBLISHED_FACTS["cc2017"]
        patterns = {}
        sizes = {}
        # Repetitions R of each clip.
        repetitions = {"train": 2, "test": 10}
        for split, n_clips in published.stimuli.items():
            patterns[split] = [
                folder + f"subj{{subject:02d}}_{split}_fmri.pt" for folder in FOLDERS
            ]
            # bytes of a voxel in float32
            voxel_bytes = 4 * n_clips * repetitions[split]
            sizes[split] = {
                subject: voxel_bytes * width
                for subject, width in published.voxels.items()
            }
        return PreparedFiles(
            "cc2017", root, FETCH_HINT, patterns, _read_responses, sizes
        )


def _list_files(root: Path, captions: str, split: str, content: str) -> list[Input]:
    """List the files of a split with "pixels", "captions", "labels" or "masks"."""
    patterns = {
        "pixels": [FRAMES],
        "captions": [captions],
        "labels": [f"qwen_annotation/{LABELS}"],
        "masks": [f"masks/{MASK_NAMES}", f"masks/{MASKS}.tar.gz"],
    }
    inputs = []
    for pattern in patterns[content]:
        expected_path = root / pattern.format(split=split)
        name = expected_path.name
        path = find_below(root, name.removesuffix(".tar.gz"))
        # an archive that is not unpacked
        if path is None and name.endswith(".tar.gz"):
            path = find_below(root, name)
        inputs.append(Input.of_file(path, expected_path, FETCH_HINT))
    return inputs


def _list_clips(root: Path, name: str, captions: str, split: str) -> StimulusSet:
    """List the clips of a split, with the annotations whose files are there."""
    frames_name = FRAMES.format(split=split)
    frames = find_below(root, frames_name)
    if not frames:
        raise MissingData(f"cc2017: no {root}/{frames_name}", FETCH_HINT)
    count = len(_open_tensor(frames, ("N", FRAMES_PER_CLIP, 3, "H", "W")))

    annotations: dict[str, Any] = {}
    captions_path = find_below(root, captions.format(split=split))
    if captions_path:
        texts = _read_captions(captions_path, count)
        annotations["captions"] = partial(_list_captions, texts)
        annotations["captions_each"] = 1
    names = find_below(root, MASK_NAMES.format(split=split))
    masks = find_below(root, MASKS.format(split=split))
    if masks and names:
        annotations["masks"] = partial(_read_key_mask, masks, names)
    labels_path = find_below(root, LABELS.format(split=split))
    if labels_path:
        annotations["labels"] = _read_labels(labels_path, count).__getitem__
        annotations["label_names"] = LABEL_NAMES
    # Clips of two seconds in a film of eight minutes. Training shows 18 films, the test
    # 5.
    clips_per_film = 240
    return StimulusSet(
        name,
        split,
        image_ids=Names.of(f"{split}/{index}" for index in range(count)),
        concepts=Names.of(
            f"{split}/film-{index // clips_per_film + 1:02d}" for index in range(count)
        ),
        open=partial(_read_clip, frames),
        frames=FRAMES_PER_CLIP,
        way_out=FETCH_HINT,
        **annotations,
    )


def _open_tensor(path: Path, axes: Sequence[str | int]) -> Any:
    """Open a torch file with a single tensor or array. The values stay on disk.

    Args:
        path: Path of the file.
        axes: Length of each axis, or a letter for any length but 0.

    Raises:
        MissingData: if the file is damaged, or has other axes.
    """
    with report_damage(path, FETCH_HINT):
        tensor = pickles.load(path, verify=False)
        shape = list(getattr(tensor, "shape", ()))
        fits = len(shape) == len(axes) and 0 not in shape
        for length, axis in zip(shape, axes, strict=False):
            fits &= isinstance(axis, str) or length == axis
        if not fits:
            kind = getattr(tensor, "dtype", type(tensor).__name__)
            expected = ", ".join(map(str, axes))
            raise ValueError(f"it holds {kind} {shape}, not numbers [{expected}]")
        return tensor


def _read_captions(path: Path, count: int) -> Names:
    """Read the captions of all clips of a split."""
    with report_damage(path, FETCH_HINT):
        texts = pickles.to_array(pickles.load(path)).reshape(-1)
        if texts.dtype.kind not in "UO" or len(texts) != count:
            raise ValueError(
                f"it holds {len(texts)} {texts.dtype}, not captions of {count} clips"
            )
    return Names.of(texts.tolist())


def _read_labels(path: Path, count: int) -> UInt8:
    """Read the flags [N, 51] of the labels of all clips of a split."""
    entries = documents.read(path, list[dict[str, Any]], FETCH_HINT, MissingData)
    with report_damage(path, FETCH_HINT):
        labels = np.array([entry["category_id"] for entry in entries], np.uint8)
        expected_shape = (count, len(LABEL_NAMES))
        if labels.shape != expected_shape:
            raise ValueError(
                f"it has labels {list(labels.shape)}, not {list(expected_shape)}"
            )
    return labels


@cache  # 26,000 frames, which every clip needs
def _read_mask_names(path: Path) -> dict[str, dict[str, str]]:
    """Read the names of the labels of all frames."""
    return documents.read(path, dict[str, dict[str, str]], FETCH_HINT, MissingData)


def _list_captions(texts: Names, index: int) -> list[str]:
    """List the caption of a clip, if it is not blank."""
    text = texts[index]
    return [text] if text.strip() else []


def _read_clip(path: Path, index: int) -> Clip:
    """Read a clip of a tensor of bytes, or of values from 0 to 1."""
    with report_bad_picture(f"clip {index} of {path}"):
        pixels = pickles.to_array(
            pickles.load(path, verify=False)[index]
        )  # [F, 3, H, W]
        if pixels.dtype != np.uint8:
            low = pixels.min()
            high = pixels.max()
            if not 0 <= low <= high <= 1:  # also True for NaN
                raise ValueError(
                    f"its values lie in {low:g} to {high:g}, not in 0 to 1"
                )
            pixels = np.rint(pixels * np.float32(255)).astype(np.uint8)
        frames = np.ascontiguousarray(np.moveaxis(pixels, 1, -1))
        frame_rate_hz = 3.0
        return Clip(frames, frame_rate_hz)


def _read_key_mask(folder: Path, names_path: Path, index: int) -> UInt8:
    """Read the masks [F, H, W] of a clip's key object.

    Without a key object all are empty, and [F, 1, 1] if the clip has no masks.
    """
    names = _read_mask_names(names_path)
    shape: tuple[int, ...] = (1, 1)
    object_frames: dict[str, dict[int, Bool]] = {}
    for frame in range(FRAMES_PER_CLIP):
        mask_name = MASK.format(clip=index, frame=frame)
        for label, name in names.get(mask_name, {}).items():
            file = folder / f"{mask_name}_{label}.png"
            mask = np.asarray(decode(str(file), file)).max(-1) > 0
            shape = mask.shape
            # masks with the same name are joined
            frames = object_frames.setdefault(name, {})
            frames[frame] = mask | frames.get(frame, False)

    empty = np.zeros(shape, bool)
    masks = {}
    for name, frames in object_frames.items():
        masks[name] = np.stack(
            [frames.get(frame, empty) for frame in range(FRAMES_PER_CLIP)]
        )
    key_object = choose_key_object(masks)
    if key_object is None:
        return np.zeros((FRAMES_PER_CLIP,) + shape, np.uint8)
    return masks[key_object].astype(np.uint8)


def choose_key_object(masks: Mapping[str, Bool]) -> str | None:
    """Choose the object that moves most.

    Moving persons and animals win over small objects, which win over large ones.

    Args:
        masks: Masks [F, H, W] of each object, empty in frames without it.

    Returns:
        Name of the object, or None if there is only background.

    Source: xmed-lab/NEURONS, which learns segmentation from the masks of this object.
    """
    scores = {}
    for name, mask in masks.items():
        if name not in BACKGROUND and mask.any():
            weight = 2 if name in PRIORITY else 1
            scores[name] = weight * _measure_path_px(mask)

    candidates = []
    for name in scores:
        if name in PRIORITY and scores[name] > 0:
            candidates.append(name)
    if not candidates:
        for name in scores:
            mask = masks[name]
            last_frame = mask[mask.any((1, 2))][-1]
            # larger objects count as the setting
            if last_frame.mean() < 0.5:
                candidates.append(name)
    return max(candidates or scores, key=scores.__getitem__, default=None)


def _measure_path_px(mask: Bool) -> float:
    """Add up the distances between the object's centres in successive frames [F, H, W].

    Pairs of frames count only if the object is in both.
    """
    centres = [np.argwhere(frame).mean(0) if frame.any() else None for frame in mask]
    distances_px = []
    for centre, next_centre in pairwise(centres):
        if centre is not None and next_centre is not None:
            distances_px.append(float(np.linalg.norm(next_centre - centre)))
    return sum(distances_px)


def _read_responses(files: FilesByRow, subject: int, split: str) -> Trials:
    """Open the responses of a split. They stay on disk."""
    path = files[split][0]
    with report_damage(path, FETCH_HINT):
        responses = pickles.to_array(_open_tensor(path, ("N", "R", "V")))  # [N, R, V]

    def read_clips(rows: slice) -> Array:
        return responses[rows][..., None]

    return Trials.from_repetitions(
        LazyRows(responses.shape + (1,), responses.dtype, read_clips, path),
        [f"{split}/{index}" for index in range(len(responses))],
        Voxels({}),
        times_s=np.zeros(1),
        rate_hz=None,
        unit="z-score",
        provenance={"source": path.name},
    )
