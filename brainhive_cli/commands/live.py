"""The command `live`: decoding of seen pictures while the brain signals are recorded.

A window is the part of the signals that follows the onset of a picture. The model
compares it with the gallery, the candidate pictures.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from brainhive_cli.core.base import (
    BrainhiveError,
    MissingData,
    Table,
    console,
    first_line,
)
from brainhive_cli.core.files import Input, collect_inputs
from brainhive_cli.core.results import (
    ALL,
    TRAINED_TRIALS,
    Measurements,
    Metric,
    Scopes,
    extend_protocol,
    index_by_name,
)
from brainhive_cli.core.runs import (
    Artifact,
    Curve,
    CurveLine,
    Launch,
    OpenRun,
    Result,
    RunFolder,
    RunJob,
    Sheet,
    SheetRow,
    SheetTile,
    Summary,
    artifacts,
    driver,
)
from brainhive_cli.data.exchange import SessionFolder
from brainhive_cli.data.files import name_stimulus
from brainhive_cli.data.media import StimulusSet, get_first_frame, to_bytes
from brainhive_cli.data.streams import WindowStream
from brainhive_cli.evaluation.live.decoder import EventRow, LiveResult
from brainhive_cli.evaluation.live.facts import LiveFacts
from brainhive_cli.evaluation.live.job import Job, OpenSession
from brainhive_cli.evaluation.live.loop import Drawer, Loop, Score
from brainhive_cli.evaluation.live.recipe import Recipe
from brainhive_cli.evaluation.reconstruction.generation import (
    Sampler,
    derive_noise_seed,
)
from brainhive_cli.evaluation.reconstruction.recipe import (
    Recipe as ReconstructionRecipe,
)
from brainhive_cli.measurement import hit_rate_interval, summarise_ranks
from brainhive_cli.models import priors
from brainhive_cli.reports.pages.live_page import LivePage, resolve_host
from brainhive_cli.reports.pages.page import FINDING
from brainhive_cli.reports.sentences.sentences import MEANINGS
from brainhive_cli.reports.tables import make_rows, tabulate_rows
from brainhive_cli.training.alignment.trained import TrainedModel, check_tokens

if TYPE_CHECKING:
    from brainhive_cli.data.recordings import ResultOutlet

SESSION = "session"
"""Folder of a run that holds the saved session."""
MAX_CURVE_POINTS = 200
"""Largest number of points of the curve."""
ReadPicture = Callable[[str], bytes | None]
"""Function that returns the PNG file of an image id. It returns None if the picture is
not known or cannot be read.
"""


class LiveRun(Job, RunJob):
    """Run of `live`. Every session is a run of its own, which is never reused."""

    command = "live"

    @property
    def short_name(self) -> str:
        """First part of the name of the run."""
        return self.align.short_name

    @cached_property
    def failures(self) -> list[Exception]:
        """The error that has ended the session, or an empty list."""
        return []

    @cached_property
    def drawing_recipe(self) -> ReconstructionRecipe | None:
        """Recipe of the generator that draws results. None if nothing is drawn."""
        if self.recipe.draw is None:
            return None
        return ReconstructionRecipe.resolve("reconstruct", self.recipe.draw, {}, [])

    @cached_property
    def prior(self) -> Any:
        """Prior that turns decoded tokens into the conditioning of the generator.

        Raises:
            MissingData: if the prior was trained on other tokens than the model
                decodes.
        """
        recipe = self.drawing_recipe
        assert recipe is not None
        source = recipe.prior.source
        prior = priors.load(source, scale=recipe.prior.scale, adapter=recipe.adapter)
        # a fuser accepts only the tokens that it was trained on
        if prior.fuser is not None:
            check_tokens(self.align, prior, source, self.align.dataset_config)
        return prior

    def inputs(self) -> list[Input]:
        """List the trained run, the stream and the weights of the generator."""
        return collect_inputs(super().inputs, self._list_weights)

    def _list_weights(self) -> list[Input]:
        """List the weights of the prior and the generator, if results are drawn."""
        if self.drawing_recipe is None:
            return []
        # the run's fingerprint omits the prior, since drawings change no metrics
        prior = priors.find_input(self.drawing_recipe.prior.source)
        return [replace(prior, digest="")] + list(
            self.drawing_recipe.generator.inputs()
        )

    def check(self) -> None:
        """Raise an error if the stream, the generator or the page cannot be used."""
        super().check()
        if self.drawing_recipe is not None:
            self.drawing_recipe.generator.check()
            _ = self.prior  # raises an error if the prior does not fit the model
        if self.recipe.page:
            resolve_host(self.recipe.host)

    def summarise(self, run: OpenRun) -> Summary:
        """Hold the session, and return its measurements and figures."""
        return _hold_session(self, run.folder, run.launch)

    def describe(self, run: OpenRun) -> Result:
        """Show hit rates and latencies, or raise the error that ended the session.

        The error is raised only here, so that the earlier windows are measured and
        stored.
        """
        if self.failures:
            raise self.failures[0]
        folder = run.folder.path
        measurements = run.folder.measurements()
        tables = _make_tables(measurements)
        if self.recipe.lines:
            # programs read lines from stdout, so no table is printed
            return Result(folder, tables, measurements, printed_tables=())
        session = folder / SESSION
        files = {"session": session} if session.is_dir() else {}
        return Result(folder, tables, measurements, files)


resolve_job = LiveRun.resolve


def run(recipe: Recipe, launch: Launch, force: bool = False) -> Result:
    """Decode until the stream or the session ends. Each session is a new run."""
    return driver.run(resolve_job(recipe), launch, force=True)


@dataclass
class _Publisher:
    """Sender of events, such as results, to all receivers of a live session.

    Attributes:
        send_functions: A function for each receiver, such as the web page. It sends an
            event to the receiver.
    """

    send_functions: list[Callable[[EventRow], Any]] = field(default_factory=list)

    def publish(self, event: EventRow) -> None:
        """Send an event to all receivers, and remove the receivers that fail."""
        # iterate over a copy, because the loop removes functions
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
    """Decode windows until the stream ends, or until the user ends the session.

    Returns:
        The measurements, tables and figures of the session.

    Raises:
        Exception: if the session fails before the first window is decoded. A later
            error ends the session, and is stored in `job.failures`.
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

        # send results to stdout (lines of JSON), to the network (LSL) and to the page
        read_picture = _find_pictures(session)
        publisher = _Publisher()
        if recipe.lines:
            publisher.send_functions.append(partial(console.show_json, indent=None))
        # Start of the warning if the saved session, the page or the outlet
        # fails to close.
        closing_warning = "the session has ended, but a part of it could not be closed"
        if recipe.outlet:
            from brainhive_cli.data.recordings import ResultOutlet

            outlet = ResultOutlet(recipe.outlet, f"brainhive-{folder.path.name}")
            stack.callback(_try, closing_warning, outlet.close)
            publisher.send_functions.append(partial(_send_result, outlet))
        page = None
        if recipe.page:
            page = _open_page(session, stream_name, read_picture)
            stack.callback(_try, closing_warning, page.stop)
            publisher.send_functions.append(page.publish)

        # draw the results with a generator
        drawer = None
        if recipe.draw:
            draw = _load_generator(job, session, launch)
            drawer = Drawer(draw, partial(_save_drawing, folder, page))

        # save the session, except windows that come from a store
        recorder = None
        if recipe.save and not isinstance(session.stream, WindowStream):
            recorder = SessionFolder(
                folder.path / SESSION,
                session.stream.format,
                job.subject,
                job.align.dataset.stimulus,
            )
            stack.callback(_try, closing_warning, recorder.close)

        # decode until the stream or the session ends
        if not recipe.source.has_windows:
            console.say(session.describe_markers())
        console.say(f"decoding {stream_name}; Ctrl-C ends the session")
        loop = Loop(session, publisher.publish, recorder, drawer, recipe.windows)
        try:
            reason = loop.run()
        except Exception as error:
            # keep the windows that were decoded before the error
            if not loop.decoded:
                raise
            job.failures.append(error)
            reason = first_line(error)
        publisher.publish({"kind": "ended", "text": reason})

    # measure the decoded windows
    if loop.unknown:
        console.warn(session.describe_unknown_events(loop.unknown, loop.decoded))
    measurements = _measure(session, loop, reason)
    tables = _make_tables(measurements)

    draw_figures = partial(
        draw_session, folder, loop.first_results, loop.score, read_picture
    )
    figures = _try("the figures of the session could not be drawn", draw_figures) or []
    return Summary(measurements, figures + list(tables))


def _warn_of_limits(session: OpenSession) -> None:
    """Warn of the limits of a session.

    - differences from an offline evaluation
    - caveats (limits of the results)
    - a subject whom the model was not trained on
    """
    job = session.job
    for difference in session.differences:
        console.warn(f"differs from an offline evaluation: {difference}")
    for caveat in session.collect_caveats():
        console.warn(MEANINGS[caveat])
    if job.subject not in job.cell.trained_on or job.align.tests_new_subjects:
        console.warn(f"the model was not trained on subject {job.subject}")


def _send_result(outlet: "ResultOutlet", event: EventRow) -> None:
    """Send an event to other programs by LSL, if the event is a result."""
    if event["kind"] == "result":
        outlet.push(event)


def _save_drawing(
    folder: RunFolder, page: LivePage | None, event: EventRow, picture: bytes
) -> None:
    """Save a drawing (a PNG file) in the folder of the run, and show it on the page.

    Args:
        page: Page of the session, or None without a page.
        event: Event of the drawing. `event["window"]` is the number of the window.
    """
    name = f"drawings/{event['window']:06d}.png"
    folder.replace(name, lambda path: path.write_bytes(picture))
    if page:
        page.publish(event, picture)


def _try(problem: str, act: Callable[[], Any]) -> Any:
    """Call a function. If it raises an error, warn and return None.

    Args:
        problem: First words of the warning.
    """
    try:
        return act()
    except Exception as error:
        console.warn(f"{problem}: {type(error).__name__}: {error}")


def _open_page(
    session: OpenSession, stream_name: str, read_picture: ReadPicture
) -> LivePage:
    """Start the web page of a session, and print its address.

    Args:
        stream_name: Name of the stream of signals, for the title.
        read_picture: Returns the PNG file of an image id, or None.
    """
    job = session.job
    recipe = job.recipe
    title = f"{stream_name}, subject {job.subject}"
    page = LivePage(title, read_picture, recipe.host, recipe.port)
    url = page.start()
    console.say(f"page: {url}")

    # describe the session before its first result
    page.publish(
        {
            "kind": "start",
            "model": f"{job.align.file_name}, {job.cell.name}",
            "pool": len(session.decoder.image_ids),
            "caveats": session.collect_caveats(),
            "differs": session.differences,
        }
    )
    if recipe.open:
        console.open_browser(url)
    return page


def _find_pictures(session: OpenSession) -> ReadPicture:
    """Return a function that reads the pictures of the gallery and of the training."""
    dataset = session.job.align.dataset
    positions: dict[str, tuple[StimulusSet, int]] = {}
    for split in ("train", session.job.recipe.gallery):
        # without picture files, the page shows names
        with suppress(MissingData):
            images = dataset.images(dataset.holdout.name_stored_split(split))
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
        positions: Set of stimuli and row in this set, by image id.

    Returns:
        The PNG file. None if `positions` lacks the picture, or if it cannot be read.
    """
    if image_id not in positions:
        return None
    images, row = positions[image_id]
    try:
        stimulus = images.open(row)
    except (BrainhiveError, OSError) as error:
        console.warn(f"the picture {image_id} cannot be shown: {first_line(error)}")
        return None
    picture = get_first_frame(stimulus).convert("RGB")
    # Largest side of the pictures on the page, in pixels.
    max_picture_px = 256
    picture.thumbnail((max_picture_px, max_picture_px))
    return _write_png(picture)


def _write_png(picture: Image.Image) -> bytes:
    """Return a picture as the bytes of a PNG file."""
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _load_generator(
    job: LiveRun, session: OpenSession, launch: Launch
) -> Callable[[LiveResult], bytes]:
    """Load the prior and the generator that draw a picture from a decoded window.

    Returns:
        A function that takes the result of a window, and returns a PNG file.
    """
    recipe = job.drawing_recipe
    assert recipe is not None
    sampler = Sampler(
        build_generator=recipe.generator.build,
        prior=job.prior.to(launch.device),
        recipe=recipe,
        sampling=recipe.sampling,
        device=launch.device,
        heads=session.decoder.model.layout.heads,
    )
    _ = sampler.generator  # load it now, not at the first drawing
    return partial(
        _draw_result,
        sampler,
        session.decoder.model,
        subject=job.subject,
        seed=recipe.seed,
    )


def _draw_result(
    sampler: Sampler, model: TrainedModel, result: LiveResult, subject: int, seed: int
) -> bytes:
    """Draw a picture from the signal of a decoded window.

    Args:
        model: Brain model, which decodes tokens from a signal.
        result: Result of the window, with a signal [C, T]: a single trial, or the
            average of the trials of a picture.

    Returns:
        The drawing as a PNG file, which has only the first frame of a clip.
    """
    # the seed depends on the window, so that a replay draws the same pictures
    seeds = [derive_noise_seed(seed, result.window.name, 0)]
    signal = result.signal[None].to(sampler.device)  # [1, C, T]
    decoded = model.module.decode(
        signal, model.make_subject_index(subject, 1), seeds
    ).float()
    pixels = to_bytes(sampler.sample(decoded, seeds))[0]  # [H, W, 3] or [F, H, W, 3]
    frame = pixels[0] if pixels.ndim == 4 else pixels
    return _write_png(Image.fromarray(frame))


def _measure(session: OpenSession, loop: Loop, reason: str) -> Measurements:
    """Measure the hit rates of a session, and describe its stream.

    Args:
        reason: Reason why the session has ended.

    Returns:
        The facts of the session (values that are not metrics) and, if a tested picture
        was shown, its metrics in two scopes:
        - all: share of single trials that rank the shown picture first (top-1)
        - averages: top-1 and top-5 of pictures, by the average of their trials
    """
    job = session.job
    decoder = session.decoder
    score = loop.score
    hits = score.hits
    caveats = score.list_caveats()
    scopes: Scopes = {}
    items: dict[str, Any] = {}
    # Protocol of the hit rate of single trials.
    protocol = "live, single trials"
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
            interval="95 % at every moment of the session (confidence sequence), for"
            " this person and these pictures",
            seeds=(job.cell.seed,),
            protocol=extend_protocol(protocol, caveats),
            split=job.recipe.gallery,
            caveats=tuple(caveats),
        )
        averages = summarise_ranks(
            [list(score.average_ranks.values())],
            pool=hits.pool,
            metric_names=("top1", "top5"),
            seeds=(job.cell.seed,),
            # Protocol of the metrics of averages.
            protocol=extend_protocol(
                "live, average of all trials of a picture", caveats
            ),
            split=job.recipe.gallery,
            caveats=caveats,
        )

        # metrics are marked as too high if test pictures have selected the weights
        is_selected = decoder.model.history.selection == "test"
        scopes[ALL] = index_by_name([replace(single, selected=is_selected)])
        scopes["averages"] = index_by_name(
            [replace(metric, selected=is_selected) for metric in averages]
        )
        items[ALL] = {"image_ids": score.image_ids, "ranks": score.ranks}

    # if no trial was tested, let the user compare names of events and candidates
    unknown_events = [] if hits.trials else list(decoder.unknown_events)
    candidates = list(decoder.image_ids) if unknown_events else []

    # hits prove nothing if trials of the training were shown, or if time tells labels
    is_interleaved = hits.is_interleaved and session.is_exchangeable
    is_tested = bool(hits.trials) and TRAINED_TRIALS not in caveats
    facts = LiveFacts(
        caveats=caveats,
        dataset=job.align.dataset.name,
        modality=job.align.modality,
        stimulus=job.align.dataset.stimulus,
        run=job.align.name,
        protocol=protocol,
        windows=loop.decoded,
        ended=reason,
        latency_ms=loop.summarise_latencies(),
        stream=loop.describe_stream(),
        differs=list(session.differences),
        hits=hits.hits,
        is_interleaved=is_interleaved,
        order_problem=session.problem,
        anytime_p=hits.p_value if is_tested and is_interleaved else None,
        trials_learned_from=score.learned,
        unknown_events=unknown_events,
        candidates=candidates,
    )
    return Measurements(scopes, {}, facts, items)


def _make_tables(measurements: Measurements) -> tuple[Table, ...]:
    """Return tables of hit rates, latencies and stream counts that have rows."""
    # median, 95th percentile and maximum of the latency of each stage
    facts = measurements.require_facts(LiveFacts)
    latency_rows = []
    for stage, percentiles in facts.latency_ms.items():
        latency_rows.append((stage, *percentiles.values()))

    # counts of the stream, with a row for each reason why windows were dropped
    counts = dict(facts.stream)
    for reason, n_dropped in counts.pop("dropped").items():
        counts[f"dropped: {reason}"] = n_dropped

    scopes = measurements.scopes
    tables = (
        tabulate_rows(
            "Shown picture ranked first", make_rows(scopes), "trials", ("top1", "top5")
        ),
        Table("Latency, ms", ("stage", "median", "95 %", "longest"), latency_rows),
        Table("Stream", ("item", "count"), list(counts.items())),
    )
    return tuple(table for table in tables if table.rows)


def draw_session(
    folder: RunFolder,
    results: Sequence[EventRow],
    score: Score,
    read_picture: ReadPicture,
) -> list[Artifact]:
    """Draw the figures of a session for its report.

    Args:
        folder: Folder of the run. Shown and decoded pictures are saved in its subfolder
            `gallery`. Pictures from a generator are read from `drawings`.
        results: Results of the first windows, as in `LiveResult.event`.
        score: Ranks of the shown pictures in the tested trials.
        read_picture: Returns the PNG file of an image id, or None.

    Returns:
        A sheet with the pictures of any first windows, and a curve of the hit rate over
        any tested trials.
    """
    figures: list[Artifact] = []
    if results:
        figures.append(_draw_sheet(folder, results, score, read_picture))
    if score.ranks:
        figures.append(_draw_curve(score))
    return figures


@dataclass
class _TileMaker:
    """Maker of the tiles (pictures with text) of a figure.

    Attributes:
        folder: Folder of the run.
        read_picture: Returns the PNG file of an image id, or None.
        files: Paths of the saved pictures in the folder of the run, by image id.
    """

    folder: RunFolder
    read_picture: ReadPicture
    files: dict[str, str] = field(default_factory=dict)

    def make(
        self, image_id: str | None, lines: Sequence[str], verdict: Any = ""
    ) -> SheetTile:
        """Make a tile of a picture, and save the picture if no other tile has saved it.

        The first line of the tile is the name of the picture.

        Args:
            image_id: Image id of the picture. None if the stream did not name it, which
                gives the line "not known".
            lines: Lines of text below the picture.
            verdict: "right" or "wrong" for a decoded picture whose shown picture is
                known, else "".
        """
        if image_id is None:
            return SheetTile("", ["not known"] + list(lines), verdict=verdict)
        png = self.read_picture(image_id)
        if png is None:
            return SheetTile("", [name_stimulus(image_id), *lines], verdict=verdict)

        if image_id not in self.files:
            self.files[image_id] = artifacts.save_picture(
                self.folder, f"gallery/{len(self.files)}", Image.open(BytesIO(png))
            )
        file = self.files[image_id]
        return SheetTile(file, [name_stimulus(image_id), *lines], verdict=verdict)


def _draw_sheet(
    folder: RunFolder,
    results: Sequence[EventRow],
    score: Score,
    read_picture: ReadPicture,
) -> Sheet:
    """Draw a sheet with a row of pictures for each of the first windows of a session.

    A row has the shown picture, the most similar candidates, and any drawing.

    Args:
        results: Results of the windows, as in `LiveResult.event`.
        read_picture: Returns the PNG file of an image id, or None.
    """
    tile_maker = _TileMaker(folder, read_picture)
    has_drawings = (folder.path / "drawings").is_dir()
    rows = []
    for result in results:
        # the shown picture, with its rank among the candidates
        shown_id = result["shown"]
        window = result["window"]
        lines = [f"window {window}"]
        if result["rank"] is not None:
            lines.append(f"rank {result['rank']} of {score.hits.pool}")
        elif shown_id is not None:
            lines.append("not in the gallery")
        tiles = [tile_maker.make(shown_id, lines)]

        # the candidates that are most similar to the signal of this single trial
        for candidate in result["best"]:
            verdict = ""
            if shown_id:
                verdict = "right" if candidate["image"] == shown_id else "wrong"
            similarity = f"{candidate['similarity']:.2f}"
            tiles.append(tile_maker.make(candidate["image"], [similarity], verdict))

        # the drawing, which is missing if the generator was busy with another window
        if has_drawings:
            name = f"drawings/{window:06d}.png"
            if (folder.path / name).is_file():
                tiles.append(SheetTile(name))
            else:
                tiles.append(SheetTile("", ["skipped"]))
        rank = result["rank"]
        n_candidates = None if rank is None else score.hits.pool
        rows.append(SheetRow(str(window), tiles, rank, n_candidates))

    # the columns of decoded pictures are headed by their rank
    n_best = len(results[0]["best"])
    columns = ["seen"] + [str(rank) for rank in range(1, n_best + 1)]
    if has_drawings:
        columns.append("drawn from the signal")
    return Sheet(
        "Shown and decoded pictures",
        columns,
        rows,
        # Heading of the figures on the page of the run.
        section="Pictures decoded during the session",
        note="The first windows of the session, each a single trial; the seen picture "
        "has a green frame",
    )


def _draw_curve(score: Score) -> Curve:
    """Draw the hit rate of a session as a curve over the number of tested trials.

    A point is the share of all trials so far that ranked the shown picture first.
    """
    # count the hits [P] up to P evenly spaced numbers of trials
    n_trials = len(score.ranks)
    points = np.linspace(1, n_trials, min(MAX_CURVE_POINTS, n_trials))
    trial_numbers = points.round().astype(int)
    is_hit = np.equal(score.ranks, 1)
    hit_counts = np.cumsum(is_hit)[trial_numbers - 1]

    # lower and upper ends [P] of intervals that are valid at all points together
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
        section=FINDING,
        note="single trials; the interval is valid at every moment, even if you look "
        "at it many times",
    )
