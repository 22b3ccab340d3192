"""Posteriors: reward models with their uncertainty, as K reward samples for each response."""
