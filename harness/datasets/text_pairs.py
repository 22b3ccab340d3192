"""Gather votes into tables of prompts, responses and pairs: texts without features."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from balbench.harness.datasets.messages import show
from balbench.harness.datasets.text_column import TextColumn
from balbench.harness.datasets.votes import ReadFacts, Votes
from balbench.harness.streams import Stream
from balbench.oracles.annotations import Choice

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class TextPairs:
    """Prompts, responses, pairs and votes.

    Axes: N pairs, R responses, P prompts, V votes (votes on the same pair are adjacent, in the order of the file).

    Attributes:
        prompt_P: distinct prompts, in the order of their first appearance.
        response_R: distinct responses to each prompt, in the order of their first appearance.
        prompt_of_response_R: the prompt that each response answers.
        responses_of_pair_N2: the two responses of each pair, in the order shown (first, second).
        pair_id_N: 16 hexadecimal digits that depend on the pair's three texts only, in either order.
        vote_pair_V: the pair of each vote, ascending.
        vote_choice_V: int8 `Choice` values.
        vote_annotator_V: the annotator of each vote ("" if unknown).
        ood_P: whether any row of the prompt matched the `OodRule`.
        test_P: whether any row of the prompt belongs to the split `test`.
        facts: how the rows were read.
        group_keys: the group keys that rows give to prompts, as (prompt, key); None if rows have none.
        vote_strength_V: recorded strength of each vote, NaN if unknown; None if the file has none.
        vote_seconds_V: recorded seconds of each vote, NaN if unknown; None if the file has none.
        vote_price_V: recorded price of each vote, NaN if unknown; None if the file has none.
    """

    prompt_P: TextColumn
    response_R: TextColumn
    prompt_of_response_R: Array
    responses_of_pair_N2: Array
    pair_id_N: Array
    vote_pair_V: Array
    vote_choice_V: Array
    vote_annotator_V: Array
    ood_P: Array
    test_P: Array
    facts: ReadFacts
    group_keys: tuple[tuple[int, str], ...] | None = None
    vote_strength_V: Array | None = None
    vote_seconds_V: Array | None = None
    vote_price_V: Array | None = None


def gather(votes: Votes, order: Stream) -> TextPairs:
    """Gather votes into pairs; votes on the same prompt and the same two responses belong to one pair.

    Args:
        votes: the votes.
        order: the stream that decides by pair id which response comes first, for rows that do not define the order.
            For other rows the first row about a pair decides.

    Raises:
        DataError: two rows contradict each other in their id or prompt_id.
    """
    prompt_V, vote_of_prompt_P = codes(votes.digest_V3D[:, 0])
    _check_ids(votes)
    _check_prompt_ids(votes, prompt_V)
    response_V2, shown_of_response_R = _response_codes(votes.digest_V3D[:, 1:], prompt_V)
    pair_V, vote_of_pair_N = _pair_codes(response_V2)
    prompt_P = TextColumn(votes.texts, 3 * votes.row_V[vote_of_prompt_P])
    vote_R, side_R = np.divmod(shown_of_response_R, 2)
    response_R = TextColumn(votes.texts, 3 * votes.row_V[vote_R] + 1 + side_R)
    shown_N2 = response_V2[vote_of_pair_N]
    pair_id_N, turn_N = _pair_ids(prompt_P.take(prompt_V[vote_of_pair_N]), response_R, shown_N2, order)
    if votes.shuffle:
        shown_N2 = np.where(turn_N[:, None], shown_N2[:, ::-1], shown_N2)
    by_pair_V = np.argsort(pair_V, kind="stable")
    choice_V = _choices(votes.choice_V, response_V2[:, 0] != shown_N2[pair_V, 0])
    numbers = {f"vote_{name}_V": number_V[by_pair_V] for name, number_V in votes.numbers.items()}
    return TextPairs(
        prompt_P=prompt_P,
        response_R=response_R,
        prompt_of_response_R=prompt_V[vote_R],
        responses_of_pair_N2=shown_N2,
        pair_id_N=pair_id_N,
        vote_pair_V=pair_V[by_pair_V],
        vote_choice_V=choice_V[by_pair_V],
        vote_annotator_V=_annotators(votes)[by_pair_V],
        ood_P=np.bincount(prompt_V[votes.ood_V], minlength=len(prompt_P)) > 0,
        test_P=np.bincount(prompt_V[votes.test_V], minlength=len(prompt_P)) > 0,
        facts=votes.facts,
        group_keys=_group_keys(votes, prompt_V),
        **numbers,
    )


def codes(key_ND: Array) -> tuple[Array, Array]:
    """Number distinct keys in the order of their first appearance; return the number and the first row of each."""
    import pyarrow as pa

    keys = pa.py_buffer(np.ascontiguousarray(key_ND))
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(key_ND.shape[1]), len(key_ND), [None, keys])
    code_N = column.dictionary_encode().indices.to_numpy().astype(np.int64)
    return code_N, np.unique(code_N, return_index=True)[1]


def _response_codes(digest_V2D: Array, prompt_V: Array) -> tuple[Array, Array]:
    """Number the responses of each prompt; return (V, 2) numbers, and where each first appears (2v + side)."""
    prompt_V2D = np.broadcast_to(prompt_V.view(np.uint8).reshape(-1, 1, 8), (len(prompt_V), 2, 8))
    code_N, first_R = codes(np.concatenate([prompt_V2D, digest_V2D], axis=2).reshape(2 * len(prompt_V), -1))
    return code_N.reshape(-1, 2), first_R


def _pair_codes(response_V2: Array) -> tuple[Array, Array]:
    """Number the pairs of responses, whatever their order; return the number and the first vote of each pair."""
    return codes(np.sort(response_V2, axis=1).view(np.uint8).reshape(len(response_V2), -1))


def _pair_ids(prompts: TextColumn, responses: TextColumn, shown_N2: Array, order: Stream) -> tuple[Array, Array]:
    """Return the id of each pair, and whether the drawn order is not that of the first row."""
    ids: list[str] = []
    turned: list[bool] = []
    shown = (responses.take(shown_N2[:, side]) for side in (0, 1))
    for prompt, first, second in zip(prompts, *shown, strict=True):
        ids.append(pair_id(prompt, first, second))
        # The texts are drawn in alphabetical order, so that the draw does not depend on the chosen response.
        turned.append((first > second) != (order.uniform(ids[-1]) < 0.5))
    return np.array(ids, dtype=np.str_), np.array(turned, dtype=bool)


def pair_id(prompt: str, response: str, other: str) -> str:
    """Return 16 hexadecimal digits that name a pair, the same for either order of its responses."""
    low, high = sorted((response, other))
    digest = hashlib.sha256()
    for text in (prompt, low, high):
        raw = text.encode()
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()[:16]


def _choices(choice_V: Array, turned_V: Array) -> Array:
    """Return choices by the order in which a pair is shown; a tie stays a tie."""
    is_decided_V = (choice_V == Choice.FIRST) | (choice_V == Choice.SECOND)
    return np.where(turned_V & is_decided_V, 1 - choice_V, choice_V).astype(np.int8)


def _annotators(votes: Votes) -> Array:
    if "annotator" not in votes.names:
        return np.full(len(votes.row_V), "", dtype=np.str_)
    encoded = votes.names["annotator"].dictionary_encode()
    names = np.array(encoded.dictionary.to_pylist(), dtype=np.str_)
    return names[encoded.indices.to_numpy()]


def _group_keys(votes: Votes, prompt_V: Array) -> tuple[tuple[int, str], ...] | None:
    if "group" not in votes.names:
        return None
    keys = votes.names["group"].to_pylist()
    return tuple(dict.fromkeys(zip(prompt_V.tolist(), keys, strict=True))) or None


def _named(votes: Votes, name: str) -> tuple[Array, Array, list[str]]:
    """Return the votes with a name, the number of each one's name, and the distinct names."""
    encoded = votes.names[name].dictionary_encode()
    names = encoded.dictionary.to_pylist()
    code_V = encoded.indices.to_numpy().astype(np.int64)
    rows = np.flatnonzero(code_V != names.index("")) if "" in names else np.arange(len(code_V))
    return rows, code_V[rows], names


def _check_ids(votes: Votes) -> None:
    """Check that ids are unique; the pairs of one row share its id."""
    if "id" not in votes.names:
        return
    rows, code_S, names = _named(votes, "id")
    for at, first in _conflicts(code_S, np.arange(len(rows))):
        place, other = votes.places[rows[at]], votes.places[rows[first]]
        if place != other:
            problem = f"{show(names[code_S[at]])} is on {other.unit} {other.number} too"
            raise place.error(f"{problem}; make ids unique, or set dataset.fields to {{id: false}}", "id")


def _check_prompt_ids(votes: Votes, prompt_V: Array) -> None:
    """Check that prompt_id and text correspond: a text with two ids would leak between splits."""
    if "prompt_id" not in votes.names:
        return
    rows, name_S, names = _named(votes, "prompt_id")
    prompt_S = prompt_V[rows]
    remedy = "; give each prompt one id of its own, or set dataset.fields to {prompt_id: false}"
    for at, first in _conflicts(name_S, prompt_S):
        other = votes.places[rows[first]]
        problem = f"{show(names[name_S[at]])} has another prompt on {other.unit} {other.number}"
        raise votes.places[rows[at]].error(problem + remedy, "prompt_id")
    for at, first in _conflicts(prompt_S, name_S):
        other = votes.places[rows[first]]
        problem = f"{show(names[name_S[at]])}, but the same prompt has {show(names[name_S[first]])}"
        raise votes.places[rows[at]].error(f"{problem} on {other.unit} {other.number}{remedy}", "prompt_id")


def _conflicts(key_S: Array, value_S: Array) -> Iterator[tuple[int, int]]:
    """Yield the rows whose value is not that of the first row with the same key, with that row."""
    _, first_U, inverse_S = np.unique(key_S, return_index=True, return_inverse=True)
    first_S = first_U[inverse_S]
    for at in np.flatnonzero(value_S != value_S[first_S]).tolist():
        yield at, int(first_S[at])
