"""Packed FlashAttention: every sequence as if it were alone, padding as if it were not there.

Run as a script, under TRITON_INTERPRET=1, this file prints what the kernels give.
"""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from impls.attention.flash_varlen import FlashAttentionVarlen, kept_spans

ROOT = Path(__file__).parents[3]
PACKED = {
    "uneven": [0, 1, 34, 34, 77, 80],  # the third is empty
    "one": [0, 45],
    "equal": [0, 32, 64],
}
PADDED = {  # first and last + 1 kept key of each row of 60, and a key missing inside
    "right": ((0, 60), (0, 13), (0, 0), ()),
    "left": ((0, 60), (31, 60), (59, 60), ()),
    "holes": ((3, 60), (0, 41), (7, 50), (20,)),
}


def heads(n, batch, dtype=torch.float32):
    rng = torch.Generator().manual_seed(0)
    sizes = ((2, n, 16), (1, n, 16), (1, n, 24))
    return [torch.randn(*batch, *s, generator=rng).to(dtype).requires_grad_() for s in sizes]


def written_out(q, k, v, mask):
    scores = q @ k.repeat_interleave(2, -3).mT / 4
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
    return weights.masked_fill(~mask.any(-1, keepdim=True), 0.0) @ v.repeat_interleave(2, -3)


def with_gradients(attend, tensors):
    """The output and the gradients of one number made of it."""
    out = attend(*tensors)
    ways = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    return [x.double() for x in (out, *torch.autograd.grad((out * ways).sum(), tensors))]


def errors(attend, naive, n, batch):
    """Largest errors of the output and the gradients against float64, and what is allowed."""
    exact, plain, ours = (
        with_gradients(f, heads(n, batch, dtype))
        for f, dtype in ((naive, torch.float64), (naive, torch.float32), (attend, torch.float32))
    )
    eps = torch.finfo(torch.float32).eps
    return [
        ((y - x).abs().max().item(), 2 * (p - x).abs().max().item() + eps)
        for x, p, y in zip(exact, plain, ours, strict=True)
    ]


def packed_errors(technique, ends, causal):
    def alone(q, k, v):
        masks = [torch.ones(b - a, b - a, dtype=torch.bool) for a, b in pairwise(ends)]
        mask = torch.block_diag(*masks).bool()
        return written_out(q, k, v, mask.tril() if causal else mask)

    def attend(q, k, v):
        return technique.attend_packed(
            q, k, v, torch.tensor(ends, dtype=torch.int32), causal=causal
        )

    return errors(attend, alone, ends[-1], ())


def keep_of(name):
    *rows, holes = PADDED[name]
    keep = torch.zeros(3, 60, dtype=torch.bool)
    for row, (first, stop) in zip(keep, rows, strict=True):
        row[first:stop] = True
        row[list(holes)] = False
    return keep


def padded_errors(technique, name, causal):
    keep = keep_of(name)
    mask = (
        keep[:, None, None, :]
        & (torch.ones(60, 60).tril() if causal else torch.ones(60, 60)).bool()
    )
    return errors(
        lambda q, k, v: technique.attend(q, k, v, causal=causal, keep=keep),
        lambda q, k, v: written_out(q, k, v, mask),
        60,
        (3,),
    )


def measure(technique):
    """Every case, causal and not."""
    return {
        f"{kind}, {name}, {'causal' if causal else 'bidirectional'}": found(technique, case, causal)
        for kind, found, cases in (
            ("packed", packed_errors, PACKED.items()),
            ("padded", padded_errors, zip(PADDED, PADDED, strict=True)),
        )
        for name, case in cases
        for causal in (True, False)
    }


@pytest.fixture(scope="module")
def interpreted():
    pytest.importorskip("triton")
    env = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "1"}
    command = [sys.executable, __file__]
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def too_large(measured):
    return {
        name: found
        for name, found in measured.items()
        if not all(e <= allowed for e, allowed in found)
    }


@pytest.mark.parametrize("engine", ["auto", "tiles"])
def test_sequences_are_as_if_alone_and_padding_as_if_absent(engine):
    assert too_large(measure(FlashAttentionVarlen(engine=engine))) == {}


def test_in_triton_too(interpreted):
    assert too_large(interpreted) == {}


def test_spans_reach_from_the_first_kept_key_to_the_last():
    assert kept_spans(keep_of("left")) == [(0, 60, 60), (31, 60, 29), (59, 60, 1)]
    assert kept_spans(keep_of("right")) == [(0, 60, 60), (0, 13, 13), (0, 0, 0)]


def test_padding_is_never_read():
    q, k, v = (x.detach() for x in heads(60, (3,)))
    keep = keep_of("right")
    apart = ~keep[:, None, :, None]
    k2, v2 = k.masked_fill(apart, float("nan")), v.masked_fill(apart, float("nan"))
    for engine in ("blocks", "tiles"):
        technique = FlashAttentionVarlen(engine=engine)
        out = technique.attend(q, k2, v2, causal=False, keep=keep)
        assert torch.equal(out, technique.attend(q, k, v, causal=False, keep=keep))


@pytest.mark.parametrize("ends", [[], [0], [1, 60], [0, 40, 30, 60], [0, 59]])
def test_bounds_that_do_not_cover_the_tokens_are_refused(ends):
    q, k, v = heads(60, ())
    with pytest.raises(ValueError, match="from 0 to T = 60, got"):
        FlashAttentionVarlen().attend_packed(q, k, v, torch.tensor(ends, dtype=torch.int32))


if __name__ == "__main__":
    json.dump(measure(FlashAttentionVarlen(engine="triton")), sys.stdout)
