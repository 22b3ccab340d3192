"""The study file: settings -> checked cells."""
