"""Ill embedding stores: told by their health figures and what their encoder is known for."""

from brainhive_cli.core import console, parts
from brainhive_cli.core.errors import RecipeError
from brainhive_cli.encoders import EncoderConfig
from brainhive_cli.stores.health import Health
from brainhive_cli.stores.target_store import TargetStore, making


def illness(found: TargetStore, health: Health | None = None) -> str:
    """Say in one line what is wrong with a store, the likely cause, and the command that mends it.

    Args:
        found: The store.
        health: Its figures; those that it carries when None.

    Returns:
        The line; empty if the store is sound.
    """
    problems = (health or found.health).problems(encoder_of(found).usual_cosine)
    if not problems:
        return ""
    what = "; ".join(what for what, _ in problems)
    is_ours = "imported" not in found.attributes
    advice = "mend that" if is_ours else "it was imported, and some public caches are broken"
    return f"{what} (likely {problems[0][1]}); {advice}; then: {making(found.path)} --again"


def warn_of_illness(found: TargetStore) -> None:
    """Warn, in one line, of a store that is ill."""
    if line := illness(found):
        console.warn(f"{found.path} is ill: {line}")


def encoder_of(found: TargetStore) -> type[EncoderConfig]:
    """Find the part that made a store; what all encoders are where this version does not have it."""
    try:
        known: type[EncoderConfig] = parts.load("encoders", found.attributes["config"]["kind"]).Config
    except (KeyError, RecipeError):
        return EncoderConfig
    return known
