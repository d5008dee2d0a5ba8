"""Files of SEED-DV in the layout of their publisher, with few channels and pixels."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

FILMS = tuple(f"{name}_10min" for name in "1st 2nd 3rd 4th 5th 6th 7th".split())
N_FRAMES = 12_480
N_SAMPLES = 104_000
SIDE_PX = 32
N_CHANNELS = 3


def draw_concepts(has_shared_order: bool = False) -> NDArray[np.int64]:
    """Draw the concepts [7, 40] in the order of each film."""
    rng = np.random.default_rng(5)
    orders = [1 + rng.permutation(40) for _ in FILMS]
    return np.array([orders[0]] * 7 if has_shared_order else orders)


def list_first_frames() -> NDArray[np.int64]:
    """List the first frame [200] of each clip of a film."""
    concept, clip = np.divmod(np.arange(200), 5)
    return 312 * concept + 72 + 48 * clip


def draw_pictures(concepts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Draw a picture [200, SIDE_PX, SIDE_PX, 3] for each clip of a film.

    Clips of a concept share coarse patches.
    """
    rng = np.random.default_rng([2] + list(concepts))
    pictures = []
    for concept in np.repeat(concepts, 5):
        shared = np.random.default_rng(concept).integers(60, 160, (8, 8, 3))
        patches = shared + rng.integers(-60, 60, (8, 8, 3))
        pictures.append(np.kron(patches, np.ones((4, 4, 1))))
    return np.array(pictures).astype(np.uint8)


def write_film(path: Path, concepts: NDArray[np.int64], n_frames: int) -> None:
    """Write a film in which the red corner of a clip brightens from frame to frame."""
    first_frames = list_first_frames()
    pictures = draw_pictures(concepts)
    with av.open(str(path), "w", format="mp4") as video:
        options = {"preset": "ultrafast", "crf": "10"}
        stream = video.add_stream("libx264", rate=Fraction(24), options=options)
        stream.height = stream.width = SIDE_PX
        stream.pix_fmt = "yuv420p"
        for number in range(n_frames):
            clip = int(np.searchsorted(first_frames, number, side="right")) - 1
            pixels = np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8)
            step = number - first_frames[max(clip, 0)]
            if clip >= 0 and step < 48:
                pixels = pictures[clip].copy()
                pixels[:8, :8] = 5 * step
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            video.mux(stream.encode(frame))
        video.mux(stream.encode(None))


def write_annotations(root: Path, concepts: NDArray[np.int64]) -> None:
    """Write concepts, captions and a value of each kind for each clip."""
    folder = root / "Video" / "meta-info"
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "All_video_label.npy", concepts)
    rng = np.random.default_rng(1)
    values = {
        "color": rng.integers(0, 7, (7, 200)),
        "face_apperance": rng.integers(0, 2, (7, 200)),
        "human_apperance": rng.integers(0, 2, (7, 200)),
        "obj_number": rng.integers(1, 4, (7, 200)),
        "optical_flow_score": rng.uniform(0, 5, (7, 200)),
    }
    for name, content in values.items():
        np.save(folder / f"All_video_{name}.npy", content)
    captions = root / "Video" / "BLIP-caption"
    captions.mkdir(exist_ok=True)
    for film, numbers in zip(FILMS, concepts, strict=True):
        lines = []
        for clip in range(200):
            # words that do not follow time
            integers = rng.integers(0, 1000, 2)
            lines.append(f"{integers[0]} {integers[1]} shows {numbers[clip // 5]}")
        (captions / f"{film}.txt").write_text("\n".join(lines) + "\n")


def write_eeg(
    root: Path, subject: int, effect: float = 0, has_shared_order: bool = False
) -> NDArray[np.float32]:
    """Write the EEG [7, N_CHANNELS, N_SAMPLES] of a subject.

    Args:
        root: Folder of the data set.
        subject: Number of the subject.
        effect: Amplitude of the response to a concept, if noise has an amplitude of 1.
        has_shared_order: True if all films have the same order of concepts.
    """
    rng = np.random.default_rng(subject)
    signal = rng.normal(size=(7, N_CHANNELS, N_SAMPLES)).astype(np.float32)
    # noise that drifts within a block
    steps = rng.normal(size=(7, N_CHANNELS, N_SAMPLES // 400))
    signal += np.repeat(steps.cumsum(-1) / 4, 400, axis=-1)
    patterns = np.random.default_rng(9).normal(size=(40, N_CHANNELS, 400))
    for film, concepts in enumerate(draw_concepts(has_shared_order)):
        for position, concept in enumerate(concepts):
            for clip in range(5):
                start = 2600 * position + 600 + 400 * clip
                response = effect * patterns[concept - 1]
                signal[film, :, start : start + 400] += response
    (root / "EEG").mkdir(parents=True, exist_ok=True)
    np.save(root / "EEG" / f"sub{subject}.npy", signal)
    return signal


def write(root: Path, n_frames: int = N_FRAMES, has_shared_order: bool = False) -> Path:
    """Write films, annotations and the EEG of subject 1 below a root."""
    concepts = draw_concepts(has_shared_order)
    write_annotations(root, concepts)
    for film, film_concepts in zip(FILMS, concepts, strict=True):
        write_film(root / "Video" / f"{film}.mp4", film_concepts, n_frames)
    write_eeg(root, 1, has_shared_order=has_shared_order)
    return root
