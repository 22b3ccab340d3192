"""ParBaLS: a batch is filled one pair at a time, and earlier picks have sampled pseudo-labels (2510.09877).

Each of U "universes" has its own pseudo-labels of the picks so far, and the posterior given these labels. The next pick
has the highest expected predictive information gain (EPIG, 2304.08151 eq. 5) about the labels of target pairs, averaged
over the universes.

The posterior is a Gaussian over the logits of the M candidates and T targets, from a Bayesian linear reward on the last
layer of the study's posterior. A further pseudo-label updates it in closed form (`gaussian.answer_step`), and its
samples as well: f -> f' = m' + (f - m) - kappa c (f_i - m_i), where c is the column of the covariance for the pick i
and kappa = g / (1 + sqrt(1 - g c_i)). Samples of N(m, C) thus become samples of N(m', C - g c c^T), the square-root
form of the update (Potter 1963).

Axes: U universes, S samples, M candidates, T targets, G = M + T.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from balbench.harness.policies.policy import Array, PoolView, Selection
from balbench.harness.policies.targets import TargetPolicy, information
from balbench.harness.posteriors.gaussian import BradleyTerry, Gaussian, Standardiser, answer_step
from balbench.harness.posteriors.posterior import logit_scale
from balbench.harness.streams import Stream
from balbench.harness.uncertainty import LN2


class ParBaLS(TargetPolicy):
    """Expected predictive information gain about target pairs, given pseudo-labels of earlier picks (ParBaLS-EPIG)."""

    family: ClassVar[str] = "parbals"
    source: ClassVar[str] = "Hu and Mussmann 2025 (2510.09877), multi-pseudo EPIG"
    cost: ClassVar[str] = "n H^2 + B U S M T"
    needs_rewards: ClassVar[bool] = False
    score_range: ClassVar[tuple[float, float]] = (0.0, LN2)

    targets: int = Field(100, ge=1)
    """Number of target pairs, drawn anew each round; all pairs of the split if it has fewer."""
    candidates: int = Field(1000, ge=1)
    """Number of unlabelled pairs that are considered, drawn anew each round. A batch that needs more takes all of them
    and continues with as many others."""
    universes: int = Field(10, ge=1, le=4096)
    """Number of sets of pseudo-labels."""
    samples: int = Field(400, ge=1, le=10**6)
    """Number of posterior samples from which information is estimated."""
    pseudo_labels: Literal["likeliest", "drawn", "predictive"] = "likeliest"
    """`likeliest` (as in the authors' code): a universe is a posterior sample and gives each pair its more probable
    label. `drawn`: the universe draws each label with its probability. `predictive`: there is one universe, in which
    each pick gets the label that is more probable at that time (ParBaLS-MAP)."""
    prior_precision: float = Field(1.0, gt=0)
    """Prior precision of the weights of the reward. The features are standardised as in `bayesian_linear`, over the
    responses of the labelled pairs and the candidates."""

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Fill a batch greedily."""
        labelled = view.acquired_n[~np.isnan(view.label_n)]
        blocks = self._candidate_blocks(view, stream)
        embedding_RH, row_n2 = _embedded(view, np.concatenate([labelled, blocks[0]]))
        standardise = Standardiser(embedding_RH)
        rows_n2, scale_n = row_n2[: len(labelled)], view.logit_scale_n(labelled)
        posterior = self._posterior(view, standardise.differences(embedding_RH, rows_n2, scale_n))
        target_TH = self._target_differences(view, standardise, stream.child("targets"))
        picks: list[int] = []
        scores: list[float] = []
        for number, pairs_M in enumerate(blocks):
            if len(picks) == batch_size:
                break
            picks_here = min(batch_size - len(picks), len(pairs_M))
            rows_MH = standardise.differences(*_embedded(view, pairs_M), view.logit_scale_n(pairs_M))
            rows_GH = torch.cat([rows_MH, target_TH])
            universes = self._universes(posterior, rows_GH, view, pairs_M, picks_here, stream.child("block", number))
            for _ in range(picks_here):
                pick, score = universes.take()
                picks.append(int(pairs_M[pick]))
                scores.append(score)
        return Selection(np.array(picks, dtype=np.int64), np.array(scores))

    def _candidate_blocks(self, view: PoolView, stream: Stream) -> list[Array]:
        """Return the unlabelled pairs in random order, in blocks of `candidates` in the order of identifiers."""
        order = view.unlabelled_U[np.argsort(view.uniform_U(stream.child("candidates")), kind="stable")]
        blocks = [order[start : start + self.candidates] for start in range(0, len(order), self.candidates)]
        return [block[np.argsort(view.index.rank_N[block])] for block in blocks]

    def _posterior(self, view: PoolView, difference_nH: torch.Tensor) -> Gaussian:
        label_n = torch.from_numpy(view.label_n[~np.isnan(view.label_n)]).to(difference_nH.device)
        return BradleyTerry(difference_nH, label_n).posterior(self.prior_precision)

    def _target_differences(self, view: PoolView, standardise: Standardiser, stream: Stream) -> torch.Tensor:
        targets = self.target_pairs(view, stream)
        embedding_RH = view.model.embedding_RH(targets.features_RD[targets.responses_N2.flatten()])
        rows_T2 = torch.arange(len(embedding_RH)).view(-1, 2)
        return standardise.differences(embedding_RH, rows_T2, logit_scale(view.model, targets))

    def _universes(
        self,
        posterior: Gaussian,
        rows_GH: torch.Tensor,
        view: PoolView,
        pairs_M: Array,
        picks: int,
        stream: Stream,
    ) -> Universes:
        U = 1 if self.pseudo_labels == "predictive" else self.universes
        weights_KH = posterior.samples_KH(self.samples + U, stream.child("samples").torch())
        logit_KG = weights_KH @ rows_GH.mT
        return Universes(
            spread_HG=posterior.spread_HC(rows_GH),
            mean_G=rows_GH @ posterior.mean_H,
            logit_SG=logit_KG[: self.samples],
            label_UM=self._labels(logit_KG[self.samples :, : len(pairs_M)], view, pairs_M, stream.child("labels")),
            shape=(U, len(pairs_M)),
            picks=picks,
        )

    def _labels(self, logit_UM: torch.Tensor, view: PoolView, pairs_M: Array, stream: Stream) -> torch.Tensor | None:
        if self.pseudo_labels == "predictive":
            return None
        if self.pseudo_labels == "likeliest":
            return (logit_UM > 0).double()
        noise_UM = np.stack([view.index.uniform_N(stream.child(u))[pairs_M] for u in range(len(logit_UM))])
        return (torch.from_numpy(noise_UM).to(logit_UM.device) < torch.sigmoid(logit_UM)).double()


def _embedded(view: PoolView, pairs: Array) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the embeddings of the responses of pairs, and the rows of each pair's responses in them.

    Only these responses are embedded, because the embeddings of the whole pool may not fit into memory.
    """
    used_R, row_n2 = torch.unique(view.responses(pairs), return_inverse=True)
    return view.model.embedding_RH(view.splits["pool"].features_RD[used_R]), row_n2


class Universes:
    """The posteriors over the logits of candidates and targets under each pseudo-labelling."""

    def __init__(
        self,
        spread_HG: torch.Tensor,
        mean_G: torch.Tensor,
        logit_SG: torch.Tensor,
        label_UM: torch.Tensor | None,
        shape: tuple[int, int],
        picks: int,
    ) -> None:
        """Initialise all universes with one posterior.

        Args:
            spread_HG: columns whose inner products are the covariances of the logits, the candidates first.
            mean_G: means of the logits.
            logit_SG: samples of the logits.
            label_UM: pseudo-label of each candidate in each universe; None if a pick gets its more probable label.
            shape: (U, M).
            picks: number of picks that will be taken, at most M.
        """
        self._spread_HG, self._label_UM, (U, self._M) = spread_HG, label_UM, shape
        self._mean_UG, self._logit_USG = mean_G.expand(U, -1).clone(), logit_SG.expand(U, -1, -1).clone()
        self._changes_BUG = mean_G.new_zeros(picks, U, len(mean_G))  # covariance = initial one - sum of outer products
        self._taken: list[int] = []

    def take(self) -> tuple[int, float]:
        """Pick the candidate with the highest score (ties: the first), and return it and its score."""
        # Without pseudo-labels all universes are equal, so the first one is enough.
        universes = self._logit_USG if self._taken else self._logit_USG[:1]
        score_M = torch.stack([information(*self._probabilities(logit_SG)) for logit_SG in universes]).mean(dim=0)
        score_M[self._taken] = -torch.inf
        pick = int(score_M.argmax())
        self._label(pick)
        return pick, float(score_M[pick])

    def _probabilities(self, logit_SG: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        p_SG = torch.sigmoid(logit_SG)
        return p_SG[:, : self._M], p_SG[:, self._M :]

    def _label(self, pick: int) -> None:
        """Give a pick its pseudo-labels, and update means and samples."""
        if self._label_UM is None:
            label_U = (torch.sigmoid(self._logit_USG[:, :, pick]).mean(dim=1) > 0.5).double()
        else:
            label_U = self._label_UM[:, pick]
        past_BUG = self._changes_BUG[: len(self._taken)]
        column_G = self._spread_HG.mT @ self._spread_HG[:, pick]
        column_UG = column_G - torch.einsum("bug,bu->ug", past_BUG, past_BUG[:, :, pick])
        variance_U, mean_U = column_UG[:, pick].clamp_min(0), self._mean_UG[:, pick]
        shift_U, shrink_U = answer_step(mean_U, variance_U, label_U)
        kappa_U = shrink_U / (1 + (1 - shrink_U * variance_U).sqrt())
        # f' = m' + (f - m) - kappa c (f_i - m_i), where m' = m + shift c
        factor_US = shift_U[:, None] - kappa_U[:, None] * (self._logit_USG[:, :, pick] - mean_U[:, None])
        self._logit_USG += factor_US[:, :, None] * column_UG[:, None]
        self._mean_UG += shift_U[:, None] * column_UG
        self._changes_BUG[len(self._taken)] = shrink_U.sqrt()[:, None] * column_UG
        self._taken.append(pick)
