"""embed: every picture of a data set through frozen encoders, into one store a split
and encoder.
"""

from functools import partial
from pathlib import Path

from brainhive_cli.core import console, parts
from brainhive_cli.core.cells import announce, claiming
from brainhive_cli.core.command import Result, require
from brainhive_cli.core.errors import BrainhiveError, Line
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.recipe import Paths
from brainhive_cli.core.tables import Table
from brainhive_cli.data.stores.target_store import TargetStore, find_own, path_of
from brainhive_cli.data.targets.encoder_stores import warn_of_problems
from brainhive_cli.data.targets.job import Job, Recipe
from brainhive_cli.data.targets.next_commands import next_command
from brainhive_cli.data.targets.picture_splits import write_split
from brainhive_cli.models.encoders import IMPORTED, own_names

resolve_job = Job.resolve


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Fill every store that is not finished.

    Raises:
        BrainhiveError: at the end, if pictures could not be decoded and `skip_bad` is
            not set.
    """
    with console.progress("listing pictures"):
        job = Job.resolve(recipe, launch, again)
        require(job.inputs())
    job.report_unread()
    groups = job.match_networks()
    cells = job.divide(groups)
    files = {name: stores[0].path for name, stores in cells.items()}
    done = set[Path]()
    bad = list[str]()

    def is_filled(name: str) -> bool:
        # with `again`, a store is due until this launch has filled it
        return {
            store.path for store in cells[name] if job.is_due(store, groups[store.path])
        } <= done

    if work := job.count_work(groups):
        announce(work, "embed", recipe.paths.under_home("runs"), launch)
    with (
        console.progress(
            f"embedding {job.dataset.name}", work.count if work else 0
        ) as bar,
        claiming(files, launch, is_finished=is_filled) as free,
    ):
        for name in free:
            bad += job.fill(cells[name], groups, launch, bar)
            done |= {store.path for store in cells[name]}
    # raised at the end: all other pictures are stored by now
    if bad and not recipe.skip_bad:
        raise BrainhiveError(
            (
                f"{len(bad)} pictures cannot be decoded: "
                f"{'; '.join(bad[:3])}{' …' if len(bad) > 3 else ''}"
            ),
            (
                "replace them and run again (the rest is done), or accept the gaps "
                "with --skip-bad"
            ),
        )
    if not groups:
        console.say("all stores are done; --again embeds again")

    # the split by these embeddings, which other encoders are tested with
    table = _tabulate(job)
    root = recipe.paths.under_home("embeddings")
    files = {}
    if recipe.held_out and not launch.is_read_only:
        name = recipe.encoders[0].name
        embedded = TargetStore.open(path_of(root, job.dataset.name, "train", name))
        folder = root / job.dataset.name / "splits"
        files["split"] = launch.run_on_main(
            partial(write_split, embedded, recipe.held_out, folder)
        )
    return Result(
        root / job.dataset.name,
        (table,),
        files=files,
        hint=next_command(recipe.dataset, recipe.encoders, recipe.paths),
        # no pace is known of what others have shared
        work=work if {*groups} <= done else None,
    )


def _tabulate(job: Job) -> Table:
    """Report the shape and health of each store."""
    rows = []
    with console.progress("checking the stores", len(job.stores)) as bar:
        for filled in (TargetStore.open(store.path) for store in job.stores):
            shape = "×".join(map(str, filled.embedding.shape[1:]))  # [N, *shape]
            cosine = round(filled.health.median_pair_cosine, 3)
            encoder = filled.attributes["encoder"]
            split = filled.attributes["split"]
            rows.append((encoder, split, len(filled.done), shape, cosine))
            warn_of_problems(filled)
            bar.advance()
    columns = ("encoder", "split", "pictures", "D", "pair cosine")
    return Table(f"Embeddings of {job.dataset.name}", columns, rows)


def list_encoders() -> Result:
    """List encoders by name, then the families that take any source; no network is used
    (`embed --list`).
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    # one row a kind; a family without a source of its own takes any
    rows = []
    for kind in parts.list_kinds("encoders"):
        config = parts.load("encoders", kind).Config()
        shape: tuple[int, ...] = config.known_shape or ()
        size = shape[0] if len(shape) == 1 else "×".join(map(str, shape))
        # a family without a source has no weights that could be here
        state = (
            "yes" if config.is_here else "no" if config.weights_from or size else "–"
        )
        source = config.weights_from or f"{{kind: {config.name}, source: …}}"
        side_px = config.image_px or "–"
        licence = config.licence or "–"
        rows.append((config.name, size or "–", side_px, source, licence, state))

    # own vectors of home, whose width a store says
    for name in own_names():
        if path := find_own(Paths().under_home("embeddings"), name):
            rows.append(
                (
                    name,
                    "×".join(map(str, TargetStore.open(path).shape)),
                    "–",
                    IMPORTED,
                    "–",
                    "yes",
                )
            )

    # families of any source come last
    rows.sort(key=lambda row: row[1] == "–")
    return Result(
        Path(HF_HUB_CACHE),
        (
            Table(
                "Encoders", ("encoder", "D", "px", "weights", "licence", "here"), rows
            ),
        ),
        hint=(
            f"{Line('embed', '--encoders', 'NAME,NAME:OUTPUT')} (class, mean, patches, "
            "block-I.class …)"
        ),
    )
