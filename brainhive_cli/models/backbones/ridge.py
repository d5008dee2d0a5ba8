"""Ridge regression from a subject's signals to every head, fitted in closed form."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from brainhive_cli.core.device_memory import count_free_bytes
from brainhive_cli.core.errors import BrainhiveError, RecipeError
from brainhive_cli.measurement.linear_maps import choose_penalty
from brainhive_cli.models import heads as outputs
from brainhive_cli.models.backbones import BackboneConfig
from brainhive_cli.models.backbones._layers import map_by_subject
from brainhive_cli.models.heads import Heads
from brainhive_cli.models.signal_spec import SignalSpec

NUMBERS = 1 << 26
"""Numbers of targets that are gathered at once."""
BLOCK_NUMBERS = 1 << 23
"""Numbers of signals that are converted to float64 at once: 64 MB, which glibc gives
back when they are freed.
"""
MAX_EXACT = 5000
"""Signals, or numbers of a signal where these are fewer, up to which any number of
components is exact; the time grows with their cube, half a minute for 5,000.
"""
POWER_ITERATIONS = 4
"""Of the approximation beyond, as in scikit-learn's PCA."""
TargetReader = Callable[[slice], dict[str, Tensor]]
"""Gives the targets of some training signals, [B, *shape] by head."""


class Config(BackboneConfig):
    """Brain-Diffuser's regression (arXiv 2303.05334) to conditions of any shape,
    without its VDVAE.

    There is one ridge for each subject and head, of all its outputs at once; no part of
    `train` but `validation` has an effect.
    """

    cites = ("hoerl1970",)
    takes_spec = True
    is_closed_form = True

    alpha: float | dict[str, float] | Literal["auto"] = Field(
        60_000.0,
        description="Penalty of the squared weights, as scikit-learn's; or one for "
        "each head; auto: for each head by generalised cross-validation. "
        "Brain-Diffuser: 60000 for image, 100000 for text tokens, of "
        "z-scored voxels.",
    )
    components: int | None = Field(
        None,
        gt=0,
        le=2**20,
        description="Principal components of the training signals that are kept; the "
        "ridge is exact from the number of training signals on. Fewer components of "
        "more than 5,000 signals of more than 5,000 numbers are approximated by a "
        "randomised SVD. Default: all, with weights [V, outputs] instead of "
        "[components, outputs].",
    )
    standardise: bool = Field(
        True,
        description="Bring each output to the spread of its target: by the predictions "
        "for held-out stimuli, or else for the training's (Brain-Diffuser: "
        "by those for the test pictures).",
    )

    def citations(self) -> tuple[str, ...]:
        """Add cross-validation of the penalty, and Brain-Diffuser's correction of the
        spread, where used.
        """
        chosen = ("golub1979",) if self.alpha == "auto" else ()
        return (*self.cites, *chosen, *(("ozcelik2023",) if self.standardise else ()))

    def build(self, spec: SignalSpec, heads: Heads) -> "Ridge":
        """Make the model, with weights of zero.

        Raises:
            RecipeError: if `alpha` names other heads, or is not positive.
        """
        if self.alpha == "auto":
            return Ridge(self, {}, spec, heads)
        # one penalty for all heads, or one for each
        alpha = (
            self.alpha
            if isinstance(self.alpha, dict)
            else dict.fromkeys(heads, self.alpha)
        )
        if alpha.keys() != heads.keys() or min(alpha.values()) <= 0:
            raise RecipeError(
                f"backbone.alpha is {alpha}, and needs to be above 0 for each head",
                f"heads: {', '.join(heads)}",
            )
        return Ridge(self, alpha, spec, heads)


TINY = Config(alpha=1.0)
"""It has no size of its own."""


class Ridge(nn.Module):
    """The maps of all subjects, by number; a head without a penalty has that of
    cross-validation.
    """

    def __init__(
        self, config: Config, alpha: dict[str, float], spec: SignalSpec, heads: Heads
    ) -> None:
        super().__init__()
        self.heads = heads
        self.alpha = alpha
        self.standardise = config.standardise
        self.maps: Any = nn.ModuleDict()
        for subject, width in zip(spec.subjects, spec.widths, strict=True):
            self.maps[str(subject)] = RidgeMap(
                width * spec.samples, config.components, heads
            )

    def forward(
        self, signal: Tensor, subject_index: Tensor | None
    ) -> dict[str, Tensor]:
        """Predict every head, [B, *shape], from signals [B, C, T] of subjects [B].

        Raises:
            BrainhiveError: for a subject that was not fitted.
        """
        predicted = map_by_subject(
            "ridge", signal, subject_index, [*self.maps.values()]
        )
        return outputs.split_heads(predicted.to(signal.dtype), self.heads)

    @torch.no_grad()
    def fit(
        self, subject: int, signal: Tensor, targets: TargetReader, held_out: Tensor
    ) -> None:
        """Fit the map of one subject, by one pass over the targets.

        Args:
            subject: Its number.
            signal: Training signals [N, C, T], in the order of the targets.
            targets: Targets of some of them.
            held_out: Signals [M, C, T] that spread is measured on; without any, the
                training's are.

        Raises:
            BrainhiveError: if the fit does not fit into the free memory.
        """
        # refuse before anything is computed
        count = len(signal)
        numbers = signal[0].numel()
        kept = self.maps[str(subject)].count
        needed_gb = count_fit_bytes(count, numbers, kept) / 1e9
        free_gb = count_free_bytes(signal.device) / 1e9
        if needed_gb > free_gb:
            raise BrainhiveError(
                f"a ridge on {count:,} signals of {numbers:,} numbers takes "
                f"{needed_gb:.1f} GB of memory, and {free_gb:.1f} GB are free",
                "fewer backbone.components, signal.channels or a shorter "
                "signal.window_ms",
            )

        # components of the signals; sums of the targets, block by block
        ridge: RidgeMap = self.maps[str(subject)]
        basis, scores, singular = ridge.project(signal)  # [V, K], [N, K], [K]
        totals = {
            name: torch.zeros(2, head.width, device=signal.device)
            for name, head in self.heads.items()
        }
        at_once = max(1, NUMBERS // sum(head.width for head in self.heads.values()))
        for start in range(0, len(signal), at_once):
            rows = slice(start, min(start + at_once, len(signal)))
            for name, values in targets(rows).items():
                flat = values.flatten(1).float()
                ridge.weight[name] += scores[rows].T @ flat
                totals[name] += torch.stack([flat.sum(0), flat.square().sum(0)])

        # shrink each component by the penalty of its head
        for name, (total, squares) in totals.items():
            mean = total / len(signal)
            loadings = ridge.weight[name]
            values = singular.square()
            # no penalty is set: choose it by cross-validation
            alpha = self.alpha.get(name)
            if alpha is None:
                rotated = (loadings * singular[:, None]).double().square()
                centred = (squares - len(signal) * mean.square()).double()
                # centring takes one degree of freedom; all features share the variance,
                # however many components are kept
                freedom = max(1, len(signal) - 1)
                features = len(ridge.mean)
                absent = features - len(values)
                every = F.pad(values.double(), (0, absent))
                rotated = F.pad(rotated, (0, 0, 0, absent))
                alpha = choose_penalty(every, rotated, centred, freedom)
            ridge.weight[name] *= (singular / (values + alpha))[:, None]

            # bring predictions to the spread of the targets
            if self.standardise:
                spread = (squares / len(signal) - mean.square()).clamp(min=0).sqrt()
                if len(held_out) > 1:
                    # [M, K]
                    held_out_scores = (
                        held_out.flatten(1).to(ridge.mean) - ridge.mean
                    ) @ basis
                    predicted_spread = (held_out_scores @ ridge.weight[name]).std(
                        0, correction=0
                    )
                else:
                    # orthonormal scores: the spread of predictions follows from the
                    # weights
                    variance = (
                        (singular[:, None] * ridge.weight[name])
                        .square()
                        .sum(0)
                        .div(len(signal))
                    )
                    predicted_spread = variance.sqrt()
                ratio = spread / predicted_spread.clamp(min=1e-30)
                # an output that is predicted as constant stays so
                ridge.weight[name] *= torch.where(predicted_spread > 0, ratio, 1.0)
            ridge.bias[name].copy_(mean)

        # keep the components, or multiply them into the weights
        if ridge.is_reduced:
            ridge.basis.copy_(basis)
        else:
            for weight in ridge.weight.values():
                weight.copy_(basis @ weight)


class RidgeMap(nn.Module):
    """The map of one subject: signals, less their mean, to components, and these to
    every head.

    Args:
        width: V, numbers of a signal.
        components: K; None leaves out the components, so that weights are [V, outputs].
        heads: Their outputs.
    """

    def __init__(self, width: int, components: int | None, heads: Heads) -> None:
        super().__init__()
        self.count = min(components or width, width)
        self.mean = nn.Parameter(torch.zeros(width))
        self.is_reduced = components is not None
        if self.is_reduced:
            self.basis = nn.Parameter(torch.zeros(width, self.count))

        # weights [K, outputs] and biases [outputs] of every head, which no gradient
        # changes
        weights = {
            name: torch.zeros(self.count, head.width) for name, head in heads.items()
        }
        biases = {name: torch.zeros(head.width) for name, head in heads.items()}
        self.weight = nn.ParameterDict(weights)
        self.bias = nn.ParameterDict(biases)
        self.names = [*heads]  # in their order, which ParameterDict does not keep
        self.requires_grad_(False)

    def forward(self, signal: Tensor) -> Tensor:
        """Map signals [B, C, T] to the outputs of all heads, one after another, [B,
        outputs].
        """
        centred = signal.flatten(1).to(self.mean) - self.mean
        components = centred @ self.basis if self.is_reduced else centred
        return torch.cat(
            [components @ self.weight[name] + self.bias[name] for name in self.names], 1
        )

    def project(self, signal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keep the mean of training signals [N, C, T], and find their components.

        Returns:
            Basis [V, K], scores of unit length [N, K], and singular values [K], the
            largest first.

        Source: Halko et al. 2011, Finding structure with randomness (approximation).
        """
        flat = signal.flatten(1)  # [N, V]
        count, width = flat.shape
        at_once = max(1, BLOCK_NUMBERS // width)
        mean = torch.zeros(width, dtype=torch.float64, device=flat.device)
        for part in flat.split(at_once):
            mean += part.double().sum(0) / count
        self.mean.copy_(mean)

        # an approximation where both sides are large
        if is_approximate(count, width, self.count):
            with torch.random.fork_rng():
                torch.manual_seed(0)
                scores, singular, basis = torch.svd_lowrank(
                    flat - self.mean, self.count, niter=POWER_ITERATIONS
                )
            return basis, scores, singular

        # eigenvectors of the smaller Gram matrix [S, S], without those of no variance
        small = min(count, width)
        gram = torch.zeros(small, small, dtype=torch.float64, device=flat.device)
        for block in _centre_in_blocks(flat, mean):
            _add_products(gram, block)
        squared, vectors = _find_eigenvectors(gram, min(self.count, small))
        epsilon = torch.finfo(torch.float64).eps * small
        kept = int((squared > squared[0] * epsilon).sum())
        singular = squared[:kept].sqrt()
        vectors = vectors[:, :kept]

        # the vectors of the other side follow; zeros where there are fewer components
        del gram
        scaled = vectors / singular
        others = torch.zeros(max(flat.shape), self.count, device=flat.device)
        start = 0
        for block in _centre_in_blocks(flat, mean):
            others[start : start + len(block), :kept] = block @ scaled
            start += len(block)
        empty = (0, self.count - kept)
        vectors = F.pad(vectors.float(), empty)
        singular = F.pad(singular.float(), empty)
        if width > count:
            return others, vectors, singular
        return vectors, others, singular


def _centre_in_blocks(flat: Tensor, mean: Tensor) -> Iterator[Tensor]:
    """Centre signals [N, V] in float64, in blocks of the longer side: [n, V], or [v, N]
    where there are more numbers than signals.
    """
    at_once = max(1, BLOCK_NUMBERS // min(flat.shape))
    if flat.shape[1] <= len(flat):
        for rows in flat.split(at_once):
            yield rows.double() - mean
        return
    means = mean.split(at_once)
    for columns, column_means in zip(flat.split(at_once, 1), means, strict=True):
        yield (columns.double() - column_means).T


def _add_products(gram: Tensor, block: Tensor) -> None:
    """Add the products of the columns of a block [n, S] to the lower triangle of a Gram
    matrix [S, S].
    """
    if gram.device.type != "cpu":
        gram.addmm_(block.T, block)
        return
    from scipy.linalg.blas import dsyrk

    # one triangle takes half of the time; transposed matrices are in Fortran's order,
    # so that no copy is made
    dsyrk(1.0, block.numpy().T, beta=1.0, c=gram.numpy().T, overwrite_c=1)


def _find_eigenvectors(gram: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Find the largest eigenvalues [K] of a symmetric matrix [S, S] and their
    eigenvectors [S, K], in descending order.

    Only the lower triangle is read; the matrix is overwritten.
    """
    size = len(gram)
    if gram.device.type == "cpu" and count < size:
        from scipy.linalg import eigh

        largest = (size - count, size - 1)
        values, vectors = map(
            torch.from_numpy,
            eigh(
                gram.numpy().T,
                lower=False,
                subset_by_index=largest,
                overwrite_a=True,
                check_finite=False,
            ),
        )
    else:
        values, vectors = torch.linalg.eigh(gram)
        values = values[-count:]
        vectors = vectors[:, -count:]
    return values.flip(-1), vectors.flip(-1)


def is_approximate(signals: int, numbers: int, components: int) -> bool:
    """Return True if components of N signals of V numbers are approximated.

    As scikit-learn's PCA does, where fewer are kept than both sides have.
    """
    small = min(signals, numbers)
    return small > MAX_EXACT and components < 0.8 * small


def count_fit_bytes(signals: int, numbers: int, components: int) -> int:
    """Count the memory that a fit to N signals of V numbers takes beyond the signals.

    Args:
        signals: N.
        numbers: V.
        components: Components that are kept.
    """
    small = min(signals, numbers)
    kept = min(components, small)
    sides = 4 * (signals + numbers) * kept
    # centred signals, and both sides before and after an orthogonalisation
    if is_approximate(signals, numbers, components):
        return 4 * signals * numbers + 2 * sides
    # the Gram matrix, its eigenvectors and a copy, both sides, and a block; all
    # eigenvectors need as much again
    eigenvectors = 8 * small * (2 * small if kept == small else kept)
    return 8 * small**2 + 2 * eigenvectors + sides + 8 * BLOCK_NUMBERS


def count_fit_operations(signals: int, numbers: int, components: int) -> float:
    """Count the operations in float64 that finding components of N signals of V
    numbers takes; operations in float32 count half.

    Args:
        signals: N.
        numbers: V.
        components: Components that are kept.
    """
    if is_approximate(signals, numbers, components):
        products = 2 * POWER_ITERATIONS + 2
        return float(signals) * numbers * components * products
    small = min(signals, numbers)
    return 2.0 * signals * numbers * small + 10.0 * small**3
