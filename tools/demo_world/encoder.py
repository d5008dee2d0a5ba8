"""Trains the demo's encoder for meaning: a tiny CLIP vision model that can name what is
shown.
"""

import torch
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from brainhive_cli.core.hub import DEMO_WEIGHTS
from brainhive_cli.demo.pictures import (
    BACKGROUNDS,
    CATEGORIES,
    COLOURS,
    SHAPES,
    TEXTURES,
    Scene,
)
from tools.demo_world.pool import Pool, random_pool

FOLDER = DEMO_WEIGHTS / "encoder"
FACTORS = {
    "category": tuple(CATEGORIES),
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "texture": TEXTURES,
    "background": tuple(BACKGROUNDS),
}
POOL, EPOCHS, BATCH, LEARNING_RATE = 24_000, 8, 64, 1e-3
# OpenAI CLIP's, which CLIPImageProcessor also takes by default
MEAN = torch.tensor((0.48145466, 0.4578275, 0.40821073))[:, None, None]
SPREAD = torch.tensor((0.26862954, 0.26130258, 0.27577711))[:, None, None]


def main() -> None:
    """Train, report the accuracy on concepts never seen, and save in half precision."""
    torch.manual_seed(1)
    model = _model()
    heads = nn.ModuleDict(
        {factor: nn.Linear(128, len(names)) for factor, names in FACTORS.items()}
    )
    _train(model, heads, random_pool(POOL, seed=1))
    model.half().save_pretrained(FOLDER)
    _processor().save_pretrained(FOLDER)


def standardise(pictures: Tensor) -> Tensor:
    """Do to uint8 pictures [B, 3, H, W] what the saved image processor does."""
    return (pictures / 255 - MEAN) / SPREAD


def targets(scenes: list[Scene]) -> dict[str, Tensor]:
    """Give every factor's class index: factor > [N]."""
    return {
        factor: torch.tensor([names.index(getattr(scene, factor)) for scene in scenes])
        for factor, names in FACTORS.items()
    }


def _model() -> CLIPVisionModelWithProjection:
    config = CLIPVisionConfig(
        image_size=64,
        patch_size=8,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        projection_dim=128,
    )
    return CLIPVisionModelWithProjection(config)


def _processor() -> CLIPImageProcessor:
    side = {"height": 64, "width": 64}
    return CLIPImageProcessor(size={"shortest_edge": 64}, crop_size=side)


def _train(
    model: CLIPVisionModelWithProjection, heads: nn.ModuleDict, pool: Pool
) -> None:
    classes = targets(pool.scenes)
    steps = EPOCHS * len(pool.scenes) // BATCH
    parameters = [*model.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, total_steps=steps
    )
    for step in range(steps):
        chosen = torch.randint(len(pool.scenes), (BATCH,))
        with torch.autocast("cpu", torch.bfloat16):
            embedding = model(standardise(pool.pictures[chosen])).image_embeds  # [B, D]
        losses = [
            nn.functional.cross_entropy(
                heads[factor](embedding.float()), classes[factor][chosen]
            )
            for factor in FACTORS
        ]
        loss = torch.stack(losses).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            print(f"encoder {step}/{steps} loss {loss:.3f}", flush=True)
