"""THINGS-MEG: four subjects, 271 magnetometers at 200 Hz, 0–1 s."""

from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets._things import Layout, Things

MONTAGE = tuple(f"MEG{number:03d}" for number in range(1, 272))
"""Names of our own, for files that hold none."""


class Config(Layout):
    """THINGS-MEG as BrainHiVE distributes it: 271 channels × 201 samples."""

    def build(self, paths: Paths) -> Things:
        """Point at the data; nothing is read yet."""
        return self.open(
            paths,
            "things-meg",
            "Preprocessed_data",
            "Haitao999/things-eeg-meg",
            mirror="raw: OpenNeuro ds004212",
            rate_hz=200.0,
            unit="z-score",
            montage=MONTAGE,
            channels=None,
            subjects=(1, 2, 3, 4),
        )


TINY = Config()
