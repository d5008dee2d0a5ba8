"""live: what a person sees, while they see it, from a stream, a replay or a mock."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cached_property, partial
from io import BytesIO
from typing import Any

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
from brainhive_cli.core.command import Input, Result, collect
from brainhive_cli.core.errors import BrainhiveError, MissingData, first_line
from brainhive_cli.core.facts import LiveFacts
from brainhive_cli.core.jobs import OpenRun, RunJob, Summary
from brainhive_cli.core.launch import Launch
from brainhive_cli.core.measurements import (
    ALL,
    TRAINED_TRIALS,
    Measurements,
    Metric,
    by_name,
    extend_protocol,
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
from brainhive_cli.evaluation.reconstruction.recipe import Recipe as Reconstruction
from brainhive_cli.measurement.confidence_sequence import hit_rate_interval
from brainhive_cli.measurement.ranks import summarise_ranks
from brainhive_cli.models import priors
from brainhive_cli.reports.live_page import LivePage, resolve_host
from brainhive_cli.reports.sentences import MEANINGS
from brainhive_cli.reports.tables import metric_table
from brainhive_cli.training.alignment.trained.run import check_tokens

PICTURE_PX = 256
"""Longer side of the pictures on the page, at most."""
SESSION = "session"
"""Folder of a run that holds the saved session."""
UNCLOSED = "the session ended, but not all was closed"
CURVE_POINTS = 200
"""Points of the curve, at most."""
SECTION = "What was seen, while it was seen"
ReadPicture = Callable[[str], bytes | None]
PROTOCOL = "live, single trials"
AVERAGED = "live, average of all trials of a picture"
INTERVAL = (
    "95 % at every moment of the session (confidence sequence), for this person and "
    "these pictures"
)


class LiveRun(Job, RunJob):
    """Run of live; every session is a run of its own."""

    @property
    def label(self) -> str:
        """First part of the run's name."""
        return self.align.label

    @cached_property
    def failures(self) -> list[Exception]:
        """The error that has ended the session, if one has."""
        return []

    @cached_property
    def drawing(self) -> Reconstruction | None:
        """The recipe that draws; None where nothing is drawn."""
        if self.recipe.draw is None:
            return None
        return Reconstruction.resolve("reconstruct", self.recipe.draw, {}, [])

    @cached_property
    def prior(self) -> Any:
        """The prior that draws, of the model's tokens.

        Raises:
            MissingData: if the model's tokens are not the prior's.
        """
        assert self.drawing is not None
        drawing, align = self.drawing, self.align
        source = drawing.prior.source
        prior = priors.load(source, scale=drawing.prior.scale, adapter=drawing.adapter)
        # a prior with a fuser decodes only the tokens that it was trained on
        if prior.fuser is not None:
            check_tokens(align, prior, source, align.dataset_config)
        return prior

    def inputs(self) -> list[Input]:
        """List the run, the stream, and what draws; nothing of the stream is opened."""
        return collect(super().inputs, self._list_drawing)

    def _list_drawing(self) -> list[Input]:
        """List the prior and the weights of the recipe that draws."""
        if self.drawing is None:
            return []
        # drawings are no part of what is measured
        prior = priors.find_input(self.drawing.prior.source)
        return [replace(prior, digest=""), *self.drawing.generator.inputs()]

    def check(self) -> None:
        """Refuse a stream, networks or a page that cannot be used."""
        super().check()
        if self.drawing is not None:
            self.drawing.generator.check()
            _ = self.prior
        if self.recipe.page:
            resolve_host(self.recipe.host)

    def summarise(self, run: OpenRun) -> Summary:
        """Decode until the stream or the session ends."""
        return _hold_session(self, run.folder, run.launch)

    def describe(self, run: OpenRun) -> Result:
        """Show hit rates and latencies; raise what has ended the session."""
        for failure in self.failures:
            raise failure
        path, measurements = run.folder.path, run.folder.measurements()
        tables = _make_tables(measurements)
        if self.recipe.lines:  # which are all that goes to stdout
            return Result(path, tables, measurements, shown=())
        session = path / SESSION
        files = {"session": session} if session.is_dir() else {}
        return Result(path, tables, measurements, files)


resolve_job = LiveRun.resolve


def run(recipe: Recipe, launch: Launch, again: bool = False) -> Result:
    """Decode until the stream or the session ends."""
    return driver.run("live", resolve_job(recipe), launch, again=True)


def _hold_session(job: LiveRun, folder: RunFolder, launch: Launch) -> Summary:
    """Decode until the stream or the session ends, and measure what was decoded."""
    recipe = job.recipe
    with ExitStack() as outlets:  # what is closed in the end
        with console.progress("opening the model and the stream"):
            session = job.open(launch)
        outlets.callback(session.stream.close)

        # what a reader must know before the session starts
        for sentence in session.differs:
            console.warn(f"not as offline: {sentence}")
        for caveat in session.caveats():
            console.warn(MEANINGS[caveat])
        if job.subject not in job.cell.trained_on or job.align.tests_new_subjects:
            console.warn(f"the model has not learned from subject {job.subject}")

        stream, source = session.stream, "signal store"
        if not isinstance(stream, WindowStream):
            source = stream.format.name

        # where results go: lines of JSON, an LSL outlet, the page
        read_picture, sinks = _find_pictures(session), []
        if recipe.lines:
            # one event a line, for programs that read stdout
            sinks.append(lambda event: console.show_json(event, indent=None))
        if recipe.outlet:
            from brainhive_cli.data.recordings.lsl_library import ResultOutlet

            outlet = ResultOutlet(recipe.outlet, f"brainhive-{folder.path.name}")
            outlets.callback(_try, UNCLOSED, outlet.close)
            # receivers of the outlet get results only, no messages
            sinks.append(
                lambda event: outlet.push(event) if event["kind"] == "result" else None
            )
        page = _open_page(session, source, read_picture) if recipe.page else None
        if page:
            outlets.callback(_try, UNCLOSED, page.stop)
            sinks.append(page.publish)

        # what draws, and what saves the session
        def show(event: EventRow, picture: bytes) -> None:
            folder.replace(
                f"drawings/{event['window']:06d}.png",
                lambda part: part.write_bytes(picture),
            )
            if page:
                page.publish(event, picture)

        drawer = (
            Drawer(_load_generator(job, session, launch), show) if recipe.draw else None
        )
        recorder = None
        # whose trials are stored already
        if recipe.save and not isinstance(stream, WindowStream):
            stimulus = job.align.dataset.stimulus
            root = folder.path / SESSION
            recorder = SessionFolder(root, stream.format, job.subject, stimulus)
            outlets.callback(_try, UNCLOSED, recorder.close)

        def publish(event: EventRow) -> None:
            for send in [*sinks]:  # a copy, as failing sinks are removed
                try:
                    send(event)
                except Exception as error:  # decoding goes on without it
                    sinks.remove(send)
                    console.warn(
                        f"results are no longer sent: {type(error).__name__}: {error}"
                    )

        # decode until the stream or the session ends, and tell all sinks why
        if not recipe.source.has_windows:
            console.say(session.describe_markers())
        console.say(f"decoding {source}; Ctrl-C ends the session")
        loop, failure = Loop(session, publish, recorder, drawer, recipe.windows), None
        try:
            reason = loop.run()
        except Exception as error:
            # such as a stream that is lost: what was decoded before is kept
            if not loop.decoded:
                raise
            failure, reason = error, first_line(error)
        publish({"kind": "ended", "text": reason})

    if loop.unknown:
        console.warn(session.describe_unknown(loop.unknown, loop.decoded))

    # what was measured, and what came of the stream
    measurements = _measure(session, loop, reason)
    tables = _make_tables(measurements)
    # figures may fail: measurements are written in any case
    session_drawn = partial(
        draw_session, folder, loop.first_results, loop.score, read_picture
    )
    figures = _try("the session is not drawn", session_drawn) or []
    # the run is finished with what was decoded; a lost stream is an error nevertheless
    job.failures += [] if failure is None else [failure]
    return Summary(measurements, [*figures, *tables])


def _try(problem: str, act: Callable[[], Any]) -> Any:
    """Do what must not lose the decoded session; say why it fails."""
    try:
        return act()
    except Exception as error:
        console.warn(f"{problem}: {type(error).__name__}: {error}")


def _open_page(
    session: OpenSession, source: str, read_picture: ReadPicture
) -> LivePage:
    """Open the page, and say where it is."""
    recipe = session.job.recipe
    title = f"{source}, subject {session.job.subject}"
    page = LivePage(title, read_picture, recipe.host, recipe.port)
    url = page.start()
    console.say(f"page: {url}")
    page.publish(
        {
            # model, candidates and caveats are there before the first result
            "kind": "start",
            "model": f"{session.job.align.label}, {session.job.cell.name}",
            "pool": len(session.decoder.image_ids),
            "caveats": session.caveats(),
            "differs": session.differs,
        }
    )
    if recipe.open:
        console.open_browser(url)
    return page


def _find_pictures(session: OpenSession) -> ReadPicture:
    """Find the pictures of the gallery and the training; what is returned reads a small
    PNG, of a clip its first frame.
    """
    dataset, rows = session.job.align.dataset, dict[str, tuple[StimulusSet, int]]()
    for split in ("train", session.job.recipe.gallery):
        with suppress(MissingData):
            # a gallery without pictures is no error: the session is shown by names
            images = dataset.images(dataset.holdout.stored_split(split))
            if images.has_pictures:
                listed = enumerate(images.image_ids)
                rows |= {name: (images, row) for row, name in listed}
    if not rows:
        console.warn(
            f"no pictures of {dataset.name} are here: what is shown and decoded is "
            "named, not drawn"
        )

    def read(image_id: str) -> bytes | None:
        if image_id not in rows:
            return None
        images, row = rows[image_id]
        try:
            stimulus = images.open(row)
        except (BrainhiveError, OSError) as error:
            console.warn(f"{image_id} is not drawn: {first_line(error)}")
            return None
        # the page shows no larger pictures, of a clip its first frame
        picture = first_frame(stimulus).convert("RGB")
        picture.thumbnail((PICTURE_PX, PICTURE_PX))
        return _write_png(picture)

    return read


def _write_png(picture: Image.Image) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _load_generator(
    job: LiveRun, session: OpenSession, launch: Launch
) -> Callable[[LiveResult], bytes]:
    """Load the generator of the recipe that draws; what is returned draws a result."""
    drawing, member = job.drawing, session.decoder.member
    assert drawing is not None
    # load all networks now: the first drawing must not wait for them
    build, device = drawing.generator.build, launch.device
    sampler = Sampler(
        build,
        job.prior.to(device),
        drawing,
        drawing.sampling,
        device,
        member.layout.heads,
    )
    _ = sampler.generator  # loaded before the session starts

    def draw(result: LiveResult) -> bytes:
        # the seed follows from the event's name: a replayed session draws the same
        seeds = [seed_of(drawing.seed, result.window.name, 0)]
        signal = result.signal[None].to(device)  # [1, C, T]
        decoded = member.module.decode(
            signal, member.index(job.subject, 1), seeds
        ).float()
        pixels = to_bytes(sampler.sample(decoded, seeds))[0]
        # [H, W, 3], or [F, H, W, 3] of a clip, which is shown by its first frame
        return _write_png(Image.fromarray(pixels[0] if pixels.ndim == 4 else pixels))

    return draw


def _measure(session: OpenSession, loop: Loop, reason: str) -> Measurements:
    """Measure hit rates of single trials and of averages, next to what came of the
    stream.
    """
    job, decoder = session.job, session.decoder
    align, score, hits = job.align, loop.score, loop.score.hits
    caveats, scopes, items = score.list_caveats(), {}, dict[str, Any]()
    if hits.trials:
        # hit rates of single trials, whose interval holds at every moment, and of
        # averages
        low, high = hits.interval
        common: Any = {
            "pool": hits.pool,
            "seeds": (job.cell.seed,),
            "split": job.recipe.gallery,
        }
        single = Metric(
            "top1",
            hits.rate,
            hits.trials,
            chance=hits.chance,
            low=low,
            high=high,
            interval=INTERVAL,
            protocol=extend_protocol(PROTOCOL, caveats),
            **common,
        )
        averages = summarise_ranks(
            [[*score.average_ranks.values()]],
            metric_names=("top1", "top5"),
            protocol=extend_protocol(AVERAGED, caveats),
            **common,
        )
        # metrics say if the epoch was selected by the test split
        selected = decoder.member.learned.selection == "test"
        scopes = {
            name: by_name([replace(metric, selected=selected) for metric in metrics])
            for name, metrics in {ALL: [single], "averages": averages}.items()
        }
        items = {ALL: {"image_ids": score.image_ids, "ranks": score.ranks}}

    # without a tested trial, events and candidates show how their names differ
    unknown = [] if hits.trials else [*decoder.unknown_events]
    facts = LiveFacts(
        caveats=caveats,
        dataset=align.dataset.name,
        modality=align.modality,
        stimulus=align.dataset.stimulus,
        run=align.name,
        protocol=PROTOCOL,
        windows=loop.decoded,
        ended=reason,
        latency_ms=loop.summarise_latencies(),
        stream=loop.describe_stream(),
        differs=[*session.differs],
        hits=hits.hits,
        is_interleaved=hits.is_interleaved,
        # hit rates of trained trials are no result, so they get no p value
        anytime_p=hits.p_value
        if hits.trials and TRAINED_TRIALS not in caveats
        else None,
        trials_learned_from=score.learned,
        unknown_events=unknown,
        candidates=[*decoder.image_ids] if unknown else [],
    )
    return Measurements(scopes, {}, facts, items)


def _make_tables(measurements: Measurements) -> tuple[Table, ...]:
    """Lay out hit rates, latencies and counts."""
    facts = measurements.facts_of(LiveFacts)
    timed = [(stage, *values.values()) for stage, values in facts.latency_ms.items()]
    # dropped windows get a row for each reason
    counts = dict(facts.stream)
    for reason, count in counts.pop("dropped").items():
        counts[f"dropped: {reason}"] = count
    tables = (
        metric_table(
            "Shown picture ranked first",
            measurements.scopes,
            "trials",
            ("top1", "top5"),
        ),
        Table("Latency, ms", ("stage", "median", "95 %", "most"), timed),
        Table("Stream", ("what", "count"), [*counts.items()]),
    )
    return tuple(table for table in tables if table.rows)


def draw_session(
    folder: RunFolder,
    results: Sequence[EventRow],
    score: Score,
    read_picture: ReadPicture,
) -> list[Artifact]:
    """Draw the first windows of a session, and the course of its hit rate.

    Args:
        folder: The run, in which pictures are saved; `drawings/` has what was drawn.
        results: First results as plain values, see `LiveResult`.
        score: Hits of the trials that count.
        read_picture: Reads the file of a picture of the gallery; None where there is
            none.
    """
    files: dict[str, str] = {}

    def tile(
        image_id: str | None, lines: Sequence[str], verdict: Any = ""
    ) -> SheetTile:
        """Make a tile of a picture; a gap where it is not known, or cannot be read."""
        if image_id is None or (picture := read_picture(image_id)) is None:
            return SheetTile("", [image_id or "not known", *lines], verdict=verdict)
        # a picture is saved once, in however many tiles it is shown
        if image_id not in files:
            opened = Image.open(BytesIO(picture))
            files[image_id] = artifacts.save_picture(
                folder, f"gallery/{len(files)}", opened
            )
        return SheetTile(files[image_id], lines, verdict=verdict)

    # shown, the best by this trial, and the drawing
    drawn, rows = list[Artifact](), []
    has_drawings = (folder.path / "drawings").is_dir()
    for result in results:
        shown, window = result["shown"], result["window"]
        words = [f"window {window}"]
        if result["rank"] is not None:
            words.append(f"rank {result['rank']} of {score.hits.pool}")
        elif shown is not None:
            words.append("not in the gallery")
        tiles = [tile(shown, words)]
        for best in result["best"]:
            verdict = "right" if best["image"] == shown else "wrong"
            words = [f"{best['similarity']:.2f}"]
            tiles.append(tile(best["image"], words, verdict if shown else ""))
        if has_drawings:
            name = f"drawings/{window:06d}.png"
            is_drawn = (folder.path / name).is_file()
            tiles.append(SheetTile(name) if is_drawn else SheetTile("", ["skipped"]))
        rows.append(SheetRow(str(window), tiles))
    if results:
        columns = ["seen", *map(str, range(1, 1 + len(results[0]["best"])))]
        columns += ["drawn from the signal"] if has_drawings else []
        sheet = Sheet(
            "What was shown, and what was decoded",
            columns,
            rows,
            section=SECTION,
            note="the first windows, each a single trial; the seen picture has a green "
            "frame",
        )
        drawn.append(sheet)

    # hit rate with its confidence sequence
    if ranks := score.ranks:
        # [P] numbers of trials, evenly spaced, CURVE_POINTS at most
        points = np.linspace(1, len(ranks), min(CURVE_POINTS, len(ranks)))
        trials = points.round().astype(int)
        counts = np.cumsum(np.equal(ranks, 1))[trials - 1]  # [P] hits so far
        low, high = zip(
            *map(hit_rate_interval, counts.tolist(), trials.tolist()), strict=True
        )
        line = CurveLine(
            "top-1", (counts / trials).tolist(), low, high, score.hits.chance
        )
        curve = Curve(
            "Share of trials that ranked the shown picture first",
            "trials",
            trials.tolist(),
            [line],
            "top-1 so far",
            section=SECTION,
            note="single trials; the interval holds at every moment, however often it "
            "is looked at",
        )
        drawn.append(curve)
    return drawn
