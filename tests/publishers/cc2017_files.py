"""Files of cc2017 in the layout of their publishers, with few clips and pixels."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

COUNTS = {"train": 5, "test": 3}
FRAMES, SIDE, LABELS = 6, 8, 51
WIDTHS = {1: 11, 2: 7}
"""Number of voxels V of each subject."""
REPETITIONS = {"train": 2, "test": 10}


def draw_frames(split: str, count: int) -> NDArray[np.float32]:
    """Draw clips [N, F, 3, H, W] of bytes, divided by 255."""
    shape = (count, FRAMES, 3, SIDE, SIDE)
    pixels = np.random.default_rng(len(split)).integers(0, 256, shape)
    return (pixels / 255).astype(np.float32)


def draw_signal(subject: int, split: str, count: int) -> NDArray[np.float32]:
    """Draw signals [N, R, V]."""
    shape = (count, REPETITIONS[split], WIDTHS[subject])
    rng = np.random.default_rng([subject, len(split)])
    return rng.normal(size=shape).astype(np.float32)


def make_captions(split: str, count: int, model: str = "blip2") -> list[str]:
    """Make a caption for each clip, with the name of the captioning model."""
    return [f"{model} a dog runs, {split} {clip}" for clip in range(count)]


def make_labels(split: str, count: int) -> NDArray[np.int64]:
    """Make two-hot labels [N, LABELS] of the clips."""
    labels = np.zeros((count, LABELS), np.int64)
    labels[np.arange(count), np.arange(count) % 49] = 1
    labels[:, 50 if split == "train" else 49] = 1
    return labels


def write(
    root: Path,
    counts: Mapping[str, int] = COUNTS,
    dtype: torch.dtype = torch.float32,
    is_archive: bool = True,
    text: type = object,
    masks: str = "archive",
) -> Path:
    """Write all files of both publishers below a root.

    Args:
        root: Folder of the data set.
        counts: Number of clips in each split.
        dtype: Type of the frames. Integer frames are bytes.
        is_archive: If True, torch writes tensors as zip files, its present default.
        text: Type of the arrays of captions, object or str.
        masks: `archive` (masks of all objects, as published) or `none`.
    """
    root.mkdir(parents=True, exist_ok=True)

    def save(content: object, name: str) -> None:
        (root / name).parent.mkdir(exist_ok=True)
        is_zip = is_archive or not isinstance(content, torch.Tensor)
        torch.save(content, root / name, _use_new_zipfile_serialization=is_zip)

    for split, count in counts.items():
        frames = torch.from_numpy(draw_frames(split, count))
        if dtype.is_floating_point:
            frames = frames.to(dtype)
        else:
            frames = frames.mul(255).round().byte()
        save(frames, f"GT_{split}_3fps.pt")
        captions = np.array(make_captions(split, count), text)
        save(captions, f"GT_{split}_caption.pt")
        captions = np.array(make_captions(split, count, "qwen"), text)
        save(captions, f"qwen_annotation/GT_{split}_caption_qwen.pt")
        save(torch.rand(count, 1280), f"GT_{split}_caption_emb.pt")
        for subject in WIDTHS:
            signal = torch.from_numpy(draw_signal(subject, split, count))
            save(signal, f"subj{subject:02d}_{split}_fmri.pt")
        write_labels(root, split, count)
        if masks == "archive":
            write_masks(root, split, count)
    return root


def write_labels(root: Path, split: str, count: int) -> Path:
    """Write the list of captions, tags and labels."""
    path = root / f"qwen_annotation/qwen_{split}_caption_tag_category_id.json"
    path.parent.mkdir(exist_ok=True)
    content = []
    for clip, row in enumerate(make_labels(split, count).tolist()):
        content.append(
            {"idx": clip, "caption": "a dog", "tags": ["dog"], "category_id": row}
        )
    path.write_text(json.dumps(content))
    return path


def make_key_masks(count: int) -> NDArray[np.bool_]:
    """Make masks [N, F, H, W] of a running dog of a single pixel. Clip 1 has no dog."""
    masks = np.zeros((count, FRAMES, SIDE, SIDE), bool)
    for frame in range(FRAMES):
        masks[:, frame, 2, frame] = True
    masks[1] = False
    return masks


def write_masks(root: Path, split: str, count: int) -> Path:
    """Write an archive of masks (a dog, a still cup, the sky) and a list of names."""
    folder = f"mask_cls_{split}_qwen_video"
    path = root / f"masks/{folder}.tar.gz"
    names: dict[str, dict[str, str]] = {}
    path.parent.mkdir(exist_ok=True)
    dog = make_key_masks(count)
    cup, sky = np.zeros((2, SIDE, SIDE), bool)
    cup[5:7, 5:7] = sky[:5] = True
    with tarfile.open(path, "w:gz") as archive:
        for clip in range(count):
            objects = {"0": ("sky", [sky] * FRAMES)}
            if dog[clip].any():
                objects["1"] = ("dog", list(dog[clip]))
                objects["2"] = ("cup", [cup] * FRAMES)
            for frame in range(FRAMES):
                stem = f"mask_{clip}_f{frame}"
                names[stem] = {}
                for label, (name, masks) in objects.items():
                    names[stem][label] = name
                    mask = Image.fromarray(masks[frame].astype(np.uint8) * 255)
                    content = io.BytesIO()
                    mask.save(content, "PNG")
                    member = tarfile.TarInfo(f"{folder}/{stem}_{label}.png")
                    member.size = content.tell()
                    content.seek(0)
                    archive.addfile(member, content)
    names_file = root / f"masks/mask_cls_dict_{split}_qwen_video.json"
    names_file.write_text(json.dumps(names))
    return path


def unpack_masks(root: Path) -> None:
    """Unpack the archives of masks, as `fetch` does."""
    for path in (root / "masks").glob("*.tar.gz"):
        with tarfile.open(path) as archive:
            archive.extractall(path.parent)  # safe: `write_masks` packed it
