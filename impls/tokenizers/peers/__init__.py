"""Canonical tokenizer libraries behind the family's interface."""
