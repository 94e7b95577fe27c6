"""The techniques, one file each, grouped into families that share one interface."""
