"""Rounds of a fleet on one device."""
