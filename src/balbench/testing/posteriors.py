"""The contract of posteriors (see `balbench.harness.posteriors.posterior.Posterior`), as a check of one posterior."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch

from balbench.harness.pool import blocks, feature_table
from balbench.harness.posteriors.posterior import (
    DivergedError,
    FittedPosterior,
    LabelledPairs,
    OwnEpistemic,
    Posterior,
    logit_scale,
    pair_probability,
    pair_uncertainty,
    sampled_rewards,
)
from balbench.harness.rounds.fleet import can_fit_together, fit_cells
from balbench.harness.streams import Stream, stream
from balbench.testing.contract import ContractError, Subject, fingerprint, same
from balbench.testing.examples import labelled_pairs, on_disk

STREAM = stream(3, "posterior", 0)
BLOCK_ROWS = 123  # rows per block when features are read from disk


def check_posterior(posterior: Posterior, *, accuracy: float | None = 0.7) -> None:
    """Check all promises of a posterior on small sets of labelled pairs.

    Reward samples, embeddings and factors of logits have one shape and type, are finite, and are the same in each call,
    in blocks and from disk. A fit is a function of data and stream: it gives the same result in a fleet, after other
    fits and in another process. It changes neither the data nor a global random generator. Numbers that are not finite
    raise DivergedError.

    Args:
        posterior: with the settings to check; small ones are enough.
        accuracy: least accuracy on 300 new pairs after a fit on 300 labels, where the reward is the first of five
            features; None skips this check.

    Raises:
        ContractError: a promise is broken; the message says which, with which input, and the remedy.
    """
    checks = _PosteriorChecks(posterior)
    checks.subject.require_class(Posterior)
    for given, train in _training_sets().items():
        checks.scores_responses(given, train)
    for check in (
        checks.repeats_itself,
        checks.scores_blocks_alike,
        checks.reads_features_from_disk,
        checks.fits_in_fleets,
        checks.keeps_failures_apart,
        checks.reports_divergence,
        checks.estimates_its_memory,
        checks.works_in_another_process,
    ):
        check()
    if accuracy is not None:
        checks.learns(accuracy)


def _training_sets() -> dict[str, LabelledPairs]:
    sets = {f"{n} labels": labelled_pairs(n) for n in (1, 2, 31, 33)}
    shares = labelled_pairs(20)
    shares.label_n[::2], shares.label_n[1::4] = 0.5, 0.25
    return sets | {"ties and shares of votes": shares, "one response feature": labelled_pairs(12, dimension=1)}


class _PosteriorChecks:
    """The promises of one posterior; each method checks one of them and raises ContractError."""

    def __init__(self, posterior: Posterior) -> None:
        self.subject, self.posterior = Subject(posterior), posterior
        self.train, self.validation = labelled_pairs(20, responses=700), labelled_pairs(10, seed=1)

    def fit(self, given: str, train: LabelledPairs, stream: Stream = STREAM) -> FittedPosterior:
        """Fit, and check that the data did not change."""
        validation = labelled_pairs(10, dimension=train.features_RD.shape[1], seed=1)
        before = fingerprint(train._asdict())
        model = self.subject.call(given, self.posterior.fit, train, validation, stream)
        after = fingerprint(train._asdict())
        changed = [name for name, value in after.items() if value != before[name]]
        self.subject.require(not changed, f"fit changes {', '.join(changed)} of the data", given, "work on a copy")
        return model

    def rewards(self, given: str, model: FittedPosterior, train: LabelledPairs) -> torch.Tensor:
        """Return the rewards after checking their shape and type."""
        rewards_KR = self.subject.call(given, sampled_rewards, model, train.features_RD)
        self.subject.require(
            rewards_KR.dtype == torch.float32 and len(rewards_KR) > 0,
            f"rewards_KR has the type {rewards_KR.dtype} and {len(rewards_KR)} samples",
            given,
            "return float32 rewards (K, R) with K of 1 or more",
        )
        return rewards_KR

    def embeddings(self, given: str, model: FittedPosterior, train: LabelledPairs) -> torch.Tensor:
        """Return the embeddings after checking their shape, type and values."""
        embedding_RH = self.subject.call(given, model.embedding_RH, train.features_RD)
        shape = tuple(embedding_RH.shape)
        self.subject.require(
            embedding_RH.dtype == torch.float32 and len(shape) == 2 and shape[0] == len(train.features_RD),
            f"embedding_RH has the type {embedding_RH.dtype} and the shape {shape}",
            given,
            "return float32 inputs of the last layer (R, H), one row per response",
        )
        self.subject.require(
            embedding_RH.isfinite().all(), "embedding_RH is not finite", given, "check the scale of the features"
        )
        return embedding_RH

    def scores_responses(self, given: str, train: LabelledPairs) -> None:
        model = self.fit(given, train)
        for method in (self.rewards, self.embeddings):
            first, second = (method(given, model, train) for _ in range(2))
            self.subject.require(
                same(first, second),
                f"{'rewards_KR' if method == self.rewards else 'embedding_RH'} differs from call to call",
                given,
                "draw samples in fit, once",
            )
        self._own_uncertainty(given, model, train)
        self._own_scale(given, model, train)

    def _own_scale(self, given: str, model: FittedPosterior, train: LabelledPairs) -> None:
        scale_n = self.subject.call(given, logit_scale, model, train.pairs())
        self.subject.require(
            scale_n is None or (scale_n.dtype == torch.float64 and tuple(scale_n.shape) == (len(train.label_n),)),
            "logit_scale_N has another type or shape than its distances",
            given,
            "return one float64 number per pair",
        )
        self.subject.require(
            scale_n is None or bool((scale_n.isfinite() & (scale_n > 0)).all()),
            "logit_scale_N returns factors that are not positive numbers",
            given,
            "bound the factors of small and of large distances",
        )

    def _own_uncertainty(self, given: str, model: FittedPosterior, train: LabelledPairs) -> None:
        if not isinstance(model, OwnEpistemic):
            return
        rewards_KR = self.rewards(given, model, train)
        own_N = self.subject.call(given, model.epistemic_N, train.features_RD, train.responses_n2, rewards_KR)
        low, high = model.epistemic_range
        self.subject.require(
            own_N.dtype == torch.float64 and tuple(own_N.shape) == (len(train.responses_n2),),
            f"epistemic_N has the type {own_N.dtype} and the shape {tuple(own_N.shape)}",
            given,
            "return one float64 number per pair",
        )
        self.subject.require(
            bool(((own_N >= low - 1e-6) & (own_N <= high + 1e-6)).all()),
            f"epistemic_N reaches from {float(own_N.min()):.6g} to {float(own_N.max()):.6g}",
            given,
            f"keep it within epistemic_range, which is [{low:.6g}, {high:.6g}]",
        )

    def repeats_itself(self) -> None:
        given = "the same data and stream twice, with another fit between the calls"
        first = self.rewards(given, self.fit(given, self.train), self.train)
        self.fit(given, labelled_pairs(9, seed=5), stream(4, "posterior", 1))
        self.subject.require(
            same(first, self.rewards(given, self.fit(given, self.train), self.train)),
            "gives two answers to the same data and stream",
            given,
            "draw all random numbers from the stream, and keep nothing between fits",
        )

    def scores_blocks_alike(self) -> None:
        given = f"700 responses, whole and in blocks of {BLOCK_ROWS}"
        model = self.fit(given, self.train)
        blocks = list(self.train.features_RD.split(BLOCK_ROWS))
        for name, axis in (("rewards_KR", 1), ("embedding_RH", 0)):
            score = getattr(model, name)
            whole = self.subject.call(given, score, self.train.features_RD)
            parts = torch.cat([self.subject.call(given, score, block) for block in blocks], dim=axis)
            self.subject.require(
                whole.shape == parts.shape and torch.allclose(whole, parts, rtol=1e-5, atol=1e-6),
                f"{name} of a response depends on the responses that are scored with it",
                given,
                "use only the features of the response itself",
            )

    def reads_features_from_disk(self) -> None:
        given = "the same features in memory and on disk"
        model = self.fit(given, self.train)
        with tempfile.TemporaryDirectory() as directory, small_blocks(self.train.features_RD.shape[1]):
            train = self.train._replace(features_RD=on_disk(self.train.features_RD, Path(directory)))
            streamed = self.fit(given, train)
            for name, score in scores_of(streamed, train).items():
                self.subject.require(
                    torch.allclose(score, scores_of(model, self.train)[name], rtol=1e-4, atol=1e-5),
                    f"{name} differs where features are read from disk",
                    given,
                    "read features by blocks or rows (features_RD.split(...), features_RD[rows])",
                )

    def fit_fleet(self, trains: list[LabelledPairs], streams: list[Stream]) -> list[FittedPosterior | Exception]:
        """Fit a fleet as a worker does: one cell after another on processors where fleets are not exact."""
        together = can_fit_together(self.posterior, self.train)
        return fit_cells(self.posterior, trains, self.validation, streams, together)

    def fits_in_fleets(self) -> None:
        given = "a fleet of three cells with 3, 20 and 11 labels"
        trains = [_first(self.train, n) for n in (3, 20, 11)]
        streams = [stream(seed, "posterior", 0) for seed in range(3)]
        models = self.subject.call(given, self.fit_fleet, trains, streams)
        self.subject.require(
            len(models) == 3, f"fit_fleet returns {len(models)} models", given, "return one model per cell, in order"
        )
        for number, (model, train, own) in enumerate(zip(models, trains, streams, strict=True)):
            alone = self.subject.call(given, self.posterior.fit, train, self.validation, own)
            self.subject.require(
                _same_predictions(model, alone, train),
                f"cell {number} has other rewards in a fleet than alone ({_error_of(model)})",
                given,
                "train each cell of a fleet with its own data and stream only",
            )

    def keeps_failures_apart(self) -> None:
        given = "a fleet in which the labels of cell 1 are NaN"
        broken = _first(self.train, 8)._replace(label_n=torch.full((8,), torch.nan))
        trains, streams = [self.train, broken], [stream(seed, "posterior", 0) for seed in range(2)]
        good, failed = self.subject.call(given, self.fit_fleet, trains, streams)
        alone = self.subject.call(given, self.posterior.fit, self.train, self.validation, streams[0])
        self.subject.require(
            isinstance(failed, Exception), f"cell 1 gives {failed!r}", given, "return the error of a fit that fails"
        )
        self.subject.require(
            _same_predictions(good, alone, self.train),
            f"the failure of a cell changes another cell ({_error_of(good)})",
            given,
            "continue with the other cells",
        )

    def reports_divergence(self) -> None:
        given = "features that are NaN"
        train = self.train._replace(features_RD=torch.full(self.train.features_RD.shape, torch.nan))
        try:
            self.fit(given, train)
        except ContractError as error:
            if isinstance(error.__cause__, DivergedError):
                return
            raise
        self.subject.require(False, "fits without an error", given, "raise DivergedError where the loss is not finite")

    def estimates_its_memory(self) -> None:
        estimate = self.subject.call("dimension 64", self.posterior.training_bytes, 64)
        self.subject.require(
            isinstance(estimate, int) and estimate > 0,
            f"training_bytes returns {estimate!r}",
            "dimension 64",
            "return a whole number of bytes",
        )

    def works_in_another_process(self) -> None:
        given = "20 labels"
        local = self.rewards(given, self.fit(given, self.train), self.train)
        remote = self.subject.call_in_another_process(
            given, _rewards_of_fit, self.train, labelled_pairs(10, seed=1), STREAM
        )
        self.subject.require(
            same(local, remote),
            "gives other rewards in another process",
            given,
            "draw random numbers from the stream only",
        )

    def learns(self, accuracy: float) -> None:
        given = "300 labels of a reward that is the first feature"
        train, test = labelled_pairs(300, responses=200), labelled_pairs(300, responses=200, seed=2)
        mean_R = self.rewards(given, self.fit(given, train), test).mean(dim=0)
        first_n = mean_R[test.responses_n2[:, 0]] > mean_R[test.responses_n2[:, 1]]
        reached = float((first_n.float() == test.label_n).float().mean())
        self.subject.require(
            reached >= accuracy,
            f"orders {reached:.0%} of new pairs correctly, less than {accuracy:.0%}",
            given,
            "check the direction of labels (1: the first is preferred), train longer, or pass another accuracy",
        )


def _first(pairs: LabelledPairs, n: int) -> LabelledPairs:
    return pairs._replace(responses_n2=pairs.responses_n2[:n], label_n=pairs.label_n[:n])


def _same_predictions(model: FittedPosterior | Exception, alone: FittedPosterior, pairs: LabelledPairs) -> bool:
    if isinstance(model, Exception):
        return False
    first, second = (m.rewards_KR(pairs.features_RD) for m in (model, alone))
    probabilities = pair_probability(model, pairs.pairs(), first), pair_probability(alone, pairs.pairs(), second)
    return same(first, second) and same(*probabilities)


def _error_of(model: FittedPosterior | Exception) -> str:
    return repr(model) if isinstance(model, Exception) else "no error"


def scores_of(model: FittedPosterior, pairs: LabelledPairs) -> dict[str, torch.Tensor]:
    """Return rewards, embeddings, mean probabilities and epistemic uncertainties of labelled pairs, by name."""
    rewards_KR = model.rewards_KR(pairs.features_RD)
    uncertainty = pair_uncertainty(model, pairs.pairs(), rewards_KR)
    return {
        "rewards_KR": rewards_KR,
        "embedding_RH": model.embedding_RH(pairs.features_RD),
        "mean_N": uncertainty.mean_N,
        "epistemic_N": uncertainty.epistemic_N,
    }


def _rewards_of_fit(
    posterior: Posterior, train: LabelledPairs, validation: LabelledPairs, stream: Stream
) -> torch.Tensor:
    return posterior.fit(train, validation, stream).rewards_KR(train.features_RD)


@contextmanager
def small_blocks(dimension: int) -> Iterator[None]:
    """Read features in blocks of few rows, so that a small table has several blocks."""
    bytes_a_block = BLOCK_ROWS * 4 * dimension
    with patch.object(blocks, "BLOCK_BYTES", bytes_a_block), patch.object(feature_table, "LEAST_ROWS", 1):
        yield
