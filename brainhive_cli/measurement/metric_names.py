"""Names of metrics wherever people read of them, and which way is better."""

from pathlib import Path

from brainhive_cli.core import documents

NAMES = documents.read(Path(__file__).with_name("metric_names.json"), dict[str, str])
"""Names of metrics in tables and figures, as in papers."""
TWO_WAY = "two_way_"
"""Beginning of the names of two-way identification in an encoder's embeddings."""
LOWER_IS_BETTER = {
    *("mean_rank", "median_rank", "effnet", "swav", "fid", "kid", "lpips"),
    *("loss", "validation_loss", "validation_loss_at_start", "mse", "epe"),
}
SHARES = {
    *(
        "top1",
        "top3",
        "top5",
        "top1_expected",
        "two_way",
        "balanced_accuracy",
        "accuracy",
        "caption_object",
    ),
    *("alexnet2", "alexnet5", "inception", "clip", "concept_recall"),
    *(
        f"{of}_{ways}way{strict}"
        for of in ("video", "frame")
        for ways in (2, 50)
        for strict in ("", "_strict")
    ),
}
"""Metrics that are shares of cases or of pairs."""
HEADLINES = ("top1", "top5", "validation_loss")
"""Metrics by which a run is summarised, if it has them; else by two-way identification,
or its first.
"""


def shown(name: str) -> str:
    """Name a metric for people, as in papers."""
    # two-way identification carries the name of its encoder
    if name.startswith(TWO_WAY):
        return f"two-way ({name.removeprefix(TWO_WAY)})"
    return NAMES.get(name, name.replace("_", " "))


def with_arrow(name: str) -> str:
    """Name a metric for the head of a table; ↓ where less is better."""
    return f"{shown(name)} ↓" if lower_is_better(name) else shown(name)


def lower_is_better(name: str) -> bool:
    """Whether less is better."""
    return name in LOWER_IS_BETTER


def is_share(name: str) -> bool:
    """Whether people read a metric in percent: a share of cases or pairs."""
    return name in SHARES or name.startswith(TWO_WAY)


def headlines(names: list[str]) -> list[str]:
    """Choose one or two metrics by which a run is summarised; SSIM, which smooth
    pictures win, is last.
    """
    # at most two: headlines, else two-way identification, else the first
    chosen = [name for name in HEADLINES if name in names]
    two_way = [
        name
        for name in names
        if name.startswith((TWO_WAY, "video_50way")) or name == "clip"
    ]
    two_way += ["ssim"] if "ssim" in names else []
    return (chosen or two_way or names)[:2]
