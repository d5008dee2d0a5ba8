"""What made the targets that a run was trained on, so that no others take their place."""

from collections.abc import Mapping, Sequence

from brainhive_cli.core import home
from brainhive_cli.core.errors import BrainhiveError
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.data.stores.target_store import TargetStore, making

KEPT = "embeddings.json"
"""Where a run keeps it, by the encoder's name."""
MADE_BY = ("weights", "preprocessing")
"""What the stores of all splits have in common."""


def identity_of(found: TargetStore) -> dict[str, str]:
    """Return what made a store, and its path; the dtype is no part, as it only rounds."""
    made_by = found.attributes
    weights = "imported" if "imported" in made_by else made_by.get("weights", {}).get("digest", "")
    return {
        "store": str(found.path),
        "weights": weights,
        "preprocessing": made_by.get("preprocessing", ""),
        "pictures": found.image_ids.digest,
    }


def digest_of(store: TargetStore) -> str:
    """Return what identifies a store's targets: a latent space, or weights; "" if unknown."""
    return str(store.attributes.get("latent_space") or identity_of(store)["weights"])


def keep_identity(folder: RunFolder, stores: Mapping[str, TargetStore], is_main: bool) -> None:
    """Record what made the stores that a run starts with; a run that is resumed must find the same.

    Raises:
        BrainhiveError: naming a store that was made in another way since.
    """
    if (folder.path / KEPT).is_file():  # the run is resumed
        refuse_others(folder, stores, (*MADE_BY, "pictures"))
    if is_main:
        folder.write_json(KEPT, {name: identity_of(found) for name, found in stores.items()})


def refuse_others(
    folder: RunFolder, stores: Mapping[str, TargetStore], keys: Sequence[str] = MADE_BY
) -> None:
    """Refuse stores of any split that differ in `keys` from those that a run was trained on, by encoder.

    Raises:
        BrainhiveError: naming both stores.
    """
    for name, trained_on in folder.read_json(KEPT, dict[str, dict[str, str]]).items():
        if name not in stores:  # of another variant of a sweep
            continue
        here = identity_of(stores[name])
        differs = [key for key in keys if here[key] != trained_on.get(key)]
        if differs:
            raise BrainhiveError(
                f"{here['store']} was made with other {' and '.join(differs)} than "
                f"{home.stored(trained_on.get('store', name))} was when {folder.path} was trained on it",
                f"make both in one way ({making(stores[name].path)} --again), or train again",
            )
