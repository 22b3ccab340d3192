"""Figures of a run: one module for each kind."""
