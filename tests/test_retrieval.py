"""TMR's protocols, on pairs whose answer is known and against loops."""

from typing import Any

import numpy as np
import pytest

from mclip.training.measure import retrieval
from mclip.training.measure.statistics import figures_of

AXES = np.eye(4)


def protocols(motion: np.ndarray, text: np.ndarray, **options: int) -> dict[str, Any]:
    """The figures of the protocols."""
    found = retrieval.protocols(motion, text, **options)
    return figures_of(
        {
            name: {
                way: (retrieval.batch_recalls if "batches" in name else retrieval.recalls)(ranks)
                for way, ranks in both.items()
            }
            for name, both in found.items()
        }
    )


def test_ranks_within_k_and_their_median_are_told() -> None:
    found = figures_of(retrieval.recalls(np.array([1, 2, 4, 11])))
    assert found == {"R@1": 0.25, "R@2": 0.5, "R@3": 0.5, "R@5": 0.75, "R@10": 0.75, "MedR": 3.0, "queries": 4}
    assert retrieval.recalls(np.array([])) == {}


def test_the_median_of_small_batches_is_the_mean_of_each_ones_median() -> None:
    found = figures_of(retrieval.batch_recalls(np.array([[1, 1, 1], [4, 5, 9]])))
    assert (found["MedR"], found["R@1"], found["queries"]) == (3.0, 0.5, 6)


def test_a_pair_that_is_swapped_is_found_second() -> None:
    # Text 0 and 1 lie nearest to one another's motions, 2 and 3 to their own.
    motion = np.array([[0.6, 0.8, 0, 0], [0.8, 0.6, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    found = protocols(motion, AXES)["all"]["text_to_motion"]
    assert (found["R@1"], found["R@2"], found["MedR"]) == (0.5, 1.0, 1.5)
    assert found["queries"] == 4


def test_a_motion_of_an_alike_text_is_right_under_the_threshold_only() -> None:
    text = np.array([[1.0, 0, 0], [0.99, 0.1, 0], [0, 0, 1]])
    motion = text[[1, 0, 2]]
    found = protocols(motion, text)
    assert found["all"]["text_to_motion"]["R@1"] == pytest.approx(1 / 3)
    assert found["threshold"]["text_to_motion"]["R@1"] == 1.0


def test_a_model_that_gives_one_vector_to_all_finds_nothing() -> None:
    found = protocols(np.ones((64, 4)), np.random.default_rng(0).normal(size=(64, 4)))
    assert found["all_by_text"]["text_to_motion"]["R@10"] == 0
    assert found["small_batches_by_text"]["text_to_motion"]["MedR"] == retrieval.SMALL
    # By TMR's rule it has the mean of all ranks.
    assert found["all"]["text_to_motion"]["R@10"] == 0
    assert found["all"]["text_to_motion"]["MedR"] == 32.5


def repeated(windows: int, texts: int) -> tuple[np.ndarray, np.ndarray]:
    """Motions and their texts, many of which are equal, as in a store of windows; in whole numbers, so that no
    rounding makes or breaks a tie."""
    generator = np.random.default_rng(6)
    text = generator.integers(-3, 4, (texts, 8))[generator.integers(texts, size=windows)]
    return (text + generator.integers(-4, 5, (windows, 8))).astype(float), text.astype(float)


def ranks_by_tmr(score: np.ndarray, relevant: np.ndarray) -> list[float]:
    """What TMR's retrieval.py does, written as a loop: sort, find the places equal to the best right one, average."""
    ranks = []
    for row, right in zip(score, relevant, strict=True):
        places = [place for place, each in enumerate(sorted(row, reverse=True)) if each == max(row[right])]
        ranks.append(1 + sum(places) / len(places))
    return ranks


def ranks_by_text(score: np.ndarray, relevant: np.ndarray) -> list[float]:
    """Place of the best right item where every wrong one of equal score goes first."""
    return [
        1 + [right for _, right in sorted(zip(-row, own, strict=True))].index(True)
        for row, own in zip(score, relevant, strict=True)
    ]


@pytest.mark.parametrize("alike", [None, 0.8])
def test_equal_texts_are_ranked_by_both_rules_as_loops_rank_them(alike: float | None) -> None:
    motion, text = repeated(60, 9)
    same = (text[:, None] == text).all(-1)
    own = np.eye(60, dtype=bool)
    if alike is not None:
        same |= (close := (1 + text @ text.T / 100) / 2 > alike)
        own |= close
    unequal = 0
    for query, items in ((text, motion), (motion, text)):
        score = query @ items.T
        found = {
            by_text: retrieval.pair_ranks(query, items, text / 10, by_text=by_text, alike=alike)
            for by_text in (False, True)
        }
        assert found[False].tolist() == pytest.approx(ranks_by_tmr(score, own))
        assert found[True].tolist() == ranks_by_text(score, same)
        unequal += int((found[False] != found[True]).sum())
    assert unequal > 10


def test_a_perfect_model_finds_every_repeated_text_by_text_and_not_by_number() -> None:
    text = np.repeat(AXES, 10, axis=0)
    found = protocols(text, text)
    assert found["all_by_text"]["motion_to_text"]["R@1"] == 1.0
    # Ten are equal: their mean rank is 5.5, within 5 as TMR counts it, and not within 3.
    assert (found["all"]["motion_to_text"]["R@3"], found["all"]["motion_to_text"]["R@5"]) == (0.0, 1.0)
    assert found["all"]["motion_to_text"]["MedR"] == 5.5


def test_equal_items_tie_whatever_the_matrix_product_rounds() -> None:
    generator = np.random.default_rng(7)
    item = np.tile(generator.normal(size=(1, 48)), (37, 1)).astype(np.float32)
    query = generator.normal(size=(37, 48)).astype(np.float32)
    assert retrieval.pair_ranks(query, item, query, by_text=False, alike=None).tolist() == [19.0] * 37


def test_small_batches_are_ranked_as_a_loop_over_them_ranks() -> None:
    generator = np.random.default_rng(1)
    text = generator.normal(size=(70, 8))
    motion = text + generator.normal(size=(70, 8))
    found = protocols(motion, text, seed=3)["small_batches"]
    order = np.random.default_rng(3).permutation(70)
    ranks: dict[str, list[int]] = {"text_to_motion": [], "motion_to_text": []}
    for batch in (order[:32], order[32:64]):  # six are left over
        for own in batch:
            for name, query, items in (("text_to_motion", text, motion), ("motion_to_text", motion, text)):
                cosine = [query[own] @ items[i] / np.linalg.norm(query[own]) / np.linalg.norm(items[i]) for i in batch]
                right = cosine[list(batch).index(own)]
                ranks[name].append(sum(each >= right for each in cosine))
    for name, expected in ranks.items():
        assert found[name]["queries"] == 64
        assert found[name]["MedR"] == np.mean([np.median(expected[:32]), np.median(expected[32:])])
        for k in retrieval.AMONG:
            assert found[name][f"R@{k}"] == pytest.approx(np.mean([rank <= k for rank in expected]))


def test_protocols_with_too_few_pairs_are_left_out() -> None:
    few = {"all", "threshold", "all_by_text", "threshold_by_text"}
    assert set(protocols(AXES, AXES)) == few
    many = np.random.default_rng(2).normal(size=(101, 6))
    more = {"dissimilar", "small_batches", "dissimilar_by_text", "small_batches_by_text"}
    assert set(protocols(many, many)) == few | more
    assert protocols(many, many)["dissimilar"]["motion_to_text"]["queries"] == 100


def test_items_far_apart_leave_the_copies_out() -> None:
    vectors = np.concatenate((AXES, AXES + 0.01))
    assert sorted(retrieval.far_apart(vectors, 4) % 4) == [0, 1, 2, 3]


def test_items_are_taken_as_a_loop_over_all_pairs_takes_them() -> None:
    vectors = np.random.default_rng(4).normal(size=(30, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    taken = [int(np.argmin([np.mean([a @ b for b in vectors]) for a in vectors]))]
    while len(taken) < 8:
        left = [item for item in range(30) if item not in taken]
        taken.append(min(left, key=lambda item: max(float(vectors[item] @ vectors[other]) for other in taken)))
    assert retrieval.far_apart(vectors, 8).tolist() == taken


def test_blocks_of_queries_are_ranked_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(5)
    text, motion = generator.normal(size=(2, 23, 4))
    whole = retrieval.protocols(motion, text)
    monkeypatch.setattr(retrieval, "BLOCK", 5)
    parts = retrieval.protocols(motion, text)
    for name in whole:
        for way in whole[name]:
            assert np.array_equal(whole[name][way], parts[name][way])
