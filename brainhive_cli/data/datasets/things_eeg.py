"""THINGS-EEG2: ten subjects, 63 EEG channels at 250 Hz, 16540 training and 200 test pictures."""

from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.datasets._things import Layout, Things
from brainhive_cli.data.montages import THINGS_EEG

POSTERIOR = tuple("P7 P5 P3 P1 Pz P2 P4 P6 P8 PO7 PO3 POz PO4 PO8 O1 Oz O2".split())
SUBJECTS = tuple(range(1, 11))


class Config(Layout):
    """THINGS-EEG as BrainHiVE distributes it: whitened, 250 Hz, 0–1 s."""

    def build(self, paths: Paths) -> Things:
        """Point at the data; nothing is read yet."""
        return self.open(
            paths,
            "things-eeg",
            "Preprocessed_data_*",
            "Haitao999/things-eeg",
            mirror="or the signals of LidongYang/EEG_Image_decode: Preprocessed_data_250Hz",
            rate_hz=250.0,
            unit="whitened",
            montage=THINGS_EEG,
            channels=POSTERIOR,
            subjects=SUBJECTS,
        )


TINY = Config()
