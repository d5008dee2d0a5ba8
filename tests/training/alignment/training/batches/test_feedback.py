"""Choice of a target for each sample, against values of UBP's code."""

import torch
from safetensors.torch import load_file

from brainhive_cli.training.alignment.training.batches import HARD, Feedback


def test_feedback_starts_with_ubps_running_similarities(golden):
    expected = load_file(golden / "methods/ubp_strength.safetensors")
    first_expected = expected["expected.similarity.0"]

    feedback = Feedback(len(first_expected), {"picture": HARD + 1}, torch.device("cpu"))

    # ours are float64
    assert torch.equal(feedback.running, first_expected.double())
