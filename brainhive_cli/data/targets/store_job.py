"""One store that embed fills: is it done, and what would be written."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from brainhive_cli.core import console, environment, home
from brainhive_cli.data.datasets import StimulusSet
from brainhive_cli.data.stores.target_store import Blank, TargetStore
from brainhive_cli.data.targets.encoder_groups import EncoderGroup, alternatives, shape_of, views_each
from brainhive_cli.models.encoders import EncoderConfig


@dataclass(frozen=True)
class StoreJob:
    """One store to be filled.

    Attributes:
        config: The encoder.
        images: The stimuli.
        path: Where the store lies, or will lie.
        precision: Autocast dtype of the forward pass.
        dtype: In which targets are kept, unless they are whole numbers.
        skip_bad: Whether pictures that cannot be decoded are accepted as gaps.
    """

    config: EncoderConfig
    images: StimulusSet
    path: Path
    precision: str
    dtype: str
    skip_bad: bool

    def reason(self, group: EncoderGroup | None) -> str:
        """Say why there is work to do; empty for a finished store of these pictures, made in this way.

        Args:
            group: The encoder; None where its weights are not on this machine, and are taken to be those of
                the store. What made an imported store is not compared.
        """
        if not self.path.is_file():
            return "does not exist"
        found = TargetStore.open(self.path)
        stored, expected = found.attributes, self._attributes
        differs = [key for key in ("config", "dtype", "precision") if stored.get(key) != expected[key]]
        if not self.images.is_expected and found.image_ids != self.images.image_ids:
            differs.append("pictures")
        if group and stored.get("preprocessing") != group.encoder.preprocessing:
            differs.append("preprocessing")
        if group and stored["weights"].get("digest") != group.encoder.weights.get("digest"):
            differs.append("weights")
        if "imported" in stored:
            return "was made with other pictures" if "pictures" in differs else ""
        if differs:
            return f"was made with other {', '.join(differs)}"
        return "has gaps" if stored["skipped"] and not self.skip_bad else ""

    @property
    def imported(self) -> str:
        """Say from where the store was imported, and what follows; empty for one that was made here."""
        files = TargetStore.open(self.path).attributes.get("imported")
        if not files:
            return ""
        origin = f"{files[0]} and others" if len(files) > 1 else files[0]
        return f"was imported from {origin}, so what made it is not known: --again makes it here"

    def plan(self, group: EncoderGroup | None) -> str:
        """Say whether the store is done, or why not and how many bytes will be written."""
        if not (reason := self.reason(group)):
            return self.imported or "done"
        shape = self.config.known_shape or (group.shapes[self.config.name] if group else None)
        why = f" ({reason})" if self.path.is_file() else ""
        if shape is None:
            return f"to do, of a size that is known with the weights{why}"
        each = alternatives(self.config, self.images) or 1
        shape = shape_of(self.config, shape, self.images)
        size = len(self.images) * each * prod(shape) * np.dtype(self.kept_as).itemsize
        return f"to do{why}, {console.size(size)} to write"

    @property
    def keys(self) -> list[str]:
        """Paths of the stores that this one stands for: its own, and of all views those of each."""
        config = self.config
        places = range(views_each(config, self.images) or 0) if config.views == "all" else ()
        names = [config.model_copy(update={"views": place}).name for place in places]
        return [str(self.path), *(str(self.path.with_name(f"{name}.h5")) for name in names)]

    @property
    def kept_as(self) -> str:
        """The dtype of the store."""
        return self.config.store_dtype or self.dtype

    def blank(self, group: EncoderGroup) -> Blank:
        """Describe the store before it is filled."""
        images, encoder = self.images, group.encoder
        made_by = {"weights": encoder.weights, "preprocessing": encoder.preprocessing}
        if space := getattr(encoder.module, "latent_space", ""):  # of an autoencoder
            made_by["latent_space"] = space
        attributes = {**self._attributes, **made_by, "versions": environment.versions()}
        shape = shape_of(self.config, group.shapes[self.config.name], images)
        if (count := alternatives(self.config, images)) is not None:
            attributes, shape = {**attributes, "alternatives": count}, (count, *shape)
        decodes = self.config.encodes == "pixels" and not self.config.pictures
        names = images.image_ids, images.concepts
        return Blank(self.path, *names, shape, self.kept_as, attributes, has_pixels=decodes)

    @property
    def _attributes(self) -> dict[str, Any]:
        return {
            "encoder": self.config.name,
            "config": home.portable(self.config.model_dump(mode="json")),
            "dataset": self.images.dataset,
            "split": self.images.split,
            "dtype": self.kept_as,
            "precision": self.precision,
        }
