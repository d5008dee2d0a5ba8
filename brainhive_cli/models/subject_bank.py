"""Parameters that are learned for each subject, one row a subject."""

from torch import Tensor


def rows_of(bank: Tensor, subject_index: Tensor | None) -> Tensor:
    """Take each signal's row of a bank [S, ...].

    Returns:
        [B, ...]; for a subject not seen in training (None) the mean of all rows, [1, ...].
    """
    return bank.mean(0, keepdim=True) if subject_index is None else bank[subject_index]
