"""Facts of live."""

from typing import Any

from brainhive_cli.core.results import Facts


class LiveFacts(Facts):
    """Facts of live.

    Attributes:
        windows: Number of decoded windows.
        ended: Reason why the session ended.
        latency_ms: Median, 95th percentile and maximum, by stage such as `decoding`.
        stream: Counts of the stream, such as lost samples.
        differs: Differences from the processing offline, as sentences.
        hits: Number of trials in which the shown picture ranked first.
        is_interleaved: True if slow drift of the signal cannot explain the hits.
        order_problem: Reason why the order of the recording tells labels, or "".
        anytime_p: p that holds whenever the session ends, or None without a test.
        trials_learned_from: Number of trials that the model was trained on.
        unknown_events: All events, if no event belongs to a picture.
        candidates: All candidates, if no event belongs to a picture.
    """

    command: str = "live"
    windows: int = 0
    ended: str = ""
    latency_ms: dict[str, dict[str, float]] = {}  # stage, quantile
    stream: dict[str, Any] = {}
    differs: list[str] = []
    hits: int = 0
    is_interleaved: bool = True
    order_problem: str = ""
    anytime_p: float | None = None
    trials_learned_from: int = 0
    unknown_events: list[str] = []
    candidates: list[str] = []
