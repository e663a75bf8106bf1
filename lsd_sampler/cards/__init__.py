"""Sampler cards."""

from .sampler_card import save_sampler


__all__ = ["save_sampler"]
