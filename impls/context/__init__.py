"""Context extension: a trained model reads on beyond that; `from impls.context import YaRN`."""

from harness.catalogue import lazy_family

__getattr__, __dir__ = lazy_family(__name__)
