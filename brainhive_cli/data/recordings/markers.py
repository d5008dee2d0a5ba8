"""Markers of recordings, and the pictures with exactly their names."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from brainhive_cli.core.base import BrainhiveError
from brainhive_cli.data.files import natural_key
from brainhive_cli.data.recordings.event_names import (
    read_code,
    strip_zeros,
)
from brainhive_cli.data.recordings.headers import RecordingKeys, read_header
from brainhive_cli.data.recordings.tables import read_table


@dataclass(frozen=True)
class Marker:
    """Distinct marker of recordings.

    Attributes:
        name: Name in the table of events, such as 17 for `Stimulus/S 17`.
        count: Number of times it occurs.
        recordings: Number of recordings with it.
        picture: Image id of the picture with exactly this name, or "".
    """

    name: str
    count: int
    recordings: int
    picture: str = ""


@dataclass(frozen=True)
class RecordedMarkers:
    """Markers of several recordings.

    Attributes:
        counts: Number of times that each marker occurs, by recording.
        sources: Source of the markers of each recording, such as "channel STI101".
        errors: Error of each recording whose markers cannot be read.
    """

    counts: Mapping[Path, Counter[str]]
    sources: Mapping[Path, str]
    errors: Mapping[Path, BrainhiveError]

    @property
    def are_named_by_tables(self) -> bool:
        """True if tables next to all recordings (events.tsv) name their events."""
        sources = self.sources.values()
        return bool(sources) and all(name.endswith(".tsv") for name in sources)

    def list_tables(self) -> list[str]:
        """List the tables next to recordings (events.tsv) that name their events."""
        tables = {name for name in self.sources.values() if name.endswith(".tsv")}
        return sorted(tables)

    def list_markers(self, image_ids: Sequence[str]) -> list[Marker]:
        """List the distinct markers in natural order.

        Args:
            image_ids: Image ids of the pictures that markers may name.
        """
        totals = Counter[str]()
        recording_counts = Counter[str]()
        for counts in self.counts.values():
            totals.update(counts)
            recording_counts.update(counts.keys())
        names = shorten_markers(totals)
        pictures = match_exact_names(names, image_ids)
        markers = []
        for marker in sorted(totals, key=lambda marker: natural_key(names[marker])):
            markers.append(
                Marker(
                    names[marker],
                    totals[marker],
                    recording_counts[marker],
                    pictures.get(marker, ""),
                )
            )
        return markers


def read_markers(paths: Iterable[Path], stim_channel: str = "") -> RecordedMarkers:
    """Read the markers of recordings: annotations, or codes of stimulus channels.

    Args:
        paths: Recordings.
        stim_channel: Channel with the codes, or "" for the usual source.
    """
    keys = RecordingKeys(stim_channel=stim_channel)
    counts = {}
    sources = {}
    errors = {}
    for path in paths:
        try:
            header = read_header(path, keys)
        except BrainhiveError as error:
            errors[path] = error
            continue
        names = [name for _, name in header.events]
        counts[path] = Counter(names + list(header.events_without_onset))
        sources[path] = header.event_source
    return RecordedMarkers(counts, sources, errors)


def shorten_markers(markers: Iterable[str]) -> dict[str, str]:
    """Shorten markers of BrainVision files, such as `Stimulus/S 17` to 17.

    Markers that would become equal, such as `Stimulus/A` and `Comment/A`, stay as they
    are. `EventNames` reads both forms.

    Returns:
        Name of each marker.
    """
    names = {marker: read_code(marker) for marker in markers}
    frequencies = Counter(names.values())
    for marker, name in names.items():
        if frequencies[name] > 1:
            names[marker] = marker
    return names


def find_unlisted(table: Path, markers: Iterable[str]) -> list[str]:
    """Return the markers that a table of events does not list, up to leading zeros.

    Args:
        table: Table with a column `event`, or `stimulus_id` in BIDS.
        markers: Short names of markers.
    """
    columns, rows = read_table(table)
    column = "event" if "event" in columns else "stimulus_id"
    events = [row.get(column, "") for row in rows]
    names = set(map(strip_zeros, events))
    names.update(map(strip_zeros, shorten_markers(events).values()))
    return [marker for marker in markers if strip_zeros(marker) not in names]


def match_exact_names(
    names: Mapping[str, str], image_ids: Sequence[str]
) -> dict[str, str]:
    """Find the pictures with exactly the names of markers.

    Numbers of triggers are not compared with the order of pictures.

    Args:
        names: Name of each marker.
        image_ids: Image ids of the pictures. A marker may also be the name of a file
            if no other file has this name.

    Returns:
        Image id by marker.
    """
    file_counts = Counter(image_id.rpartition("/")[2] for image_id in image_ids)
    id_of_name = {}
    for image_id in image_ids:
        file_name = image_id.rpartition("/")[2]
        if file_counts[file_name] == 1:
            id_of_name[file_name] = image_id
    id_of_name |= {image_id: image_id for image_id in image_ids}
    matches = {}
    for marker, name in names.items():
        for candidate in (name, name.rpartition(".")[0]):
            if candidate in id_of_name:
                matches[marker] = id_of_name[candidate]
                break
    return matches
