"""Texts for the suites: embedded corpora, files and hubs, sampled and split reproducibly."""
