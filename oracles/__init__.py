"""Oracles: simulated annotators that answer queries from ground truth."""
