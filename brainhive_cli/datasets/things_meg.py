"""THINGS-MEG: four subjects, 271 magnetometers at 200 Hz, 0–1 s."""

from brainhive_cli.datasets._things import Layout, Things
from brainhive_cli.recipe import Paths

SOURCE = (
    "hf download Haitao999/things-eeg-meg --repo-type dataset --local-dir data/things-meg "
    "(raw: OpenNeuro ds004212)"
)


class Config(Layout):
    """THINGS-MEG as BrainHiVE distributes it: 271 channels × 201 samples."""

    def build(self, paths: Paths) -> Things:
        """Point at the data; nothing is read yet."""
        return self.open(
            paths,
            "things-meg",
            key="meg",
            rate_hz=200.0,
            unit="T",
            montage=(),
            channels=None,
            subjects=(1, 2, 3, 4),
            source=SOURCE,
        )


TINY = Config()
