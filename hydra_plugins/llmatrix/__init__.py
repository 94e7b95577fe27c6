"""Hydra takes plug-ins only from this namespace; the Sweeper itself lives in `harness.sweeper`."""

from harness import sweeper


class MatrixSweeper(sweeper.MatrixSweeper):
    """The same Sweeper, at the address that Hydra looks up."""
