"""The neighbour index against its definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from balbench.harness.pool import neighbours
from balbench.harness.pool.neighbours import NeighbourIndex, count_within, nearest_neighbours


def all_distances(points: np.ndarray) -> np.ndarray:
    """Every distance, by differences, in double precision."""
    return np.sqrt(((points[:, None].astype(float) - points[None].astype(float)) ** 2).sum(-1))


def clustered(points: int, dimension: int, seed: int, spread: float = 0.05, offset: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(1, points // 100), dimension))
    chosen = centres[rng.integers(len(centres), size=points)]
    return (chosen + spread * rng.normal(size=(points, dimension)) + offset).astype(np.float32)


@pytest.mark.parametrize(
    ("dimension", "spread", "offset"), [(3, 0.05, 0.0), (40, 0.05, 0.0), (40, 0.05, 100.0), (200, 1e-4, 1.0)]
)
def test_lists_are_exact(dimension, spread, offset):
    points = clustered(400, dimension, seed=1, spread=spread, offset=offset)
    number, distance = nearest_neighbours(torch.from_numpy(points), 30)
    expected = torch.cdist(
        torch.from_numpy(points), torch.from_numpy(points), compute_mode="donot_use_mm_for_euclid_dist"
    ).numpy()
    np.testing.assert_array_equal(distance, np.sort(expected, axis=1)[:, :30])
    np.testing.assert_array_equal(distance, np.take_along_axis(expected, number.astype(int), axis=1))
    np.testing.assert_allclose(distance, np.sort(all_distances(points), axis=1)[:, :30], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(number[:, 0], np.arange(400))


def test_rows_that_single_precision_cannot_prove_are_done_again(monkeypatch):
    calls = []
    by_products = neighbours._by_products

    def watched(*arguments):
        left = by_products(*arguments)
        calls.append((arguments[4], len(arguments[1]), len(left)))
        return left

    monkeypatch.setattr(neighbours, "_by_products", watched)
    test_lists_are_exact(200, 1e-4, 1.0)
    (single, rows, unproven), (double, again, _) = calls
    assert (single, rows) == (torch.float32, 400)
    assert (double, again) == (torch.float64, unproven)
    assert unproven > 0


@st.composite
def rounds(draw):
    points = draw(st.integers(2, 40))
    grid = draw(st.booleans())  # points of a grid have many equal distances
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    features = rng.integers(0, 4, size=(points, 2)) if grid else rng.normal(size=(points, 3))
    counts = rng.integers(0, 4, size=points)
    counts[rng.integers(points)] += 1
    return features.astype(np.float32), counts, draw(st.integers(1, 8)), draw(st.integers(2, 12))


@settings(max_examples=150, deadline=None)
@given(rounds(), st.booleans(), st.booleans())
def test_balls_by_definition(case, itself, inclusive):
    features, counts, k, width = case
    index = NeighbourIndex(features, width=width)
    points = index.points_XQ.numpy()
    count_X = np.bincount(index.point_of_prompt_P, weights=counts, minlength=len(index)).astype(int)
    balls = index.balls(count_X, k, itself=itself, inclusive=inclusive)
    distance = torch.cdist(index.points_XQ, index.points_XQ, compute_mode="donot_use_mm_for_euclid_dist").numpy()
    for point in range(len(points)):
        counting = count_X.copy()
        if not itself:
            counting[point] = 0
        reached = np.sort(np.repeat(distance[point], counting))
        if len(reached) == 0:
            continue
        expected = min(k, count_X.sum() - (0 if itself else count_X.max()))
        radius = reached[min(max(expected, 1), len(reached)) - 1]
        assert balls.radius_X[point] == radius
        inside = distance[point] <= radius if inclusive else distance[point] < radius
        assert sorted(balls.member_E[balls.point_E == point]) == np.flatnonzero(inside).tolist()


def test_holders_turn_balls_round():
    index = NeighbourIndex(np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32))
    balls = index.balls(np.ones(50, int), 5, itself=True, inclusive=True)
    start, holder = balls.holders()
    for point in range(50):
        actual = sorted(holder[start[point] : start[point + 1]])
        assert actual == sorted(balls.point_E[balls.member_E == point])


def test_duplicates_are_one_point():
    features = np.array([[1, 0], [0, 1], [1, -0.0], [0, 1]], dtype=np.float32)
    index = NeighbourIndex(features)
    assert index.point_of_prompt_P.tolist() == [0, 1, 0, 1]
    assert len(index) == 2


def test_lists_are_shared_by_processes(tmp_path):
    features = clustered(300, 5, seed=3)
    first = NeighbourIndex(features, cache=tmp_path)
    stamp = [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*.npy"))]
    second = NeighbourIndex(features, cache=tmp_path)
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*.npy"))] == stamp
    np.testing.assert_array_equal(first.distance_XM, second.distance_XM)


@pytest.mark.parametrize("inclusive", [True, False])
def test_count_within_by_definition(inclusive):
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 5, size=(60, 3)).astype(np.float32)  # a grid: many distances equal a radius
    others = rng.integers(0, 5, size=(40, 3)).astype(np.float32)
    weight, radius = rng.integers(1, 4, size=40), rng.integers(0, 4, size=60).astype(float)
    distance = np.sqrt(((centres[:, None] - others[None]) ** 2).sum(-1))
    inside = distance <= radius[:, None] if inclusive else distance < radius[:, None]
    actual = count_within(torch.from_numpy(centres), torch.from_numpy(others), weight, radius, inclusive=inclusive)
    np.testing.assert_array_equal(actual, inside @ weight)
