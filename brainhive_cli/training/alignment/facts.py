"""Facts of train-align."""

from brainhive_cli.core.results import Facts


class TrainingFacts(Facts):
    """Facts of train-align.

    Attributes:
        is_closed_form: True if the models were computed without epochs.
        division: Phrase that tells the models apart, such as "one per person and
            seed". Empty for a single model of one person.
    """

    command: str = "train-align"
    is_closed_form: bool = False
    division: str = ""
