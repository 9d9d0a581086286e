"""Synthetic data with typed anomalies, for demonstrations and studies where no real set is at hand."""
