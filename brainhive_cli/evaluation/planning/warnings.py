"""Warnings about designs whose results cannot support the claim."""

from collections.abc import Mapping, Sequence

from brainhive_cli.data.signals import TIME_TOLERANCE_S
from brainhive_cli.evaluation.planning.designs import Design, Question
from brainhive_cli.evaluation.planning.pilot import Pilot
from brainhive_cli.measurement import (
    MIN_SUBJECTS_FOR_POPULATION,
    MIN_UNITS_FOR_POPULATION,
    find_confound,
)


def list_warnings(
    design: Design,
    question: Question,
    split: tuple[list[str], list[str]],
    concept_of: Mapping[str, str],
    copies: Sequence[str],
    pilot: Pilot | None,
    window_ms: tuple[float, float] | None = None,
) -> list[str]:
    """List the problems that no analysis can repair after the recording.

    Args:
        design: Design of the study.
        question: Claim that the study shall support.
        split: Names of the training and test pictures.
        concept_of: Concept of each picture. A picture without one is its own concept.
        copies: Test pictures that are near-copies of training pictures.
        pilot: Recording of which the study is a continuation.
        window_ms: Start and stop of the analysed window after onset. The default is the
            window of the pilot.

    Returns:
        Sentences, the most decisive first. Those of the pilot are last.
    """
    warnings = []
    if pilot:
        window_ms = window_ms or pilot.window_ms
        confound = next(filter(None, map(find_confound, pilot.orders)), "")
        if confound:
            warnings.append(
                f"{pilot.name} showed pictures or concepts {confound}, so signals and "
                "time cannot be distinguished. Draw an order for each run."
            )

    # concepts and near-copies that training and test share
    train, test = split
    learned = {concept_of.get(name, name) for name in train}
    shared = [name for name in test if concept_of.get(name, name) in learned]
    if shared:
        warnings.append(
            f"The concepts of {len(shared)} of {len(test)} test pictures are in the "
            f"training, such as {shared[0]}. A test on new concepts is impossible then."
        )
    if copies:
        warnings.append(
            f"{len(copies)} of {len(test)} test pictures are near-copies of training "
            f"pictures, such as {copies[0]}. Remove them."
        )

    # windows
    interval_s = design.onset_interval_s
    if window_ms and window_ms[1] / 1000 > interval_s + TIME_TOLERANCE_S:
        warnings.append(
            f"The window of signals ends {window_ms[1]:g} ms after the onset, and the "
            f"next picture is shown after {1000 * interval_s:g} ms. The response to a "
            "picture is then mixed with the next."
        )

    # items and people
    n_concepts = len({concept_of.get(name, name) for name in test})
    if n_concepts < MIN_UNITS_FOR_POPULATION:
        plural = "s" if n_concepts > 1 else ""
        warnings.append(
            f"The test shows {n_concepts} concept{plural}. Results of fewer than "
            f"{MIN_UNITS_FOR_POPULATION} concepts hold for these concepts only."
        )
    if question.new_people and design.people < MIN_SUBJECTS_FOR_POPULATION:
        warnings.append(
            f"A claim about new people needs {MIN_SUBJECTS_FOR_POPULATION} people or "
            f"more. It cannot stand with {design.people}."
        )
    elif design.people == 1:
        warnings.append("A study of one person says nothing about other people.")
    if design.test_repetitions == 1:
        warnings.append(
            "Test pictures that are shown once give no noise ceiling, so the room for "
            "better decoders stays unknown."
        )
    return warnings + (pilot.warnings if pilot else [])
