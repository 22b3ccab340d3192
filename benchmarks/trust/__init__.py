"""Measure whether the intervals and claims of reports hold: `python -m balbench.benchmarks.trust coverage`."""
