"""Figures of trainings, read from the files that the authors' code writes.

A reader takes the text of a file, and returns an entry for each training in it, with
accuracies as fractions. It raises an error of DAMAGE if the file is damaged.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Entry = dict[str, Any]
"""`top1` and `top5` of the last epoch and, if the file has them, `top1_by_epoch`,
`top5_by_epoch`, `loss`, further losses and `seed`.
"""
Reader = Callable[[str], list[Entry]]
DAMAGE = (LookupError, ValueError, TypeError, AttributeError, RecursionError, csv.Error)
"""Errors of a reader that meets a damaged file."""
NUMBER = r"(-?[\d.]+(?:e[+-]?\d+)?|nan|-?inf)"
PERCENT = 100


def read_epoch_log(text: str) -> list[Entry]:
    """Read the train.log of SAMGA or NeuroBridge."""
    train_lines = re.findall(rf"Epoch \[(\d+)/(\d+)\] Train Loss: {NUMBER}", text)
    test_lines = re.findall(rf"top5 acc {NUMBER}%\s+top1 acc {NUMBER}%", text)
    if not test_lines:
        return []
    epochs = [int(line[0]) for line in train_lines]
    check_complete(epochs, int(train_lines[-1][1]), text)
    entry = from_curves(
        top1=[percent / PERCENT for percent in read_column(test_lines, 1)],
        top5=[percent / PERCENT for percent in read_column(test_lines, 0)],
        losses=read_column(train_lines, 2),
    )
    seed = re.search(r"^(?:.* - INFO - )?seed +(\d+)\s*$", text, re.MULTILINE)
    if seed is not None:
        entry["seed"] = int(seed[1])
    return [entry]


def read_result_table(text: str) -> list[Entry]:
    """Read the last epoch in the result.csv of SAMGA or NeuroBridge."""
    entries = []
    for row in read_rows(text):
        top1, top5 = float(row["top1 acc"]), float(row["top5 acc"])
        entries.append({"top1": fraction(top1), "top5": fraction(top5)})
    return entries


def read_blur_log(text: str) -> list[Entry]:
    """Read the log of Visual Blur Perception, which holds trainings in sequence."""
    pattern = (
        rf"TEST EMBED:\s+epoch:(\d+),train_loss:{NUMBER},"
        rf"top_1_acc:{NUMBER},top_3_acc:{NUMBER},top_5_acc:{NUMBER}"
    )
    trainings: list[list[tuple[str, ...]]] = []
    for line in re.findall(pattern, text):
        if int(line[0]) == 0:
            trainings.append([])
        trainings[-1].append(line)
    entries = []
    for lines in trainings:
        check_order([int(line[0]) for line in lines], first_epoch=0)
        entry = from_curves(
            top1=read_column(lines, 2),
            top5=read_column(lines, 4),
            losses=read_column(lines, 1),
        )
        entries.append(entry)
    return entries


def read_blur_table(text: str) -> list[Entry]:
    """Read the all_metrics.csv of Visual Blur Perception, with a row a training."""
    entries = []
    for row in read_rows(text):
        # a list of numbers of numpy: [array(7.19, dtype=float32), …]
        losses = re.findall(rf"array\({NUMBER}", row["train_loss_points"])
        top1 = json.loads(row["test_top1_acc_points"])
        top5 = json.loads(row["test_top5_acc_points"])
        entries.append(from_curves(top1, top5, list(map(float, losses))))
    return entries


def read_trainer_file(text: str) -> list[Entry]:
    """Read trainer_state.json or eval_results.json of transformers' Trainer.

    The loss counts if it is logged once an epoch, as its mean over the epoch.
    """
    content = json.loads(text)
    if "eval_top1_acc" in content:
        return [{"top1": content["eval_top1_acc"], "top5": content["eval_top5_acc"]}]
    history = content["log_history"]
    test_events = [event for event in history if "eval_top1_acc" in event]
    if not test_events:
        return []
    planned = int(content.get("num_train_epochs", len(test_events)))
    check_complete([round(event["epoch"]) for event in test_events], planned)
    entry = from_curves(
        [event["eval_top1_acc"] for event in test_events],
        [event["eval_top5_acc"] for event in test_events],
    )
    losses = {event["epoch"]: event["loss"] for event in history if "loss" in event}
    if list(losses) == [event["epoch"] for event in test_events]:
        entry["loss"] = list(map(float, losses.values()))
    return [entry]


def read_test_results(text: str) -> list[Entry]:
    """Read UBP's test_results.json."""
    results = json.loads(text)[0]
    return [{"top1": results["test_top1_acc"], "top5": results["test_top5_acc"]}]


def read_nice_log(text: str) -> list[Entry]:
    """Read NICE's log_subject1.txt or output, with the loss of each last batch."""
    entry = find_test_line(text)
    if entry is None:
        return []
    pattern = (
        rf"^Epoch:? *(\d+):? +Cos eeg: +{NUMBER},? +Cos img: +{NUMBER},? +"
        rf"loss val: +{NUMBER}"
    )
    lines = re.findall(pattern, text, re.MULTILINE)
    check_order([int(line[0]) for line in lines], first_epoch=0)
    if lines:
        mean_losses = []
        for _, eeg_loss, image_loss, _ in lines:
            mean_losses.append(round((float(eeg_loss) + float(image_loss)) / 2, 5))
        entry["last_batch_loss"] = mean_losses
        entry["val_loss"] = read_column(lines, 3)
    seed = re.search(r"^seed is (\d+)", text, re.MULTILINE)
    if seed is not None:
        entry["seed"] = int(seed[1])
    return [entry]


def read_alignvis_output(text: str) -> list[Entry]:
    """Read the output of AlignVis."""
    entry = find_test_line(text)
    if entry is None:
        return []
    epochs = re.findall(r"^Epoch: (\d+)\s*$", text, re.MULTILINE)
    check_order([int(epoch) for epoch in epochs], first_epoch=0)
    pattern = rf"Training Loss: {NUMBER}\| Validation Loss: {NUMBER}"
    losses = re.findall(pattern, text)
    if losses:
        entry["loss"] = read_column(losses, 0)
        entry["val_loss"] = read_column(losses, 1)
    return [entry]


def find_test_line(text: str) -> Entry | None:
    """Find the only line of NICE or AlignVis with figures of the test."""
    pattern = rf"The test Top1-{NUMBER}, Top3-{NUMBER}, Top5-{NUMBER}"
    lines = re.findall(pattern, text)
    if not lines:
        return None
    if len(lines) > 1:
        raise ValueError(f"it holds {len(lines)} trainings, not one")
    top1, _, top5 = lines[0]
    return {"top1": float(top1), "top5": float(top5)}


def read_atm_output(text: str) -> list[Entry]:
    """Read the output of ATM, which has the training loss."""
    pattern = (
        rf"Epoch (\d+)/(\d+) - Train Loss: {NUMBER}, Train Accuracy: {NUMBER}, "
        rf"Test Loss: {NUMBER}, Test Accuracy: {NUMBER}, Top5 Accuracy: {NUMBER}"
    )
    lines = re.findall(pattern, text)
    if not lines:
        return []
    check_complete([int(line[0]) for line in lines], int(lines[0][1]))
    entry = from_curves(
        top1=read_column(lines, 5),
        top5=read_column(lines, 6),
        losses=read_column(lines, 2),
    )
    return [entry]


def read_atm_table(text: str) -> list[Entry]:
    """Read ATMS_sub-01.csv of ATM, which has no training loss."""
    rows = read_rows(text)
    if not rows:
        return []
    check_order([int(row["epoch"]) for row in rows], first_epoch=1)
    top1 = read_column(rows, "test_accuracy")
    top5 = read_column(rows, "top5_acc")
    return [from_curves(top1, top5)]


def read_lora_lines(text: str) -> list[Entry]:
    """Read the output or the metrics_jsonl of LoRA on CLIP, with a line an epoch."""
    results = []
    for line in text.splitlines():
        _, _, document = line.rpartition("VALIDATION_METRICS ")
        if document.startswith('{"') and '"top1_acc"' in document:
            results.append(json.loads(document))
    if not results:
        return []
    steps = [result["step"] for result in results]
    if steps != sorted(set(steps)):
        raise ValueError("it holds several trainings, not one")
    top1 = [result["top1_acc"] for result in results]
    return [from_curves(top1, [result["top5_acc"] for result in results])]


def read_lora_evaluation(text: str) -> list[Entry]:
    """Read a subNN_seedSS_formal_metrics.json of LoRA on CLIP."""
    content = json.loads(text)
    return [{"top1": content["top1"], "top5": content["top5"]}]


def from_curves(
    top1: Sequence[float], top5: Sequence[float], losses: Sequence[float] = ()
) -> Entry:
    """Make an entry from curves by epoch. Its figures come from the last epoch."""
    entry: Entry = {
        "top1": round(top1[-1], 6),
        "top5": round(top5[-1], 6),
        "top1_by_epoch": [round(value, 6) for value in top1],
        "top5_by_epoch": [round(value, 6) for value in top5],
    }
    if losses:
        entry["loss"] = list(losses)
    return entry


def read_column(rows: Sequence[Any], key: int | str) -> list[float]:
    """Read a column of numbers from rows of texts."""
    return [float(row[key]) for row in rows]


def fraction(percent: float) -> float:
    """Turn a percentage into a fraction."""
    return round(percent / PERCENT, 6)


def read_rows(text: str) -> list[dict[str, str]]:
    """Read the rows of a table with a header."""
    return list(csv.DictReader(io.StringIO(text)))


def check_order(epochs: Sequence[int], first_epoch: int) -> None:
    """Raise ValueError unless the epochs follow one another from the first."""
    if list(epochs) != list(range(first_epoch, first_epoch + len(epochs))):
        raise ValueError("its epochs do not follow one another")


def check_complete(epochs: Sequence[int], planned: int, text: str = "") -> None:
    """Raise ValueError if epochs are absent and the text shows no early stopping."""
    check_order(epochs, first_epoch=1)
    if epochs[-1] != planned and "Early stopping at epoch" not in text:
        raise ValueError(f"the training ended after {epochs[-1]} of {planned} epochs")


READERS: Mapping[str, Mapping[str, Reader]] = {
    "samga": {"text": read_epoch_log, "csv": read_result_table},
    "neurobridge": {"text": read_epoch_log, "csv": read_result_table},
    "visual-blur-perception": {"text": read_blur_log, "csv": read_blur_table},
    "bridge": {"json": read_trainer_file},
    "brainhive": {"json": read_trainer_file},
    "ubp": {"json": read_test_results},
    "nice": {"text": read_nice_log},
    "atm-s": {"text": read_atm_output, "csv": read_atm_table},
    "alignvis": {"text": read_alignvis_output},
    "lora-b32": {"text": read_lora_lines, "json": read_lora_evaluation},
}
"""Readers of each method, by the kind of file: csv, json or text."""
