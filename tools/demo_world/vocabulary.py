"""Makes the vocabulary of films' captions: as CLIP's, but 0 stands for padding
alone.
"""

import numpy as np

from brainhive_cli.demo import joined_generators
from brainhive_cli.demo.pictures import captions
from tools.demo_world.pool import random_film
from tools.demo_world.text import END, START, make_tokenizer

POOL, SEED = 3_000, 9
PADDING = "<|padding|>"


def main() -> None:
    """Learn it from captions of random films, and save it."""
    rng = np.random.default_rng(SEED)
    texts = [captions(random_film(rng).scene) for _ in range(POOL)]
    make_tokenizer(texts, (PADDING, START, END)).save_pretrained(
        joined_generators.MOTION / "tokenizer"
    )
