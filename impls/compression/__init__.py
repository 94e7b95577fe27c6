"""Compression: fewer bits, fewer weights, fewer layers; `from impls.compression import GPTQ`."""

from harness.catalogue import lazy_family

__getattr__, __dir__ = lazy_family(__name__)
