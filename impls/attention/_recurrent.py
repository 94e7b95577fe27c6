"""Linear recurrences over tokens and their chunked form, for the linear-attention techniques.

    S_t = a_t S_{t-1} + k_t v_t^T                        decay rule
    S_t = a_t (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T    delta rule
    y_t = q_t^T S_t

A rule takes C tokens at once: what they give each other as products of C x C matrices, the rest
through the memory S (d, dv). C = T is the parallel form, C = 1 the recurrent one. Decays stay in
log space and are only ever exponentiated as differences that are at most 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Form = Literal["parallel", "recurrent", "chunked"]
Rule = Callable[..., tuple[Tensor, Tensor]]  # (memory, *tokens) -> outputs, memory


@dataclass
class RecurrentState:
    """A decoding state of constant size: what `memory` says of all `length` tokens so far."""

    memory: Tensor | None = None
    length: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes held, whatever the length."""
        return 0 if self.memory is None else self.memory.nbytes


def chunk_of(form: Form, chunk: int, n: int) -> int:
    """How many of n tokens a rule takes at once in this form."""
    return {"parallel": max(n, 1), "recurrent": 1, "chunked": chunk}[form]


def scan(
    rule: Rule, memory: Tensor, tokens: tuple[Tensor, ...], chunk: int
) -> tuple[Tensor, Tensor]:
    """Outputs (..., T, dv) and the memory (..., d, dv) after the last of T tokens.

    Args:
        rule: `decay_rule` or `delta_rule`.
        memory: (..., d, dv) before the first token.
        tokens: what the rule reads of each, (..., T, its width).
        chunk: tokens taken at once.
    """
    outputs = []
    for part in zip(*(x.split(chunk, dim=-2) for x in tokens), strict=True):
        y, memory = rule(memory, *part)
        outputs.append(y)
    return torch.cat(outputs, dim=-2), memory


def attend_decayed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_a: Tensor,
    *,
    offset: int,
    chunk: int,
    memory: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The decay rule on grouped heads, query i beside key i + offset.

    Args:
        q: queries, (B, G, H/G, Tq, d).
        k: keys, (B, G, 1, Tk, d); a key of zeros is as good as none.
        v: values, (B, G, 1, Tk, dv).
        log_a: log of the decay at each key, at most 0, (B or 1, G or 1, H/G or 1, Tk, 1).
        offset: the key beside the first query; beside queries beyond the last, nothing decays.
        chunk: tokens taken at once.
        memory: of tokens before these keys; None: there are none.

    Returns:
        Outputs (B, G, H/G, Tq, dv) and the memory after the last query's key.
    """
    n_q, n_k = q.shape[-2], k.shape[-2]
    offset = max(-n_q, min(offset, n_k))  # beyond, queries see all keys or none, as at the ends
    if memory is None:
        memory = k.new_zeros(k.shape[-1], v.shape[-1])
    if offset > 0:
        memory = absorbed(memory, *(x[..., :offset, :] for x in (k, v, log_a)))
    beside = [F.pad(x, (0, 0, -offset, n_q + offset - n_k)) for x in (k, v, log_a)]
    return scan(decay_rule, memory, (q, *beside), chunk)


def decay_rule(
    memory: Tensor, q: Tensor, k: Tensor, v: Tensor, log_a: Tensor
) -> tuple[Tensor, Tensor]:
    """C tokens of the decay rule; q, k (..., C, d), v (..., C, dv), log_a (..., C, 1)."""
    since = log_a.cumsum(-2)
    y = (q @ k.mT * _between(since)) @ v + (q * since.exp()) @ memory
    return y, absorbed(memory, k, v, log_a)


def absorbed(memory: Tensor, k: Tensor, v: Tensor, log_a: Tensor) -> Tensor:
    """The memory after C more tokens of the decay rule."""
    since = log_a.cumsum(-2)
    until_end = since[..., -1:, :] - since
    return since[..., -1:, :].exp() * memory + (k * until_end.exp()).mT @ v


def delta_rule(
    memory: Tensor, q: Tensor, k: Tensor, v: Tensor, log_a: Tensor, b: Tensor
) -> tuple[Tensor, Tensor]:
    """C tokens of the delta rule; b (..., C, 1), the rest as in `decay_rule`.

    What token i writes, u_i = b_i (v_i - what the memory already answers to k_i), depends on the
    writes before it: a unit lower-triangular system, (I + L) U = b (V - decayed K S).
    """
    since = log_a.cumsum(-2)
    between = _between(since)
    overlap = (b * k @ k.mT * between).tril(-1)
    missing = b * (v - (k * since.exp()) @ memory)
    written = torch.linalg.solve_triangular(overlap, missing, upper=False, unitriangular=True)
    y = (q @ k.mT * between) @ written + (q * since.exp()) @ memory
    return y, absorbed(memory, k, written, log_a)


def _between(since: Tensor) -> Tensor:
    """Decay from token j to token i, 0 where j > i; (..., C, C) from (..., C, 1)."""
    later = torch.ones(since.shape[-2], since.shape[-2], dtype=torch.bool, device=since.device)
    return (since - since.mT).masked_fill(later.triu(1), float("-inf")).exp()
