"""From trials in memory to a trained and evaluated decoder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brainhive_cli.api.arguments import (
    check_folder,
    check_mapping,
    check_share,
    check_subject,
)
from brainhive_cli.api.commands import run
from brainhive_cli.api.runs import Run, open_run
from brainhive_cli.api.stores import store_trials


def fit(
    X: Any,
    pictures: Any = None,
    folder: str | Path | None = None,
    *,
    subject: int = 1,
    runs: Any = None,
    session: Any = None,
    test_share: float = 0.2,
    encoders: Any = None,
    keys: Mapping[str, Any] | None = None,
    **axes: Any,
) -> tuple[Run, Run]:
    """Store trials, embed their pictures, train a decoder, and evaluate it.

    Args:
        X: Signals of n trials, as in `store_trials`.
        pictures: Picture or category [n] that was seen in each trial.
        folder: Folder of the pictures. If None, `pictures` are categories, and trials
            are tested by cross-validation over `runs`, or over single trials without
            `runs`.
        subject: Number of the subject.
        runs: Label [n] of the recording run (block) of each trial, or None.
        session: Session label [n] of each trial, or None for a single session.
        test_share: Share of the concepts of the folder to test. Unused if the folder
            has a subfolder `test`.
        encoders: Names of the encoders that embed the pictures, or None for the usual
            encoders of the data set.
        keys: Settings of the recipe of train-align, such as `{"backbone":
            "brain-mlp"}`.
        axes: Axes of the signals, as in `store_trials`.

    Returns:
        The run of train-align, and the run of eval-retrieval.

    Raises:
        RecipeError: if there are too few runs, or too few trials of a category.

    Examples:
        Pictures in a folder, then categories without pictures:

        >>> axes = {"channels": channels, "times_s": times_s, "unit": "µV"}
        >>> trained, result = api.fit(X, shown, "PICTURES", **axes)
        >>> print(result)  # the finding, with its interval and chance level
        >>> _, categories = api.fit(X, labels, runs=runs, **axes)
    """
    import numpy as np

    from brainhive_cli.data.targets import next_commands

    check_subject(subject)
    check_mapping(keys=keys)
    check_share(test_share=test_share)
    if folder is not None:
        check_folder(folder=folder)

    # store the trials together with the names of their pictures or categories
    dataset: dict[str, Any] = {"kind": "categories"}
    if folder is not None:
        dataset = {"kind": "image-folder", "root": str(Path(folder).resolve())}
        has_test_folder = (Path(folder) / "test").is_dir()
        if not has_test_folder:
            dataset["test_share"] = test_share
    trials = store_trials(X, pictures, dataset, subject, session, runs, **axes)

    # decode categories by cross-validation of a linear model
    train_keys: dict[str, Any] = {"subjects": [subject]}
    if folder is None:
        categories = list(trials.image_ids)
        dataset["names"] = sorted(set(categories))
        dataset["holdout"] = _choose_folds(categories, runs, trials.index)
        train_keys["seeds"] = [0]

        # LDA computes the covariance of the features, which takes minutes for many
        n_features = np.prod(trials.signal.shape[1:])
        is_small = n_features <= next_commands.MAX_LDA_FEATURES
        train_keys["backbone"] = "lda" if is_small else next_commands.LABEL_RIDGE
    train_keys |= keys or {}

    # embed the pictures, train the models, and evaluate them
    data_keys: dict[str, Any] = {"dataset": dataset}
    if encoders:
        data_keys["encoders"] = encoders
    run("embed", **data_keys)
    training_folder = run("train-align", **(data_keys | train_keys)).folder
    evaluation_folder = run("eval-retrieval", run=training_folder).folder
    return open_run(training_folder), open_run(evaluation_folder)


def _choose_folds(
    categories: Sequence[str], runs: Any, index: Any
) -> dict[str, str | int]:
    """Choose the folds of cross-validation: recording runs, or sets of single trials.

    Args:
        categories: Category [m] of each stored trial.
        runs: Label [n] of the recording run of each trial passed to `fit`, or None.
        index: Position [m] of each stored trial among the trials passed to `fit`.

    Returns:
        Recipe section `dataset.holdout`, with the keys `by` and `folds`.
    """
    from collections import Counter

    import numpy as np

    from brainhive_cli.core.base import RecipeError
    from brainhive_cli.data.targets import MAX_TRIAL_FOLDS

    # without runs, hold out single trials
    if runs is None:
        largest_category = max(Counter(categories).values())
        if largest_category < 2:
            raise RecipeError(
                f"each of the {len(categories)} trials has a category of its own in "
                "pictures",
                "a category needs two trials, to train and to test; if pictures are "
                "file names, set folder=FOLDER",
            )
        return {
            "by": "trials",
            "folds": min(MAX_TRIAL_FOLDS, largest_category),
        }

    # otherwise hold out each run once
    run_labels = np.unique(runs)
    if len(run_labels) < 2:
        raise RecipeError(
            f"runs is {run_labels[0]} for all {len(categories)} trials of X",
            "give the run of each trial, with two runs or more: runs=[n]; without "
            "runs, single trials are held out",
        )

    # the trials outside a held-out run must show two categories or more
    run_of_trial = np.asarray(runs)[index]  # [m]
    stored_runs = np.unique(run_of_trial)
    for held_out_run in stored_runs:
        is_training = run_of_trial != held_out_run
        training_categories = np.unique(np.array(categories)[is_training])
        if len(training_categories) < 2:
            raise RecipeError(
                f"without run {held_out_run}, the trials of X show only "
                f"{', '.join(training_categories)}",
                "each run is tested by a model of the other runs, which must show two "
                "categories or more; without runs, single trials are held out",
            )
    return {"by": "runs", "folds": len(stored_runs)}
