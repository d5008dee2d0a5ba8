"""Facts of reconstruct."""

from brainhive_cli.core.results import Facts


class ReconstructionFacts(Facts):
    """Facts of reconstruct.

    Attributes:
        medium: Kind of the reconstructions: `picture` or `clip`.
        prior: Run of the prior that predicted the tokens.
        concepts: Concepts whose recall was measured.
        score: Folder of existing reconstructions that were scored, or "".
        unmatched: Files of this folder that belong to no stimulus.
        without: Stimuli that have no file in this folder.
        originals: Files left out, because they are copies of the stimuli.
        one_colour: Reconstructions that have a single colour.
    """

    command: str = "reconstruct"
    medium: str = "picture"
    prior: str = ""
    concepts: list[str] = []
    score: str = ""
    unmatched: list[str] = []
    without: list[str] = []
    originals: list[str] = []
    one_colour: list[str] = []

    @property
    def paired_stimulus(self) -> str:
        """Kind of the reconstructions: `picture` or `clip`."""
        return self.medium

    @property
    def has_bars(self) -> bool:
        """True, because sources of pictures are compared."""
        return True
