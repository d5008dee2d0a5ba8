"""Trains the fusion encoder of the demo's prior, before there is a generator, to make
tokens worth decoding.

Small readers must tell from a *noisy* token what the picture shows, where, and how it
looks in 16x16 pixels. Noise makes the token spend its length on what matters, and bear
the errors of a brain encoder.
"""

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from brainhive_cli.core.hub import DEMO_WEIGHTS
from brainhive_cli.models.blocks import FusionEncoder
from brainhive_cli.models.priors import fusion_prior
from tools.demo_world import blank, encoder
from tools.demo_world.features import DIMS, embedded_pool

FOLDER = DEMO_WEIGHTS / "prior"
DIM = 256
STEPS, BATCH, LEARNING_RATE = 2_500, 256, 1e-3
# of a noisy token with the true one; brain encoders reach 0.5 to 0.8
LEAST_COSINE = 0.3
SPREAD_WEIGHT = 0.2


def main() -> None:
    """Write the generator's blank parts, train the fusion encoder, and save the prior
    in half precision.
    """
    torch.manual_seed(3)
    blank.write()
    unet = UNet2DConditionModel.from_pretrained(blank.FOLDER / "unet")
    prior = fusion_prior.Config(hidden_size=DIM, intermediate_size=DIM).build(
        DIMS, unet
    )
    norm = prior.get_submodule("fusion_encoder.vision_model.block.layers.0.norm")
    # stays 1 and 0: a token has the scale of a fresh brain encoder's output
    norm.requires_grad_(False)
    _train(prior.fusion_encoder["vision_model"])  # type: ignore[arg-type]
    with torch.no_grad():
        _half_whiten(prior.proj.proj, prior.fuser(embedded_pool()[1]))
    prior.half().save(FOLDER)


def noisy(token: Tensor, least_cosine: float) -> Tensor:
    """Turn tokens [B, D] of unit variance by random angles, to a cosine of
    `least_cosine` at most.
    """
    cosine = least_cosine + (1 - least_cosine) * torch.rand(len(token), 1)
    mixed = cosine * token + (1 - cosine**2).sqrt() * torch.randn_like(token)
    return F.layer_norm(mixed, token.shape[-1:])


class Readers(nn.Module):
    """Read from tokens [B, D] what the picture shows, where, and how it looks from
    afar.
    """

    def __init__(self) -> None:
        super().__init__()
        self.factors = nn.ModuleDict(
            {f: nn.Linear(DIM, len(n)) for f, n in encoder.FACTORS.items()}
        )
        self.place = nn.Linear(DIM, 3)
        self.thumbnail = nn.Sequential(
            nn.Linear(DIM, 512), nn.GELU(), nn.Linear(512, 3 * 16 * 16)
        )

    def forward(
        self,
        token: Tensor,
        classes: dict[str, Tensor],
        place: Tensor,
        thumbnail: Tensor,
    ) -> Tensor:
        """Sum up what is read wrongly."""
        wrong = sum(
            F.cross_entropy(head(token), classes[f]) for f, head in self.factors.items()
        )
        misplaced = F.mse_loss(self.place(token), place)
        unlike = F.l1_loss(self.thumbnail(token), thumbnail)
        return wrong / len(self.factors) + misplaced + 4 * unlike


def _train(fusion: FusionEncoder) -> None:
    pool, features = embedded_pool()
    classes = encoder.targets(pool.scenes)
    place = torch.tensor([(s.x, s.y, s.size) for s in pool.scenes])
    place = (place - place.mean(0)) / place.std(0)
    thumbnails = F.avg_pool2d(pool.pictures / 127.5 - 1, 4).flatten(1)  # [N, 768]
    readers = Readers()
    parameters = [
        *(p for p in fusion.parameters() if p.requires_grad),
        *readers.parameters(),
    ]
    optimiser = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, total_steps=STEPS
    )
    for step in range(STEPS):
        chosen = torch.randint(len(pool.scenes), (BATCH,))
        # [B, D]
        token = fusion({key: value[chosen] for key, value in features.items()})
        shown = {factor: value[chosen] for factor, value in classes.items()}
        loss = readers(
            noisy(token, LEAST_COSINE), shown, place[chosen], thumbnails[chosen]
        )
        loss = loss + SPREAD_WEIGHT * _crowding(token)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            print(f"prior {step}/{STEPS} loss {loss:.3f}", flush=True)


def _crowding(token: Tensor) -> Tensor:
    """Log mean Gaussian potential of all pairs, least when spread over the sphere
    (arXiv 2005.10242).
    """
    distance = torch.pdist(F.normalize(token, dim=-1)).square()
    return distance.mul(-2).exp().mean().log()


def _half_whiten(projection: nn.Linear, token: Tensor) -> None:
    """Start the projection so that weak directions of tokens [N, D] are stronger: they
    are learned sooner.
    """
    variances, directions = torch.linalg.eigh(token.T.cov())
    stretch = directions @ torch.diag(variances.clamp(min=1e-3) ** -0.25) @ directions.T
    nn.init.orthogonal_(projection.weight)
    projection.weight.copy_(projection.weight @ stretch)
    projection.bias.copy_(-projection.weight @ token.mean(0))
