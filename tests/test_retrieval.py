"""TMR's protocols and recognition, on pairs whose answer is known and against loops."""

import numpy as np
import pytest

from mclip.training import retrieval

AXES = np.eye(4)


def test_a_pair_that_is_swapped_is_found_second() -> None:
    # Text 0 and 1 lie nearest to one another's motions, 2 and 3 to their own.
    motion = np.array([[0.6, 0.8, 0, 0], [0.8, 0.6, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    found = retrieval.protocols(motion, AXES)["all"]["text_to_motion"]
    assert (found["R@1"], found["R@2"], found["MedR"]) == (0.5, 1.0, 1.5)
    assert found["queries"] == 4


def test_a_motion_of_an_alike_text_is_right_under_the_threshold_only() -> None:
    text = np.array([[1.0, 0, 0], [0.99, 0.1, 0], [0, 0, 1]])
    motion = text[[1, 0, 2]]
    found = retrieval.protocols(motion, text)
    assert found["all"]["text_to_motion"]["R@1"] == pytest.approx(1 / 3)
    assert found["threshold"]["text_to_motion"]["R@1"] == 1.0


def test_a_model_that_gives_one_vector_to_all_finds_nothing() -> None:
    found = retrieval.protocols(np.ones((64, 4)), np.random.default_rng(0).normal(size=(64, 4)))
    assert found["all"]["text_to_motion"]["R@10"] == 0
    assert found["small_batches"]["text_to_motion"]["MedR"] == retrieval.SMALL


def test_small_batches_are_ranked_as_a_loop_over_them_ranks() -> None:
    generator = np.random.default_rng(1)
    text = generator.normal(size=(70, 8))
    motion = text + generator.normal(size=(70, 8))
    found = retrieval.protocols(motion, text, seed=3)["small_batches"]
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
        assert found[name]["MedR"] == np.median(expected)
        for k in retrieval.AMONG:
            assert found[name][f"R@{k}"] == pytest.approx(np.mean([rank <= k for rank in expected]))


def test_protocols_with_too_few_pairs_are_left_out() -> None:
    assert set(retrieval.protocols(AXES, AXES)) == {"all", "threshold"}
    many = np.random.default_rng(2).normal(size=(101, 6))
    assert set(retrieval.protocols(many, many)) == {"all", "threshold", "dissimilar", "small_batches"}
    assert retrieval.protocols(many, many)["dissimilar"]["motion_to_text"]["queries"] == 100


def test_items_far_apart_leave_the_copies_out() -> None:
    vectors = np.concatenate((AXES, AXES + 0.01))
    alike = vectors @ vectors.T
    assert sorted(retrieval.far_apart(alike, 4) % 4) == [0, 1, 2, 3]


def test_any_true_class_of_a_crop_counts_and_classes_weigh_the_same() -> None:
    names = ["walk", "run", "sit", "fly"]
    z = AXES[[0, 0, 0, 1, 0]]  # four crops that look like walk, one like run
    true = [{"walk"}, {"walk", "sit"}, {"run"}, {"run"}, {"swim"}]
    found = retrieval.recognition_among(z, AXES, names, true)
    assert found["crops"] == 4  # nobody asks for swim
    assert found["top1"] == 0.75
    # walk 2 of 2, run 1 of 2, sit 0 of 1; nobody flies.
    assert found["top1_norm"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert retrieval.recognition_among(z[:1], AXES, names, [{"swim"}]) == {}
