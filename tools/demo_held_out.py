r"""A data set whose test pictures are the demo's training concepts that train-align
holds out.

The settings of `recipes/demo-havir` were selected on them, not on the demo's test
pictures, in a home with the generator of `brainhive demo --system havir --quick`:

    brainhive embed --recipe demo-havir dataset.kind=tools.demo_held_out
    brainhive train-align --recipe demo-havir "dataset={kind:
        tools.demo_held_out}" \ sweep={} train.validation=0
    brainhive reconstruct --recipe demo-havir --allow-code align_run=RUN \
        sources=brain,nearest,mean sweep.strength=0.375,0.5,0.625,0.75,0.875
        sweep.best_of=1,4,8
"""

from functools import partial

from pydantic import Field

from brainhive_cli.core.recipes import parts
from brainhive_cli.core.recipes.recipe import Paths
from brainhive_cli.data import datasets
from brainhive_cli.data.datasets import demo
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.demo import pictures
from brainhive_cli.training.alignment.stages import Train
from brainhive_cli.training.alignment.training.batches import choose_held_out

NAME = "demo-held-out"
TEST_SEED = 3
"""Seed of the trials of held-out pictures, which differs from the demo's seeds."""


class Config(parts.Config):
    """Pictures and simulated fMRI of the training set of the demo."""

    subjects: int = Field(2, gt=0, description="simulated subjects")

    def build(self, paths: Paths) -> datasets.Dataset:
        """Make the data set, whose pictures and signals are made on demand."""
        return datasets.Dataset(
            NAME,
            demo.SPLITS,
            partial(demo.list_images, NAME, list_scenes),
            recorded_as=f"{NAME}-voxels",
            pictured_as=NAME,
            subjects=tuple(range(1, self.subjects + 1)),
            open_recording=simulate,
            is_simulated=True,
        )


TINY = Config(subjects=1)


def list_scenes(split: str) -> tuple[pictures.Scene, ...]:
    """List training scenes: held-out concepts as `test`, other concepts as `train`."""
    scenes = pictures.list_scenes("train")
    concepts = [scene.concept for scene in scenes]
    is_held_out = choose_held_out(concepts, Train().validation)
    is_test = split == "test"
    split_scenes = []
    for scene, is_test_scene in zip(scenes, is_held_out, strict=True):
        if is_test_scene == is_test:
            split_scenes.append(scene)
    if is_test:
        # the first items, which are reconstructed, show every held-out concept
        split_scenes.sort(key=lambda scene: scene.image_id[-2:])
    return tuple(split_scenes)


def simulate(subject: int, split: str) -> Trials:
    """Simulate fMRI, with as many trials of a picture as the demo has."""
    scenes = list_scenes(split)
    looks, meaning = demo.measure_features(scenes, "voxels")
    seed = TEST_SEED if split == "test" else demo.SEEDS[split]
    ids = [scene.image_id for scene in scenes]
    features = {"looks": looks, "meaning": meaning}
    return demo.simulate_voxels(
        features, subject, demo.REPETITIONS[split], seed, 1.0, ids
    )
