"""Dueling bandits: choose a prompt, then the two of its responses to compare.

The rules are for prompts with several responses (harness/pool/duels.py). A batch is filled in passes. A pass visits
prompts in random order and takes one duel from each; if the batch needs more duels than there are prompts with
unlabelled duels, another pass follows. If each prompt has two responses, all rules choose the same pairs in a pass.

r_k are the posterior's reward samples, m is their mean, and s their standard deviation (ddof 1; 0 for a single sample).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from balbench.harness.errors import DataError
from balbench.harness.policies.policy import Array, Policy, PoolView, Selection, check_range
from balbench.harness.pool.contents import Contents
from balbench.harness.pool.duels import DuelPool, Duels, Segments
from balbench.harness.streams import Stream

# A rule takes unlabelled duels and a random generator, and returns a pair and its score for each prompt of the duels.
Rule = Callable[[Duels, np.random.Generator], tuple[Array, Array]]


class _Dueling(Policy):
    """One duel of each prompt, chosen by the rule of a subclass.

    Ties go to the first duel in the order of identifiers. Noise is drawn for the whole pool, so that a draw depends
    neither on the storage order, nor on the batch size, nor on the other unlabelled pairs.
    """

    family: ClassVar[str] = "dueling"
    cost: ClassVar[str] = "N"

    prompts: Literal["random", "uncertain"] = "random"
    """`random` visits prompts in random order; `uncertain` in the order of their largest epistemic uncertainty."""

    @abstractmethod
    def _rule(self, view: PoolView) -> Rule:
        """Return the rule of this round."""

    def check_data(self, contents: Contents) -> None:
        """Check that some prompt has several pairs to choose from (errors as in `Policy.check_data`)."""
        if contents.most_pairs_a_prompt is not None and contents.most_pairs_a_prompt < 2:
            raise DataError(
                "every prompt of the pool has one pair, so there is no duel to choose; remove the policy, or give"
                " data with several pairs of a prompt"
            )

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Fill a batch in passes; the diagnostic `passes` is their number."""
        rule, uncertainty_N = self._rule(view), self._uncertainty_N(view)
        left = view.index.duels.open_duels(view.unlabelled_U)
        pairs: list[int] = []
        scores: list[float] = []
        passes = 0
        while len(pairs) < batch_size:
            rng = stream.child("pass", passes).numpy()
            noise_P = rng.random(view.index.duels.prompts)
            order = self._prompt_order(left, noise_P, uncertainty_N)[: batch_size - len(pairs)]
            turn_P = np.full(len(noise_P), -1)
            turn_P[order] = np.arange(len(order))
            chosen = left.where(turn_P[left.prompt_E] >= 0)
            pair_S, score_S = rule(chosen, rng)
            by_turn = np.argsort(turn_P[chosen.by_prompt.label_S])
            pairs.extend(pair_S[by_turn].tolist())
            scores.extend(score_S[by_turn].tolist())
            left = left.where(~np.isin(left.pair_E, pair_S))
            passes += 1
        return Selection(np.array(pairs), np.array(scores), {"passes": float(passes)})

    def _uncertainty_N(self, view: PoolView) -> Array | None:
        return _of_pairs(view, view.epistemic_U) if self.prompts == "uncertain" else None

    def _prompt_order(self, left: Duels, noise_P: Array, uncertainty_N: Array | None) -> Array:
        prompts = left.by_prompt.label_S
        if uncertainty_N is None:
            return prompts[np.argsort(noise_P[prompts], kind="stable")]
        return prompts[np.argsort(-left.by_prompt.max(uncertainty_N[left.pair_E]), kind="stable")]


class _BestDuel(_Dueling):
    """The duel with the highest value."""

    @abstractmethod
    def _value_E(self, view: PoolView) -> Array:
        """Return the value of every duel of the pool."""

    def _rule(self, view: PoolView) -> Rule:
        value_E = self._value_E(view)

        def rule(duels: Duels, rng: np.random.Generator) -> tuple[Array, Array]:
            at_S = duels.by_prompt.argmax(value_E[duels.number_E])
            return duels.pair_E[at_S], value_E[duels.number_E[at_S]]

        return rule


class Infomax(_BestDuel):
    """For each prompt the pair on which the posterior samples disagree most: argmax Var_k sigmoid(r_k,i - r_k,j)."""

    source: ClassVar[str] = "Dwaracherla et al. 2024 (2402.00396) infomax"
    score_range: ClassVar[tuple[float, float]] = (0.0, 0.25)

    def _value_E(self, view: PoolView) -> Array:
        return _of_pairs(view, view.score_U("variance"))[view.index.duels.duels.pair_E]


class DeltaUcb(_BestDuel):
    """For each prompt the pair with the largest optimistic reward gap: argmax (m_i + beta s_i) - (m_j - beta s_j)."""

    source: ClassVar[str] = "Melikidze et al. 2026 (2603.09692) DeltaUCB"

    beta: float = Field(1.0, ge=0)
    """Half-width of the bounds, in standard deviations of the reward."""

    def _value_E(self, view: PoolView) -> Array:
        duels = view.index.duels.duels
        mean_A, std_A = _mean_and_std(view)
        upper_A: Array = mean_A + self.beta * std_A
        return upper_A[duels.leader_E] - (mean_A - self.beta * std_A)[duels.partner_E]


class MaxMinLcb(_Dueling):
    """For each prompt a game: the leader i maximises the lower confidence bound that the follower j minimises.

    An arm i is plausible if UCB(i, j) >= 0 for all arms j with which i has a recorded pair. The game is
    argmax_i min_j LCB(i, j) over the unlabelled pairs of two plausible arms. If there are none, the game is over the
    unlabelled pairs with a plausible leader, and if there are none either, over all unlabelled pairs.
    """

    source: ClassVar[str] = "Pasztor et al. 2024 (2406.16745) MaxMinLCB"

    beta: float = Field(1.0, ge=0)
    """Half-width of the bounds, in standard deviations."""
    bounds: Literal["rewards", "pairs"] = "rewards"
    """`rewards` (Melikidze et al. 2026): m_i - m_j -+ beta (s_i + s_j). `pairs` (Pasztor et al.): mean minus 1/2 and
    standard deviation of sigmoid(r_k,i - r_k,j)."""

    def _rule(self, view: PoolView) -> Rule:
        pool = view.index.duels
        centre_E, width_E = self._centre_and_width(view)
        upper_E, lower_E = centre_E + self.beta * width_E, centre_E - self.beta * width_E
        plausible_A = pool.duels.by_leader.min(upper_E) >= 0  # every arm is the leader of some duel
        # 2: both arms are plausible, 1: only the leader is, 0: the leader is not.
        level_E = plausible_A[pool.duels.leader_E] * (1 + plausible_A[pool.duels.partner_E])

        def rule(duels: Duels, rng: np.random.Generator) -> tuple[Array, Array]:
            level = level_E[duels.number_E]
            game = duels.where(level == duels.by_prompt.spread(duels.by_prompt.max(level)))
            lower = lower_E[game.number_E]
            reply = game.by_leader.argmax(-lower)
            at_S = reply[Segments(game.prompt_E[reply]).argmax(lower[reply])]
            return game.pair_E[at_S], lower[at_S]

        return rule

    def _centre_and_width(self, view: PoolView) -> tuple[Array, Array]:
        duels = view.index.duels.duels
        if self.bounds == "rewards":
            mean_A, std_A = _mean_and_std(view)
            return mean_A[duels.leader_E] - mean_A[duels.partner_E], std_A[duels.leader_E] + std_A[duels.partner_E]
        probability_KN = view.probability_Kn(np.arange(len(view.pool)))
        centre_N = (probability_KN.mean(dim=0) - 0.5).cpu().numpy()
        width_N = _std(probability_KN.cpu().numpy())
        leads_E = view.pool.responses_of_pair_N2[duels.pair_E, 0] == view.index.duels.response_A[duels.leader_E]
        return np.where(leads_E, centre_N[duels.pair_E], -centre_N[duels.pair_E]), width_N[duels.pair_E]


class DoubleThompson(_Dueling):
    """For each prompt the best responses of two posterior draws; the second draw is repeated until they differ.

    i maximises the first draw over the arms with an unlabelled duel. j maximises the second draw over i and the arms
    with which i has an unlabelled duel. While j = i, the second draw is repeated, at most `tries` times in total; after
    that, j is drawn at random from these arms. The score is the gap r_i - r_j of the first draw.
    """

    source: ClassVar[str] = "Dwaracherla et al. 2024 (2402.00396) double Thompson sampling"
    score_range: ClassVar[tuple[float, float]] = (0.0, np.inf)
    second_sign: ClassVar[float] = 1.0  # -1: the second response is the worst of its draw

    draws: Literal["posterior", "interval"] = "posterior"
    """`posterior` draws a posterior sample for each prompt (Dwaracherla et al.). `interval` draws m + beta z s for each
    response, with z uniform in (-1, 1) (Melikidze et al. 2026)."""
    beta: float = Field(1.0, ge=0)
    """Half-width of `interval`, in standard deviations of the reward."""
    tries: int = Field(30, ge=1, le=1000)
    """Largest number of second draws before the second response is chosen at random."""

    def _rule(self, view: PoolView) -> Rule:
        draw = self._draw(view)
        prompts = view.index.duels.prompts

        def rule(duels: Duels, rng: np.random.Generator) -> tuple[Array, Array]:
            first_A, lot_P = draw(rng), rng.random(prompts)
            leader_S = duels.leader_E[duels.by_prompt.argmax(first_A[duels.leader_E])]
            own = duels.where(duels.leader_E == duels.by_prompt.spread(leader_S))
            at_S = own.by_prompt.start_S + _pick(lot_P[own.by_prompt.label_S], own.by_prompt.size_S)
            open_S = np.ones(len(at_S), dtype=bool)
            for _ in range(self.tries):
                second_A = self.second_sign * draw(rng)
                best_S = own.by_prompt.argmax(second_A[own.partner_E])
                differs_S = open_S & (second_A[own.partner_E[best_S]] > second_A[leader_S])
                at_S[differs_S] = best_S[differs_S]
                open_S &= ~differs_S
                if not open_S.any():
                    break
            score_S = first_A[leader_S] - first_A[own.partner_E[at_S]]
            check_range(score_S, self.score_range)
            return own.pair_E[at_S], score_S

        return rule

    def _draw(self, view: PoolView) -> Callable[[np.random.Generator], Array]:
        """Return a function that draws a reward for every arm, float64 (A,)."""
        pool: DuelPool = view.index.duels
        if self.draws == "interval":
            mean_A, std_A = _mean_and_std(view)
            return lambda rng: mean_A + self.beta * (2 * rng.random(len(mean_A)) - 1) * std_A
        rewards_KA = _rewards_KA(view)
        arms = np.arange(len(pool.response_A))
        return lambda rng: rewards_KA[_pick(rng.random(pool.prompts), len(rewards_KA))[pool.prompt_A], arms]


class Drts(DoubleThompson):
    """For each prompt the best response of one draw and the worst of another (double reverse Thompson sampling)."""

    source: ClassVar[str] = "Melikidze et al. 2026 (2603.09692) DRTS"
    second_sign: ClassVar[float] = -1.0

    draws: Literal["posterior", "interval"] = "interval"
    """`interval` draws m + beta z s for each response, with z uniform in (-1, 1). `posterior` draws a posterior sample
    for each prompt."""


def _of_pairs(view: PoolView, value_U: Array) -> Array:
    """Return values of all pairs (N,): the given values of unlabelled pairs, and 0 for the others."""
    value_N = np.zeros(len(view.pool))
    value_N[view.unlabelled_U] = value_U
    return value_N


def _rewards_KA(view: PoolView) -> Array:
    """Return the reward samples of the arms, float64 (K, A)."""
    rewards_KA: Array = view.rewards_KR.cpu().numpy()[:, view.index.duels.response_A].astype(np.float64)
    return rewards_KA


def _mean_and_std(view: PoolView) -> tuple[Array, Array]:
    rewards_KA = _rewards_KA(view)
    return rewards_KA.mean(axis=0), _std(rewards_KA)


def _std(value_Kn: Array) -> Array:
    """Return the standard deviation over samples (ddof 1); 0 for a single sample."""
    return value_Kn.std(axis=0, ddof=1) if len(value_Kn) > 1 else np.zeros(value_Kn.shape[1])


def _pick(uniform_n: Array, count: Array | int) -> Array:
    """Transform uniform noise in [0, 1) to integers below `count`."""
    picked: Array = np.minimum(np.floor(uniform_n * count).astype(np.int64), np.asarray(count) - 1)
    return picked
