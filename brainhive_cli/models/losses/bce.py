"""Binary cross-entropy: each predicted logit says whether its target is 1, whatever the others are."""

from brainhive_cli.core import parts
from brainhive_cli.models.losses._distances import Distance


class Config(parts.Config):
    """Mean over all values of a batch; predictions are logits, targets lie between 0 and 1."""

    def build(self) -> Distance:
        """Make the loss."""
        return Distance("bce")


TINY = Config()
