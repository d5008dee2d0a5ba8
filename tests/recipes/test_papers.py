"""The recipes of papers: each resolves, plans its cells and names the published number
beside it.
"""

import re
from functools import cache
from itertools import takewhile

import pytest

from brainhive_cli.commands import embed, reconstruct, train_align, workflow
from brainhive_cli.core.files.inputs import describe_missing
from brainhive_cli.core.recipes.recipe import read_recipe, shipped_recipes
from brainhive_cli.core.runs.jobs import list_inputs
from tests.worlds.own_recordings import write_pictures
from tests.worlds.swept_recipes import list_run_recipes

FRAMES = re.compile(r"-(view-\d+|all)$")
"""End of the name of a store of clips. A store of all frames holds each view."""
PAPERS = sorted(
    path.parent.name for path in shipped_recipes().glob("papers/*/train-align.yaml")
)
# 200-way on THINGS, top-1 and top-5, as their papers or later comparisons report them
PUBLISHED = {
    "brainhive-intra": (0.757, 0.946),
    "brainhive-inter": (0.200, 0.441),
    "brainhive-meg": (0.337, 0.605),
    "alignvis-intra": (0.584, None),
    "nice": (0.161, 0.436),
    "atm-s": (0.285, 0.604),
    "ubp": (0.509, 0.797),
    "samga": (0.890, 0.989),  # at a fixed epoch, by others
    "samga-inter": (0.344, 0.648),
    "shallow-alignment": (0.826, 0.977),
    "shallow-alignment-meg": (0.480, 0.744),
    "bridge": (0.807, 0.970),
    "bridge-inter": (0.337, 0.658),
    "visual-blur-perception": (0.800, 0.969),
    "neurobridge": (0.632, 0.899),
    "svtl": (0.353, 0.656),
    "lora-b32": (0.867, 0.984),
}
OF_CLASSES = {"eegcvpr40": 0.5, "eeg-imagenet": 0.405}
"""Published accuracies of classes that were shown in blocks."""
UNPUBLISHED = {
    "havir",
    "havir-ablations",
    "mindeye1-lowlevel",
    "brain-diffuser",
    "neurons",
    "neurons-brain",
    "mindeye2",
    "mindeye2-1h",
    "mindeye2-24gb",
    "mindeye2-inter",
    "mindeye2-sessions",
    "mindeye2-blurry",
    "brainhive-intra-synclr",
    "brainhive-inter-synclr",
    "brainhive-meg-synclr",
    "alignvis-inter",
    "alignvis-meg",
    "alignvis-nsd",
    "neuralbench-image",
    "mosaic-new-people",
    "mosaic-other-study",
    "brainhive-reconstruct",
    "seed-dv",
}
# PixCorr and CLIP on NSD, as they are commonly quoted; HAVIR's are not known
RECONSTRUCTED = {
    "mindeye1-lowlevel": (0.360, 0.592),
    "brain-diffuser": (0.254, 0.915),
    "mindeye2-enhanced": (0.322, 0.930),
    "havir": None,
}
ON_VALIDATION = {
    "alignvis-intra",
    "alignvis-inter",
    "alignvis-meg",
    "alignvis-nsd",
    "neurons-brain",
    "svtl",
}
"""Recipes that choose the epoch on held-out training data.

Their authors do so, too, or choose it on the test data.
"""
HELD_OUT = {
    "shallow-alignment",
    "shallow-alignment-meg",
    "visual-blur-perception",
    "nice",
}
"""Recipes that keep the last epoch and hold pictures out.

They choose a layer with them, or their authors do so.
"""
LABELS = (
    "optimiser",
    "weight decay",
    "schedule",
    "clipping",
    "batch",
    "precision",
    "initialisation",
    "dropout",
    "repetitions",
    "normalisation",
    "temperature",
    "epoch",
    "seeds",
)
"""Labels in the opening comment of a recipe, in this order."""
STATED = (
    "batch_size",
    "weight_decay",
    "betas",
    "grad_norm",
    "precision",
    "validation",
    "selection",
    "decay",
)
"""Keys of `train` that a recipe of a paper must set."""


@cache
def resolve(paper, *overrides):
    return train_align.Recipe.resolve("train-align", f"papers/{paper}", {}, overrides)


def test_a_paper_names_its_number_and_where_it_stands():
    assert set(PAPERS) == PUBLISHED.keys() | OF_CLASSES.keys() | UNPUBLISHED
    for paper in PAPERS:
        recipe = resolve(paper)
        published = recipe.published
        if paper in UNPUBLISHED:
            assert published is None, paper
        elif paper in OF_CLASSES:
            assert published.values == {"concept_top1": OF_CLASSES[paper]}
        else:
            assert published is not None and published.source, paper
            values = published.values
            assert (values["top1"], values.get("top5")) == PUBLISHED[paper], paper
            assert recipe.dataset.kind.upper() in published.source, paper


def test_a_paper_takes_the_last_epoch_unless_it_says_otherwise():
    for paper in PAPERS:
        recipe = resolve(paper)
        train = recipe.train
        if recipe.backbone.is_closed_form:  # without epochs
            assert not train.validation
            continue
        if paper == "neuralbench-image":  # recordings select the epoch
            assert train.selection == "recordings"
            assert train.patience
            continue
        selects_epoch = paper in ON_VALIDATION
        assert train.selection == ("best" if selects_epoch else "last"), paper
        assert (train.validation > 0) == (selects_epoch or paper in HELD_OUT), paper


def test_a_paper_lacks_nothing_but_data(home):
    for paper in PAPERS:
        for recipe in list_run_recipes("train-align", f"papers/{paper}").values():
            assert_only_data_are_missing(paper, recipe)


def assert_only_data_are_missing(paper, recipe):
    inputs = list_inputs(train_align, recipe)
    missing = describe_missing(inputs)

    if recipe.mode == "finetune":
        assert missing[0].startswith("no finished train-align run")
        return
    # the subjects of these data sets are known after `prepare`
    prepared = ("nsd", "cc2017", "mosaic", "eegcvpr40", "eeg-imagenet", "seed-dv")
    if recipe.dataset.kind in prepared:
        assert (
            missing[0]
            .split(" (")[0]
            .startswith(f"{recipe.dataset.kind} has no subject")
        )
        assert re.match(r"no train embeddings of .* \(brainhive embed ", missing[1])
        return
    # THINGS-MEG has 4 people, THINGS-EEG 10; a joint model is trained on all of them
    subjects = 4 if "meg" in paper else 10
    models = dict(train_align.resolve_job(recipe).preview()[0].rows)["models"]
    groups = 1 if recipe.mode == "joint" else subjects
    assert models.startswith(f"{groups * len(recipe.seeds)}: ")
    assert len(missing) == (3 if recipe.prior else 2)
    message = r"things-[em]eg: no recording .* \(brainhive fetch things-[em]eg\)"
    if recipe.signal.name != "default":
        # another step of the workflow prepares these signals
        message = f"no signals .*signals/{recipe.dataset.kind}/{recipe.signal.name}/"
    assert re.match(message, missing[0])
    assert re.match(r"no train embeddings of .* \(brainhive embed ", missing[1])

    signals = [item for item in inputs if item.name.startswith("signals ")]
    assert [item.state for item in signals] == ["missing"] * subjects
    encoders = {encoder.name for encoder in recipe.stored_encoders}
    for names in recipe.train.embedding_alternatives.values():
        encoders.update(names)
    stores = {item.name for item in inputs if item.name.startswith("embeddings")}
    assert stores == {
        f"embeddings {recipe.dataset.kind}/train/{encoder}" for encoder in encoders
    }


def test_mindeye_and_neurons_clip_no_gradients_and_decay_weights():
    """Source: Train_MindEye.py, train_autoencoder.py, Train.py; train_neurons.py, where
    all weights decay.
    """
    for paper in (
        "havir",
        "mindeye1-lowlevel",
        "mindeye2",
        "mindeye2-1h",
        "mindeye2-24gb",
        "neurons",
        "neurons-brain",
    ):
        train = resolve(paper).train
        decay = "all" if paper.startswith("neurons") else "not_biases"
        assert train.grad_norm is None and train.weight_decay == 0.01, paper
        assert train.decay == decay, paper


def comment_of(path):
    """Return the opening comment of a recipe, line by line."""
    lines = path.read_text().splitlines()
    return list(takewhile(lambda line: line.startswith("#"), lines))


@pytest.mark.parametrize("paper", PAPERS)
def test_a_paper_states_how_its_authors_train(paper):
    path = shipped_recipes() / "papers" / paper / "train-align.yaml"
    comment = comment_of(path)
    comment_labels = re.findall(r"^#   (\w+(?: \w+)?) {2,}\S", "\n".join(comment), re.M)
    if "\nextends:" in path.read_text():
        # the labels of differing settings, in the same order
        assert any("as papers/" in line for line in comment)
        assert comment_labels == [label for label in LABELS if label in comment_labels]
    else:
        assert comment_labels == list(LABELS)
    assert max(map(len, path.read_text().splitlines())) <= 120


@pytest.mark.parametrize("paper", PAPERS)
def test_a_paper_inherits_no_default_of_the_training(paper):
    """A default that its authors do not have is a fault that no tensor test sees."""
    path = shipped_recipes() / "papers" / paper / "train-align.yaml"
    if resolve(paper).backbone.is_closed_form:
        return
    train = read_recipe(path)["train"]
    assert [key for key in STATED if key not in train] == []
    assert "stages" in train or train.keys() >= {"epochs", "lr", "warmup_steps"}


def test_the_prior_of_a_paper_states_how_its_authors_train():
    path = shipped_recipes() / "papers/brainhive-prior/train-prior.yaml"
    comment = "\n".join(comment_of(path))
    assert all(f"#   {label} " in comment for label in LABELS)


def test_brainhives_pictures_are_drawn_as_its_code_draws_them(home):
    """Source: build_reconstruction.py and its YAML at f06db69."""
    name = "papers/brainhive-reconstruct"
    recipe = reconstruct.Recipe.resolve("reconstruct", name, {}, [])
    assert (recipe.steps, recipe.guidance, recipe.resolution_px) == (4, 0.0, 512)
    assert (recipe.repeats, recipe.seed, recipe.precision) == (10, 2025, "bf16")
    assert (recipe.adapter, recipe.prior.scale, recipe.scheduler) == ("skip", 1.0, None)
    trained = resolve("brainhive-reconstruct")
    assert trained.prior == recipe.prior.source
    assert trained.train.prior_dropout == 0.1
    missing = describe_missing(list_inputs(reconstruct, recipe))
    assert "fakekungfu/Fusion-Prior-H14_B32_VAE" in missing[0]


@pytest.mark.parametrize("paper", RECONSTRUCTED)
def test_a_papers_reconstruction_lacks_only_a_run(paper, home):
    recipe = reconstruct.Recipe.resolve("reconstruct", f"papers/{paper}", {}, [])
    missing = describe_missing(list_inputs(reconstruct, recipe))

    expected_scores = RECONSTRUCTED[paper]
    assert (recipe.published is None) == (expected_scores is None)
    if expected_scores and recipe.published:
        scores = recipe.published.values
        assert (scores["pixcorr"], scores["clip"]) == expected_scores
        assert "quoted" in recipe.published.source
    assert recipe.protocol == "mindeye2"
    assert recipe.prior.source == "identity"
    assert missing[0].startswith("no finished train-align run")
    kind = "chain" if paper.startswith("mindeye2") else "versatile-diffusion"
    assert recipe.generator.kind == kind


def test_a_workflow_embeds_what_its_trainings_read(home):
    """Its steps name the encoders again where no recipe of embed does."""
    root = shipped_recipes()
    # a folder of pictures has to be there
    write_pictures(home / "data/nod-eeg/stimuli/ImageNet")
    for file in sorted(root.glob("*/*/workflow.yaml")):
        workflow_name = file.parent.relative_to(root).as_posix()
        steps = workflow.Recipe.resolve("workflow", workflow_name, {}, ())
        embedded = set()
        for name in steps.list_steps():
            line, module, recipe = workflow.resolve_step(steps, name, {})
            if module is embed:
                embedded |= {FRAMES.sub("", config.name) for config in recipe.encoders}
            elif module is train_align and recipe.mode != "finetune":
                stored = train_align.resolve_job(recipe).stored_encoders()
                required_encoders = {FRAMES.sub("", config.name) for config in stored}
                assert required_encoders <= embedded, (
                    line,
                    required_encoders - embedded,
                )


def test_the_things_eeg_study_trains_every_recipe_in_both_modes(
    home,
):
    study = workflow.Recipe.resolve("workflow", "studies/things-eeg", {}, ())
    trained = dict[tuple[str, str], set[str]]()
    for name, (step, axis_values) in study.expanded_steps.items():
        if step.command != "train-align":
            continue
        _, _, recipe = workflow.resolve_step(study, name, {})
        paper = str(step.recipe).removeprefix("papers/")
        selected = recipe.train.selection
        assert selected == {"last": "last", "validation": "best"}[axis_values["epoch"]]
        trained.setdefault((paper, recipe.mode), set()).add(selected)

        # a recipe has its published number in the mode of the paper only
        paper_recipe = resolve(paper)
        assert (recipe.published or paper_recipe.published) == paper_recipe.published
        assert recipe.mode == paper_recipe.mode or recipe.published is None, name

    mode_of_name = re.compile("-int(er|ra)")
    methods = {
        mode_of_name.sub("", paper)
        for paper in PAPERS
        if resolve(paper).dataset.kind == "things-eeg"
        and resolve(paper).mode != "finetune"
        and resolve(paper).signal.name == "default"  # of the study's preparation
        and not resolve(paper).prior  # which retrieval does without
    }
    trained_methods = {(mode_of_name.sub("", paper), mode) for paper, mode in trained}
    assert trained_methods == {
        (name, mode) for name in methods for mode in ("intra", "inter")
    }
    assert all(selections == {"last", "best"} for selections in trained.values())
