"""Datasets: where pairs, their features and their recorded preferences come from."""
