"""Live session: its model, person, gallery and stream."""

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

from brainhive_cli.core.base import (
    BrainhiveError,
    Int64,
    MissingData,
    RecipeError,
    console,
    find_rows,
    summarise_names,
)
from brainhive_cli.core.files import Input, locate, require_inputs
from brainhive_cli.core.recipes import SIGNALS
from brainhive_cli.core.results import (
    CHANNELS_MAPPED,
    NOT_INTERLEAVED,
    SIMULATED,
    TRAINED_TRIALS,
    UNKNOWN_TRIALS,
    merge_caveats,
)
from brainhive_cli.core.runs import Launch
from brainhive_cli.data.datasets import require_split
from brainhive_cli.data.files import find_bids_root
from brainhive_cli.data.recordings import EVENT_TABLES, EventNames
from brainhive_cli.data.signals import Cutting, Trials, Windows
from brainhive_cli.data.streams import (
    Stream,
    StreamConfig,
    StreamFormat,
    StreamRequest,
    WindowStream,
)
from brainhive_cli.data.targets import choose_input
from brainhive_cli.evaluation.live.decoder import (
    CHANNEL_TYPES,
    STREAM_NAME,
    LivePreparation,
    WindowDecoder,
    plan_preparation,
    read_learned_trials,
)
from brainhive_cli.evaluation.live.recipe import Recipe
from brainhive_cli.training.alignment import Cell, list_test_subjects, require_weights
from brainhive_cli.training.alignment.trained import (
    DEFAULT_UNIT,
    TestedPerson,
    TestSet,
    TrainedModels,
    open_model,
    open_targets,
    open_test_set,
)


@dataclass(frozen=True)
class Job:
    """Work of `live` before a stream is opened.

    Attributes:
        recipe: Settings.
        align: Run or model folder.
        cell: Model that decodes.
        subject: Person.
    """

    recipe: Recipe
    align: TrainedModels
    cell: Cell
    subject: int

    @classmethod
    def resolve(cls, recipe: Recipe) -> Self:
        """Find the run, and the model that decodes the person of the session.

        Raises:
            RecipeError: if the run has no such cell or split, or the person is
                ambiguous.
            MissingData: if there is no run.
        """
        # subjects of another data set must be chosen before its cells are known
        subjects = None
        if recipe.dataset is not None and recipe.subject is not None:
            subjects = [recipe.subject]
        align = open_model(
            recipe.align_run,
            recipe.paths,
            recipe.dataset,
            subjects,
            recipe.copies,
            recipe.channel_mapping,
        )
        require_split(align.dataset, recipe.gallery, "gallery")

        # the person
        people = list_test_subjects(align.cells)
        subject = recipe.subject
        if subject is None:
            if len(people) != 1:
                raise RecipeError(
                    f"{align.name} has models of subjects "
                    f"{', '.join(map(str, people))}",
                    f"--subject {people[0]}",
                )
            subject = people[0]

        # the first model that is tested on the person, or the first model of all
        cells = [cell for cell in align.cells if subject in cell.tested_on]
        first_cell = cells[0] if cells else align.cells[0]
        cell = replace(first_cell, tested_on=(subject,))
        resolved = recipe.model_copy(update={"align_run": align.name})
        return cls(resolved, replace(align, cells=[cell]), cell, subject)

    def inputs(self) -> Iterable[Input]:
        """List the run, the target stores of the gallery, and files of the session."""
        yield Input(f"model {self.cell.name}, for subject {self.subject}")
        yield from self.recipe.source.inputs()
        if self.recipe.events:
            yield describe_table(locate(self.recipe.events))

        # a session in the lab needs no signal store of the person
        needs_signals = self.recipe.source.has_windows
        for item in self.align.list_inputs([self.recipe.gallery]):
            is_signals = item.name.startswith(f"{SIGNALS} ")
            is_optional = item.is_optional or (is_signals and not needs_signals)
            yield replace(item, is_optional=is_optional)

    def check(self) -> None:
        """Check that model, gallery, events, and the channels of a recording fit.

        Streams other than files are not opened.
        """
        recipe = self.recipe
        source = recipe.source
        model = self.align.open(self.cell)
        require_weights(model.path)
        _ = model.layout.compared_heads
        person = self.tests.open_person(model, self.subject)
        person.find_seen(self.subject, self.rows)
        # messages about tables and recordings are shown when the session begins
        with console.mute_messages():
            plan = self.plan_session(person)
            if source.is_file and plan.preparation is not None:
                stream = source.build(plan.make_request(lambda: None))
                with closing(stream):
                    choose_columns(
                        plan.preparation, stream.format, recipe.channel_mapping, source
                    )
        if source.has_windows and person.is_prepared:
            choose_input(
                model.layout.spec,
                person.recordings.open_recording(self.subject, recipe.gallery),
                STREAM_NAME,
                self.align.dataset.channels,
                channel_mapping=recipe.channel_mapping,
            )

    @cached_property
    def tests(self) -> TestSet:
        """Test set, whose pictures are the gallery."""
        return open_test_set(self.align, self.recipe.gallery)

    @cached_property
    def rows(self) -> Int64:
        """Rows [M] of the pictures of the gallery."""
        return self.tests.find_rows(self.recipe.gallery, self.cell.fold)

    def plan_session(self, person: TestedPerson) -> "SessionPlan":
        """Plan the gallery and the preparation of windows. No stream is opened.

        Raises:
            BrainhiveError: if no stream can go through the model's preparation, or the
                table of events does not fit the gallery.
        """
        recipe = self.recipe
        pictures = self.tests.open_pictures(recipe.gallery)
        image_ids = list(pictures.image_ids[self.rows])
        event_names, other_event_names = self.read_event_names(person, image_ids)
        preparation = None
        if not recipe.source.has_windows:
            preparation = plan_preparation(person, recipe)
        return SessionPlan(person, event_names, other_event_names, preparation)

    def open(self, launch: Launch) -> "OpenSession":
        """Load the model and the gallery, and open the stream.

        Raises:
            BrainhiveError: if channels, units or steps of the stream do not fit.
        """
        # model, gallery and preparation
        recipe = self.recipe
        split = recipe.gallery
        model = self.align.open(self.cell, launch.device)
        person = self.tests.open_person(model, self.subject)
        plan = self.plan_session(person)
        preparation = plan.preparation
        targets = open_targets(self.tests, model, split)
        picture_tokens = model.encode_pictures(targets, self.rows)
        is_tested = ~person.find_seen(self.subject, self.rows)

        # trials of seen pictures are compared with training trials
        has_seen_pictures = self.align.dataset.holdout.has_seen_pictures
        learned_trials = None
        knows_trials = True
        if has_seen_pictures:
            learned_trials, knows_trials = read_learned_trials(self.tests, model)

        def open_recording() -> Trials | None:
            try:
                self.align.prepare_signals(launch)
            except MissingData:
                return None
            return person.recordings.open_recording(self.subject, split)

        request = plan.make_request(open_recording)
        stream: Stream | WindowStream = recipe.source.build(request)
        windows = None
        columns = None
        problem = ""
        with ExitStack() as stack:
            # an error below closes the stream
            stack.callback(stream.close)
            if isinstance(stream, WindowStream):
                template = stream.template
                caveats = self.tests.caveats
                study = self.tests.study
                problem = study.design.problem if study else ""
            else:
                # channels of the stream, and their cutting into windows
                assert preparation is not None  # by the contract of StreamConfig
                columns = choose_columns(
                    preparation, stream.format, recipe.channel_mapping, recipe.source
                )
                channels = tuple(stream.format.channels[index] for index in columns)
                cutting = Cutting(preparation.steps, stream.format.rate_hz)
                windows = Windows(cutting, channels, preparation.band_hz)
                spec = model.layout.spec
                template = preparation.make_template(channels, cutting, spec)

                caveats = []
                if stream.format.simulated:
                    caveats.append(SIMULATED)
                found_rows = find_rows(spec.names, channels, STREAM_NAME)
                is_mapped = recipe.channel_mapping != "none" and None in found_rows
                if is_mapped:
                    caveats.append(CHANNELS_MAPPED)
                # windows with another preparation do not resemble training trials
                if has_seen_pictures and (preparation.differences or is_mapped):
                    knows_trials = False
            decoder = WindowDecoder(
                model,
                person,
                plan.event_names,
                plan.other_event_names,
                picture_tokens,
                is_tested,
                template,
                preparation,
                learned_trials,
            )
            decoder.warm_up()
            stack.pop_all()  # keep the stream open
        return OpenSession(
            self,
            decoder,
            stream,
            windows,
            columns,
            caveats,
            knows_trials,
            problem,
            differences=tuple(preparation.differences) if preparation else (),
        )

    def read_event_names(
        self, person: TestedPerson, image_ids: Sequence[str]
    ) -> tuple[EventNames, EventNames]:
        """Read the table that names the picture of each event.

        It is the table of the recipe, or the first table that `prepare` finds and that
        names a picture. Without a table, events have the names of their pictures.

        Args:
            person: Person, as the model reads the signals.
            image_ids: Pictures of the gallery.

        Returns:
            Names of events of the gallery, and of other training pictures.
        """
        recipe = self.recipe
        dataset = self.align.dataset
        # a lab may lack the embeddings of the training, whose pictures are then unknown
        other_ids: list[str] = []
        with suppress(BrainhiveError):
            gallery_ids = set(image_ids)
            for image_id in self.tests.open_pictures("train").image_ids:
                if image_id not in gallery_ids:
                    other_ids.append(image_id)

        def read(table: Path | None) -> tuple[EventNames, EventNames]:
            is_exact = dataset.are_categories
            event_names = EventNames(table, image_ids, is_exact)
            return event_names, EventNames(table, other_ids, is_exact)

        # the table of the recipe must name pictures of the gallery
        if recipe.events:
            table = locate(recipe.events)
            require_inputs([describe_table(table)])
            event_names, other_event_names = read(table)
            event_names.require_pictures(
                f"the gallery, {dataset.name}, {recipe.gallery}"
            )
            return event_names, other_event_names

        # other tables are left out if they are wrong
        tables = self._list_tables(person) if recipe.source.has_markers else []
        for table in tables:
            try:
                event_names, other_event_names = read(table)
                if event_names.count_pictures() or other_event_names.count_pictures():
                    return event_names, other_event_names
                problem = f"{table} names no picture of {dataset.name}"
            except BrainhiveError as error:
                problem = error.message
            console.warn(f"this table of events is not used: {problem}")
        return read(None)

    def _list_tables(self, person: TestedPerson) -> list[Path]:
        """List the tables of events that exist.

        They belong to the model's stores, lie next to a replayed recording, or in the
        folder of recordings.
        """
        # tables of stores: the table of the recipe, or a table with a usual name
        paths: list[Path] = []
        source = person.recordings
        for subject in (self.subject, *self.cell.trained_on):
            if not source.build_path(subject).is_file():
                continue
            for recording in source.open_store(subject).splits.values():
                provenance = recording.provenance
                table = provenance.get("preparation", {}).get("events") or ""
                names = {Path(name).name for name in (table, *EVENT_TABLES)}
                files = map(locate, provenance.get("files", ()))
                paths += [path for path in files if path.name in names]

        # tables in folders
        folders = []
        stream = self.recipe.source
        if stream.is_file and stream.file:
            recording_path = locate(stream.file)
            folders.append(recording_path.parent)
            bids_root = find_bids_root(recording_path)
            if bids_root:
                folders.append(bids_root)
        folders.append(self.recipe.paths.under_home("data") / "recordings")
        for folder in folders:
            paths += map(folder.joinpath, EVENT_TABLES)
        return list(filter(Path.is_file, dict.fromkeys(paths)))


@dataclass(frozen=True)
class SessionPlan:
    """Plan of a session before its stream is opened.

    Attributes:
        person: Person, as the model reads the signals.
        event_names: Names of events of these pictures.
        other_event_names: Names of events of other training pictures.
        preparation: Steps from the stream to windows, or None for prepared windows.
    """

    person: TestedPerson
    event_names: EventNames
    other_event_names: EventNames
    preparation: LivePreparation | None

    def make_request(
        self, open_recording: Callable[[], Trials | None]
    ) -> StreamRequest:
        """Describe the signals and events that a stream has to provide.

        Args:
            open_recording: Returns the person's recording that tests the model, or None
                without a recording.
        """
        unit = DEFAULT_UNIT
        spec = self.person.model.layout.spec
        channels = spec.names
        span_s = (0.0, 1.0)
        if self.preparation is not None:
            unit = self.preparation.unit
            channels = self.preparation.channels
            start_ms, stop_ms = self.preparation.steps.epoch_ms
            span_s = (start_ms / 1000, stop_ms / 1000)

        def find_pictures(events: Collection[str]) -> set[str]:
            pictures = self.event_names.find_pictures(events)
            return set(pictures + self.other_event_names.find_pictures(events))

        return StreamRequest(
            channels,
            CHANNEL_TYPES.get(unit, "eeg"),
            unit,
            spec.rate_hz or 250.0,  # a usual rate of EEG
            span_s,
            self.event_names.image_ids,
            open_recording,
            self.person.delay_s,
            find_pictures,
        )


@dataclass(frozen=True)
class OpenSession:
    """Session whose stream is open.

    Attributes:
        job: Resolved settings.
        decoder: Decoder of windows.
        stream: Continuous stream, or stream of windows.
        windows: Cuts the windows of a continuous stream, or None for prepared windows.
        columns: Columns [E] of the channels that are cut, in order, or None.
        signal_caveats: Caveats of the stream's signals.
        knows_trials: True if each training trial would be recognised, or no training
            picture is tested.
        problem: Reason why the order of the recording tells its labels, or "".
        differences: Sentences that say how windows differ from windows of a store.
    """

    job: Job
    decoder: WindowDecoder
    stream: Stream | WindowStream
    windows: Windows | None
    columns: list[int] | None
    signal_caveats: list[str]
    knows_trials: bool
    problem: str = ""
    differences: tuple[str, ...] = ()

    def describe_markers(self) -> str:
        """Describe how markers are read, and which pictures they can name."""
        names = self.decoder.event_names
        other_names = self.decoder.other_event_names
        gallery = f"{len(names.image_ids)} pictures of the gallery"
        if names.table is None:
            return (
                f"markers are read as names of pictures, such as {names.image_ids[0]}: "
                f"{gallery}, {len(other_names.image_ids)} others of the training; a "
                "table for other markers: --events FILE.csv, with columns event and "
                "picture"
            )
        return (
            f"markers are read by {names.path}, which names "
            f"{names.count_pictures()} of {gallery} and "
            f"{other_names.count_pictures()} of {len(other_names.image_ids)} others of "
            "the training"
        )

    def describe_unknown_events(self, n_unknown: int, n_decoded: int) -> str:
        """Describe the windows without a known picture, with advice.

        Args:
            n_unknown: Number of these windows.
            n_decoded: Number of all windows.
        """
        names = self.decoder.event_names
        if names.table is None:
            advice = (
                "--events FILE.csv, with columns event and picture, names their "
                "pictures"
            )
        else:
            advice = f"a line EVENT,PICTURE in {names.path} names the picture of each"
        events = summarise_names(list(dict.fromkeys(self.decoder.unknown_events)))
        return (
            f"{n_unknown} of {n_decoded} windows show no known picture, of events "
            f"{events}; {advice}"
        )

    @property
    def is_exchangeable(self) -> bool:
        """True unless the order of the recording tells labels, as far as is known."""
        return not self.problem and NOT_INTERLEAVED not in self.signal_caveats

    def collect_caveats(self, n_learned: int = 0, n_trials: int = 0) -> list[str]:
        """Collect the caveats that hold for all numbers of the session.

        Args:
            n_learned: Number of trials that the model was trained on.
            n_trials: Number of all trials.
        """
        align = self.job.align
        trial_caveats = [] if self.knows_trials else [UNKNOWN_TRIALS]
        # Largest share of trials that may be taken for training trials by mistake.
        # Trials with an artifact such as a blink resemble each other.
        max_learned_share = 0.05
        # the stronger caveat replaces the weaker one
        if n_learned > max_learned_share * n_trials:
            trial_caveats = [TRAINED_TRIALS]
        tested = self.job.tests.compare_pictures(self.job.cell.fold)
        return merge_caveats(
            self.signal_caveats,
            align.dataset.holdout.caveats(self.decoder.template),
            trial_caveats,
            tested.caveats,
            self.decoder.model.history.list_caveats(align.dataset.people),
        )


def describe_table(path: Path) -> Input:
    """Describe a table of events as an input."""
    error = None
    if not path.is_file():
        error = MissingData(
            f"there is no table {path}",
            "name the table of events: --events FILE.csv, with the columns event and "
            "picture",
        )
    return Input(str(path), error=error)


def choose_columns(
    preparation: LivePreparation,
    stream: StreamFormat,
    channel_mapping: str,
    source: StreamConfig,
) -> list[int]:
    """Choose the channels of a stream that are cut, and compare their units.

    Args:
        preparation: Required channels and their unit.
        stream: Channels and units of the stream.
        channel_mapping: `none` refuses a missing channel. Any other value then takes
            all channels of the same type.
        source: Config of the stream, for the advice.

    Returns:
        Column [E] of each channel.

    Raises:
        BrainhiveError: if channels are missing, match twice, or have another unit.
    """
    # channels by name, in the order of the model
    is_whitened = preparation.steps.whiten != "no"
    channel_type = CHANNEL_TYPES.get(preparation.unit, "eeg")
    keys = type(source).model_fields
    stream_name = f"stream {stream.name}"
    rows = find_rows(preparation.channels, stream.channels, stream_name)
    columns = [row for row in rows if row is not None]

    if len(columns) < len(rows):
        # whitening needs every channel from which the whitener was computed
        if channel_mapping == "none" or is_whitened:
            missing = []
            for channel, row in zip(preparation.channels, rows, strict=True):
                if row is None:
                    missing.append(channel)
            # Advice by the keys of streams that name channels.
            channel_keys = {
                "channels": "source.channels=A,B,… in order",
                "rename": "source.rename={theirs: ours}",
            }
            advice = [line for key, line in channel_keys.items() if key in keys]
            if not is_whitened:
                advice.append("channel_mapping=spline")
            purpose = " for its whitening" if is_whitened else ""
            raise BrainhiveError(
                f"{stream_name} lacks channel {', '.join(missing)}, which the model "
                f"needs{purpose}. It has {summarise_names(list(stream.channels))}",
                "; or ".join(advice) or "a stream that has it",
            )
        # the mapping interpolates from all channels of the type
        columns = [
            index
            for index, stream_type in enumerate(stream.channel_types)
            if stream_type == channel_type
        ]

    for column in columns:
        unit = stream.units[column]
        if unit != preparation.unit:
            names = [
                stream.channels[index]
                for index in columns
                if stream.units[index] == unit
            ]
            stream_unit = f"in {unit}" if unit else "without a unit"
            advice_text = (
                f"use a stream of {channel_type} channels in {preparation.unit}"
            )
            if "unit" in keys:
                advice_text = (
                    "set the unit of the stream: source.unit=V (or mV, µV, fT …)"
                )
            raise BrainhiveError(
                f"{stream_name} has channels {stream_unit} "
                f"({summarise_names(names)}), but the model needs {preparation.unit}",
                advice_text,
            )
    return columns
