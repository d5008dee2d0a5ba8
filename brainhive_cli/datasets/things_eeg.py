"""THINGS-EEG2: ten subjects, 63 EEG channels at 250 Hz, 16540 training and 200 test pictures."""

from brainhive_cli.core.recipe import Paths
from brainhive_cli.datasets._things import Layout, Things

MONTAGE = tuple(
    "Fp1 Fp2 AF7 AF3 AFz AF4 AF8 F7 F5 F3 F1 F2 F4 F6 F8 FT9 FT7 FC5 FC3 FC1 FCz FC2 FC4 FC6 FT8 FT10 T7 C5 "
    "C3 C1 Cz C2 C4 C6 T8 TP9 TP7 CP5 CP3 CP1 CPz CP2 CP4 CP6 TP8 TP10 P7 P5 P3 P1 Pz P2 P4 P6 P8 PO7 PO3 "
    "POz PO4 PO8 O1 Oz O2".split()
)
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
            mirror="mirror: Haitao999/things-eeg-meg",
            rate_hz=250.0,
            unit="whitened",
            montage=MONTAGE,
            channels=POSTERIOR,
            subjects=SUBJECTS,
        )


TINY = Config()
