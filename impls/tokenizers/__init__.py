"""Tokenizers: text to ids and back; `from impls.tokenizers import ByteBPE`."""

from harness.catalogue import lazy_family

__getattr__, __dir__ = lazy_family(__name__)
