"""Pairwise-mask secure aggregation: a coordinator adds up updates of which it sees none (protocols/masking/SPEC.md)."""
