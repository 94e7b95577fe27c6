"""Position hooks, as layers use them that have no one matrix of scores to add a bias to."""

from torch import Tensor

from impls.models.hooks import Frame, PositionEncoding


def encoded(
    q: Tensor, k: Tensor, pos: Tensor, encoding: PositionEncoding, technique: str
) -> tuple[Tensor, Tensor]:
    """Queries and keys of the same tokens with their positions in them, shapes unchanged.

    Args:
        q: queries, (B, H, T, d).
        k: keys, (B, G, T, d).
        pos: positions, (B or 1, T) int64.
        encoding: as the layer uses it.
        technique: whose layer this is, for the message.

    Raises:
        ValueError: if the encoding biases scores or values.
    """
    refuse_bias(encoding, technique)
    frame = Frame(pos, pos)
    return encoding.queries(q, frame), encoding.keys(k, frame)


def refuse_bias(encoding: PositionEncoding, technique: str) -> None:
    """Let only encodings pass that change nothing but embeddings, queries and keys.

    Raises:
        ValueError: if this one biases scores or values.
    """
    biases_scores = type(encoding).score_bias is not PositionEncoding.score_bias
    if biases_scores or encoding.reads_weights:
        raise ValueError(
            f"{type(encoding).__name__} changes scores or values and {technique} has no one matrix "
            "of scores: choose an encoding that changes queries and keys, or none"
        )
