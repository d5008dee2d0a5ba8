r"""The demo's pictures of the training concepts that train-align holds out, as a data
set's test pictures.

On them the settings of `recipes/demo-havir` were chosen, never on the demo's test
pictures, in a home where `brainhive demo --system havir --quick` has put the generator:

    brainhive embed --recipe demo-havir dataset.kind=tools.demo_held_out
    brainhive train-align --recipe demo-havir "dataset={kind:
        tools.demo_held_out}" \ sweep={} train.validation=0
    brainhive reconstruct --recipe demo-havir --allow-code align_run=RUN \
        sources=brain,nearest,mean sweep.strength=0.375,0.5,0.625,0.75,0.875
        sweep.best_of=1,4,8
"""

from functools import partial

from pydantic import Field

from brainhive_cli.core import parts
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data import datasets
from brainhive_cli.data.datasets import demo
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.demo import pictures
from brainhive_cli.training.alignment.stages import Train
from brainhive_cli.training.alignment.training.batches import choose_held_out

NAME = "demo-held-out"
TEST_SEED = 3
"""Of the trials of held-out pictures: that of neither the demo's training trials nor
its test trials.
"""


class Config(parts.Config):
    """Pictures and simulated fMRI of the demo; it trains on what the demo's brain
    models learn from.
    """

    subjects: int = Field(2, gt=0, description="simulated subjects")

    def build(self, paths: Paths) -> datasets.Dataset:
        """Make the data set; pictures and signals are made on demand."""
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
    """List the demo's training scenes: those of held-out concepts as `test`, all others
    as `train`.
    """
    scenes, is_test = pictures.list_scenes("train"), split == "test"
    held_out = choose_held_out([scene.concept for scene in scenes], Train().validation)
    chosen = [
        scene
        for scene, is_held in zip(scenes, held_out, strict=True)
        if is_held == is_test
    ]
    # the first items, which are reconstructed, show every held-out concept
    return tuple(
        sorted(chosen, key=lambda scene: scene.image_id[-2:]) if is_test else chosen
    )


def simulate(subject: int, split: str) -> Trials:
    """Simulate fMRI; held-out pictures have as many trials as the demo's test
    pictures.
    """
    scenes = list_scenes(split)
    looks, meaning = demo.measure_features(scenes, "voxels")
    seed = TEST_SEED if split == "test" else demo.SEEDS[split]
    ids = [scene.image_id for scene in scenes]
    features = {"looks": looks, "meaning": meaning}
    return demo.simulate_voxels(
        features, subject, demo.REPETITIONS[split], seed, 1.0, ids
    )
