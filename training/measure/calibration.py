"""Scores that are probabilities: a softmax whose temperature makes it as sure of the first class as that is right."""

# N items, K classes

import numpy as np
from jaxtyping import Bool, Float, Int

TEMPERATURES = np.geomspace(0.002, 2, 301)  # of cosines: from all but certain to all but even
BINS = 15  # as in Guo et al. 2017


def probabilities(score_NK: Float[np.ndarray, "N K"], temperature: float) -> Float[np.ndarray, "N K"]:
    """Softmax over classes (N, K) of scores divided by a temperature."""
    above = (score_NK - score_NK.max(1, keepdims=True)).astype(np.float64)  # in float32 1 - 1e-9 would be 1
    share: np.ndarray = np.exp(above / temperature)
    return share / share.sum(1, keepdims=True)


def fitted_temperature(score_NK: Float[np.ndarray, "N K"], hit_N: Bool[np.ndarray, " N"]) -> float:
    """The temperature, of TEMPERATURES, at which the first classes' probabilities say best which of them are right.

    `hit_N`: whether the class of the highest score is a true one, of which an item may have several. The loss is the
    binary cross-entropy, with Platt's targets (1999, section 2.2): forty hits of forty do not make the next one sure.
    """
    hits, misses = hit_N.sum(), (~hit_N).sum()
    wanted_N = np.where(hit_N, (hits + 1) / (hits + 2), 1 / (misses + 2))
    losses = []
    for temperature in TEMPERATURES.tolist():
        sure_N = probabilities(score_NK, temperature).max(1).clip(1e-9, 1 - 1e-9)
        losses.append(-(wanted_N * np.log(sure_N) + (1 - wanted_N) * np.log(1 - sure_N)).mean())
    return float(TEMPERATURES[int(np.argmin(losses))])


def calibration_error(sure_N: Float[np.ndarray, " N"], hit_N: Bool[np.ndarray, " N"]) -> float:
    """Expected calibration error, 0 to 1 (Guo et al. 2017, equation 3).

    Items lie in BINS even bins by how sure they are; the mean over items of how far their bin's mean sureness is from
    its share of hits.
    """
    bin_N = np.ceil(sure_N * BINS)
    gaps = [abs(float((sure_N - hit_N)[bin_N == each].sum())) for each in np.unique(bin_N)]
    return sum(gaps) / len(sure_N)


def calibration(
    score_NK: Float[np.ndarray, "N K"], true_NK: Bool[np.ndarray, "N K"], group_N: Int[np.ndarray, " N"]
) -> dict[str, float | int]:
    """The temperature of items' scores, and the calibration error of the scores as they are and as probabilities.

    Items of no true class are left out; nothing where none is left. `ece` is of temperatures that were fitted to other
    items: those of the other half of the groups (a clip's windows are alike), if there are two.
    """
    asked = true_NK.any(1)
    if not asked.any():
        return {}
    score_NK, true_NK, half_N = score_NK[asked], true_NK[asked], group_N[asked] % 2
    hit_N = true_NK[np.arange(len(score_NK)), score_NK.argmax(1)]
    sure_N = np.zeros(len(score_NK))
    for half in np.unique(half_N):
        own, others = half_N == half, half_N != half
        fitted_to = others if others.any() else own
        sure_N[own] = probabilities(score_NK[own], fitted_temperature(score_NK[fitted_to], hit_N[fitted_to])).max(1)
    return {
        "temperature": fitted_temperature(score_NK, hit_N),
        "ece_cosines": calibration_error(score_NK.max(1).clip(0, 1), hit_N),
        "ece": calibration_error(sure_N, hit_N),
        "items": len(score_NK),
        "classes": score_NK.shape[1],
    }
