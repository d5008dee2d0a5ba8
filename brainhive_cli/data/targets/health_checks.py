"""Health checks of target stores: their figures against what their encoder is known for."""

from brainhive_cli.core import console, parts
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.data.stores.health import Health
from brainhive_cli.data.stores.target_store import TargetStore, making
from brainhive_cli.models.encoders import EncoderConfig


def problem_of(found: TargetStore, health: Health | None = None) -> str:
    """Say in one line what is wrong with a store, the likely cause, and the command that makes it again.

    Args:
        found: The store.
        health: Its figures; those in the store when None.

    Returns:
        The line; empty if the store passes its health check.
    """
    encoder = encoder_of(found)
    problems = (health or found.health).problems(
        encoder.usual_cosine, encoder.usual_repeats, encoder.usual_dead
    )
    if not problems:
        return ""
    figures = "; ".join(figure for figure, _ in problems)
    is_ours = "imported" not in found.attributes
    advice = "fix that" if is_ours else "it was imported, and some public caches are broken"
    return f"{figures} (likely {problems[0][1]}); {advice}; then: {making(found.path)} --again"


def warn_of_problems(found: TargetStore) -> None:
    """Warn, in one line, of a store that fails its health check."""
    if line := problem_of(found):
        console.warn(f"{found.path} failed its health check: {line}")


def encoder_of(found: TargetStore) -> type[EncoderConfig]:
    """Find the part that made a store; the general one where this version does not have it."""
    try:
        known: type[EncoderConfig] = parts.load("encoders", found.attributes["config"]["kind"]).Config
    except (KeyError, RecipeError):
        return EncoderConfig
    return known
