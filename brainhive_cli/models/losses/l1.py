"""Mean absolute error: a prediction should have the values of its target, outliers counting less."""

from brainhive_cli.core import parts
from brainhive_cli.models.losses._distances import Distance


class Config(parts.Config):
    """Mean absolute difference over all values of a batch."""

    def build(self) -> Distance:
        """Make the loss."""
        return Distance("l1")


TINY = Config()
