"""What there is of a subject's raw recordings, and how they are prepared."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brainhive_cli.core import parts
from brainhive_cli.core.errors import BrainhiveError, MissingData
from brainhive_cli.core.recipe import Paths
from brainhive_cli.data.inventory_part import Part
from brainhive_cli.data.preparations import Merged


def raw_subjects(config: Any, paths: Paths) -> Sequence[int]:
    """List the subjects whose recordings `prepare` would read; none where it reads none of this data set."""
    raw = _raw(config, paths)
    return raw.subjects if raw else ()


def _raw(config: Any, paths: Paths) -> Any:
    if config.kind not in parts.kinds("preparations"):
        return None
    return parts.resolve("preparations", {"kind": config.kind, "root": config.root}).build(paths)


def raw_recordings(config: Any, paths: Paths, subject: int) -> Part | None:
    """Count the trials of a subject's raw recordings; None where there are none that `prepare` reads."""
    if (raw := _raw(config, paths)) is None:
        return None
    if isinstance(raw, Merged):
        return _merged(config, raw, subject)
    section = {"kind": config.kind, "root": config.root}
    part, absent = Part(f"subject {subject}, raw", is_raw=True), MissingData("")
    shapes: dict[int, Mapping[str, Sequence[int]]] = {}
    files: set[Path] = set()
    try:
        if subject not in raw.subjects:
            return None
        for session in raw.sessions(subject):
            try:
                files.update(_of_session(section, session, paths).files(subject))
                shapes[session] = raw.shapes(subject, session)
            except MissingData as error:
                absent = absent if absent.message else error
        part.note(_unprepared(config, subject, absent, list(shapes)))
    except BrainhiveError as error:
        part.note(error)
    part.size = sum(path.stat().st_size for path in files) or None
    for split in dict.fromkeys(split for each in shapes.values() for split in each):
        part.counts[split] = f"{sum(each[split][0] for each in shapes.values() if split in each):,} trials"
    if absent.message:
        part.name += f": sessions {', '.join(map(str, shapes)) or 'none'}"
    return part


def _merged(config: Any, raw: Merged, subject: int) -> Part | None:
    """Count the stimuli and repetitions of files that hold all sessions together."""
    if subject not in raw.subjects:
        return None
    part = Part(f"subject {subject}, raw", is_raw=True)
    try:
        part.size = sum(path.stat().st_size for path in raw.files(subject))
        for split in raw.splits:
            count, most = raw.recording(subject, split).signal.shape[:2]
            part.counts[split] = f"{count:,} × {most}"
        part.note(_unprepared(config, subject, MissingData(""), ()))
    except BrainhiveError as error:
        part.note(error)
    return part


def _of_session(section: Mapping[str, Any], session: int, paths: Paths) -> Any:
    """Restrict a preparation to one session, where it has that key, so that only its files are looked for."""
    config = parts.resolve("preparations", section)
    has_key = "sessions" in type(config).model_fields
    return (config.model_copy(update={"sessions": [session]}) if has_key else config).build(paths)


def _unprepared(config: Any, subject: int, absent: MissingData, sessions: Sequence[int]) -> MissingData:
    """Say that raw recordings are not prepared, and how they are; or that some are absent."""
    kind = config.kind
    where = f" preparation.root={config.root}" if config.root else ""
    prepare = f"brainhive prepare --from {kind}{where}"
    if not absent.message:
        return MissingData(f"{kind} subject {subject}: raw recordings that are not prepared", prepare)
    if not sessions:
        return absent
    some = f"{prepare} --subjects {subject} preparation.sessions={','.join(map(str, sessions))}"
    return MissingData(absent.message, f"{absent.hint}; or take what is there: {some}")
