"""Embeddings of pictures, as a trained model compares signals with them."""

from brainhive_cli.core.base import BrainhiveError
from brainhive_cli.core.runs import Launch
from brainhive_cli.data.targets import (
    Targets,
    TargetSource,
    digest_of,
    make_online_targets,
)
from brainhive_cli.models import refuse_other_target
from brainhive_cli.training.alignment.trained.model import TrainedModel
from brainhive_cli.training.alignment.trained.test_set import TestSet


def open_targets(tests: TestSet, model: TrainedModel, split: str) -> Targets:
    """Open the embeddings of a split that a model compares, by its own keys.

    Embeddings of encoders that were trained with the model are computed from pictures,
    because stores have the untrained encoders.

    Raises:
        BrainhiveError: if embeddings were made with other weights than the targets of
            the training.
    """
    keys = model.keys
    layout = model.module.layout
    sources: dict[str, TargetSource] = {}
    adapter = model.module.adapter
    if adapter is not None:
        group = tests.open_network(model)
        digest = layout.adapter["digest"]
        if group.digest != digest:
            raise BrainhiveError(
                f"{model.path} changes weights {digest}, but {group.names[0]} has "
                f"{group.digest}",
                "use the weights of the training",
            )
        adapter.attach(group.network.module)
        images = tests.dataset.images(tests.dataset.holdout.name_stored_split(split))
        pictures = tests.open_pictures(split)
        sources.update(make_online_targets(group, images, pictures, keys))

    # stores of the compared heads, made with the weights of the training
    stores = {
        name: store
        for name, store in tests.open_stores(split).items()
        if keys.get(name) in layout.compared_keys
    }
    for head_name, head in layout.heads.items():
        for name, store in stores.items():
            if keys[name] == head.target:
                refuse_other_target(head_name, head, digest_of(store), str(store.path))
    launch = Launch(0, 1, model.module.device)
    stored = Targets.from_stores(stores, launch, keys, on_device=False)
    return Targets({**stored.sources, **sources})
