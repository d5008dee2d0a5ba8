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

MAX_TARGET_NUMBERS = 1 << 26
"""Largest number of target values in memory at once."""
BLOCK_NUMBERS = 1 << 23
"""Number of signal values that are converted to float64 at once. They take 64 MB, which
glibc returns to the system when they are freed.
"""
MAX_EXACT_SIZE = 5000
"""Largest number of signals, or of values per signal if these are fewer, for which all
components are exact. The time grows with its cube, to half a minute for 5,000.
"""
POWER_ITERATIONS = 4
"""Number of power iterations of the approximation, as in scikit-learn's PCA."""
TargetReader = Callable[[slice], dict[str, Tensor]]
"""Function that returns the targets [n, *shape], by head, of a slice of the signals."""


class Config(BackboneConfig):
    """Settings of Brain-Diffuser's ridge regression (arXiv 2303.05334).

    Each subject and head has a ridge from signals to targets of any shape. Only the
    key `validation` of `train` has an effect.
    """

    cites = ("hoerl1970",)
    takes_spec = True
    is_closed_form = True

    alpha: float | dict[str, float] | Literal["auto"] = Field(
        60_000.0,
        description="Penalty of the squared weights as in scikit-learn, or a penalty "
        "for each head. auto chooses each by generalised cross-validation. "
        "Brain-Diffuser takes 60000 for image and 100000 for text tokens, of z-scored "
        "voxels.",
    )
    components: int | None = Field(
        None,
        gt=0,
        le=2**20,
        description="Number of principal components of the training signals. The ridge "
        "is exact if this is at least the number of training signals. Fewer components "
        "of more than 5,000 signals of more than 5,000 numbers are approximated by a "
        "randomised SVD. Default: all, with weights [V, outputs] instead of "
        "[components, outputs].",
    )
    standardise: bool = Field(
        True,
        description="If true, scale each output so that its predictions have the "
        "standard deviation of its target. The deviation is measured on held-out "
        "stimuli if there are any, else on training stimuli. Brain-Diffuser takes the "
        "test pictures.",
    )

    def citations(self) -> tuple[str, ...]:
        """List the papers of the ridge, and of the options in use."""
        papers = list(self.cites)
        if self.alpha == "auto":
            papers.append("golub1979")
        if self.standardise:
            papers.append("ozcelik2023")
        return tuple(papers)

    def build(self, spec: SignalSpec, heads: Heads) -> "Ridge":
        """Make the model, with weights of zero.

        Raises:
            RecipeError: if `alpha` names other heads, or is not positive.
        """
        if self.alpha == "auto":
            return Ridge(self, {}, spec, heads)
        if isinstance(self.alpha, dict):
            alpha = self.alpha
        else:
            alpha = dict.fromkeys(heads, self.alpha)
        if alpha.keys() != heads.keys() or min(alpha.values()) <= 0:
            raise RecipeError(
                f"backbone.alpha is {alpha}, and needs to be above 0 for each head",
                f"heads: {', '.join(heads)}",
            )
        return Ridge(self, alpha, spec, heads)


TINY = Config(alpha=1.0)
"""Default settings, as the ridge has no size of its own."""


class Ridge(nn.Module):
    """Ridges of all subjects.

    Args:
        config: Settings.
        alpha: Penalty by head. The penalties of other heads are chosen by
            cross-validation.
        spec: Signals.
        heads: Heads.

    Attributes:
        maps: A `RidgeMap` for each subject, by the subject's number.
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
        maps = list(self.maps.values())
        predicted = map_by_subject("ridge", signal, subject_index, maps)
        return outputs.split_heads(predicted.to(signal.dtype), self.heads)

    @torch.no_grad()
    def fit(
        self, subject: int, signal: Tensor, targets: TargetReader, held_out: Tensor
    ) -> None:
        """Fit the map of one subject, in one pass over the targets.

        Args:
            subject: Number of the subject.
            signal: Training signals [N, C, T].
            targets: Reads the targets of a slice of the training signals.
            held_out: Signals [M, C, T] whose predictions give the standard deviation of
                the outputs. If M < 2, the training signals do.

        Raises:
            BrainhiveError: if the fit needs more memory than is free.
        """
        n_signals = len(signal)
        width = signal[0].numel()
        ridge: RidgeMap = self.maps[str(subject)]
        needed_gb = count_fit_bytes(n_signals, width, ridge.count) / 1e9
        free_gb = count_free_bytes(signal.device) / 1e9
        if needed_gb > free_gb:
            raise BrainhiveError(
                f"a ridge on {n_signals:,} signals of {width:,} numbers takes "
                f"{needed_gb:.1f} GB of memory, and {free_gb:.1f} GB are free",
                "fewer backbone.components, signal.channels or a shorter "
                "signal.window_ms",
            )

        # project the signals to components, and the targets to these, block by block
        basis, scores, singular = ridge.project(signal)  # [V, K], [N, K], [K]
        sums = {}  # of targets, and of their squares, without the first target
        for name, head in self.heads.items():
            sums[name] = torch.zeros(2, head.width, device=signal.device)
        n_outputs = sum(head.width for head in self.heads.values())
        block_size = max(1, MAX_TARGET_NUMBERS // n_outputs)
        for start in range(0, n_signals, block_size):
            rows = slice(start, min(start + block_size, n_signals))
            for name, target in targets(rows).items():
                flat = target.flatten(1).float()
                if start == 0:
                    ridge.bias[name].copy_(flat[0])
                flat = flat - ridge.bias[name]
                ridge.weight[name] += scores[rows].T @ flat
                sums[name] += torch.stack([flat.sum(0), flat.square().sum(0)])

        # shrink the weights of each head by its penalty
        variances = singular.square()
        held_out_scores = None
        for name, (target_sum, squares_sum) in sums.items():
            mean = target_sum / n_signals
            alpha = self.alpha.get(name)
            if alpha is None:
                # sum of squares of each centred target
                squares = (squares_sum - n_signals * mean.square()).double()
                alpha = self._choose_penalty(ridge, name, singular, squares, n_signals)
            ridge.weight[name] *= (singular / (variances + alpha))[:, None]

            # scale the predictions to the standard deviation of the targets
            if self.standardise:
                target_variance = squares_sum / n_signals - mean.square()
                target_spread = target_variance.clamp(min=0).sqrt()
                if len(held_out) > 1:
                    if held_out_scores is None:
                        centred = held_out.flatten(1).to(ridge.mean) - ridge.mean
                        held_out_scores = centred @ basis  # [M, K]
                    predictions = held_out_scores @ ridge.weight[name]
                    spread = predictions.std(0, correction=0)
                else:
                    # the scores are orthonormal, so the weights give the variance
                    scaled_weight = singular[:, None] * ridge.weight[name]
                    spread = scaled_weight.square().sum(0).div(n_signals).sqrt()
                ratio = target_spread / spread.clamp(min=1e-30)
                # constant outputs stay constant
                ridge.weight[name] *= torch.where(spread > 0, ratio, 1.0)
            ridge.bias[name] += mean

        # store the basis, or weights [V, outputs]
        if ridge.is_reduced:
            ridge.basis.copy_(basis)
        else:
            for weight in ridge.weight.values():
                weight.copy_(basis @ weight)

    @staticmethod
    def _choose_penalty(
        ridge: "RidgeMap",
        name: str,
        singular: Tensor,
        target_squares: Tensor,
        n_signals: int,
    ) -> float:
        """Choose the penalty of a head by generalised cross-validation.

        Args:
            ridge: Map whose weights [K, outputs] are scores times targets.
            name: Name of the head.
            singular: Singular values [K] of the signals.
            target_squares: Sums [outputs] of the squares of the centred targets.
            n_signals: Number of training signals.
        """
        rotated = (ridge.weight[name] * singular[:, None]).double().square()
        # directions of the signals without a component have no variance
        return choose_penalty(
            singular.square().double(),
            rotated,
            target_squares,
            count=max(1, n_signals - 1),  # centring takes one degree of freedom
            n_features=len(ridge.mean),
        )


class RidgeMap(nn.Module):
    """Linear map of one subject, from centred signals to components to all heads.

    Args:
        width: Number V of values per signal.
        components: Number K of components, or None for weights [V, outputs] without
            components.
        heads: Heads.
    """

    def __init__(self, width: int, components: int | None, heads: Heads) -> None:
        super().__init__()
        self.count = min(components or width, width)
        self.mean = nn.Parameter(torch.zeros(width))
        self.is_reduced = components is not None
        if self.is_reduced:
            self.basis = nn.Parameter(torch.zeros(width, self.count))

        weights = {}
        biases = {}
        for name, head in heads.items():
            weights[name] = torch.zeros(self.count, head.width)
            biases[name] = torch.zeros(head.width)
        self.weight = nn.ParameterDict(weights)
        self.bias = nn.ParameterDict(biases)
        self.names = list(heads)  # ParameterDict sorts its keys
        self.requires_grad_(False)

    def forward(self, signal: Tensor) -> Tensor:
        """Map signals [B, C, T] to the outputs [B, outputs] of all heads in a row."""
        features = signal.flatten(1).to(self.mean) - self.mean
        if self.is_reduced:
            features = features @ self.basis
        predictions = []
        for name in self.names:
            predictions.append(features @ self.weight[name] + self.bias[name])
        return torch.cat(predictions, 1)

    def project(self, signal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Store the mean of training signals [N, C, T], and find their components.

        Returns:
            Basis [V, K], scores of unit length [N, K], and singular values [K], the
            largest first.

        Source: Halko et al. 2011, Finding structure with randomness (approximation).
        """
        flat = signal.flatten(1)  # [N, V]
        n_signals, width = flat.shape
        block_size = max(1, BLOCK_NUMBERS // width)
        mean = torch.zeros(width, dtype=torch.float64, device=flat.device)
        for block in flat.split(block_size):
            mean += block.double().sum(0) / n_signals
        self.mean.copy_(mean)

        if is_approximate(n_signals, width, self.count):
            with torch.random.fork_rng():
                torch.manual_seed(0)
                scores, singular, basis = torch.svd_lowrank(
                    flat - self.mean, self.count, niter=POWER_ITERATIONS
                )
            return basis, scores, singular

        # eigenvectors of the smaller Gram matrix, with a variance above rounding
        size = min(n_signals, width)
        gram = torch.zeros(size, size, dtype=torch.float64, device=flat.device)
        for block in _centre_in_blocks(flat, mean):
            _add_products(gram, block)
        variances, vectors = _find_eigenvectors(gram, min(self.count, size))
        epsilon = torch.finfo(torch.float64).eps * size
        rank = int((variances > variances[0] * epsilon).sum())
        singular = variances[:rank].sqrt()
        vectors = vectors[:, :rank]
        del gram

        # vectors of the longer side follow from these
        scaled = vectors / singular
        long_vectors = torch.zeros(max(flat.shape), self.count, device=flat.device)
        start = 0
        for block in _centre_in_blocks(flat, mean):
            stop = start + len(block)
            long_vectors[start:stop, :rank] = block @ scaled
            start = stop

        # pad to K components with zeros
        padding = (0, self.count - rank)
        short_vectors = F.pad(vectors.float(), padding)
        singular = F.pad(singular.float(), padding)
        if width > n_signals:
            return long_vectors, short_vectors, singular
        return short_vectors, long_vectors, singular


def _centre_in_blocks(flat: Tensor, mean: Tensor) -> Iterator[Tensor]:
    """Centre signals [N, V] in float64, in blocks of the longer side.

    Yields:
        Blocks [n, V] of signals, or blocks [v, N] of values if V > N.
    """
    block_size = max(1, BLOCK_NUMBERS // min(flat.shape))
    if flat.shape[1] <= len(flat):
        for rows in flat.split(block_size):
            yield rows.double() - mean
        return
    means = mean.split(block_size)
    for columns, column_means in zip(flat.split(block_size, 1), means, strict=True):
        yield (columns.double() - column_means).T


def _add_products(gram: Tensor, block: Tensor) -> None:
    """Add block.T @ block of a block [n, S] to a Gram matrix [S, S] in place.

    On the CPU only the lower triangle is updated, in half of the time.
    """
    if gram.device.type != "cpu":
        gram.addmm_(block.T, block)
        return
    from scipy.linalg.blas import dsyrk

    # transposed matrices are in Fortran's order, so that nothing is copied
    dsyrk(1.0, block.numpy().T, beta=1.0, c=gram.numpy().T, overwrite_c=1)


def _find_eigenvectors(gram: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Find the K largest eigenvalues of a symmetric matrix and their eigenvectors.

    Args:
        gram: Matrix [S, S], whose lower triangle is read. It is overwritten.
        count: Number K.

    Returns:
        Eigenvalues [K] in descending order, and eigenvectors [S, K].
    """
    size = len(gram)
    if gram.device.type == "cpu" and count < size:
        from scipy.linalg import eigh

        eigenvalues, eigenvectors = eigh(
            gram.numpy().T,
            lower=False,
            subset_by_index=(size - count, size - 1),
            overwrite_a=True,
            check_finite=False,
        )
        values = torch.from_numpy(eigenvalues)
        vectors = torch.from_numpy(eigenvectors)
    else:
        values, vectors = torch.linalg.eigh(gram)
        values = values[-count:]
        vectors = vectors[:, -count:]
    return values.flip(-1), vectors.flip(-1)


def is_approximate(n_signals: int, n_values: int, n_components: int) -> bool:
    """Return True if components are approximated, as in scikit-learn's PCA."""
    size = min(n_signals, n_values)
    return size > MAX_EXACT_SIZE and n_components < 0.8 * size


def count_fit_bytes(n_signals: int, n_values: int, n_components: int) -> int:
    """Estimate the bytes of memory that a fit takes beyond its signals [N, V]."""
    size = min(n_signals, n_values)
    n_kept = min(n_components, size)
    basis_and_scores = 4 * (n_signals + n_values) * n_kept
    if is_approximate(n_signals, n_values, n_components):
        # centred signals, and basis and scores before and after orthogonalisation
        return 4 * n_signals * n_values + 2 * basis_and_scores
    # Gram matrix, eigenvectors and a copy, basis and scores, and a block. Finding all
    # eigenvectors takes as much again.
    eigenvectors = 8 * size * (2 * size if n_kept == size else n_kept)
    return 8 * size**2 + 2 * eigenvectors + basis_and_scores + 8 * BLOCK_NUMBERS


def count_fit_operations(n_signals: int, n_values: int, n_components: int) -> float:
    """Estimate the operations in float64 of a fit. Operations in float32 count half."""
    size = min(n_signals, n_values)
    if is_approximate(n_signals, n_values, n_components):
        n_products = 2 * POWER_ITERATIONS + 2
        return float(n_signals) * n_values * n_components * n_products
    return 2.0 * n_signals * n_values * size + 10.0 * size**3
