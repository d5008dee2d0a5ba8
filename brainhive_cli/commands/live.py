"""The command `live`: decoding of seen pictures while the brain signals are recorded.

The signals come from a stream, from the replay of a recording, or from a mock that
simulates them. A window is the part of the signals that follows the onset of a picture.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from brainhive_cli.core import artifacts, console, driver
from brainhive_cli.core.artifacts import (
    Artifact,
    Curve,
    CurveLine,
    Sheet,
    SheetRow,
    SheetTile,
)
from brainhive_cli.core.command import Input, Result, collect_inputs
from brainhive_cli.core.errors import BrainhiveError, MissingData, first_line
from brainhive_cli.core.facts import LiveFacts
from brainhive_cli.core.jobs import OpenRun, RunJob, Summary
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import (
    ALL,
    TRAINED_TRIALS,
    Measurements,
    Metric,
    extend_protocol,
    index_by_name,
)
from brainhive_cli.core.runs import RunFolder
from brainhive_cli.core.tables import Table
from brainhive_cli.data.exchange.session_folder import SessionFolder
from brainhive_cli.data.media.media_files import first_frame, to_bytes
from brainhive_cli.data.media.stimuli import StimulusSet
from brainhive_cli.data.streams import WindowStream
from brainhive_cli.evaluation.live.decoder import EventRow, LiveResult
from brainhive_cli.evaluation.live.job import Job, OpenSession
from brainhive_cli.evaluation.live.loop import Drawer, Loop, Score
from brainhive_cli.evaluation.live.recipe import Recipe
from brainhive_cli.evaluation.reconstruction.generation import Sampler, seed_of
from brainhive_cli.evaluation.reconstruction.recipe import (
    Recipe as ReconstructionRecipe,
)
from brainhive_cli.measurement.confidence_sequence import hit_rate_interval
from brainhive_cli.measurement.ranks import summarise_ranks
from brainhive_cli.models import priors
from brainhive_cli.reports.live_page import LivePage, resolve_host
from brainhive_cli.reports.sentences import MEANINGS
from brainhive_cli.reports.tables import metric_table
from brainhive_cli.training.alignment.trained.model import TrainedModel
from brainhive_cli.training.alignment.trained.run import check_tokens

if TYPE_CHECKING:
    from brainhive_cli.data.recordings.lsl_library import ResultOutlet

MAX_PICTURE_PX = 256
"""Largest side of the pictures on the page, in pixels."""
SESSION = "session"
"""Folder of a run that holds the saved session."""
CLOSING_WARNING = "the session has ended, but a part of it could not be closed"
"""Start of the warning if the saved session, the page or the outlet fails to close."""
MAX_CURVE_POINTS = 200
"""Largest number of points of the curve."""
SECTION = "Pictures decoded during the session"
"""Heading of the figures on the page of the run."""
ReadPicture = Callable[[str], bytes | None]
"""Function that returns the PNG file of a picture by its image id, or None."""
PROTOCOL = "live, single trials"
"""Protocol of the hit rate of single trials."""
AVERAGES_PROTOCOL = "live, average of all trials of a picture"
"""Protocol of the metrics of averages."""
INTERVAL = (
    "95 % at every moment of the session (confidence sequence), for this person and "
    "these pictures"
)


class LiveRun(Job, RunJob):
    """Run of `live`. Every session is a run of its own."""

    @property
    def label(self) -> str:
        """First part of the run's name."""
        return self.align.label

    @cached_property
    def failures(self) -> list[Exception]:
        """The error that has ended the session. Empty if there was no error."""
        return []

    @cached_property
    def drawing_recipe(self) -> ReconstructionRecipe | None:
        """Recipe by which results are drawn, or None if nothing is drawn."""
        if self.recipe.draw is None:
            return None
        return ReconstructionRecipe.resolve("reconstruct", self.recipe.draw, {}, [])

    @cached_property
    def prior(self) -> Any:
        """Prior that turns the tokens of the model into latents of the generator.

        Raises:
            MissingData: if the prior was trained on other tokens.
        """
        recipe = self.drawing_recipe
        assert recipe is not None
        source = recipe.prior.source
        prior = priors.load(source, scale=recipe.prior.scale, adapter=recipe.adapter)
        # a prior with a fuser decodes only the tokens that it was trained on
        if prior.fuser is not None:
            check_tokens(self.align, prior, source, self.align.dataset_config)
        return prior

    def inputs(self) -> list[Input]:
        """List the run, the stream and the weights of the generator."""
        return collect_inputs(super().inputs, self._list_weights)

    def _list_weights(self) -> list[Input]:
        """List the prior and the weights of the generator."""
        if self.drawing_recipe is None:
            return []
        # drawings do not change the metrics, so the fingerprint leaves out the prior
        prior = priors.find_input(self.drawing_recipe.prior.source)
        return [replace(prior, digest="")] + list(
            self.drawing_recipe.generator.inputs()
        )

    def check(self) -> None:
        """Raise an error if the stream, the generator or the page cannot be used."""
        super().check()
        if self.drawing_recipe is not None:
            self.drawing_recipe.generator.check()
            # the property raises an error if the prior does not fit
            _ = self.prior
        if self.recipe.page:
            resolve_host(self.recipe.host)

    def summarise(self, run: OpenRun) -> Summary:
        """Decode until the stream or the session ends."""
        return _hold_session(self, run.folder, run.launch)

    def describe(self, run: OpenRun) -> Result:
        """Show hit rates and latencies, or raise the error that ended the session."""
        if self.failures:
            raise self.failures[0]
        folder = run.folder.path
        measurements = run.folder.measurements()
        tables = _make_tables(measurements)
        if self.recipe.lines:
            # stdout has only the lines of the results, so no table is shown
            return Result(folder, tables, measurements, printed_tables=())
        session = folder / SESSION
        files = {"session": session} if session.is_dir() else {}
        return Result(folder, tables, measurements, files)


resolve_job = LiveRun.resolve


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Decode until the stream or the session ends."""
    return driver.run("live", resolve_job(recipe), launch, again=True)


@dataclass
class _Publisher:
    """Sender of events to all receivers of a session.

    Attributes:
        send_functions: Functions that send an event to a receiver.
    """

    send_functions: list[Callable[[EventRow], Any]] = field(default_factory=list)

    def publish(self, event: EventRow) -> None:
        """Send an event to all receivers. A receiver that fails gets no more events."""
        # a copy of the list, since functions that fail are removed from it
        for send in list(self.send_functions):
            try:
                send(event)
            except Exception as error:
                # an error of a receiver must not end the session
                self.send_functions.remove(send)
                console.warn(
                    "results are no longer sent to a receiver that has failed: "
                    f"{type(error).__name__}: {error}"
                )


def _hold_session(job: LiveRun, folder: RunFolder, launch: Launch) -> Summary:
    """Decode until the stream or the session ends.

    Args:
        job: Model, stream and options.
        folder: Folder of the run.
        launch: Process that decodes.

    Returns:
        The measurements, with tables, a sheet of pictures and a curve.

    Raises:
        Exception: if the session fails before the first window is decoded.
    """
    recipe = job.recipe
    with ExitStack() as stack:
        with console.progress("opening the model and the stream"):
            session = job.open(launch)
        stack.callback(session.stream.close)
        _warn_of_limits(session)
        stream_name = "signal store"
        if not isinstance(session.stream, WindowStream):
            stream_name = session.stream.format.name

        # send results to stdout, to an LSL outlet and to the page
        read_picture = _find_pictures(session)
        publisher = _Publisher()
        if recipe.lines:
            publisher.send_functions.append(_print_event)
        if recipe.outlet:
            from brainhive_cli.data.recordings.lsl_library import ResultOutlet

            outlet = ResultOutlet(recipe.outlet, f"brainhive-{folder.path.name}")
            stack.callback(_try, CLOSING_WARNING, outlet.close)
            publisher.send_functions.append(partial(_send_result, outlet))
        page = None
        if recipe.page:
            page = _open_page(session, stream_name, read_picture)
            stack.callback(_try, CLOSING_WARNING, page.stop)
            publisher.send_functions.append(page.publish)

        # draw results with a generator, and save the session
        drawer = None
        if recipe.draw:
            draw = _load_generator(job, session, launch)
            drawer = Drawer(draw, partial(_save_drawing, folder, page))
        recorder = None
        # windows of a store are stored already
        if recipe.save and not isinstance(session.stream, WindowStream):
            recorder = SessionFolder(
                folder.path / SESSION,
                session.stream.format,
                job.subject,
                job.align.dataset.stimulus,
            )
            stack.callback(_try, CLOSING_WARNING, recorder.close)

        # decode until the stream or the session ends
        if not recipe.source.has_windows:
            console.say(session.describe_markers())
        console.say(f"decoding {stream_name}; Ctrl-C ends the session")
        loop = Loop(session, publisher.publish, recorder, drawer, recipe.windows)
        try:
            reason = loop.run()
        except Exception as error:
            # if the stream is lost, the decoded windows are kept
            if not loop.decoded:
                raise
            job.failures.append(error)
            reason = first_line(error)
        publisher.publish({"kind": "ended", "text": reason})

    if loop.unknown:
        console.warn(session.describe_unknown(loop.unknown, loop.decoded))
    measurements = _measure(session, loop, reason)
    tables = _make_tables(measurements)

    # measurements are written even if the figures fail
    draw_figures = partial(
        draw_session, folder, loop.first_results, loop.score, read_picture
    )
    figures = _try("the figures of the session could not be drawn", draw_figures) or []
    return Summary(measurements, figures + list(tables))


def _warn_of_limits(session: OpenSession) -> None:
    """Print warnings about the session before it starts."""
    job = session.job
    for difference in session.differs:
        console.warn(f"differs from an offline evaluation: {difference}")
    for caveat in session.caveats():
        console.warn(MEANINGS[caveat])
    if job.subject not in job.cell.trained_on or job.align.tests_new_subjects:
        console.warn(f"the model was not trained on subject {job.subject}")


def _print_event(event: EventRow) -> None:
    """Print an event as a line of JSON, for programs that read stdout."""
    console.show_json(event, indent=None)


def _send_result(outlet: "ResultOutlet", event: EventRow) -> None:
    """Send an event to an LSL outlet if it is a result."""
    if event["kind"] == "result":
        outlet.push(event)


def _save_drawing(
    folder: RunFolder, page: LivePage | None, event: EventRow, picture: bytes
) -> None:
    """Save a drawing in the run, and show it on the page.

    Args:
        folder: Folder of the run.
        page: Page of the session, if there is a page.
        event: Event with the number of the window.
        picture: PNG file of the drawing.
    """
    name = f"drawings/{event['window']:06d}.png"
    folder.replace(name, lambda path: path.write_bytes(picture))
    if page:
        page.publish(event, picture)


def _try(problem: str, act: Callable[[], Any]) -> Any:
    """Call a function whose errors must not lose the decoded session.

    Args:
        problem: Start of the warning if the function fails.
        act: Function without arguments.

    Returns:
        The result of the function, or None if it fails.
    """
    try:
        return act()
    except Exception as error:
        console.warn(f"{problem}: {type(error).__name__}: {error}")


def _open_page(
    session: OpenSession, stream_name: str, read_picture: ReadPicture
) -> LivePage:
    """Start the server of the page, and print the address of the page."""
    job = session.job
    recipe = job.recipe
    title = f"{stream_name}, subject {job.subject}"
    page = LivePage(title, read_picture, recipe.host, recipe.port)
    url = page.start()
    console.say(f"page: {url}")

    # the page shows the model, the candidates and the caveats before the first result
    page.publish(
        {
            "kind": "start",
            "model": f"{job.align.label}, {job.cell.name}",
            "pool": len(session.decoder.image_ids),
            "caveats": session.caveats(),
            "differs": session.differs,
        }
    )
    if recipe.open:
        console.open_browser(url)
    return page


def _find_pictures(session: OpenSession) -> ReadPicture:
    """Find the pictures of the gallery and of the training.

    Returns:
        A function that reads a picture by its image id.
    """
    dataset = session.job.align.dataset
    positions: dict[str, tuple[StimulusSet, int]] = {}
    for split in ("train", session.job.recipe.gallery):
        # without pictures, the session shows names
        with suppress(MissingData):
            images = dataset.images(dataset.holdout.stored_split(split))
            if images.has_pictures:
                for row, image_id in enumerate(images.image_ids):
                    positions[image_id] = (images, row)
    if not positions:
        console.warn(
            f"no pictures of {dataset.name} are here, so pictures are shown by name"
        )
    return partial(_read_picture, positions)


def _read_picture(
    positions: Mapping[str, tuple[StimulusSet, int]], image_id: str
) -> bytes | None:
    """Read a picture, or the first frame of a clip, as a small PNG file.

    Args:
        positions: Set of stimuli, and row in this set, of each picture by its image id.
        image_id: Image id of the picture.

    Returns:
        The PNG file. None if the picture is not known or cannot be read.
    """
    if image_id not in positions:
        return None
    images, row = positions[image_id]
    try:
        stimulus = images.open(row)
    except (BrainhiveError, OSError) as error:
        console.warn(f"the picture {image_id} cannot be shown: {first_line(error)}")
        return None
    picture = first_frame(stimulus).convert("RGB")
    picture.thumbnail((MAX_PICTURE_PX, MAX_PICTURE_PX))
    return _write_png(picture)


def _write_png(picture: Image.Image) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _load_generator(
    job: LiveRun, session: OpenSession, launch: Launch
) -> Callable[[LiveResult], bytes]:
    """Load the prior and the generator.

    Returns:
        A function that draws a result as a PNG file.
    """
    recipe = job.drawing_recipe
    assert recipe is not None
    sampler = Sampler(
        build=recipe.generator.build,
        prior=job.prior.to(launch.device),
        output=recipe,
        sampling=recipe.sampling,
        device=launch.device,
        heads=session.decoder.member.layout.heads,
    )
    # the property loads the generator now, so that the first drawing need not wait
    _ = sampler.generator
    return partial(
        _draw_result,
        sampler,
        session.decoder.member,
        subject=job.subject,
        seed=recipe.seed,
    )


def _draw_result(
    sampler: Sampler, member: TrainedModel, result: LiveResult, subject: int, seed: int
) -> bytes:
    """Draw a picture from the signal of a result.

    Args:
        sampler: Prior and generator.
        member: Brain model.
        result: Result with the signal [C, T] of a trial, or of an average.
        subject: Number of the subject.
        seed: Seed of the recipe.

    Returns:
        The PNG file. A clip is shown by its first frame.
    """
    # the seed depends on the event, so a replayed session has the same drawings
    seeds = [seed_of(seed, result.window.name, 0)]
    signal = result.signal[None].to(sampler.device)  # [1, C, T]
    decoded = member.module.decode(signal, member.index(subject, 1), seeds).float()
    pixels = to_bytes(sampler.sample(decoded, seeds))[0]  # [H, W, 3] or [F, H, W, 3]
    frame = pixels[0] if pixels.ndim == 4 else pixels
    return _write_png(Image.fromarray(frame))


def _measure(session: OpenSession, loop: Loop, reason: str) -> Measurements:
    """Measure the hit rates of a session, and describe its stream.

    Args:
        session: Session that has ended.
        loop: Loop with the counts and latencies of the session.
        reason: Reason why the session has ended.

    Returns:
        The hit rate of single trials, and top-1 and top-5 of the averages over all
        trials of a picture. There are no metrics if no tested picture was shown.
    """
    job = session.job
    decoder = session.decoder
    score = loop.score
    hits = score.hits
    caveats = score.list_caveats()
    scopes: dict[str, dict[str, Metric]] = {}
    items: dict[str, Any] = {}
    if hits.trials:
        low, high = hits.interval
        single = Metric(
            "top1",
            hits.rate,
            n=hits.trials,
            pool=hits.pool,
            chance=hits.chance,
            low=low,
            high=high,
            interval=INTERVAL,
            seeds=(job.cell.seed,),
            protocol=extend_protocol(PROTOCOL, caveats),
            split=job.recipe.gallery,
        )
        averages = summarise_ranks(
            [list(score.average_ranks.values())],
            pool=hits.pool,
            metric_names=("top1", "top5"),
            seeds=(job.cell.seed,),
            protocol=extend_protocol(AVERAGES_PROTOCOL, caveats),
            split=job.recipe.gallery,
        )

        # metrics say whether the epoch of the model was selected on test pictures
        is_selected = decoder.member.learned.selection == "test"
        scopes[ALL] = index_by_name([replace(single, selected=is_selected)])
        scopes["averages"] = index_by_name(
            [replace(metric, selected=is_selected) for metric in averages]
        )
        items[ALL] = {"image_ids": score.image_ids, "ranks": score.ranks}

    # if no trial was tested, show how the names of events and candidates differ
    unknown_events = [] if hits.trials else list(decoder.unknown_events)
    candidates = list(decoder.image_ids) if unknown_events else []

    # hit rates of trained trials are no result, so they get no p value
    has_p_value = bool(hits.trials) and TRAINED_TRIALS not in caveats
    facts = LiveFacts(
        caveats=caveats,
        dataset=job.align.dataset.name,
        modality=job.align.modality,
        stimulus=job.align.dataset.stimulus,
        run=job.align.name,
        protocol=PROTOCOL,
        windows=loop.decoded,
        ended=reason,
        latency_ms=loop.summarise_latencies(),
        stream=loop.describe_stream(),
        differs=list(session.differs),
        hits=hits.hits,
        is_interleaved=hits.is_interleaved,
        anytime_p=hits.p_value if has_p_value else None,
        trials_learned_from=score.learned,
        unknown_events=unknown_events,
        candidates=candidates,
    )
    return Measurements(scopes, {}, facts, items)


def _make_tables(measurements: Measurements) -> tuple[Table, ...]:
    """Return tables of hit rates, latencies and counts, without empty tables."""
    facts = measurements.require_facts(LiveFacts)
    latency_rows = []
    for stage, percentiles in facts.latency_ms.items():
        latency_rows.append((stage, *percentiles.values()))

    # dropped windows have a row for each reason
    counts = dict(facts.stream)
    for reason, n_dropped in counts.pop("dropped").items():
        counts[f"dropped: {reason}"] = n_dropped
    hit_rates = metric_table(
        "Shown picture ranked first", measurements.scopes, "trials", ("top1", "top5")
    )
    tables = (
        hit_rates,
        Table("Latency, ms", ("stage", "median", "95 %", "most"), latency_rows),
        Table("Stream", ("what", "count"), list(counts.items())),
    )
    return tuple(table for table in tables if table.rows)


def draw_session(
    folder: RunFolder,
    results: Sequence[EventRow],
    score: Score,
    read_picture: ReadPicture,
) -> list[Artifact]:
    """Draw the first windows of a session, and its hit rate over time.

    Args:
        folder: Folder of the run. Pictures are saved in `gallery`, and `drawings` has
            the pictures that a generator drew.
        results: Events of the first results, as `LiveResult` describes them.
        score: Hits of the tested trials.
        read_picture: Function that reads a picture.

    Returns:
        A sheet if there are results, and a curve if trials were tested.
    """
    figures: list[Artifact] = []
    if results:
        figures.append(_draw_sheet(folder, results, score, read_picture))
    if score.ranks:
        figures.append(_draw_curve(score))
    return figures


@dataclass
class _TileMaker:
    """Maker of the tiles of a sheet, which saves every picture once.

    Attributes:
        folder: Folder of the run.
        read_picture: Function that reads a picture.
        files: Name of the saved file in the run, by image id.
    """

    folder: RunFolder
    read_picture: ReadPicture
    files: dict[str, str] = field(default_factory=dict)

    def make(
        self, image_id: str | None, lines: Sequence[str], verdict: Any = ""
    ) -> SheetTile:
        """Make the tile of a picture.

        Args:
            image_id: Image id of the picture, or None if it is not known.
            lines: Lines of text below the picture.
            verdict: "right" or "wrong" for a decoded picture. Empty if this is not
                known.

        Returns:
            The tile. If there is no picture, the tile is empty, and its first line is
            the image id.
        """
        if image_id is None:
            return SheetTile("", ["not known"] + list(lines), verdict=verdict)
        png = self.read_picture(image_id)
        if png is None:
            return SheetTile("", [image_id] + list(lines), verdict=verdict)
        if image_id not in self.files:
            self.files[image_id] = artifacts.save_picture(
                self.folder, f"gallery/{len(self.files)}", Image.open(BytesIO(png))
            )
        return SheetTile(self.files[image_id], lines, verdict=verdict)


def _draw_sheet(
    folder: RunFolder,
    results: Sequence[EventRow],
    score: Score,
    read_picture: ReadPicture,
) -> Sheet:
    """Draw the shown and the decoded pictures of windows. See `draw_session`."""
    tile_maker = _TileMaker(folder, read_picture)
    has_drawings = (folder.path / "drawings").is_dir()
    rows = []
    for result in results:
        # the shown picture
        shown_id = result["shown"]
        window = result["window"]
        lines = [f"window {window}"]
        if result["rank"] is not None:
            lines.append(f"rank {result['rank']} of {score.hits.pool}")
        elif shown_id is not None:
            lines.append("not in the gallery")
        tiles = [tile_maker.make(shown_id, lines)]

        # the most similar pictures, by this trial alone
        for candidate in result["best"]:
            verdict = ""
            if shown_id:
                verdict = "right" if candidate["image"] == shown_id else "wrong"
            similarity = f"{candidate['similarity']:.2f}"
            tiles.append(tile_maker.make(candidate["image"], [similarity], verdict))

        # the picture that the generator drew, unless it was busy
        if has_drawings:
            name = f"drawings/{window:06d}.png"
            if (folder.path / name).is_file():
                tiles.append(SheetTile(name))
            else:
                tiles.append(SheetTile("", ["skipped"]))
        rows.append(SheetRow(str(window), tiles))

    # each decoded picture has its rank as the heading of its column
    n_best = len(results[0]["best"])
    columns = ["seen"] + [str(rank) for rank in range(1, n_best + 1)]
    if has_drawings:
        columns.append("drawn from the signal")
    return Sheet(
        "Shown and decoded pictures",
        columns,
        rows,
        section=SECTION,
        note="the first windows, each a single trial; the seen picture has a green "
        "frame",
    )


def _draw_curve(score: Score) -> Curve:
    """Draw the hit rate so far over the number of tested trials.

    Args:
        score: Hits of the tested trials.
    """
    # numbers of trials [P], evenly spaced, and hits [P] in these first trials
    n_trials = len(score.ranks)
    points = np.linspace(1, n_trials, min(MAX_CURVE_POINTS, n_trials))
    trial_numbers = points.round().astype(int)
    is_hit = np.equal(score.ranks, 1)
    hit_counts = np.cumsum(is_hit)[trial_numbers - 1]

    # lower and upper end [P] of the confidence sequence
    low = []
    high = []
    for hits, trials in zip(hit_counts.tolist(), trial_numbers.tolist(), strict=True):
        interval_low, interval_high = hit_rate_interval(hits, trials)
        low.append(interval_low)
        high.append(interval_high)
    rates = (hit_counts / trial_numbers).tolist()
    line = CurveLine("top-1", rates, low, high, score.hits.chance)
    return Curve(
        "Share of trials that ranked the shown picture first",
        "trials",
        trial_numbers.tolist(),
        [line],
        "top-1 so far",
        section=SECTION,
        note="single trials; the interval is valid at every moment, even if you look "
        "at it many times",
    )
