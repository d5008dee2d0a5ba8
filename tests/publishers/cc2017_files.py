"""Files of cc2017 as the scripts of their publishers write them, with few clips and
pixels.
"""

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
"""V of each subject."""
REPETITIONS = {"train": 2, "test": 10}


def frames_of(split: str, count: int) -> NDArray[np.float32]:
    """Draw clips [N, F, 3, H, W] in 0..1: bytes over 255."""
    drawn = np.random.default_rng(len(split)).integers(
        0, 256, (count, FRAMES, 3, SIDE, SIDE)
    )
    return (drawn / 255).astype(np.float32)


def signal_of(subject: int, split: str, count: int) -> NDArray[np.float32]:
    """Draw signals [N, R, V]."""
    shape = (count, REPETITIONS[split], WIDTHS[subject])
    return (
        np.random.default_rng([subject, len(split)])
        .normal(size=shape)
        .astype(np.float32)
    )


def captions_of(split: str, count: int, how: str = "blip2") -> list[str]:
    """Write a caption for each clip."""
    return [f"{how} a dog runs, {split} {clip}" for clip in range(count)]


def labels_of(split: str, count: int) -> NDArray[np.int64]:
    """Choose one or two of the labels of each clip."""
    found = np.zeros((count, LABELS), np.int64)
    found[np.arange(count), np.arange(count) % 49] = found[
        :, 50 if split == "train" else 49
    ] = 1
    return found


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
        counts: Clips of each split.
        dtype: Of the frames; whole numbers are bytes.
        is_archive: Whether torch writes tensors as zip files, as it does now.
        text: Of NumPy's arrays of captions: object or str.
        masks: `archive` (masks of all objects, as published) or `none`.
    """
    root.mkdir(parents=True, exist_ok=True)

    def save(content: object, name: str) -> None:
        (root / name).parent.mkdir(exist_ok=True)
        torch.save(
            content,
            root / name,
            _use_new_zipfile_serialization=is_archive
            or not isinstance(content, torch.Tensor),
        )

    for split, count in counts.items():
        frames = torch.from_numpy(frames_of(split, count))
        save(
            frames.to(dtype)
            if dtype.is_floating_point
            else frames.mul(255).round().byte(),
            _frames(split),
        )
        save(np.array(captions_of(split, count), text), f"GT_{split}_caption.pt")
        save(
            np.array(captions_of(split, count, "qwen"), text),
            f"qwen_annotation/GT_{split}_caption_qwen.pt",
        )
        save(torch.rand(count, 1280), f"GT_{split}_caption_emb.pt")
        for subject in WIDTHS:
            save(
                torch.from_numpy(signal_of(subject, split, count)),
                f"subj{subject:02d}_{split}_fmri.pt",
            )
        write_labels(root, split, count)
        if masks == "archive":
            write_masks(root, split, count)
    return root


def _frames(split: str) -> str:
    return f"GT_{split}_3fps.pt"


def write_labels(root: Path, split: str, count: int) -> Path:
    """Write the list of captions, tags and labels."""
    path = root / f"qwen_annotation/qwen_{split}_caption_tag_category_id.json"
    path.parent.mkdir(exist_ok=True)
    content = [
        {"idx": clip, "caption": "a dog", "tags": ["dog"], "category_id": row}
        for clip, row in enumerate(labels_of(split, count).tolist())
    ]
    path.write_text(json.dumps(content))
    return path


def key_masks_of(count: int) -> NDArray[np.bool_]:
    """Give the key object's masks [N, F, H, W]: a dog of one pixel that runs; clip 1
    has none.
    """
    masks = np.zeros((count, FRAMES, SIDE, SIDE), bool)
    for frame in range(FRAMES):
        masks[:, frame, 2, frame] = True
    masks[1] = False
    return masks


def write_masks(root: Path, split: str, count: int) -> Path:
    """Write the masks of all objects (a dog, a still cup, the sky) as a packed folder,
    and their names.
    """
    folder = f"mask_cls_{split}_qwen_video"
    path, names = root / f"masks/{folder}.tar.gz", {}
    path.parent.mkdir(exist_ok=True)
    dog = key_masks_of(count)
    cup, sky = np.zeros((2, SIDE, SIDE), bool)
    cup[5:7, 5:7] = sky[:5] = True
    with tarfile.open(path, "w:gz") as archive:
        for clip in range(count):
            objects = {"0": ("sky", [sky] * FRAMES)}
            if dog[clip].any():
                objects |= {"1": ("dog", list(dog[clip])), "2": ("cup", [cup] * FRAMES)}
            for frame in range(FRAMES):
                names[f"mask_{clip}_f{frame}"] = {
                    label: name for label, (name, _) in objects.items()
                }
                for label, (_, masks) in objects.items():
                    content = io.BytesIO()
                    Image.fromarray(masks[frame].astype(np.uint8) * 255).save(
                        content, "PNG"
                    )
                    member = tarfile.TarInfo(
                        f"{folder}/mask_{clip}_f{frame}_{label}.png"
                    )
                    member.size = content.tell()
                    content.seek(0)
                    archive.addfile(member, content)
    (root / f"masks/mask_cls_dict_{split}_qwen_video.json").write_text(
        json.dumps(names)
    )
    return path


def unpack_masks(root: Path) -> None:
    """Unpack them, as `fetch` does."""
    for path in (root / "masks").glob("*.tar.gz"):
        with tarfile.open(path) as archive:
            archive.extractall(path.parent)  # which the test itself has packed
