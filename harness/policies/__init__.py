"""Acquisition policies: rules that select the pairs to label next. Each module has one family."""
