"""Compiled loops: numba functions over arrays, one file a topic, called by their techniques."""
