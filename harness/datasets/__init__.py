"""Data sets: sources of pairs with features and recorded preferences."""
