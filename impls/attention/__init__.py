"""Attention: which tokens a token reads, and how; `from impls.attention import SlidingWindow`."""

from harness.catalogue import lazy_family

__getattr__, __dir__ = lazy_family(__name__)
