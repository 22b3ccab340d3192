"""The pool: pairs, features, neighbours and duels."""
