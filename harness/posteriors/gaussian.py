"""Gaussian posteriors over the weights of a linear reward, under the Bradley-Terry likelihood.

r(x) = w . phi(x), P(first preferred) = sigmoid(w . d) with d = phi(first) - phi(second), prior w ~ N(0, I / lambda).
Laplace's approximation is N(w, M^-1) with M = lambda I + sum_n p_n (1 - p_n) d_n d_n^T at the weights w (MacKay 1992;
Bishop 2006, section 4.5). All arrays are float64. Axes: n labelled pairs, C candidate pairs, H weights, K samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F

from balbench.harness.pool.feature_table import FeatureTable, table_blocks
from balbench.harness.posteriors.posterior import DivergedError

ROWS = 4096  # rows of a block, which bounds the memory of temporary arrays
# Newton steps stop at this decrement of the objective in nats; the mode is then accurate to 1e-7 posterior standard
# deviations.
DECREMENT = 1e-14
MOST_STEPS = 100  # Newton steps; about 10 are needed
MOST_ITERATIONS = 500  # conjugate gradient iterations in a step; about 20 are needed
PRIOR_GRID = (1e2, 1e1, 1e0, 1e-1, 1e-2)


@dataclass(frozen=True, eq=False)
class Gaussian:
    """N(mean, M^-1) over H weights.

    Attributes:
        mean_H: the mean.
        cholesky_HH: lower Cholesky factor of the precision M.
    """

    mean_H: torch.Tensor
    cholesky_HH: torch.Tensor

    def samples_KH(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Draw weight vectors (K, H) with a CPU generator."""
        noise_HK = torch.randn(len(self.mean_H), count, generator=generator, dtype=torch.float64).to(self.mean_H.device)
        return self.mean_H + torch.linalg.solve_triangular(self.cholesky_HH.mT, noise_HK, upper=True).mT

    def spread_HC(self, difference_CH: torch.Tensor) -> torch.Tensor:
        """Return columns v = L^-1 d, so that v_a . v_b = cov(w . d_a, w . d_b)."""
        return torch.linalg.solve_triangular(self.cholesky_HH, difference_CH.mT, upper=False)

    def covariance_HH(self) -> torch.Tensor:
        """Return M^-1."""
        return torch.cholesky_inverse(self.cholesky_HH)


def answer_step(
    mean: torch.Tensor, variance: torch.Tensor, target: torch.Tensor, steps: int = 100
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the change of a Gaussian by one more label of a pair whose logit is N(mean, variance); elementwise.

    The new mode is mean + cov d (y - sigmoid(t)), where its logit t solves t = m + v (y - sigmoid(t)); by
    Sherman and Morrison the covariance becomes cov - cov d d^T cov s / (1 + s v) with s = sigmoid'(t). This is
    Laplace's approximation, one observation at a time (Spiegelhalter and Lauritzen 1990), with the exact mode.
    It holds for weights and, with cov d the covariances with that logit, for any logits that are jointly Gaussian.

    Args:
        mean: m.
        variance: v.
        target: y, P(first preferred).
        steps: number of Newton steps, or of halvings of the bracket where Newton steps fail.

    Returns:
        y - sigmoid(t), the factor of cov d, and s / (1 + s v).
    """
    low, high = mean - variance * (1 - target), mean + variance * target
    logit, before = mean.clone(), torch.full_like(mean, torch.inf)
    for _ in range(steps):
        p = torch.sigmoid(logit)
        excess = logit - mean - variance * (target - p)
        low, high = torch.where(excess < 0, logit, low), torch.where(excess > 0, logit, high)
        step = -excess / (1 + variance * p * (1 - p))
        inside = (logit + step >= low) & (logit + step <= high)
        # Steps that do not shrink by half could cycle; steps as small as rounding have converged.
        newton = inside & (step.abs() <= before / 2) | (step.abs() <= 1e-13 * (1 + logit.abs()))
        before = torch.where(newton, step.abs(), high - low)
        logit = torch.where(newton, logit + step, (low + high) / 2)
    p = torch.sigmoid(logit)
    slope = p * (1 - p)
    return target - p, slope / (1 + slope * variance)


class BradleyTerry:
    """The likelihood of labelled pairs as a function of the weights.

    With D = 4096 and 24,000 pairs, a posterior costs two Gram matrices (8e11 flops each) and about a hundred products
    with the differences (0.8 GB).
    """

    def __init__(self, difference_nH: torch.Tensor, label_n: torch.Tensor) -> None:
        """Store float64 differences and labels.

        Raises:
            DivergedError: a difference is not finite.
        """
        if not bool(torch.isfinite(difference_nH).all()):
            raise DivergedError("a difference of features is not a number: look at the features")
        self._difference_nH, self._target_n = difference_nH, label_n.double()

    def posterior(self, prior_precision: float, start_H: torch.Tensor | None = None) -> Gaussian:
        """Return Laplace's approximation at the mode."""
        return self.laplace(self.mode_H(prior_precision, start_H), prior_precision)

    def laplace(self, weights_H: torch.Tensor, prior_precision: float) -> Gaussian:
        """Return Laplace's approximation at given weights."""
        p_n = torch.sigmoid(self._difference_nH @ weights_H)
        return Gaussian(weights_H, _cholesky(_gram_HH(self._difference_nH, p_n * (1 - p_n)), prior_precision))

    def mode_H(self, prior_precision: float, start_H: torch.Tensor | None = None) -> torch.Tensor:
        """Return the weights of highest posterior density by Newton steps with a line search (the objective is convex).

        Raises:
            DivergedError: no convergence, because the prior is too weak for float64.
        """
        bound_HH = _cholesky(self._quarter_HH, prior_precision)
        H, device = self._difference_nH.shape[1], self._difference_nH.device
        w = torch.zeros(H, dtype=torch.float64, device=device) if start_H is None else start_H
        for _ in range(MOST_STEPS):
            step, decrement = self._newton_step(w, prior_precision, bound_HH)
            if decrement <= DECREMENT:
                return w - step
            w = self._descend(w, step, decrement, prior_precision)
        raise DivergedError("the posterior's mode was not found: raise the prior precision")

    def _newton_step(
        self, w: torch.Tensor, prior_precision: float, bound_HH: torch.Tensor
    ) -> tuple[torch.Tensor, float]:
        """Return M^-1 gradient and its product with the gradient.

        Conjugate gradients are preconditioned with M at p (1 - p) = 1/4, the upper bound (Boehning and Lindsay 1988),
        so that no Hessian is computed before the mode is known.
        """
        X = self._difference_nH
        p_n = torch.sigmoid(X @ w)
        slope_n = p_n * (1 - p_n)

        def product(v: torch.Tensor) -> torch.Tensor:
            return X.mT @ (slope_n * (X @ v)) + prior_precision * v

        gradient_H = X.mT @ (p_n - self._target_n) + prior_precision * w
        step = _conjugate_gradients(product, gradient_H, bound_HH)
        return step, float(gradient_H @ step)

    def _descend(self, w: torch.Tensor, step: torch.Tensor, decrement: float, prior_precision: float) -> torch.Tensor:
        value, rate = self._objective(w, prior_precision), 1.0
        limit = value + 1e-12 * (1 + abs(value))  # rounding of the objective
        while self._objective(w - rate * step, prior_precision) > limit - 1e-4 * rate * decrement:
            rate /= 2
        return w - rate * step

    @cached_property
    def _quarter_HH(self) -> torch.Tensor:
        return _gram_HH(self._difference_nH, torch.full_like(self._target_n, 0.25))

    def _objective(self, w: torch.Tensor, prior_precision: float) -> float:
        logit_n = self._difference_nH @ w
        loss = F.binary_cross_entropy_with_logits(logit_n, self._target_n, reduction="sum")
        return float(loss + prior_precision / 2 * (w @ w))


def _gram_HH(rows_nH: torch.Tensor, weight_n: torch.Tensor) -> torch.Tensor:
    H = rows_nH.shape[1]
    gram_HH = torch.zeros(H, H, dtype=torch.float64, device=rows_nH.device)
    for block_bH, weight_b in zip(rows_nH.split(ROWS), weight_n.split(ROWS), strict=True):
        scaled_bH = block_bH * weight_b.sqrt()[:, None]
        gram_HH.addmm_(scaled_bH.mT, scaled_bH)
    return gram_HH


def _cholesky(gram_HH: torch.Tensor, prior_precision: float) -> torch.Tensor:
    precision_HH = gram_HH.clone()
    precision_HH.diagonal().add_(prior_precision)
    return torch.linalg.cholesky(precision_HH)


def _conjugate_gradients(
    product: Callable[[torch.Tensor], torch.Tensor], right_H: torch.Tensor, preconditioner_HH: torch.Tensor
) -> torch.Tensor:
    """Solve product(x) = right, given the Cholesky factor of the preconditioner."""
    x, residual = torch.zeros_like(right_H), right_H.clone()
    z = torch.cholesky_solve(residual[:, None], preconditioner_HH)[:, 0]
    direction, energy = z, float(residual @ z)
    enough = 1e-16 * energy  # the preconditioner can be 1e9 times too strong if labels are nearly certain
    for _ in range(min(2 * len(right_H) + 10, MOST_ITERATIONS)):
        if energy <= enough:
            break
        image = product(direction)
        rate = energy / float(direction @ image)
        x, residual = x + rate * direction, residual - rate * image
        z = torch.cholesky_solve(residual[:, None], preconditioner_HH)[:, 0]
        energy, before = float(residual @ z), energy
        direction = z + energy / before * direction
    return x


class Standardiser:
    """Transform features to mean 0 and to a mean squared norm of 1; constant features become 0.

    The prior variance of a typical reward is then 1 / lambda for any number of features.
    """

    def __init__(self, features_RD: FeatureTable) -> None:
        R, D = features_RD.shape
        none_D = torch.zeros(D, dtype=torch.float64, device=features_RD.device)
        self.mean_D = sum((block.double().sum(dim=0) for block in table_blocks(features_RD, ROWS)), none_D) / R
        centred = (block.double() - self.mean_D for block in table_blocks(features_RD, ROWS))
        square_D = sum((block.square().sum(dim=0) for block in centred), none_D) / R
        # Rounding of a constant feature must not be scaled up to unit variance.
        varies_D = square_D.sqrt() > 1e-6 * self.mean_D.abs()
        self.scale_D = torch.where(varies_D, (square_D * D).rsqrt(), 0.0)

    def __call__(self, features_RD: FeatureTable) -> torch.Tensor:
        """Return standardised features, float32 (R, D)."""
        scaled_RD = torch.empty(features_RD.shape, dtype=torch.float32, device=features_RD.device)
        start = 0
        for block_bD in table_blocks(features_RD, ROWS):
            scaled_RD[start : start + len(block_bD)] = (block_bD - self.mean_D) * self.scale_D
            start += len(block_bD)
        return scaled_RD

    def differences(
        self, features_RD: FeatureTable, responses_n2: torch.Tensor, scale_n: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return first response minus second of each pair, standardised and times `scale_n`, float64 (n, D)."""
        difference_nD = differences(features_RD, responses_n2) * self.scale_D
        return difference_nD if scale_n is None else difference_nD * scale_n.double()[:, None]


def differences(features_RH: FeatureTable, responses_n2: torch.Tensor) -> torch.Tensor:
    """Return first response minus second of each pair, float64 (n, H)."""
    return features_RH[responses_n2[:, 0]].double().sub_(features_RH[responses_n2[:, 1]])


class Linear:
    """A fitted posterior (see `FittedPosterior`): K linear rewards on one embedding of the responses."""

    def __init__(
        self,
        embed: Callable[[FeatureTable], torch.Tensor],
        weights_KH: torch.Tensor,
        diagnostics: Mapping[str, float] | None = None,
    ) -> None:
        self._embed, self._weights_HK = embed, weights_KH.float().mT.contiguous()
        self.diagnostics = diagnostics or {}

    def rewards_KR(self, features_RD: FeatureTable) -> torch.Tensor:
        """Return the reward of each response under each sample, float32 (K, R), computed in blocks of responses."""
        parts = [self._embed(block_bD) @ self._weights_HK for block_bD in table_blocks(features_RD, 4 * ROWS)]
        return torch.cat(parts).mT.contiguous()

    def embedding_RH(self, features_RD: FeatureTable) -> torch.Tensor:
        """Return the inputs of the linear rewards, float32 (R, H)."""
        return self._embed(features_RD)


def best_samples(
    posterior_at: Callable[[float], Gaussian],
    priors: tuple[float, ...],
    count: int,
    generator: Callable[[], torch.Generator],
    difference_nH: torch.Tensor,
    label_n: torch.Tensor,
) -> torch.Tensor:
    """Return samples (K, H) of the posterior, at the prior precision with the best predictions of held-out labels.

    Args:
        posterior_at: returns the posterior of a prior precision.
        priors: prior precisions to compare; ties go to the first.
        count: K.
        generator: returns a new generator in the same state, so that priors are compared on the same noise.
        difference_nH: held-out pairs.
        label_n: labels of the held-out pairs.
    """
    if len(priors) == 1:
        return posterior_at(priors[0]).samples_KH(count, generator())
    scored = []
    for prior_precision in priors:
        samples_KH = posterior_at(prior_precision).samples_KH(count, generator())
        p_n = torch.sigmoid(difference_nH @ samples_KH.mT).mean(dim=1)
        scored.append((-float(F.binary_cross_entropy(p_n, label_n.double())), samples_KH))
    return max(scored, key=lambda score_and_samples: score_and_samples[0])[1]
