"""THINGS-MEG: four subjects, 271 magnetometers at 200 Hz, 0–1 s."""

from pathlib import Path

from pydantic import Field

from brainhive_cli import parts
from brainhive_cli.datasets._things import Things
from brainhive_cli.recipe import Paths

SOURCE = (
    "hf download Haitao999/things-eeg-meg --repo-type dataset --local-dir data/things-meg "
    "(raw: OpenNeuro ds004212)"
)


class Config(parts.Config):
    """THINGS-MEG as BrainHiVE distributes it: 271 channels × 201 samples."""

    root: str = Field("", description="folder of the data set; default: things-meg below paths.data")
    signals: str = Field("Preprocessed_data*", description="folder of sub-XX/{train,test}.pt below root")
    trust_pickle: bool = Field(False, description="read files that hold Python objects, which can run code")

    def build(self, paths: Paths) -> Things:
        """Point at the data; nothing is read yet."""
        root = Path(self.root) if self.root else paths.under_home("data") / "things-meg"
        return Things(
            name="things-meg",
            root=root,
            signals=self.signals,
            key="meg",
            rate_hz=200.0,
            unit="T",
            montage=(),
            channels=None,
            subjects=(1, 2, 3, 4),
            source=SOURCE,
            trust_pickle=self.trust_pickle,
        )


TINY = Config()
