"""Names of metrics wherever people read of them, and which way is better."""

NAMES = {
    "top1": "top-1",
    "top3": "top-3",
    "top5": "top-5",
    "top1_expected": "top-1, expected",
    "mean_rank": "mean rank",
    "median_rank": "median rank",
    "mrr": "MRR",
    "top1_gain": "top-1 gain",
    "map": "mAP",
    "pixcorr": "PixCorr",
    "ssim": "SSIM",
    "alexnet2": "Alex2",
    "alexnet5": "Alex5",
    "inception": "Incep",
    "clip": "CLIP",
    "effnet": "Eff",
    "swav": "SwAV",
    "frame_pixcorr": "PixCorr (frames)",
    "frame_ssim": "SSIM (frames)",
    "frame_ssim_published": "SSIM (frames, as published)",
    "frame_psnr": "PSNR (frames)",
    "epe": "EPE",
    "motion_direction": "direction of motion",
    **{f"{kind}_{ways}way": f"{ways}-way ({kind})" for kind in ("video", "frame") for ways in (2, 50)},
    **{
        f"{kind}_{ways}way_strict": f"{ways}-way strict ({kind})"
        for kind in ("video", "frame")
        for ways in (2, 50)
    },
    "videomae": "VideoMAE",
    "dino": "DINO",
    "clip_pcc": "CLIP-pcc",
    "two_way": "two-way",
    "balanced_accuracy": "balanced accuracy",
    "auc": "AUC",
    "r": "correlation",
    "rho": "rank correlation",
    "unique_r": "unique correlation",
    "unique_rho": "unique rank correlation",
    "clip_pcc_neighbours": "CLIP-pcc (neighbours)",
    "mask_dice": "Dice (mask)",
    "concept_recall": "recall (concepts)",
    "caption_object": "object named (captions)",
    **{f"bleu_{order}": f"BLEU-{order}" for order in range(1, 5)},
    "rouge_1": "ROUGE-1",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
    "fid": "FID",
    "kid": "KID",
}
TWO_WAY = "two_way_"
"""Beginning of the names of two-way identification in an encoder's embeddings."""
AT_PEAK = "_at_peak"
"""End of the names of the value at the strongest point of a course."""
LOWER_IS_BETTER = {
    *("mean_rank", "median_rank", "effnet", "swav", "fid", "kid", "lpips"),
    *("loss", "validation_loss", "validation_loss_at_start", "mse", "epe"),
}
HEADLINES = ("top1", "top5", "validation_loss")
"""Metrics by which a run is summarised, if it has them; else by two-way identification, or its first."""


def shown(name: str) -> str:
    """Name a metric for people, as in papers."""
    if name.startswith(TWO_WAY):
        return f"two-way ({name.removeprefix(TWO_WAY)})"
    if name.endswith(AT_PEAK):
        return f"{shown(name.removesuffix(AT_PEAK))} at its peak"
    return NAMES.get(name, name.replace("_", " "))


def with_arrow(name: str) -> str:
    """Name a metric for the head of a table; ↓ where less is better."""
    return f"{shown(name)} ↓" if lower_is_better(name) else shown(name)


def lower_is_better(name: str) -> bool:
    """Whether less is better."""
    return name in LOWER_IS_BETTER


def headlines(names: list[str]) -> list[str]:
    """Choose one or two metrics by which a run is summarised; SSIM, which smooth pictures win, is last."""
    chosen = [name for name in HEADLINES if name in names]
    two_way = [name for name in names if name.startswith((TWO_WAY, "video_50way")) or name == "clip"]
    two_way += ["ssim"] if "ssim" in names else []
    return (chosen or two_way or names)[:2]
