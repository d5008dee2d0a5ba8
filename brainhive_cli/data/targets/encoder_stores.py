"""Target stores of encoders that a recipe, a prior or a model names, opened together;
lines that fill them.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core import console, documents, parts, runs
from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import (
    SUGGESTED,
    BrainhiveError,
    Line,
    MissingData,
    RecipeError,
    join_words,
    write_value,
)
from brainhive_cli.core.files import locate_stored
from brainhive_cli.core.recipe import EMBEDDINGS, Paths, read_recipe, shipped_recipes
from brainhive_cli.core.runs import RunFolder, of_variant
from brainhive_cli.data.datasets import Dataset
from brainhive_cli.data.media.stimuli import StimulusSet
from brainhive_cli.data.stores import target_store
from brainhive_cli.data.stores.signal_store import recorded_subjects
from brainhive_cli.data.stores.target_store import (
    Health,
    TargetStore,
    find,
    find_own,
    holds_own_vectors,
)
from brainhive_cli.models import priors
from brainhive_cli.models.encoders import (
    IMPORTED,
    NAME,
    USUAL,
    AnnotationConfig,
    EncoderConfig,
    resolve,
)

IDENTITIES = "embeddings.json"
"""Where a run keeps it, by the encoder's name."""
MADE_BY = ("weights", "preprocessing", "network")
"""What the stores of all splits have in common."""


def open_stores(
    dataset: Dataset,
    dataset_config: parts.Config,
    split: str,
    encoders: Sequence[EncoderConfig],
    paths: Paths,
    images: StimulusSet | None = None,
) -> dict[str, TargetStore]:
    """Open the stores of several encoders over the same stimuli, by encoder; arguments
    as `open_targets`.
    """
    root = paths.under_home("embeddings")
    line = write_embedding(dataset_config, encoders)
    split = dataset.holdout.stored_split(split)
    try:
        stores = target_store.open_all(
            root, dataset.name, split, [config.name for config in encoders]
        )
    except MissingData as error:
        raise MissingData(error.message, line) from error

    # the name of a store that an encoder made is not the encoder's
    for config in encoders:
        made_by = stores[config.name].attributes["config"]
        if config.kind == IMPORTED and not stores[config.name].is_own:
            reference = made_by.get("source") or made_by.get("kind", "NAME")
            raise RecipeError(
                f"{stores[config.name].path} holds no own vectors: "
                f"{made_by.get('kind')} made it",
                f"--encoders {reference}",
            )

    # stores are of the pictures that the data set has today
    first = next(iter(stores.values()))
    with suppress(MissingData):  # the pictures need not be on this machine
        first.refuse_other_pictures((images or dataset.images(split)).image_ids, line)
    for other in stores.values():
        warn_of_problems(other)
        # all are of the same stimuli, row by row
        if difference := _difference(first, other):
            raise BrainhiveError(
                f"{first.path} and {other.path} hold {difference}", f"{line} --again"
            )
    return stores


def store_inputs(
    dataset: Dataset,
    config: parts.Config,
    split: str,
    encoders: Sequence[EncoderConfig],
    paths: Paths,
) -> list[Input]:
    """List the stores of several encoders, those of own vectors with digests; arguments
    as `open_targets`.

    A name says nothing of what made own vectors, so that others of one name must make
    another run.
    """
    root = paths.under_home("embeddings")
    stored = dataset.holdout.stored_split(split)
    listed = list[Input]()
    files = [
        target_store.find(root, dataset.name, stored, encoder.name)[0]
        for encoder in encoders
    ]
    # all stores are opened once, and their error stands for each that is missing
    error = None
    if not all(path.is_file() for path in files):
        try:
            open_stores(dataset, config, split, encoders, paths)
        except BrainhiveError as absence:
            error = absence
    for encoder, path in zip(encoders, files, strict=True):
        is_here = path.is_file()
        digest = ""
        if is_here and encoder.kind == IMPORTED:
            digest = str(TargetStore.open(path).attributes["weights"].get("digest", ""))
        name = f"{EMBEDDINGS} {dataset.name}/{stored}/{encoder.name}"
        listed.append(Input(name, None, None if is_here else error, digest=digest))
    return listed


def _difference(first: TargetStore, other: TargetStore) -> str:
    """Say how the stimuli of two stores differ; empty if row by row they do not."""
    if first.image_ids != other.image_ids:
        is_order = sorted(first.image_ids) == sorted(other.image_ids)
        if is_order:
            return "the same pictures in another order"
        return "different pictures"
    # stimuli that could not be decoded must be the same, too
    if np.array_equal(first.done, other.done):
        return ""
    return "gaps at different pictures"


def open_alternatives(
    alternatives: Mapping[str, Sequence[str]],
    stores: Mapping[str, TargetStore],
    paths: Paths,
) -> dict[str, list[TargetStore]]:
    """Open further stores of the same stimuli.

    Args:
        alternatives: Names of further stores, by the encoder whose targets they are
            alternatives of.
        stores: Its store, by the encoder's name.
        paths: Where stores lie.

    Raises:
        MissingData: if a store is missing.
        BrainhiveError: if one is not of the same stimuli and shape.
    """
    # alternatives belong to encoders that are fused
    if unknown := set(alternatives) - set(stores):
        raise BrainhiveError(
            f"train.embedding_alternatives names {', '.join(sorted(unknown))}, which "
            "is not fused",
            f"encoders: {', '.join(stores)}",
        )

    # open the further stores, which must have the stimuli and the shape of the first
    further = {}
    for name, names in alternatives.items():
        first = stores[name]
        dataset = first.attributes["dataset"]
        split = first.attributes["split"]
        try:
            opened = target_store.open_all(
                paths.under_home("embeddings"), dataset, split, names
            )
        except MissingData as error:
            here = sorted(path.stem for path in first.path.parent.glob("*.h5"))
            raise MissingData(
                error.message, f"name stores that are there: {', '.join(here)}"
            ) from error
        for other in opened.values():
            is_alike = first.shape == other.shape
            if reason := _difference(first, other) or (
                "" if is_alike else "targets of another shape"
            ):
                raise BrainhiveError(
                    f"{first.path} and {other.path} hold {reason}", "name another store"
                )
        further[name] = list(opened.values())
    return further


def identity_of(store: TargetStore) -> dict[str, str]:
    """Return what made a store, and its path; the dtype is no part, as it only
    rounds.
    """
    made_by = store.attributes
    # what made an imported store is not known
    weights = (
        "imported"
        if "imported" in made_by
        else made_by.get("weights", {}).get("digest", "")
    )
    return {
        "store": str(store.path),
        "weights": weights,
        "preprocessing": made_by.get("preprocessing", ""),
        "network": made_by.get("weights", {}).get("network", ""),
        "pictures": store.image_ids.digest,
        "content": store.content,
    }


def is_same_network(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether two descriptions have one digest of a network's config or code; older
    ones have none.
    """
    known = {digest for about in (one, other) if (digest := about.get("network"))}
    return len(known) < 2


def digest_of(store: TargetStore) -> str:
    """Return what identifies a store's targets: a latent space, or weights; "" if
    unknown.
    """
    return str(store.attributes.get("latent_space") or identity_of(store)["weights"])


def keep_identity(folder: RunFolder, stores: Mapping[str, TargetStore]) -> None:
    """Record what made the stores that a run starts with; a run that is resumed must
    find the same.

    Raises:
        BrainhiveError: naming a store that was made in another way since.
    """
    if (folder.path / IDENTITIES).is_file():  # the run is resumed
        refuse_others(folder, stores, (*MADE_BY, "pictures"))
    identities = {name: identity_of(store) for name, store in stores.items()}
    folder.write_json(IDENTITIES, identities)


def refuse_others(
    folder: RunFolder, stores: Mapping[str, TargetStore], keys: Sequence[str] = MADE_BY
) -> None:
    """Refuse stores of any split that differ in `keys` from those that a run was
    trained on, by encoder.

    Raises:
        BrainhiveError: naming both stores.
    """
    for name, trained_on in folder.read_json(
        IDENTITIES, dict[str, dict[str, str]]
    ).items():
        if name not in stores:  # of another variant of a sweep
            continue
        here = identity_of(stores[name])
        differs = [
            key for key in keys if key != "network" and here[key] != trained_on.get(key)
        ]
        # older runs did not record the network, and match any
        differs += [] if is_same_network(trained_on, here) else ["network"]
        if differs:
            raise BrainhiveError(
                f"{here['store']} was made with other {' and '.join(differs)} than "
                f"{locate_stored(trained_on.get('store', name))} was when "
                f"{folder.path} was trained on it",
                f"make both in one way ({stores[name].making} --again), or train again",
            )


def list_changed(folder: RunFolder, stores: Mapping[str, TargetStore]) -> list[str]:
    """Say which stores hold other embeddings than a run was made with, by the names
    under which it keeps them. Rows are compared with their checksums.
    """
    if not (folder.path / IDENTITIES).is_file():
        return []
    changed = []
    recorded = folder.read_json(IDENTITIES, dict[str, dict[str, str]])
    for name, store in stores.items():
        store.verify()
        there = recorded.get(name, {}).get("content", store.content)
        if there != store.content:
            changed.append(f"{store.path}: {there} there, {store.content} here")
    return changed


def problem_of(store: TargetStore, health: Health | None = None) -> str:
    """Say in one line what is wrong with a store, the likely cause, and the command
    that makes it again.

    Args:
        store: The store.
        health: Its figures; those in the store when None.

    Returns:
        The line; empty if the store passes its health check.
    """
    encoder = encoder_of(store)
    problems = (health or store.health).problems(
        encoder.usual_cosine, encoder.usual_repeats, encoder.usual_dead
    )
    if not problems:
        return ""
    # all figures, and the cause of the most severe, which is the first
    figures = "; ".join(figure for figure, _ in problems)
    is_ours = "imported" not in store.attributes
    advice = (
        "fix that"
        if is_ours or store.is_own
        else "it was imported, and some public caches are broken"
    )
    return (
        f"{figures} (likely {problems[0][1]}); {advice}; then: {store.making} --again"
    )


def warn_of_problems(store: TargetStore) -> None:
    """Warn, in one line, of a store that fails its health check."""
    if line := problem_of(store):
        console.warn(f"{store.path} failed its health check: {line}")


def holds_annotations(store: TargetStore) -> bool:
    """Whether a store holds labels, masks or captions, of which figures of health say
    nothing.
    """
    return issubclass(encoder_of(store), AnnotationConfig)


def encoder_of(store: TargetStore) -> type[EncoderConfig]:
    """Find the part that made a store; the general one where this version does not have
    it.
    """
    try:
        return parts.load("encoders", store.attributes["config"]["kind"]).Config
    except (KeyError, RecipeError):
        return EncoderConfig


def write_embedding(dataset: parts.Config, encoders: Sequence[EncoderConfig]) -> str:
    """Write the lines that embed a data set by encoders, or by the default; own vectors
    are imported.
    """
    # there is no encoder for own vectors: a line for each of them, and one for the
    # others
    encoding = [config for config in encoders if config.kind != IMPORTED]
    flag = ("dataset", dataset)
    lines = (
        [Line("embed", flag, ("encoders", encoding))]
        if encoding or not encoders
        else []
    )
    vectors = [("as", config.name) for config in encoders if config.kind == IMPORTED]
    lines += [Line("import-embeddings", "FILE", flag, name) for name in vectors]
    return " && ".join(map(str, lines))


def only_if_recorded(dataset: Any, paths: Paths) -> Any:
    """Give the data set if it has recordings, as train-align needs; else None."""
    return dataset if recorded_subjects(dataset.build(paths), paths) else None


def next_command(
    dataset: Any, encoders: Sequence[EncoderConfig], paths: Paths, *more: str
) -> str:
    """Write the line of the next step that has what it needs.

    That is `embed` where encoders have no embeddings of the training stimuli, else
    `train-align`; without recordings `train-prior`, which can embed by itself.

    Args:
        dataset: Its Config.
        encoders: Whose embeddings are next; none for those that are there, or else the
            default.
        paths: Where embeddings and signals lie.
        more: Further arguments of train-align.
    """
    built = dataset.build(paths)
    # without recordings there is nothing to align
    if not recorded_subjects(built, paths):
        return str(Line("train-prior", ("dataset", dataset), ("encoders", encoders)))
    # the encoders of the shelf whose embeddings of the training stimuli are there
    stores = sorted(
        (paths.under_home("embeddings") / built.name / "train").glob("*.h5")
    )
    known = [
        path.stem
        for path in stores
        if parts.is_kind("encoders", path.stem) or holds_own_vectors(path)
    ]
    chosen = encoders or [resolve(name) for name in known]
    # embeddings of the training stimuli come first, as train-align reads them
    if not chosen or not are_embedded(built, chosen, paths, ["train"]):
        if encoders:
            return write_embedding(dataset, encoders)
        suggested = ("encoders", suggest_encoders(dataset), SUGGESTED)
        return str(Line("embed", ("dataset", dataset), suggested))
    return str(Line("train-align", ("dataset", dataset), ("encoders", chosen), *more))


def suggest_encoders(dataset: parts.Config) -> list[str]:
    """Name an encoder that needs no network, where the usual ones of a data set do."""
    usual = getattr(dataset, "usual_encoders", None) or USUAL
    usual = getattr(dataset, "offline_encoders", None) or usual
    if all(resolve(encoder).is_here for encoder in usual):
        return []
    # the demo's networks have only seen the demo's pictures
    is_demo = parts.name_of(dataset.kind).startswith("demo")
    return ["demo-clip" if is_demo else "lite0"]


def are_embedded(
    dataset: Dataset,
    encoders: Sequence[EncoderConfig],
    paths: Paths,
    splits: Sequence[str] | None = None,
) -> bool:
    """Whether there are stores of some encoders for some splits, or all where none are
    named.
    """
    root = paths.under_home("embeddings")
    return all(
        find(root, dataset.name, dataset.holdout.stored_split(split), config.name)[
            0
        ].is_file()
        for split in splits or dataset.splits
        for config in encoders
    )


def write_prior(name: str, prior: str, dataset: Any = None) -> list[Any]:
    """Write the words that give a command a prior: a shipped recipe for it, or the
    prior itself.

    Args:
        name: The subcommand.
        prior: What the user calls the prior.
        dataset: Config of the data set in use. A recipe for another one lends its
            generator alone.
    """
    # a shipped recipe of this subcommand with this prior
    for file in sorted(shipped_recipes().rglob(f"{name}.yaml")):
        content = read_recipe(file)
        if content.get("prior") != prior:
            continue
        # a recipe at the top is the default, which needs no words
        below = file.parent.relative_to(shipped_recipes()).as_posix()
        if dataset is None or below == "." or _dataset_of(content) == dataset.kind:
            return [] if below == "." else [("recipe", below)]
        drawing = {
            key: content[key]
            for key in ("generator", "resolution_px")
            if key in content
        }
        return [
            ("prior", prior),
            *(f"{key}={write_value(value)}" for key, value in drawing.items()),
        ]
    return [("prior", prior)]


def _dataset_of(recipe: Mapping[str, Any]) -> str:
    """Name the kind of data set of a shipped recipe, or of the training whose run it
    takes.
    """
    # without a data set, it is that of the training whose run the recipe takes
    if "dataset" not in recipe and recipe.get("align_run"):
        training = str(recipe["align_run"]).partition(":")[0]
        recipe = read_recipe(shipped_recipes() / training / "train-align.yaml")
    reference = recipe.get("dataset", "")
    return str(reference["kind"] if isinstance(reference, Mapping) else reference)


def with_usual_encoders(fields: Any) -> Any:
    """Complete a recipe that names no encoders by those of its data set, where that has
    some, as a label, or has others where weights of the usual ones are not here.
    """
    # a recipe that names encoders, heads or a prior stays as it is
    if not isinstance(fields, dict) or not {"encoders", "heads", "prior"}.isdisjoint(
        fields
    ):
        return fields
    with suppress(BrainhiveError):  # which the key's own type raises
        dataset = fields.get("dataset")
        config = parts.resolve("datasets", dataset) if dataset else None
        usual = getattr(config, "usual_encoders", None)
        if not usual and not all(resolve(name).is_here for name in USUAL):
            usual = getattr(config, "offline_encoders", None)
        if usual:
            return {**fields, "encoders": [*usual]}
    return fields


def encoders_by_key(
    keys: Iterable[str], maybe: Iterable[EncoderConfig] = ()
) -> dict[str, EncoderConfig]:
    """Find the encoder of each key: a candidate, the one of that upstream name, or the
    one of that name.

    Args:
        keys: Of the embeddings.
        maybe: Candidates, whose keys may not say how to build them (a function, other
            options).

    Returns:
        The encoders by key, in the order of their names; a key that names no encoder is
        absent.
    """
    # names of upstream projects, and of the candidates
    shelf = [parts.load("encoders", kind).Config for kind in parts.kinds("encoders")]
    upstream = {config.upstream: config for config in shelf if config.upstream}
    meant = {name: config for config in maybe for name in config.known_as}
    # a candidate first, since its options are known
    encoder_of_key = {
        key: meant.get(key) or (upstream[key]() if key in upstream else _named(key))
        for key in keys
    }
    known = {
        key: config for key, config in encoder_of_key.items() if config is not None
    }
    return dict(sorted(known.items(), key=lambda item: item[1].name))


def _named(key: str) -> EncoderConfig | None:
    match = NAME.fullmatch(key)
    # options that the name says, as degradation and view
    seen = match.groupdict() if match else {}
    knobs = {knob: value for knob, value in seen.items() if value}
    with suppress(RecipeError):
        config = resolve(knobs if len(knobs) > 1 else key)
        # an unknown name is that of own vectors, if a store of them is here
        is_known = config.kind != IMPORTED or find_own(
            Paths().under_home("embeddings"), key
        )
        return config if config.name == key and is_known else None
    return None


def recipe_around(folder: Path) -> dict[str, Any]:
    """Read the recipe of the run that a prior's or model's folder lies in; empty
    outside of a run.
    """
    for above in folder.resolve().parents:
        # a folder with both files is that of a run
        if (above / "recipe.yaml").is_file() and (above / "environment.json").is_file():
            return RunFolder(above).recipe()
    return {}


def encoders_around(folder: Path) -> list[EncoderConfig]:
    """Read the encoders of the run that a prior's or model's folder lies in; none
    outside of a run.

    A run that goes on from a model, as calibrate's, has the encoders of the run of that
    model.
    """
    recipe = recipe_around(folder)
    # calibrate names the run of its model, and no encoders
    if "encoders" not in recipe and isinstance(
        reference := recipe.get("align_run"), str
    ):
        paths = documents.check(
            recipe.get("paths", {}), f"the recipe around {folder}: paths", Paths
        )
        with suppress(BrainhiveError):  # of a run that is not here
            name, _ = of_variant(reference)
            recipe = runs.find(
                paths.under_home("runs"), "train-align", str(name)
            ).recipe()
    return [resolve(encoder) for encoder in recipe.get("encoders", [])]


def describe_keys(
    keys: Collection[str], maybe: Iterable[EncoderConfig]
) -> tuple[str, str]:
    """Name the encoders of keys, and the arguments that select them."""
    encoders = encoders_by_key(keys, maybe)
    unknown = sorted(set(keys) - encoders.keys())
    names = ", ".join([*map(str, encoders.values()), *unknown])
    if unknown:
        return (
            names,
            (
                "name with --encoders all of them, also what made the embeddings "
                f"{', '.join(unknown)}"
            ),
        )
    return names, join_words([("encoders", [*encoders.values()])])


def match_keys(
    encoders: Sequence[EncoderConfig],
    dims: Mapping[str, int],
    owner: str,
    maybe: Iterable[EncoderConfig] = (),
) -> dict[str, str]:
    """Find a prior's key of each encoder.

    Args:
        encoders: Those to be fused.
        dims: Width of each embedding, by the prior's key.
        owner: The prior, for the message.
        maybe: Encoders that it may have been trained with, to name them.

    Raises:
        BrainhiveError: naming both lists, if they are not the same encoders.
    """
    keys = {
        config.name: next((key for key in config.known_as if key in dims), "")
        for config in encoders
    }
    # each encoder has a key, and each key an encoder
    if "" in keys.values() or sorted(keys.values()) != sorted(dims):
        wanted, hint = describe_keys(dims, [*maybe, *encoders])
        raise BrainhiveError(
            f"{owner} takes the encoders {wanted}, not {', '.join(map(str, encoders))}",
            hint,
        )
    return keys


def _fused_by(prior: str) -> tuple[Path, Mapping[str, int]]:
    described = priors.describe(prior)
    if described.folder is None or not described.dims:
        raise RecipeError(
            f"the prior {prior} fuses no embeddings",
            "leave prior out, or name another one",
        )
    return described.folder, described.dims


def encoders_of(prior: str) -> list[EncoderConfig]:
    """Find the encoders of a prior, without reading its weights.

    Raises:
        RecipeError: if it fuses no embeddings, or has one of them under a key that
            names no encoder.
    """
    folder, dims = _fused_by(prior)
    around = encoders_around(folder)
    encoders = encoders_by_key(dims, around)
    # an encoder that its key does not name cannot be built from the key
    if len(encoders) < len(dims):
        names, hint = describe_keys(dims, around)
        raise RecipeError(
            f"the prior {prior} takes the encoders {names}, not all known by name", hint
        )
    return list(encoders.values())


def match_prior(prior: str, encoders: Sequence[EncoderConfig]) -> dict[str, str]:
    """Find a prior's key of each encoder, without reading its weights; raises as
    `match_keys` does.
    """
    folder, dims = _fused_by(prior)
    return match_keys(encoders, dims, f"the prior {prior}", encoders_around(folder))
