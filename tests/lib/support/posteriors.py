"""Posteriors that misbehave, for tests of fleets. Worker processes import them from here."""

import torch

from balbench.harness.posteriors.ensemble import Ensemble
from balbench.harness.posteriors.posterior import DivergedError


class Crowded(Ensemble):
    """Has memory for two cells."""

    most: int = 2

    def fleet_is_exact(self, dimension):
        return True  # so that a fleet is fitted together on every processor

    def fit_fleet(self, trains, validation, streams):
        if len(trains) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().fit_fleet(trains, validation, streams)


class Leaving(Ensemble):
    """Ends Python."""

    def fit_fleet(self, trains, validation, streams):
        raise SystemExit(3)


class Greedy(Ensemble):
    """Asks a CPU for more memory than there are addresses, for more than two cells."""

    def fleet_is_exact(self, dimension):
        return True  # so that a fleet is fitted together on every processor

    def fit_fleet(self, trains, validation, streams):
        torch.empty(2**58 if len(trains) > 2 else 1, dtype=torch.uint8)
        return super().fit_fleet(trains, validation, streams)


class Touchy(Ensemble):
    """Diverges on 20 or more labels where three of the first ten answers prefer the first response."""

    def fit_fleet(self, trains, validation, streams):
        models = super().fit_fleet(trains, validation, streams)
        bad = [len(train.label_n) >= 20 and train.label_n[:10].sum() >= 3 for train in trains]
        return [DivergedError("no number") if b else model for b, model in zip(bad, models, strict=True)]
