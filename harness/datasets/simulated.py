"""A simulated world of prompts, responses and annotators, with the properties that help or hinder active learning.

docs/simulated_world.md has the formulas and the measured effect of each setting.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from balbench.harness.datasets import world
from balbench.harness.datasets.dataset import Dataset, Progress
from balbench.harness.errors import DataError
from balbench.harness.machine import gib, one_thread, usable_memory
from balbench.harness.metrics import held_out_metrics
from balbench.harness.pool.contents import Contents, Sizes
from balbench.harness.pool.pairs import PreferenceData, PreferencePool, Split
from balbench.harness.streams import Stream, stream
from balbench.oracles.annotations import Choice, PairRecords

Array = np.ndarray
BEST_POSSIBLE = "best possible"
HELD_OUT = ("eval", "test", "ood")


@dataclass(frozen=True, eq=False)
class LatentSplit:
    """The latent variables of the pairs of one split; policies and posteriors never see them.

    Attributes:
        topic_P: the topic of each prompt; topics from `topics` on do not occur in the pool.
        prompt_PL: latents z of the prompts.
        offset_RL: latent offsets u of the responses.
        reward_R: their true rewards.
        prompt_of_response_R: the prompt that each response answers.
        responses_of_pair_N2: the two responses of each pair, in the order shown.
    """

    topic_P: Array
    prompt_PL: Array
    offset_RL: Array
    reward_R: Array
    prompt_of_response_R: Array
    responses_of_pair_N2: Array

    @cached_property
    def gap_N(self) -> Array:
        """The reward of each pair's first response minus that of its second."""
        return self.reward_R[self.responses_of_pair_N2[:, 0]] - self.reward_R[self.responses_of_pair_N2[:, 1]]

    @cached_property
    def distance_N(self) -> Array:
        """The distance between the offsets of each pair's responses."""
        return world.pair_distances(self.offset_RL, self.responses_of_pair_N2)


class Simulated(Dataset):
    """A simulated world with the splits `pool`, `eval`, `test` (new prompts from the pool's distribution) and `ood`.

    All draws come from named streams of `data_seed`; each pair has one recorded vote and its true probability.
    """

    version: ClassVar[int] = 3
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {},  # the defaults
        "tldr_like": {
            "pool_pairs": 92_000,
            "pool_prompts": 14_700,
            "eval_pairs": 5_000,
            "test_pairs": 20_000,
            "ood_pairs": 10_000,
            "dimension": 384,
        },
        # All 15 pairs of 6 responses to each prompt, in every split: pairs = prompts x max_pairs_per_prompt.
        "duels": {
            "pool_pairs": 9_000,
            "pool_prompts": 600,
            "eval_pairs": 1_005,
            "test_pairs": 2_010,
            "ood_pairs": 2_010,
            "max_pairs_per_prompt": 15,
        },
    }

    pool_pairs: int = Field(5_000, ge=2, le=10**9)
    """Number of pairs in the pool."""
    pool_prompts: int = Field(800, ge=1, le=10**9)
    """Number of prompts in the pool."""
    eval_pairs: int = Field(1_000, ge=1, le=10**9)
    """Number of pairs for model selection."""
    test_pairs: int = Field(2_000, ge=1, le=10**9)
    """Number of test pairs, on new prompts drawn as those of the pool."""
    ood_pairs: int = Field(2_000, ge=1, le=10**9)
    """Number of test pairs on other topics, all equally frequent."""

    topics: int = Field(60, ge=1, le=10**6)
    """Number of topics in the pool."""
    zipf: float = Field(1.2, ge=0, le=5)
    """Exponent of topic frequencies, rank ** -zipf; 0 makes all topics equally frequent."""
    spread: float = Field(0.3, ge=0, le=10)
    """Distance of prompts from the centre of their topic; a small spread makes prompts redundant."""
    pairs_tail: float = Field(1.2, gt=0, le=20)
    """Pareto exponent of the number of pairs of a prompt; with a small exponent a few prompts have most pairs."""
    max_pairs_per_prompt: int = Field(40, ge=1, le=1_000)
    """Largest number of pairs of a prompt."""
    ood_unseen: float = Field(0.5, ge=0, le=1)
    """Share of the ood topics that do not occur in the pool."""

    local: float = Field(0.2, ge=0, le=1)
    """Share of the reward's direction that differs between places in prompt space."""
    reach: float = Field(4.0, gt=0, le=100)
    """Distance in prompt space over which the local direction of the reward changes."""
    near_ties: float = Field(1.0, ge=0, le=3)
    """Log-normal sigma of the lengths of response offsets; a large value makes many near-ties."""
    distance_exponent: float = Field(1.0, ge=-1, le=2)
    """Power of the distance between two responses with which the signal in votes grows. At 1, the form of all reward
    models, distant pairs are clear-cut; at 0 votes on distant pairs are as noisy as votes on near pairs."""
    agreement: float = Field(0.73, ge=0.51, le=0.99)
    """How often two annotators agree, which determines the temperature."""
    temperature: float | None = Field(None, gt=0)
    """Temperature of votes in units of reward; if it is given, `agreement` is ignored."""

    latent_dimension: int = Field(12, ge=1, le=1_000)
    """L: dimensions of prompt space and of response space."""
    dimension: int = Field(64, ge=1, le=10**6)
    """D: number of features of a response."""
    prompt_dimension: int | None = Field(None, ge=1, le=10**6)
    """Q: number of features of a prompt; D if it is not given."""
    nonlinearity: float = Field(0.3, ge=0, le=1)
    """Share of sine waves in the variance of features; the rest is affine."""

    @model_validator(mode="after")
    def _pairs_fit_prompts(self) -> Simulated:
        most = self.pool_prompts * self.max_pairs_per_prompt
        if not self.pool_prompts <= self.pool_pairs <= most:
            raise ValueError(
                f"pool_pairs is {self.pool_pairs}, but {self.pool_prompts} prompts with 1 to "
                f"{self.max_pairs_per_prompt} pairs each have {self.pool_prompts} to {most} pairs; "
                "change pool_pairs, pool_prompts or max_pairs_per_prompt"
            )
        return self

    @one_thread()
    def build(self, progress: Progress) -> PreferenceData:
        """Draw the world and its splits."""
        latents = {name: self.latent_split(name) for name in ("pool", *HELD_OUT)}
        typical = float(latents["pool"].distance_N.mean())
        signals = {
            name: world.signal_at_distance(latent.gap_N, latent.distance_N, typical, self.distance_exponent)
            for name, latent in latents.items()
        }
        temperature = self.temperature or world.calibrate_temperature(signals["pool"], self.agreement)
        splits = {}
        for done, (name, latent) in enumerate(latents.items()):
            progress("simulate", done, len(latents))
            splits[name] = self._split(name, latent, world.vote_probability(signals[name], temperature))
        progress("simulate", len(latents), len(latents))
        truth = {
            name: held_out_metrics(
                np.asarray(split.records.probability_N), split.records.first_share_N, split.pairs.prompt_of_pair_N
            )
            for name, split in splits.items()
        }
        return PreferenceData(splits, {BEST_POSSIBLE: truth})

    def sizes(self) -> Sizes:
        """Count pairs, prompts and responses (see `Dataset.sizes`).

        Raises:
            DataError: the world does not fit into memory.
        """
        pairs, prompts = self._size("pool")
        most_prompts = max(self._size(name)[1] for name in ("pool", *HELD_OUT))
        table = 16 * most_prompts * self.max_pairs_per_prompt  # bytes that `draw_pair_counts` allocates
        self._check_memory(table, "drawing the pairs", "the numbers of pairs and prompts")
        responses = self.responses()
        pool = responses.pop("pool")
        most = int(self._pair_counts("pool").max())
        sizes = Sizes(
            pairs, pool, prompts, sum(responses.values()), self.dimension, most, eval_pairs=self._size("eval")[0]
        )
        self._check_memory(sizes.bytes, "the features", "dataset.dimension or the numbers of pairs")
        return sizes

    def responses(self) -> dict[str, int]:
        """Count the responses of each split."""
        return {name: int(world.responses_needed(self._pair_counts(name)).sum()) for name in ("pool", *HELD_OUT)}

    def _check_memory(self, needed: int, purpose: str, settings: str) -> None:
        if needed > (usable := usable_memory()):
            raise DataError(
                f"dataset: {purpose} would take {gib(needed)} of memory, of {gib(usable)}; lower {settings}"
            )

    def contents(self) -> Contents:
        """Describe the data set before it is built (see `Dataset.contents`)."""
        return Contents(("pool", *HELD_OUT), frozenset({"response_log_perplexity_R"}))

    def _pair_counts(self, name: str) -> Array:
        counts = self._stream(name).child("counts")
        return world.draw_pair_counts(*self._size(name), self.pairs_tail, self.max_pairs_per_prompt, counts)

    def latent_split(self, name: str) -> LatentSplit:
        """Draw the latents of the split `name`, which tests and figures compare with the features."""
        part = self._stream(name)
        _, prompts = self._size(name)
        weight_T, centre_TL = self._topics(ood=name == "ood")
        topic_P, prompt_PL = world.draw_prompts(weight_T, centre_TL, prompts, self.spread, part.child("prompts"))
        count_P = self._pair_counts(name)
        prompt_of_response_R, responses_of_pair_N2 = world.draw_pairs(count_P, part.child("pairs"))
        offset_RL = world.draw_offsets(
            prompt_of_response_R, self.latent_dimension, self.near_ties, part.child("responses")
        )
        reward_field = world.RewardField.draw(self.latent_dimension, self.local, self.reach, self._stream("taste"))
        return LatentSplit(
            topic_P=topic_P,
            prompt_PL=prompt_PL,
            offset_RL=offset_RL,
            reward_R=reward_field.rewards_R(prompt_PL, prompt_of_response_R, offset_RL),
            prompt_of_response_R=prompt_of_response_R,
            responses_of_pair_N2=responses_of_pair_N2,
        )

    def _stream(self, *names: str) -> Stream:
        return stream(self.data_seed, "world", *names)

    def _size(self, name: str) -> tuple[int, int]:
        # The ratio of prompts to pairs is the same in all splits.
        pairs = int(getattr(self, f"{name}_pairs"))
        least = -(-pairs // self.max_pairs_per_prompt)
        prompts = max(1, least, round(pairs * self.pool_prompts / self.pool_pairs))
        return pairs, self.pool_prompts if name == "pool" else prompts

    def _topics(self, *, ood: bool) -> tuple[Array, Array]:
        """Return frequencies and centres of the topics; in ood, unseen topics come after the topics of the pool."""
        centre_TL = world.topic_centres(self.topics, self.latent_dimension, self._stream("topics"))
        if not ood:
            return world.zipf_weights(self.topics, self.zipf), centre_TL
        unseen_TL = world.topic_centres(self.topics, self.latent_dimension, self._stream("ood topics"))
        seen_T = np.full(self.topics, (1 - self.ood_unseen) / self.topics)
        unseen_T = np.full(self.topics, self.ood_unseen / self.topics)
        return np.concatenate([seen_T, unseen_T]), np.concatenate([centre_TL, unseen_TL])

    def _split(self, name: str, latent: LatentSplit, probability_N: Array) -> Split:
        pair_id_N = np.array([f"{name}-{row:06d}" for row in range(len(latent.responses_of_pair_N2))])
        pairs = PreferencePool(
            response_features_RD=self._response_features(latent),
            prompt_features_PQ=self._prompt_features(latent),
            prompt_of_response_R=latent.prompt_of_response_R,
            responses_of_pair_N2=latent.responses_of_pair_N2,
            pair_id_N=pair_id_N,
            response_log_perplexity_R=world.draw_log_perplexities(
                latent.offset_RL, self._stream(name).child("perplexity")
            ),
        )
        return Split(pairs, self._records(name, pair_id_N, probability_N))

    def _response_features(self, latent: LatentSplit) -> Array:
        feature_map = world.FeatureMap.draw(
            2 * self.latent_dimension, self.dimension, self.nonlinearity, self._stream("response lift")
        )
        prompt_RL = latent.prompt_PL[latent.prompt_of_response_R]
        return feature_map.features(np.concatenate([prompt_RL, latent.offset_RL], axis=1))

    def _prompt_features(self, latent: LatentSplit) -> Array:
        dimension = self.prompt_dimension or self.dimension
        source = self._stream("prompt lift")
        feature_map = world.FeatureMap.draw(self.latent_dimension, dimension, self.nonlinearity, source)
        return feature_map.features(latent.prompt_PL)

    def _records(self, name: str, pair_id_N: Array, probability_N: Array) -> PairRecords:
        first_N = self._stream(name, "votes").numpy().random(len(pair_id_N)) < probability_N
        return PairRecords(
            pair_id_N=pair_id_N,
            vote_pair_V=np.arange(len(pair_id_N)),
            vote_choice_V=np.where(first_N, Choice.FIRST, Choice.SECOND).astype(np.int8),
            vote_annotator_V=np.full(len(pair_id_N), ""),
            probability_N=probability_N,
        )
