"""Signs of a model that was not trained well, from the metrics of its last round.

- Undertrained: the order of the responses is learnt (accuracy above chance), but the logits are too small. One
  temperature below 1, which divides all logits, would raise the log-likelihood by more than `NOTABLE_GAIN`. Such a
  log-likelihood measures the progress of training rather than the information in the labels.
- Initial weights: the best weights that members had during training are those before the first step.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from balbench.reports.curves import Curves
from balbench.reports.learning import NOT_ABOVE_CHANCE, learning

NOTABLE_GAIN = 0.005  # nats per vote
LARGEST_SHARE = 0.5  # share of members with their initial weights from which on a reference gives no level
FIT = "fit"  # the pseudo split with the diagnostics of training


class Fault(StrEnum):
    """A kind of fault in the training of a model."""

    UNDERTRAINED = "undertrained"
    INITIAL_WEIGHTS = "initial weights"


@dataclass(frozen=True)
class TrainingFault:
    """A fault of one policy's model at its last round, as means over seeds.

    Attributes:
        setting, policy, split: the setting, policy and split of the fault; `split` is "fit" for INITIAL_WEIGHTS.
        fault: the kind of fault.
        gain: nats per vote that temperatures below 1 would gain; NaN for INITIAL_WEIGHTS.
        temperature: the best temperature (median over seeds); NaN for INITIAL_WEIGHTS.
        share: share of members whose best weights are the initial ones; NaN for UNDERTRAINED.
        diverged: whether the loss on the eval split ended above its start; False if unknown.
        trained: whether the posterior reports steps of training; closed-form posteriors do not.
    """

    setting: str
    policy: str
    split: str
    fault: Fault
    gain: float = np.nan
    temperature: float = np.nan
    share: float = np.nan
    diverged: bool = False
    trained: bool = True


def training_faults(curves: Curves, setting: str, policies: list[str], splits: list[str]) -> list[TrainingFault]:
    """Return the faults of all policies of a setting: undertrained models by split, then initial weights."""
    faults = [undertrained(curves, setting, policy, split) for split in splits for policy in policies]
    faults += [initial_weights(curves, setting, policy) for policy in policies]
    return [fault for fault in faults if fault is not None]


def undertrained(curves: Curves, setting: str, policy: str, split: str) -> TrainingFault | None:
    """Return the fault if the model's logits are too small for its accuracy, else None."""
    gain_S, temperature_S = (
        _last(curves, setting, policy, split, metric) for metric in ("temperature_gain", "temperature")
    )
    accuracy = curves.curve(setting, policy, split, "accuracy")
    if gain_S is None or temperature_S is None or accuracy is None:
        return None
    # a temperature above 1 gains too, but shows logits that are too large
    gain, temperature = float(np.where(temperature_S < 1, gain_S, 0).mean()), float(np.median(temperature_S))
    if gain <= NOTABLE_GAIN or temperature >= 1 or learning(accuracy, "accuracy").missing == NOT_ABOVE_CHANCE:
        return None
    trained = curves.has(setting, FIT, "best_is_initial")
    return TrainingFault(
        setting, policy, split, Fault.UNDERTRAINED, gain=gain, temperature=temperature, trained=trained
    )


def initial_weights(curves: Curves, setting: str, policy: str) -> TrainingFault | None:
    """Return the fault if training improved nothing in some members, else None."""
    initial_S = _last(curves, setting, policy, FIT, "best_is_initial")
    if initial_S is None or not initial_S.mean() > 0:
        return None
    start_S, end_S = (_last(curves, setting, policy, FIT, f"evaluation_loss_{when}") for when in ("start", "end"))
    diverged = start_S is not None and end_S is not None and bool(end_S.mean() > start_S.mean())
    share = float(initial_S.mean())
    return TrainingFault(setting, policy, FIT, Fault.INITIAL_WEIGHTS, share=share, diverged=diverged)


def _last(curves: Curves, setting: str, policy: str, split: str, metric: str) -> np.ndarray | None:
    """Return a metric at the last round for each seed, shape (S,); None where it is unknown."""
    curve = curves.curve(setting, policy, split, metric)
    return None if curve is None else curve.values_ST[:, -1]
