"""Position encodings: where a token stands; `from impls.positions import RoPE`."""

from harness.catalogue import lazy_family

__getattr__, __dir__ = lazy_family(__name__)
