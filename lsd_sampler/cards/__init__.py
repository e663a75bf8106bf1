"""Sampler cards."""
