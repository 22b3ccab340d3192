"""Figures, one family a file, drawn from the tidy frames of a run."""
