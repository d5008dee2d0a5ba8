"""A live session, resolved: model, person, gallery, stream, and how windows are cut and
decoded.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Self

from brainhive_cli.core import console
from brainhive_cli.core.arrays import Int64
from brainhive_cli.core.command import Input, require_inputs
from brainhive_cli.core.console import summarise_names
from brainhive_cli.core.errors import (
    BrainhiveError,
    MissingData,
    RecipeError,
    find_rows,
)
from brainhive_cli.core.files import locate
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import (
    CHANNELS_MAPPED,
    SIMULATED,
    TRAINED_TRIALS,
    UNKNOWN_TRIALS,
    merge_caveats,
)
from brainhive_cli.core.recipe import SIGNALS
from brainhive_cli.data.datasets import require_split
from brainhive_cli.data.recordings.event_names import EVENT_TABLES, EventNames
from brainhive_cli.data.recordings.tables import find_bids_root
from brainhive_cli.data.signals.cutting import Cutting
from brainhive_cli.data.signals.trials import Trials
from brainhive_cli.data.signals.windows import Windows
from brainhive_cli.data.streams import (
    Stream,
    StreamConfig,
    StreamFormat,
    StreamRequest,
    WindowStream,
)
from brainhive_cli.data.targets.model_input import choose_input
from brainhive_cli.evaluation.live.decoder import (
    KINDS,
    STREAM,
    LivePreparation,
    WindowDecoder,
    plan_preparation,
    read_learned_trials,
)
from brainhive_cli.evaluation.live.recipe import Recipe
from brainhive_cli.models.signal_spec import SignalSpec
from brainhive_cli.training.alignment.cells import Cell
from brainhive_cli.training.alignment.model_files import require_weights
from brainhive_cli.training.alignment.trained.model import DEFAULT_UNIT, TrainedModel
from brainhive_cli.training.alignment.trained.run import (
    TrainedRun,
    open_model,
    refuse_sweep,
)

MAX_LEARNED = 0.05
"""Share of the trials that may look as if they had been trained on: those of a blink,
say, are alike.
"""
NAMING = {
    "channels": "source.channels=A,B,… in order",
    "rename": "source.rename={theirs: ours}",
}
"""Keys of streams that name channels, and how they are written."""


@dataclass(frozen=True)
class Job:
    """Work of live, before a stream is opened.

    Attributes:
        recipe: Its keys.
        align: The run, or model folder.
        cell: The model that decodes.
        subject: Whose brain.
    """

    recipe: Recipe
    align: TrainedRun
    cell: Cell
    subject: int

    @classmethod
    def resolve(cls, recipe: Recipe) -> Self:
        """Find the run, and the model of the person.

        Raises:
            RecipeError: if the run has no such cell or split, or several people could
                be meant.
            MissingData: if there is no run.
        """
        # subjects of another data set are chosen here; those of the run's by its cells
        subject = recipe.subject
        align = open_model(
            recipe.align_run,
            recipe.paths,
            recipe.dataset,
            None if recipe.dataset is None or subject is None else [subject],
            recipe.copies,
            recipe.channel_mapping,
        )
        refuse_sweep(align)
        require_split(align.dataset, recipe.gallery, "gallery")

        # the person, then the first model that is tested on them
        people = sorted({person for cell in align.cells for person in cell.tested_on})
        if subject is None:
            if len(people) != 1:
                raise RecipeError(
                    f"{align.name} has models of subjects "
                    f"{', '.join(map(str, people))}",
                    f"--subject {people[0]}",
                )
            (subject,) = people
        tested = [cell for cell in align.cells if subject in cell.tested_on]
        # a person whom no cell is tested on gets the first model
        cell = replace((tested or align.cells)[0], tested_on=(subject,))
        named = recipe.model_copy(update={"align_run": align.name})
        return cls(named, replace(align, selected_cells=[cell]), cell, subject)

    def inputs(self) -> Iterable[Input]:
        """List the run, the target stores of the gallery, and the files of the
        session.
        """
        yield Input(f"model {self.cell.name}, for subject {self.subject}")
        yield from self.recipe.source.inputs()
        if self.recipe.events:
            yield find_table(locate(self.recipe.events))

        # a session in the lab needs no signal store of the person
        is_needed = self.recipe.source.has_windows
        for one in self.align.list_inputs([self.recipe.gallery]):
            is_signals = one.name.startswith(f"{SIGNALS} ")
            is_optional = one.is_optional or (is_signals and not is_needed)
            yield replace(one, is_optional=is_optional)

    def check(self) -> None:
        """Refuse a model, a gallery, events, trials of a store and channels of a
        recording that do not fit each other; no other stream is opened.
        """
        recipe = self.recipe
        source = recipe.source
        member = TrainedModel(self.align, self.cell)
        require_weights(member.path)
        _ = member.layout.compared_heads
        member.find_seen(self.subject, recipe.gallery, member.find_rows(recipe.gallery))
        # what is said of tables and recordings is said when the session begins
        with console.mute_messages():
            plan = self.plan(member)
            if source.is_file and plan.preparation is not None:
                stream = source.build(plan.want(lambda: None))
                with closing(stream):
                    choose_columns(
                        plan.preparation, stream.format, recipe.channel_mapping, source
                    )
        if source.has_windows and member.recordings.build_path(self.subject).is_file():
            choose_input(
                member.layout.spec,
                member.recordings.open_recording(self.subject, recipe.gallery),
                STREAM,
                self.align.dataset.channels,
                channel_mapping=recipe.channel_mapping,
            )

    def plan(self, member: TrainedModel) -> "SessionPlan":
        """Plan what is searched, and how windows are prepared; nothing is opened.

        Raises:
            BrainhiveError: if the model's preparation has steps that no stream can go
                through, or the table of events does not fit the gallery.
        """
        recipe = self.recipe
        rows = member.find_rows(recipe.gallery)
        pictures = member.open_pictures(recipe.gallery)
        image_ids = [pictures.image_ids[row] for row in rows]
        # events are names of pictures, or those of a table
        names, further_names = self.read_names(member, image_ids)
        # prepared windows need nothing
        preparation = (
            None if recipe.source.has_windows else plan_preparation(member, recipe)
        )
        delay_s = member.find_delay_s(self.subject)
        spec = member.layout.spec
        return SessionPlan(spec, rows, names, further_names, preparation, delay_s)

    def open(self, launch: Launch) -> "OpenSession":
        """Load the model and the gallery, open the stream, and check that they go
        together.

        Raises:
            BrainhiveError: naming channels, units or steps that do not.
        """
        recipe, split = self.recipe, self.recipe.gallery
        member = TrainedModel(self.align, self.cell, launch.device)
        plan = self.plan(member)
        spec, preparation = plan.spec, plan.preparation
        pictures = member.encode_pictures(split, plan.rows)
        is_tested = ~member.find_seen(self.subject, split, plan.rows)
        normaliser = member.find_normaliser(self.subject, split)

        def open_recording() -> Trials | None:
            try:
                self.align.prepare_signals(launch)
            except MissingData:
                return None
            return self.align.models[0].recordings.open_recording(self.subject, split)

        differs = () if preparation is None else preparation.differs
        # trials of seen pictures are compared with those of the training
        has_seen_pictures = self.align.dataset.holdout.has_seen_pictures
        learned_trials, knows_trials = (
            read_learned_trials(member) if has_seen_pictures else (None, True)
        )
        stream: Stream | WindowStream = recipe.source.build(plan.want(open_recording))
        windows = columns = None
        with ExitStack() as stack:
            # an error below closes the stream
            stack.callback(stream.close)
            if isinstance(stream, WindowStream):
                template, caveats = stream.template, stream.template.caveats
            else:
                assert preparation is not None  # by the contract of StreamConfig
                columns = choose_columns(
                    preparation, stream.format, recipe.channel_mapping, recipe.source
                )
                channels = tuple(stream.format.channels[index] for index in columns)
                cutting = Cutting(preparation.steps, stream.format.rate_hz)
                windows = Windows(cutting, channels, preparation.band_hz)
                template = preparation.make_template(channels, cutting, spec)
                # channels that are missing are filled in only where a mapping is chosen
                lacks = None in find_rows(spec.names, channels, "the stream")
                caveats = [SIMULATED] * bool(stream.format.simulated)
                if recipe.channel_mapping != "none" and lacks:
                    caveats.append(CHANNELS_MAPPED)
                # windows prepared in another way would not be known again
                knows_trials &= not (
                    has_seen_pictures and (differs or CHANNELS_MAPPED in caveats)
                )
            decoder = WindowDecoder(
                member,
                plan.names,
                plan.further_names,
                pictures,
                is_tested,
                normaliser,
                template,
                preparation,
                learned_trials,
            )
            decoder.warm_up()
            stack.pop_all()  # it stays open
        return OpenSession(
            self,
            decoder,
            stream,
            windows,
            columns,
            caveats,
            knows_trials,
            tuple(differs),
        )

    def read_names(
        self, member: TrainedModel, image_ids: Sequence[str]
    ) -> tuple[EventNames, EventNames]:
        """Read what events are called: by the table of the recipe, or the one that
        `prepare` finds, if it names known pictures; else by their pictures.

        Args:
            member: The model.
            image_ids: Pictures of the gallery.

        Returns:
            Names of the pictures of the gallery, and of those of the training that are
            not in it.
        """
        # a lab may lack the embeddings of the training, whose pictures are then unknown
        recipe, is_exact, further = self.recipe, self.align.dataset.are_categories, []
        with suppress(BrainhiveError):
            ids, searched = member.open_pictures("train").image_ids, {*image_ids}
            further = [image_id for image_id in ids if image_id not in searched]

        def read(table: Path | None) -> tuple[EventNames, EventNames]:
            return (
                EventNames(table, image_ids, is_exact),
                EventNames(table, further, is_exact),
            )

        # the table of the recipe names pictures of the gallery
        if recipe.events:
            table = locate(recipe.events)
            require_inputs([find_table(table)])
            names = read(table)
            where = f"the gallery, {self.align.dataset.name}, {recipe.gallery}"
            names[0].require_pictures(where)
            return names

        # tables where prepare finds them, of which a wrong one is left out
        for table in self._list_tables(member) if recipe.source.has_markers else ():
            try:
                names = read(table)
                if any(each.count_pictures() for each in names):
                    return names
                problem = f"{table} names no picture of {self.align.dataset.name}"
            except BrainhiveError as error:
                problem = error.message
            console.warn(f"{problem}: events are not read by it")
        return read(None)

    def _list_tables(self, member: TrainedModel) -> list[Path]:
        """List the tables that `prepare` has read or would read: those of the model's
        stores, next to a recording that is replayed, and in the folder of recordings.
        """
        # files of stores: a table of the recipe, or one with the usual name
        paths, source = list[Path](), member.recordings
        for person in (self.subject, *self.cell.trained_on):
            if not source.build_path(person).is_file():
                continue
            for recording in source.open_store(person).splits.values():
                stored = recording.provenance
                table = stored.get("preparation", {}).get("events") or ""
                names = {Path(name).name for name in (table, *EVENT_TABLES)}
                files = map(locate, stored.get("files", ()))
                paths += [path for path in files if path.name in names]

        # the folders
        file = getattr(self.recipe.source, "file", "")
        folders = [locate(file).parent, find_bids_root(locate(file))] if file else []
        folders.append(self.recipe.paths.under_home("data") / "recordings")
        paths += [
            folder / name for folder in filter(None, folders) for name in EVENT_TABLES
        ]
        return [path for path in dict.fromkeys(paths) if path.is_file()]


@dataclass(frozen=True)
class SessionPlan:
    """What is known of a session before its stream is opened.

    Attributes:
        spec: The signals that the model is built for.
        rows: [M] rows of the pictures of the gallery.
        names: What events of these pictures are called.
        further_names: What events of other pictures of the training are called.
        preparation: Steps from the stream to windows; None where windows are prepared.
        delay_s: Seconds from an event to its picture on the screen.
    """

    spec: SignalSpec
    rows: Int64
    names: EventNames
    further_names: EventNames
    preparation: LivePreparation | None
    delay_s: float

    def want(self, open_recording: Callable[[], Trials | None]) -> StreamRequest:
        """Say for what a stream is opened; `open_recording` as in `StreamRequest`."""
        unit, channels, span_s = DEFAULT_UNIT, self.spec.names, (0.0, 1.0)
        if self.preparation is not None:
            unit = self.preparation.unit
            channels = self.preparation.channels
            start_ms, stop_ms = self.preparation.steps.epoch_ms
            span_s = start_ms / 1000, stop_ms / 1000

        # a model that names no rate gets a usual one of EEG
        rate_hz, kind = self.spec.rate_hz or 250.0, KINDS.get(unit, "eeg")

        def find_pictures(events: Collection[str]) -> set[str]:
            known = (self.names, self.further_names)
            return {event for each in known for event in each.find_pictures(events)}

        return StreamRequest(
            channels,
            kind,
            unit,
            rate_hz,
            span_s,
            self.names.image_ids,
            open_recording,
            self.delay_s,
            find_pictures,
        )


@dataclass(frozen=True)
class OpenSession:
    """A session whose stream is open.

    Attributes:
        job: What was resolved.
        decoder: Decodes windows.
        stream: Continuous, or of windows.
        windows: Cuts windows of a continuous stream; None of windows.
        columns: Channels [E] of the stream that are cut, in order.
        signal_caveats: Caveats of the stream's signals.
        knows_trials: Whether a trial of the training would be known again: all are
            here, prepared as windows are; or none is of a tested picture.
        differs: In what windows differ from those offline, in sentences.
    """

    job: Job
    decoder: WindowDecoder
    stream: Stream | WindowStream
    windows: Windows | None
    columns: list[int] | None
    signal_caveats: list[str]
    knows_trials: bool
    differs: tuple[str, ...] = ()

    def describe_markers(self) -> str:
        """Say by what markers are read, and which pictures they can name."""
        names, further = self.decoder.names, self.decoder.further_names
        gallery = f"{len(names.image_ids)} pictures of the gallery"
        if names.table is None:
            return (
                f"markers are read as names of pictures, such as {names.image_ids[0]}: "
                f"{gallery}, {len(further.image_ids)} others of the training; a table "
                "for other markers: --events FILE.csv, with columns event and picture"
            )
        return (
            f"markers are read by {names.path}, which names "
            f"{names.count_pictures()} of {gallery} and {further.count_pictures()} of "
            f"{len(further.image_ids)} others of the training"
        )

    def describe_unknown(self, unknown: int, decoded: int) -> str:
        """Say how many windows have no known picture, and what to add."""
        names = self.decoder.names
        way = (
            "--events FILE.csv, with columns event and picture, names their pictures"
            if names.table is None
            else f"a line EVENT,PICTURE in {names.path} names the picture of each"
        )
        events = summarise_names([*dict.fromkeys(self.decoder.unknown_events)])
        return (
            f"{unknown} of {decoded} windows show no known picture, of events "
            f"{events}; {way}"
        )

    def caveats(self, learned: int = 0, trials: int = 0) -> list[str]:
        """List the caveats of every number of a session, some of whose trials were
        learned from.
        """
        job = self.job
        trial_caveats = [] if self.knows_trials else [UNKNOWN_TRIALS]
        # the stronger caveat replaces the weaker one
        if learned > MAX_LEARNED * trials:
            trial_caveats = [TRAINED_TRIALS]
        pictures = job.align.compare_pictures(job.recipe.gallery, job.cell.fold).caveats
        held_out = job.align.dataset.holdout.caveats(self.decoder.template)
        learned_from = job.align.models[0].learned.caveats
        return merge_caveats(
            self.signal_caveats, held_out, trial_caveats, pictures, learned_from
        )


def find_table(path: Path) -> Input:
    """Describe the table of events."""
    # the way out names the columns that the table must have
    way = "--events FILE.csv, with columns event and picture"
    return Input(
        str(path),
        error=None if path.is_file() else MissingData(f"no table {path}", way),
    )


def choose_columns(
    preparation: LivePreparation,
    stream: StreamFormat,
    channel_mapping: str,
    source: StreamConfig,
) -> list[int]:
    """Choose the channels of a stream that windows are cut of, and compare their units.

    Args:
        preparation: Which channels are needed, in which unit.
        stream: Channels and units of the stream.
        channel_mapping: `none` if a missing channel is to be refused; else those that
            are there are taken.
        source: Config of the stream, whose keys the ways out name.

    Returns:
        [E] indices of channels.

    Raises:
        BrainhiveError: naming channels that are missing, match twice, or have another
            unit or none.
    """
    # channels by name, in the order of the model; the mapping chooses of all where one
    # is missing
    is_whitened = preparation.steps.whiten != "no"
    kind = KINDS.get(preparation.unit, "eeg")
    keys, where = type(source).model_fields, f"stream {stream.name}"
    rows = find_rows(preparation.channels, stream.channels, where)
    columns = [row for row in rows if row is not None]
    if len(columns) < len(rows):
        # whitening needs every channel that it was measured of
        if channel_mapping == "none" or is_whitened:
            missing = compress(preparation.channels, [row is None for row in rows])
            ways = [way for key, way in NAMING.items() if key in keys]
            ways += [] if is_whitened else ["channel_mapping=spline"]
            raise BrainhiveError(
                f"{where} has no channel {', '.join(missing)}, which the model "
                f"needs{' for its whitening' if is_whitened else ''}; of "
                f"{summarise_names(list(stream.channels))}",
                "; or ".join(ways) or "a stream that has it",
            )
        columns = [
            index for index, each in enumerate(stream.channel_types) if each == kind
        ]

    # one unit, that of the model's preparation
    for unit in (stream.units[index] for index in columns):
        if unit != preparation.unit:
            names = [
                stream.channels[row] for row in columns if stream.units[row] == unit
            ]
            declared = f"in {unit}" if unit else "without a unit"
            raise BrainhiveError(
                f"{where} has {summarise_names(names)} {declared}, the model takes "
                f"{preparation.unit}",
                "source.unit=V (or mV, µV, fT …) says in which unit its samples are"
                if "unit" in keys
                else f"a stream of channels in {preparation.unit}, of type {kind}",
            )
    return columns
