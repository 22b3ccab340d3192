"""The latent variables of the simulated data set (prompts, responses, rewards) and the features made from them.

Every function is pure: its randomness comes from its stream argument. Axes: N pairs, R responses,
P prompts, T topics, L latent dimensions, D features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from balbench.harness.streams import Stream

Array = np.ndarray
WAVES = 256  # random waves of the reward field: enough that draws are about equally rough
LONGEST = 2.5  # standard deviations at which log-lengths are cut off, so that no single response is an outlier
SMALLEST_DISTANCE = 1e-9  # in typical distances; keeps factors of equal responses finite
MAP_BLOCK = 2**22  # features computed at once, which bounds the memory of temporary arrays


def zipf_weights(topics: int, exponent: float) -> Array:
    """Return the frequencies of T topics, proportional to rank ** -exponent (all equal for exponent 0)."""
    weight_T = np.arange(1, topics + 1, dtype=np.float64) ** -exponent
    return weight_T / weight_T.sum()


def topic_centres(topics: int, latent_dimension: int, stream: Stream) -> Array:
    """Return the (T, L) centres of topics, standard normal."""
    return stream.numpy().standard_normal((topics, latent_dimension))


def draw_prompts(weight_T: Array, centre_TL: Array, prompts: int, spread: float, stream: Stream) -> tuple[Array, Array]:
    """Return the topic of each prompt (P,) and its latent (P, L): the topic's centre plus spread x noise."""
    uniform_P = stream.child("topic").numpy().random(prompts)
    topic_P = np.minimum(np.searchsorted(np.cumsum(weight_T), uniform_P, side="right"), len(weight_T) - 1)
    noise_PL = stream.child("place").numpy().standard_normal((prompts, centre_TL.shape[1]))
    return topic_P, centre_TL[topic_P] + spread * noise_PL


def draw_pair_counts(pairs: int, prompts: int, tail: float, at_most: int, stream: Stream) -> Array:
    """Return how many pairs each prompt has: Pareto(tail) sizes, scaled so that they sum to `pairs`.

    Each count lies in [1, at_most]; the caller checks that prompts <= pairs <= prompts x at_most.
    """
    size_P = 1.0 + stream.numpy().pareto(tail, prompts)
    # A prompt gets its j-th pair when the scale reaches j / size; the pairs with the smallest scales are drawn.
    scale_PJ = np.arange(2, at_most + 1) / size_P[:, None]
    first = np.argsort(scale_PJ, axis=None, kind="stable")[: pairs - prompts]
    return 1 + np.bincount(first // max(1, at_most - 1), minlength=prompts)


def responses_needed(count_P: Array) -> Array:
    """Return the smallest number m of responses with enough pairs for each prompt: m (m - 1) / 2 >= count."""
    return np.ceil((1 + np.sqrt(1 + 8 * np.asarray(count_P, dtype=np.float64))) / 2).astype(np.int64)


def draw_pairs(count_P: Array, stream: Stream) -> tuple[Array, Array]:
    """Draw pairs of as few responses as possible.

    Returns:
        prompt_of_response_R, and responses_of_pair_N2 in random order without repeated pairs. Every response is in at
        least one pair.
    """
    needed_P = responses_needed(count_P)
    prompt_of_response_R = np.repeat(np.arange(len(count_P)), needed_P)
    start_P = np.cumsum(needed_P) - needed_P
    candidates = [_all_pairs(start_P[needed_P == m], m) for m in np.unique(needed_P)]
    pair_C2 = np.concatenate(candidates)
    key_C = stream.child("chosen").numpy().random(len(pair_C2))
    prompt_C = prompt_of_response_R[pair_C2[:, 0]]
    by_prompt = np.lexsort((key_C, prompt_C))
    of_prompt_P = needed_P * (needed_P - 1) // 2
    rank_C = np.arange(len(pair_C2)) - np.repeat(np.cumsum(of_prompt_P) - of_prompt_P, of_prompt_P)
    chosen = by_prompt[rank_C < np.repeat(count_P, of_prompt_P)]
    pair_N2 = pair_C2[chosen[np.argsort(stream.child("order").numpy().random(len(chosen)), kind="stable")]]
    swap_N = stream.child("shown").numpy().random(len(pair_N2)) < 0.5
    return prompt_of_response_R, np.where(swap_N[:, None], pair_N2[:, ::-1], pair_N2)


def _all_pairs(start_S: Array, responses: int) -> Array:
    first, second = np.triu_indices(responses, k=1)
    return np.stack([start_S[:, None] + first, start_S[:, None] + second], axis=-1).reshape(-1, 2)


def draw_offsets(prompt_of_response_R: Array, latent_dimension: int, near_ties: float, stream: Stream) -> Array:
    """Return the (R, L) latent offsets of responses: mean square 1, log-normal lengths.

    Half of the variance of the log-length is shared by the responses of a prompt (all similar or all different), half
    is the response's own.
    """
    from scipy.special import ndtr

    prompts = int(prompt_of_response_R.max()) + 1
    of_prompt_P = stream.child("prompt length").numpy().standard_normal(prompts)
    of_response_R = stream.child("response length").numpy().standard_normal(len(prompt_of_response_R))
    normal_R = np.minimum(np.sqrt(0.5) * (of_prompt_P[prompt_of_response_R] + of_response_R), LONGEST)
    mean_square = np.exp(2 * near_ties**2) * ndtr(LONGEST - 2 * near_ties)
    mean_square += np.exp(2 * near_ties * LONGEST) * ndtr(-LONGEST)
    length_R = np.exp(near_ties * normal_R) / np.sqrt(mean_square)
    direction_RL = stream.child("direction").numpy().standard_normal((len(length_R), latent_dimension))
    return length_R[:, None] * direction_RL


def draw_log_perplexities(offset_RL: Array, stream: Stream) -> Array:
    """Return simulated log-perplexities (R,) in nats: 2 + |u| / (2 sqrt(L)) + noise / 4, at least 0.

    They increase with the length of a response's offset and are independent of its reward.
    """
    length_R = np.linalg.norm(offset_RL, axis=1) / np.sqrt(offset_RL.shape[1])
    noise_R = stream.numpy().standard_normal(len(offset_RL))
    return np.maximum(2 + length_R / 2 + noise_R / 4, 0).astype(np.float32)


@dataclass(frozen=True, eq=False)
class RewardField:
    """The true reward: at each place in prompt space, the direction along which responses get better.

    Attributes:
        shared_L: the unit direction that is the same everywhere.
        wave_LW: frequencies of the waves whose sum is the local direction.
        phase_W: their phases.
        wave_direction_WL: the direction that each wave adds.
        local: share of the local direction in the squared length, in [0, 1].
    """

    shared_L: Array
    wave_LW: Array
    phase_W: Array
    wave_direction_WL: Array
    local: float

    @classmethod
    def draw(cls, latent_dimension: int, local: float, reach: float, stream: Stream) -> RewardField:
        """Draw a field whose local directions agree over distances well below `reach`."""
        shared_L = stream.child("shared").numpy().standard_normal(latent_dimension)
        return cls(
            shared_L=shared_L / np.linalg.norm(shared_L),
            wave_LW=stream.child("waves").numpy().standard_normal((latent_dimension, WAVES)) / reach,
            phase_W=stream.child("phases").numpy().uniform(0, 2 * np.pi, WAVES),
            wave_direction_WL=stream.child("wave directions").numpy().standard_normal((WAVES, latent_dimension)),
            local=local,
        )

    def directions_PL(self, prompt_PL: Array) -> Array:
        """Return (P, L) directions: sqrt(1 - local) shared + sqrt(local) x the unit vector of the local direction."""
        field_PL = np.cos(prompt_PL @ self.wave_LW + self.phase_W) @ self.wave_direction_WL
        unit_PL = field_PL / np.linalg.norm(field_PL, axis=1, keepdims=True)
        return np.sqrt(1 - self.local) * self.shared_L + np.sqrt(self.local) * unit_PL

    def rewards_R(self, prompt_PL: Array, prompt_of_response_R: Array, offset_RL: Array) -> Array:
        """Return the reward of each response: its offset along the direction at its prompt."""
        return np.einsum("rl,rl->r", self.directions_PL(prompt_PL)[prompt_of_response_R], offset_RL)


def pair_distances(offset_RL: Array, responses_of_pair_N2: Array) -> Array:
    """Return the distance |u1 - u2| between the offsets of each pair's responses (N,)."""
    return np.linalg.norm(offset_RL[responses_of_pair_N2[:, 0]] - offset_RL[responses_of_pair_N2[:, 1]], axis=1)


def signal_at_distance(gap_N: Array, distance_N: Array, typical: float, exponent: float) -> Array:
    """Return gap (distance / typical)^(exponent - 1): the difference that annotators perceive.

    A gap is proportional to the distance of the two responses, so the result grows with distance^exponent. Exponent 1
    returns the gaps themselves.
    """
    if exponent == 1:
        return gap_N
    relative_N = np.maximum(distance_N / typical, SMALLEST_DISTANCE)
    return gap_N * relative_N ** (exponent - 1)


def vote_probability(gap_N: Array, temperature: float) -> Array:
    """Return the probability of a vote for the first response, sigmoid(gap / temperature)."""
    # Workers import this module for the settings of a data set only, and scipy.special takes 0.2 s to import.
    from scipy.special import expit

    return expit(gap_N / temperature)


def agreement(gap_N: Array, temperature: float) -> float:
    """Return how often two annotators agree: mean p^2 + (1 - p)^2 with p from `vote_probability`."""
    p_N = vote_probability(gap_N, temperature)
    return float(np.mean(p_N**2 + (1 - p_N) ** 2))


def calibrate_temperature(gap_N: Array, target: float) -> float:
    """Return the temperature at which two annotators agree on a share `target` of these pairs.

    Agreement falls with temperature from 1 to 1/2, so bisection of the log-temperature finds the only solution.
    """
    scale = float(np.sqrt(np.mean(gap_N**2)))
    low, high = np.log(scale) - 20, np.log(scale) + 20
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if agreement(gap_N, np.exp(middle)) > target else (low, middle)
    return float(np.exp((low + high) / 2))


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """A fixed smooth random map from latents to features of about unit scale, like those of an encoder.

    Attributes:
        linear_LD: the affine part's matrix.
        offset_D: its offset.
        wave_LD: frequencies of the sines.
        phase_D: their phases.
        nonlinearity: the sines' share of the variance, in [0, 1].
    """

    linear_LD: Array
    offset_D: Array
    wave_LD: Array
    phase_D: Array
    nonlinearity: float

    @classmethod
    def draw(cls, latent_dimension: int, dimension: int, nonlinearity: float, stream: Stream) -> FeatureMap:
        """Draw a map. A larger `dimension` adds features and does not change the others."""
        shape = (dimension, latent_dimension)
        scale = latent_dimension**-0.5
        return cls(
            linear_LD=stream.child("linear").numpy().standard_normal(shape).T * scale,
            offset_D=0.5 * stream.child("offset").numpy().standard_normal(dimension),
            wave_LD=stream.child("waves").numpy().standard_normal(shape).T * scale,
            phase_D=stream.child("phases").numpy().uniform(0, 2 * np.pi, dimension),
            nonlinearity=nonlinearity,
        )

    def features(self, latent_RL: Array) -> Array:
        """Return (R, D) float32 features of (R, L) latents."""
        latent_RL = latent_RL.astype(np.float32)
        affine_LD = np.float32(np.sqrt(1 - self.nonlinearity)) * self.linear_LD.astype(np.float32)
        wave_LD, phase_D = self.wave_LD.astype(np.float32), self.phase_D.astype(np.float32)
        offset_D = self.offset_D.astype(np.float32)
        height = np.float32(np.sqrt(2 * self.nonlinearity))
        features_RD = np.empty((len(latent_RL), len(offset_D)), dtype=np.float32)
        block = max(1, MAP_BLOCK // len(offset_D))
        for start in range(0, len(latent_RL), block):
            rows = slice(start, start + block)
            features_RD[rows] = np.sin(latent_RL[rows] @ wave_LD + phase_D)
            features_RD[rows] *= height
            features_RD[rows] += latent_RL[rows] @ affine_LD + offset_D
        return features_RD
