"""Ranks of pictures by their similarity to signals."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainhive_cli.api.arguments import choose_subject
from brainhive_cli.api.runs import Run, open_run
from brainhive_cli.core.results import draw_card

if TYPE_CHECKING:
    from brainhive_cli.core.base import Float32, Int64


@dataclass(frozen=True)
class Ranks:
    """Similarity of each signal to each picture of a gallery, and the resulting ranks.

    Attributes:
        image_ids: Image ids [N] of the seen pictures. Empty if they are unknown.
        ranks: Ranks [N] of the seen pictures. The picture with rank 1 is most similar
            to the signal. Empty if the seen pictures are unknown.
        gallery: Image ids [M] of the candidate pictures.
        similarity: Cosine similarity [N, M] between signals and pictures.
        caveats: Texts on the limits of these ranks, such as "simulated".
        index: Positions [N] of the signals among the trials passed to `decode`.

    Examples:
        >>> trials = api.open_signals("DATASET", subject=1)["test"]
        >>> ranks = api.decode("TRAINING", trials, subject=1, cell="CELL")
        >>> first = ranks.rows()[0]
        >>> print(first["shown"], first["rank"], first["candidates"], first["best"])
    """

    image_ids: list[str]
    ranks: "Int64"
    gallery: list[str]
    similarity: "Float32"
    caveats: list[str] = field(default_factory=list)
    index: "Int64 | None" = None

    def __repr__(self) -> str:
        """Return the numbers of signals and pictures."""
        n_signals, n_pictures = self.similarity.shape
        return f"<Ranks of {n_pictures} pictures for {n_signals} signals>"

    def __str__(self) -> str:
        """Return a line for each of the first signals, and the caveats."""
        lines = []
        # Largest number of signals that `print(ranks)` lists.
        max_printed_rows = 10
        for row in self.rows()[:max_printed_rows]:
            best = f"best: {row['best']}"
            if row["rank"] is not None:
                rank = f"rank {row['rank']} of {row['candidates']}"
                best = f"shown {row['shown']}, {rank}, {best}"
            lines.append(f"{row['index']} → {best}")

        n_hidden = len(self.similarity) - max_printed_rows
        if n_hidden > 0:
            lines.append(f"… {n_hidden:,} more signals in rows()")
        if self.caveats:
            lines.append(f"Caveats: {', '.join(self.caveats)}")
        return "\n".join(lines or [repr(self)])

    def _repr_html_(self) -> str:
        """Return a card for a notebook with the ranks of the first signals."""
        rows = []
        for row in self.rows():
            rank = None
            if row["rank"] is not None:
                rank = f"{row['rank']} of {row['candidates']}"
            rows.append([row["index"], row["shown"], rank, row["best"]])
        n_signals, n_pictures = self.similarity.shape
        notes = [f"Caveats: {', '.join(self.caveats)}"] if self.caveats else []
        return draw_card(
            "ranks",
            [f"{n_signals:,} signals, compared with {n_pictures:,} pictures"],
            ("signal", "shown", "rank", "most similar"),
            rows,
            notes,
        )

    def rows(self) -> list[dict[str, Any]]:
        """List the result of each signal, for `pandas.DataFrame`.

        Returns:
            A dict for each of the N signals, with these keys:

            - `index`: position of the signal among the trials passed to `decode`
            - `shown`, `rank`: seen picture and its rank, or None if it is unknown
            - `candidates`: number M of pictures in the gallery
            - `best`: picture that is most similar to the signal
        """
        has_ranks = len(self.ranks) > 0
        best_columns = self.similarity.argmax(1)  # [N]
        rows = []
        for row, column in enumerate(best_columns):
            rows.append(
                {
                    "index": row if self.index is None else int(self.index[row]),
                    "shown": self.image_ids[row] if has_ranks else None,
                    "rank": int(self.ranks[row]) if has_ranks else None,
                    "candidates": len(self.gallery),
                    "best": self.gallery[column],
                }
            )
        return rows


def decode(
    model: Run | str | Path,
    signal: Any,
    subject: int | None = None,
    split: str = "test",
    cell: str = "",
    device: str = "cpu",
    pictures: Any = None,
    **axes: Any,
) -> Ranks:
    """Compare each signal of a recording with all pictures of a split.

    Args:
        model: Run of train-align, as an open `Run`, or as a name or path for
            `open_run`.
        signal: Signals to decode, as

            - `Trials`. The repetitions of a picture are averaged.
            - an array, mne.Epochs or xarray.DataArray, as in `store_trials`. Each trial
              is decoded separately, and epochs are prepared as in the training. A
              caveat names each step that is not applied.
        subject: Number of the subject. If None, the only test subject of the cell.
        split: Split of the data set. Its pictures are the gallery, without the pictures
            that the model was trained on.
        cell: Name of the cell (trained model), or "" for the only cell.
        device: Device to compute on.
        pictures: Picture [n] that was seen in each trial. If None, names of MNE events
            are used if they are pictures. If the pictures are unknown, there are no
            ranks.
        axes: Axes of the signals, as in `store_trials`. An array in the shape of the
            model's input needs none. `delay_ms` is the time from the event to the
            picture on the screen, by default as in the training.

    Returns:
        Similarity [N, M] of signals and pictures, and the rank of each seen picture.
        Trials of pictures outside the gallery are left out.

    Raises:
        BrainhiveError: if the recording has another sampling rate than the model, or
            lacks one of its channels.

    Examples:
        >>> trained = api.open_run("TRAINING")
        >>> trials = api.open_signals("DATASET", subject=1)["test"]
        >>> ranks = api.decode(trained, trials, subject=1, cell="CELL")
        >>> print(ranks)  # 0 → shown cat_01, rank 3 of 40, best: cat_07
    """
    import numpy as np
    from torch.nn.functional import normalize

    from brainhive_cli.core.base import require_kind
    from brainhive_cli.core.results import merge_caveats
    from brainhive_cli.data.signals import Trials
    from brainhive_cli.evaluation.retrieval.measure import encode_gallery, open_gallery
    from brainhive_cli.training.alignment.trained import read_new

    # open the model, and convert the signals to trials
    usage = 'api.decode(api.open_run("NAME"), api.open_signals("DATASET", 1)["test"])'
    trained_run = open_run(model) if isinstance(model, str | Path) else model
    require_kind("model", trained_run, Run, usage)
    member = trained_run.member(cell, device)
    tests = trained_run.open_test_set(cell, split)
    subject = choose_subject(member, subject)
    person = tests.open_person(member, subject)
    preparation_caveats = list[str]()
    recording = signal
    if not isinstance(signal, Trials):
        recording, preparation_caveats = read_new(person, signal, pictures, axes)

    # encode each trial and each picture of the gallery as a vector (token)
    trials = person.read_recording(recording)
    gallery = open_gallery([member], tests, [split])
    picture_tokens = encode_gallery([member], tests, gallery)  # [M, D]
    signal_tokens = member.encode(trials)  # [N, D]
    similarity = normalize(signal_tokens, dim=1) @ normalize(picture_tokens, dim=1).T

    # rank the seen picture of each trial, if it is known
    image_ids = list[str]()
    ranks = np.zeros(0, np.int64)
    if len(recording.image_ids):
        scores = member.rank(trials, gallery, picture_tokens)
        image_ids = list(scores.labels)
        ranks = scores.ranks

    # trials without an index are all trials of the recording
    index = np.arange(len(similarity)) if trials.index is None else trials.index
    caveats = merge_caveats(
        recording.caveats,
        member.signal.caveats,
        member.history.caveats,
    )
    return Ranks(
        image_ids=image_ids,
        ranks=ranks,
        gallery=gallery.image_ids,
        similarity=similarity.cpu().numpy(),
        caveats=caveats + preparation_caveats,
        index=index,
    )
