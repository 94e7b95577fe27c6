"""The C++ block-sparse kernel against masked softmax in float64."""

import os
import platform
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from impls.attention.kernels import block_sparse_cpu
from impls.attention.kernels.block_sparse_cpu import BLOCK, backward, forward
from impls.models import native

pytestmark = pytest.mark.skipif(
    not native.available(), reason=f"no compiler: {native.why_unavailable()}"
)


def layout_of(visible):
    """Blocks of (n, n_q, n_k) pairs; blocks that no query sees are left out."""
    n, n_q, n_k = visible.shape
    nq, nk = -(-n_q // BLOCK), -(-n_k // BLOCK)
    padded = torch.zeros(n, nq * BLOCK, nk * BLOCK, dtype=torch.bool)
    padded[:, :n_q, :n_k] = visible
    blocks = padded.view(n, nq, BLOCK, nk, BLOCK).transpose(2, 3)
    kept = blocks.any(-1).any(-1)
    masks, masks_of = blocks[kept].flatten(1).unique(dim=0, return_inverse=True)
    full = masks.all(1)[masks_of]
    return SimpleNamespace(
        block=BLOCK,
        rows=torch.cat((torch.zeros(1), kept.flatten(0, 1).sum(1).cumsum(0))).int(),
        cols=kept.nonzero()[:, 2].int(),
        masks_of=torch.where(full, -1, masks_of).int(),
        masks=masks.view(-1, BLOCK, BLOCK),
    )


def causal(n_q, n_k, window=None):
    distance = torch.arange(n_q)[:, None] + n_k - n_q - torch.arange(n_k)
    return ((distance >= 0) & (distance < (window or n_k)))[None]


def scattered(n, n_q, n_k):
    """Each head its own blocks, thinned out; the first block of queries sees nothing."""
    visible = torch.rand(n, n_q, n_k) < 0.7
    shape = (n, -(-n_q // BLOCK), -(-n_k // BLOCK))
    kept = torch.rand(shape) < 0.5
    kept[:, 0] = False
    return visible & kept.repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)[:, :n_q, :n_k]


def tensors(shape, dtype):
    """q, k, v and the gradient of out."""
    b, h, g, n_q, n_k, d, dv = shape
    shapes = ((b, h, n_q, d), (b, g, n_k, d), (b, g, n_k, dv), (b, h, n_q, dv))
    return [torch.randn(shape).to(dtype) for shape in shapes]


def naive(q, k, v, grad_out, visible, dtype):
    """out, dq, dk, dv by torch's own operations in this dtype; rows that see nothing are 0."""
    q, k, v = (x.detach().to(dtype).requires_grad_() for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    scores = q @ k.repeat_interleave(group, 1).mT * q.shape[-1] ** -0.5
    scores = scores.masked_fill(~visible, torch.finfo(dtype).min)
    weights = scores.softmax(-1) * visible
    out = weights @ v.repeat_interleave(group, 1)
    return out.detach(), *torch.autograd.grad(out, (q, k, v), grad_out.to(dtype))


def ours(q, k, v, grad_out, layout, keep=None):
    scale = q.shape[-1] ** -0.5
    out, lse = forward(q, k, v, layout, scale=scale, keep=keep)
    return out, *backward(grad_out, q, k, v, out, lse, layout, scale=scale, keep=keep), lse


def check_errors(q, k, v, grad_out, visible, keep=None):
    """At most twice the naive error, against float64.

    Gradients start from lse, whose rounding to float32 scales the weights of a row by up to
    |lse| 2^-24: no more than that on top, once for the weight and once for what it multiplies.
    """
    seen = visible if keep is None else visible & keep[:, None, None]
    exact = naive(q, k, v, grad_out, seen, torch.float64)
    plain = naive(q, k, v, grad_out, seen, q.dtype)
    *got, lse = ours(q, k, v, grad_out, layout_of(visible), keep)
    rounding = lse[lse.isfinite()].abs().max() * 2**-23
    for name, x, y, z in zip(("out", "dq", "dk", "dv"), got, plain, exact, strict=True):
        assert x.shape == z.shape, name
        assert x.dtype == q.dtype, name
        slack = 0 if name == "out" else rounding * z.abs().max()
        assert (x - z).abs().max() <= 2 * (y - z).abs().max() + slack, name


SHAPES = {  # B, H, G, Tq, Tk, d, dv
    "tails": (1, 2, 2, 200, 200, 64, 64),
    "groups": (2, 4, 2, 130, 130, 32, 32),
    "cross": (1, 2, 1, 70, 330, 64, 64),
    "odd widths": (1, 2, 1, 129, 129, 33, 81),
    "wide": (1, 1, 1, 128, 128, 128, 192),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("window", [None, 100])
@pytest.mark.parametrize("shape", SHAPES)
def test_error_is_at_most_twice_the_naive_one(shape, window, dtype):
    torch.manual_seed(0)
    check_errors(*tensors(SHAPES[shape], dtype), causal(*SHAPES[shape][3:5], window))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_each_head_may_have_its_own_layout(dtype):
    torch.manual_seed(1)
    check_errors(*tensors((2, 4, 2, 200, 260, 64, 64), dtype), scattered(4, 200, 260))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_padding_is_hidden(dtype):
    torch.manual_seed(2)
    keep = torch.rand(2, 200) < 0.6
    keep[1, 64:128] = False
    check_errors(*tensors((2, 2, 1, 200, 200, 64, 64), dtype), causal(200, 200), keep)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are x86-64's")
@pytest.mark.parametrize("flag", ["-mno-avx512f", "-mno-avx512bf16"])
def test_machines_without_these_instructions(flag, monkeypatch):
    torch.manual_seed(3)
    library = native.load(block_sparse_cpu.SOURCE, (flag,))
    monkeypatch.setattr(block_sparse_cpu, "_library", lambda: library)
    for dtype in (torch.float32, torch.bfloat16):
        check_errors(*tensors((1, 2, 1, 130, 130, 48, 40), dtype), causal(130, 130, 100))


def test_a_row_that_sees_nothing_is_zero_and_so_are_its_gradients():
    torch.manual_seed(4)
    given = tensors((1, 2, 2, 70, 70, 64, 64), torch.float32)
    keep = torch.zeros(1, 70, dtype=torch.bool)
    out, dq, dk, dv, lse = ours(*given, layout_of(causal(70, 70)), keep)
    assert (lse == -torch.inf).all()
    assert all((x == 0).all() for x in (out, dq, dk, dv))


def test_an_empty_layout_and_empty_tensors_are_no_special_case():
    q, k, v, grad_out = tensors((1, 2, 1, 70, 0, 64, 64), torch.float32)
    out, dq, dk, dv, lse = ours(q, k, v, grad_out, layout_of(causal(70, 0)))
    assert (lse == -torch.inf).all()
    assert (out == 0).all()
    assert (dq == 0).all()
    assert dk.shape == dv.shape == (1, 1, 0, 64)
    none = tensors((0, 2, 1, 70, 70, 64, 64), torch.float32)
    assert ours(*none, layout_of(causal(70, 70)))[0].shape == (0, 2, 70, 64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_no_row_depends_on_what_it_does_not_see(dtype):
    torch.manual_seed(5)
    q, k, v, _ = tensors((1, 2, 2, 200, 200, 64, 64), dtype)
    layout = layout_of(causal(200, 200))
    before, _ = forward(q, k, v, layout, scale=0.125)
    q[:, :, 77:], k[:, :, 77:], v[:, :, 77:] = 3, 9, 1e30
    after, _ = forward(q, k, v, layout, scale=0.125)
    assert torch.equal(before[:, :, :77], after[:, :, :77])
    assert not torch.equal(before[:, :, 77:], after[:, :, 77:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_results_do_not_depend_on_the_number_of_threads(dtype):
    torch.manual_seed(6)
    given = tensors((1, 4, 2, 200, 200, 64, 64), dtype)
    layout = layout_of(causal(200, 200, 100))
    usual = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(ours(*given, layout))
    finally:
        torch.set_num_threads(usual)
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))


def test_strides_change_nothing_and_nothing_is_written_to_inputs():
    torch.manual_seed(7)
    given = tensors((2, 4, 2, 130, 130, 64, 64), torch.float32)
    layout = layout_of(causal(130, 130))
    expected = ours(*given, layout)
    strided = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in given]
    strided[2] = strided[2].mT.contiguous().mT  # not even the last axis is contiguous
    copies = [x.clone() for x in strided]
    assert all(torch.equal(x, y) for x, y in zip(ours(*strided, layout), expected, strict=True))
    assert all(torch.equal(x, y) for x, y in zip(strided, copies, strict=True))


def test_the_exponential_keeps_its_relative_error():
    """Two keys of scores 0 and x, values 0 and 1: out = e^x / (1 + e^x).

    x log2(e) is rounded twice, which is |x| 2^-23; 2^-22 bounds the polynomial (1.5e-7) and the
    rounding of a sum, a quotient and a product.
    """
    x = torch.linspace(-80, 0, 4001)
    q, k, v = x.view(1, 1, -1, 1), torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0])
    layout = layout_of(torch.ones(1, 4001, 2, dtype=torch.bool))
    out, lse = forward(q, k.view(1, 1, 2, 1), v.view(1, 1, 2, 1), layout, scale=1.0)
    exact = x.double().sigmoid()
    error = (out.flatten() - exact).abs() / exact
    assert (error <= x.abs() * 2**-23 + 2**-22).all()
    assert (lse.flatten() - x.double().exp().log1p()).abs().max() <= 2**-22


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_computes_the_same():
    torch.manual_seed(8)
    q, k, v, _ = tensors((1, 4, 4, 200, 200, 64, 64), torch.float32)
    layout = layout_of(causal(200, 200))
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected, _ = forward(q, k, v, layout, scale=0.125)
        child = os.fork()
        if not child:
            out, _ = forward(q, k, v, layout, scale=0.125)
            os._exit(out.numpy().tobytes() != expected.numpy().tobytes())
        assert os.waitpid(child, 0)[1] == 0
    finally:
        torch.set_num_threads(usual)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block": 32}, "side of 64, got 32"),
        ({"cols": torch.tensor([0, 0, 2], dtype=torch.int32)}, r"\[0, 2\), got 0 to 2"),
        ({"masks_of": torch.tensor([0, -2, 0], dtype=torch.int32)}, r"\[-1, 2\), got -2 to 0"),
        ({"rows": torch.tensor([0, 3], dtype=torch.int32)}, "1 rows of blocks"),
        ({"rows": torch.tensor([0, 4, 3], dtype=torch.int32)}, "must rise from 0"),
        ({"masks": torch.ones(1, 64, 32, dtype=torch.bool)}, r"got \(1, 64, 32\)"),
        ({"cols": torch.tensor([0, 0, 1])}, "must be int32"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(change, message):
    q, k, v, _ = tensors((1, 2, 2, 128, 128, 64, 64), torch.float32)
    layout = SimpleNamespace(**(vars(layout_of(causal(128, 128))) | change))
    with pytest.raises(ValueError, match=message):
        forward(q, k, v, layout, scale=1.0)


def test_tensors_that_do_not_fit_are_refused():
    q, k, v, grad_out = tensors((1, 2, 2, 64, 64, 64, 64), torch.float32)
    run = partial(forward, layout=layout_of(causal(64, 64)), scale=1.0)
    with pytest.raises(ValueError, match="float64"):
        run(q.double(), k.double(), v.double())
    with pytest.raises(ValueError, match="G dividing H"):
        run(q[:, :1], k, v)
    with pytest.raises(ValueError, match="keep must be"):
        run(q, k, v, keep=torch.ones(1, 63, dtype=torch.bool))
    out, lse = run(q, k, v)
    with pytest.raises(ValueError, match="grad_out must be"):
        backward(grad_out[..., 1:], q, k, v, out, lse, layout_of(causal(64, 64)), scale=1.0)
