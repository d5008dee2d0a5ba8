"""One-to-one assignment: no picture is the answer to two signals (the Hungarian method)."""

from dataclasses import replace

import numpy as np
import torch

from brainhive_cli.measurement.corrections import Compared, Correction


class Config(Correction):
    """Assignment of the largest sum of similarities; what is assigned is first, the rest in its order."""

    def correct(self, compared: Compared) -> Compared:
        """Raise the similarity of each assigned pair above all others."""
        from scipy.optimize import linear_sum_assignment

        # in a random order: of equal sums the diagonal is taken, where pictures stand as their signals do
        values, random = compared.similarities.cpu().numpy(), np.random.default_rng(0)
        rows, columns = (random.permutation(size) for size in values.shape)
        signals, pictures = linear_sum_assignment(values[rows][:, columns], maximize=True)
        raised = np.zeros_like(values)
        raised[rows[signals], columns[pictures]] = 1 + np.ptp(values)
        similarities = compared.similarities + torch.from_numpy(raised).to(compared.similarities.device)
        return replace(compared, similarities=similarities)


TINY = Config()
