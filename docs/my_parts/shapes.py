"""my_parts/shapes.py: coloured squares, and simulated signals of them."""

from functools import partial

import numpy as np
from PIL import Image
from pydantic import Field

from brainhive_cli import api

CONCEPTS = {"train": 24, "test": 8}
CORNERS = [(0, 0), (8, 0), (0, 8), (8, 8)]


class Config(api.Config):
    """Keys of the data set."""

    noise: float = Field(0.3, ge=0, description="size of the noise")

    def build(self, paths: api.Paths) -> api.Dataset:
        """Describe the data set; its files are below `paths.dataset(NAME, "")`."""
        return api.Dataset(
            "shapes",
            ("train", "test"),  # the second split is tested
            list_images,
            subjects=(1, 2),
            open_recording=partial(record, self.noise),
            is_simulated=True,  # omit it for recordings
            alike_by="concept",  # statistics group pictures by concept
        )


TINY = Config()


def draw(split: str, index: int) -> Image.Image:
    """Draw a picture; test concepts have other hues than training ones."""
    concept, corner = divmod(index, len(CORNERS))
    hue = (concept + (0.5 if split == "test" else 0)) * 360 / CONCEPTS[split]
    picture = Image.new("RGB", (16, 16), "white")
    picture.paste(
        Image.new("RGB", (8, 8), f"hsl({hue:.0f}, 80%, 50%)"), CORNERS[corner]
    )
    return picture


def list_images(split: str) -> api.StimulusSet:
    """List the pictures of a split: ids, concepts, and a function that opens one."""
    named = [
        (f"{split}/hue-{i}", corner)
        for i in range(CONCEPTS[split])
        for corner in range(4)
    ]
    ids = api.Names.of(f"{concept}/{corner}" for concept, corner in named)
    concepts = api.Names.of(concept for concept, _ in named)
    return api.StimulusSet("shapes", split, ids, concepts, partial(draw, split))


def record(noise: float, subject: int, split: str) -> api.Trials:
    """Open a recording [N, R, C, T], or raise MissingData; this one is simulated from
    the colours of the corners.
    """
    stimuli = list_images(split)
    small = [
        np.asarray(stimuli.open(i).resize((2, 2))).ravel() / 255
        for i in range(len(stimuli))
    ]
    mixing = np.random.default_rng(subject).normal(size=(12, 8 * 20))
    random = np.random.default_rng([subject, len(small)])
    signal = (np.stack(small) @ mixing)[:, None] + noise * random.normal(
        size=(len(small), 4, 160)
    )
    # pictures came in random order; tests need it to tell signals from slow drift
    order = random.permutation(len(small) * 4).reshape(-1, 4)
    return api.Trials.from_repetitions(
        signal.reshape(-1, 4, 8, 20).astype(np.float32),
        image_ids=list(stimuli.image_ids),
        space=api.Sensors([f"E{i}" for i in range(8)]),
        times_s=np.arange(20) / 100,
        rate_hz=100,
        unit="uV",
        sessions=np.zeros_like(order, np.int8),
        trial_numbers=order,
    )
