"""FlashAttention: tiles in plain torch here, the Triton kernels in one interpreted process.

Run as a script, under TRITON_INTERPRET=1, this file prints what the kernels give.
"""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from impls.attention import _flash, _tiles
from impls.attention.flash import FlashAttention

ROOT = Path(__file__).parents[3]


class Case(NamedTuple):
    n_q: int = 45
    n_k: int = 45
    d: int = 16
    d_v: int = 16
    heads: int = 2
    groups: int = 1
    causal: bool = True
    offset: int = 0
    padding: bool = False
    dtype: str = "float32"


CASES = {
    "top left": Case(),
    "bottom right, odd lengths": Case(n_q=33, n_k=47, offset=14),
    "more queries than keys": Case(n_q=47, n_k=33, offset=-14),
    "one query": Case(n_q=1, n_k=63, offset=62),
    "bidirectional": Case(n_q=15, n_k=75, causal=False),
    "padding": Case(padding=True),
    "bidirectional padding": Case(n_k=50, causal=False, padding=True),
    "two groups": Case(heads=4, groups=2, offset=3),
    "multi-head": Case(groups=2),
    "width 80": Case(d=80, d_v=80),
    "widths 96 and 40": Case(d=96, d_v=40),
    "width 8": Case(d=8, d_v=8),
    "bfloat16": Case(dtype="bfloat16"),
    "bfloat16, width 128": Case(d=128, d_v=128, dtype="bfloat16", offset=1),
    "float16": Case(dtype="float16", padding=True),
}


def inputs(case, dtype=torch.float64):
    """q, k, v and the weights that make one number of out and lse; keep, whose row 0 is empty."""
    rng = torch.Generator().manual_seed(0)
    (n_q, n_k), own = (case.n_q, case.n_k), getattr(torch, case.dtype)
    sizes = ((n_q, case.heads, case.d), (n_k, case.groups, case.d), (n_k, case.groups, case.d_v))
    tensors = [torch.randn(2, *size, generator=rng).to(own).to(dtype) for size in sizes]
    ways = [torch.randn(2, case.heads, n_q, *width, generator=rng) for width in ((case.d_v,), ())]
    keep = torch.rand(2, n_k, generator=rng) > 0.3
    keep[0] = False
    heads = [x.transpose(1, 2).requires_grad_() for x in tensors]  # as a layer hands them over
    return heads, ways, keep if case.padding else None


def written_out(q, k, v, *, causal, offset, scale, keep=None, bias=0.0):
    """Attention by its definition, and its LSE."""
    group = q.shape[1] // k.shape[1]
    mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool)
    mask = (mask.tril(offset) if causal else mask)[None, None]
    mask = mask if keep is None else mask & keep[:, None, None]
    scores = scale * q @ k.repeat_interleave(group, 1).mT + bias
    scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.softmax(-1).masked_fill(~mask.any(-1, keepdim=True), 0.0)
    return weights @ v.repeat_interleave(group, 1), scores.logsumexp(-1)


def results(attend, case, dtype):
    """out, lse and the gradients of q, k and v, all in float64."""
    tensors, ways, keep = inputs(case, dtype)
    rule = {"causal": case.causal, "offset": case.offset, "scale": case.d**-0.5, "keep": keep}
    out, lse = attend(*tensors, **rule)
    seen = lse > float("-inf")
    loss = (out * ways[0]).sum() + (torch.where(seen, lse, 0) * ways[1]).sum()
    grads = torch.autograd.grad(loss, tensors)
    return dict(
        zip(("out", "lse", "dq", "dk", "dv"), (x.double() for x in (out, lse, *grads)), strict=True)
    )


def longest(x):
    return x.norm(dim=-1).max().item()


def errors(attend, case):
    """Largest error of each result against float64, beside what is allowed."""
    dtype = getattr(torch, case.dtype)
    exact, naive = (results(written_out, case, kind) for kind in (torch.float64, dtype))
    ours, eps = results(attend, case, dtype), torch.finfo(dtype).eps
    (q, k, v), (d_out, _), _ = inputs(case)
    # dq and dk sum differences of terms up to |dO| |V|; of a row that sees one key, the naive
    # computation subtracts the same number from itself.
    size = case.d**-0.5 * longest(d_out) * longest(v) * max(longest(q), longest(k))
    difference = {"dq": torch.finfo(torch.float32).eps * size}
    difference["dk"] = difference["dq"]

    def furthest(x, y):
        return torch.where(x == y, 0, (x - y).abs()).max().item()  # -inf is -inf

    def rounding(x):
        return eps * max(1.0, x[x.isfinite()].abs().max().item())

    bound = {
        name: 2 * furthest(naive[name], y) + rounding(y) + difference.get(name, 0.0)
        for name, y in exact.items()
    }
    return {name: (furthest(ours[name], y), bound[name]) for name, y in exact.items()}


def facts(attend):
    """What holds to the bit: which rows change with the keys from 21 on."""
    case = Case()
    (q, k, v), _, _ = inputs(case, torch.float32)
    rule = {"causal": True, "offset": 0, "scale": 0.25}
    out, lse = attend(q, k, v, **rule)
    k2, v2 = k.detach().clone(), v.detach().clone()
    k2[:, :, 21:], v2[:, :, 21:] = 5.0, -7.0
    out2, lse2 = attend(q, k2, v2, **rule)
    before = [x.detach().clone() for x in (q, k, v)]
    empty = attend(q, k, v, **rule, keep=torch.zeros(2, 45, dtype=torch.bool))
    return {
        "changed by later keys": (out != out2).any(-1).any(0).any(0).nonzero()[:, 0].tolist(),
        "lse changed": (lse != lse2).any(0).any(0).nonzero()[:, 0].tolist(),
        "nothing seen": [empty[0].abs().max().item(), empty[1].max().item() == float("-inf")],
        "inputs written": not all(
            torch.equal(*pair) for pair in zip(before, (q, k, v), strict=True)
        ),
    }


def script(path, **environment):
    """What a test file prints when run as a script, as JSON."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run([sys.executable, path], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def interpreted():
    pytest.importorskip("triton")
    return script(__file__, TRITON_INTERPRET="1")


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(_tiles, "TILE", 16)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("small_tiles")
def test_tiles_err_at_most_twice_as_much_as_the_naive_computation(name):
    assert {
        key: e for key, (e, allowed) in errors(_tiles.attend, CASES[name]).items() if e > allowed
    } == {}


@pytest.mark.parametrize("name", CASES)
def test_triton_errs_at_most_twice_as_much_as_the_naive_computation(interpreted, name):
    found = interpreted["errors"][name]
    assert {key: (e, allowed) for key, (e, allowed) in found.items() if not e <= allowed} == {}


def on_gpu(q, k, v, *, keep=None, **rule):
    kernels = import_module("impls.attention.kernels.flash_launch")
    keep = None if keep is None else keep.cuda()
    return [x.cpu() for x in kernels.attend(q.cuda(), k.cuda(), v.cuda(), keep=keep, **rule)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", CASES)
def test_triton_compiled_errs_at_most_twice_as_much(name):
    found = errors(on_gpu, CASES[name])
    assert {key: (e, allowed) for key, (e, allowed) in found.items() if not e <= allowed} == {}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_triton_compiled_lets_no_row_depend_on_a_later_key():
    assert facts(on_gpu) == UNTOUCHED


UNTOUCHED = {
    "changed by later keys": list(range(21, 45)),
    "lse changed": list(range(21, 45)),
    "nothing seen": [0.0, True],
    "inputs written": False,
}


@pytest.mark.usefixtures("small_tiles")
def test_tiles_let_no_row_depend_on_a_later_key():
    assert facts(_tiles.attend) == UNTOUCHED


def test_triton_lets_no_row_depend_on_a_later_key(interpreted):
    assert interpreted["facts"] == UNTOUCHED


@pytest.mark.parametrize("offset", [-3, 0, 4])
def test_gradients_of_tiles_are_right(monkeypatch, offset):
    monkeypatch.setattr(_tiles, "TILE", 4)
    rng = torch.Generator().manual_seed(0)
    sizes = ((2, 4, 5, 3), (2, 2, 9, 3), (2, 2, 9, 2), (1, 4, 5, 9))
    tensors = [torch.randn(s, generator=rng, dtype=torch.float64).requires_grad_() for s in sizes]
    keep = torch.rand(2, 9, generator=rng) > 0.2

    def attend(q, k, v, bias):
        rule = {"causal": True, "offset": offset, "scale": 0.7}
        out, lse = _tiles.attend(q, k, v, **rule, keep=keep, bias=bias)
        return out, torch.where(lse > float("-inf"), lse, 0)

    assert torch.autograd.gradcheck(attend, tensors)


@pytest.mark.parametrize("split", [1, 16, 37, 44])
@pytest.mark.usefixtures("small_tiles")
def test_parts_merge_by_their_lse_wherever_the_keys_are_split(split):
    (q, k, v), *_ = inputs(Case())
    rule = {"causal": True, "scale": 0.25}
    whole, whole_lse = _tiles.attend(q, k, v, offset=0, **rule)
    parts = [
        _tiles.attend(q, k[:, :, :split], v[:, :, :split], offset=0, **rule),
        _tiles.attend(q, k[:, :, split:], v[:, :, split:], offset=-split, **rule),
    ]
    lse = torch.logaddexp(parts[0][1], parts[1][1])
    merged = sum(out * (part_lse - lse).exp()[..., None] for out, part_lse in parts)
    torch.testing.assert_close(merged, whole, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(lse, whole_lse, rtol=1e-13, atol=1e-14)


class Largest(TorchDispatchMode):
    """Bytes of the largest memory that any operation returns."""

    nbytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [
            x.untyped_storage().nbytes() for x in tree_leaves(out) if isinstance(x, torch.Tensor)
        ]
        self.nbytes = max(self.nbytes, *sizes) if sizes else self.nbytes
        return out


def largest(n):
    q, k, v = (torch.randn(1, 1, n, 64).requires_grad_() for _ in range(3))
    with Largest() as found:
        _tiles.attend(q, k, v, causal=True, offset=0, scale=0.1)[0].sum().backward()
    return found.nbytes


def test_memory_of_tiles_grows_with_the_length_and_not_its_square():
    assert [largest(n) for n in (2048, 4096)] == [4 * 64 * 2048, 4 * 64 * 4096]


def test_one_token_reads_itself():
    q, k, v = (x.detach() for x in inputs(Case(n_q=1, n_k=1))[0])
    out, lse = _tiles.attend(q, k, v, causal=True, offset=0, scale=0.5)
    assert torch.equal(out, v.repeat_interleave(2, 1))
    torch.testing.assert_close(lse, 0.5 * (q * k.repeat_interleave(2, 1)).sum(-1))


@pytest.mark.parametrize("engine", ["auto", "blocks", "tiles"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_flash_attention_is_sdpa(engine, dtype):
    (q, k, v), *_ = inputs(Case(n_q=130, n_k=130), dtype)
    (q64, k64, v64) = (x.detach().double() for x in (q, k, v))
    exact = scaled_dot_product_attention(q64, k64, v64, is_causal=True, enable_gqa=True)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        naive = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    ours = FlashAttention(engine=engine).attend(q, k, v)
    assert ours.dtype == dtype
    bound = 2 * (naive - exact).abs().max().item() + torch.finfo(dtype).eps
    assert (ours - exact).abs().max().item() <= bound


def test_a_bias_reaches_every_engine():
    (q, k, v), *_ = inputs(Case(), torch.float32)
    bias = torch.randn(1, 2, 45, 45, generator=torch.Generator().manual_seed(1))
    exact = written_out(
        *(x.double() for x in (q, k, v)), causal=True, offset=0, scale=0.25, bias=bias
    )
    for engine in ("auto", "blocks", "tiles", "triton"):
        out = FlashAttention(engine=engine).attend(q, k, v, bias=bias)
        torch.testing.assert_close(out.double(), exact[0], rtol=1e-5, atol=1e-5)


def test_without_triton_asking_for_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(_flash, "HAS_TRITON", False)
    (q, k, v), *_ = inputs(Case(), torch.float32)
    with pytest.raises(ValueError, match=r"llmatrix\[gpu\]"):
        FlashAttention(engine="triton").attend(q, k, v)


if __name__ == "__main__":
    kernels = import_module("impls.attention.kernels.flash_launch")
    measured = {name: errors(kernels.attend, case) for name, case in CASES.items()}
    json.dump({"errors": measured, "facts": facts(kernels.attend)}, sys.stdout)
