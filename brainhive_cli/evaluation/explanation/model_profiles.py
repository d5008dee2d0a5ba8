"""All analyses of one trained model and one subject, each next to the same of a model of shuffled labels."""

from collections.abc import Callable

from brainhive_cli.evaluation.explanation import gradients, occlusion
from brainhive_cli.evaluation.explanation.found import SPACE_PART, TIME_PART, Found
from brainhive_cli.evaluation.explanation.profiles import Profile
from brainhive_cli.evaluation.explanation.reader import Reader
from brainhive_cli.evaluation.explanation.recipe import OF_MODEL, Explanation
from brainhive_cli.evaluation.explanation.trained_windows import decode_parts

Measured = Profile | dict[str, Profile]


def explain_model(reader: Reader, spec: Explanation, shuffled: Reader | None = None) -> Found:
    """Run the chosen analyses.

    Args:
        reader: The model with the subject's signals.
        spec: What is measured.
        shuffled: The same signals, read by a model that was trained on shuffled labels.
    """
    found = Found(reader.image_ids)
    for name in (each for each in OF_MODEL if each in spec.analyses):
        found.attempt(name, lambda name=name: _measure(name, reader, spec))  # type: ignore[misc]
        if shuffled is not None and name not in found.missing and name != "trained":
            control = Found(shuffled.image_ids)
            control.attempt(name, lambda name=name: _measure(name, shuffled, spec))  # type: ignore[misc]
            for key in found.profiles.keys() & control.profiles.keys():
                values = control.profiles[key].values
                found.profiles[key] = found.profiles[key].with_shuffled(values)
    return found


def _measure(name: str, reader: Reader, spec: Explanation) -> Measured:
    measures: dict[str, Callable[[], Measured]] = {
        "windows": lambda: occlusion.read_windows(reader, spec.window),
        "occlusion": lambda: occlusion.occlude_windows(reader, spec.window),
        "columns": lambda: occlusion.occlude_columns(reader),
        "sensors": lambda: occlusion.occlude_sensors(reader),
        "bands": lambda: occlusion.occlude_bands(reader, spec.bands),
        "regions": lambda: occlusion.occlude_regions(reader),
        "levels": lambda: occlusion.drop_levels(reader),
        "gradients": lambda: _gradients(reader, spec),
        "trained": lambda: decode_parts(reader, spec.window, spec.alpha),
    }
    return measures[name]()


def _gradients(reader: Reader, spec: Explanation) -> dict[str, Profile]:
    found = gradients.attribute(reader, spec.points, spec.window.step_ms)
    return {TIME_PART if axis == occlusion.TIME else SPACE_PART: each for axis, each in found.items()}
