"""Acquisition policies: which unlabelled pairs to ask about next. One family a file."""
