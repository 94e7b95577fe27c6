"""What every attention technique satisfies, over all of the family, at its level."""

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from harness import catalogue
from impls.attention._masked import masked_attention
from impls.attention._sparse import SparseAttention
from impls.attention.interface import AttentionKernel, LayerShape, Work
from impls.positions import RoPE

TECHNIQUES = tuple(name for name in catalogue.techniques() if name.startswith("attention/"))
KERNELS = tuple(name for name in TECHNIQUES if issubclass(catalogue.load(name), AttentionKernel))
# Sizes at which some dozen tokens leave something to leave out, to forget or to compress.
SMALL = {
    "window": 12, "stride": 4, "expressivity": 2, "compress": 8, "block": 8, "selected": 4,
    "sinks": 2, "chunk": 8, "top_k": 2,
}  # fmt: skip
SHAPE = LayerShape(d_model=32, n_heads=4, n_kv_heads=2, d_head=8, max_len=64)
ENCODING = RoPE().build(SHAPE)
T = 41
EXACT = 1e-10  # float64: sums in another order, 1e-16 times the terms and a generous condition

every_technique = pytest.mark.parametrize("name", TECHNIQUES)
every_kernel = pytest.mark.parametrize("name", KERNELS)


def small(name: str):
    cls = catalogue.load(name)
    return cls(**{field.name: SMALL[field.name] for field in fields(cls) if field.name in SMALL})


def built(name: str, dtype: torch.dtype = torch.float64):
    """A layer, with 2 key/value heads for 4 query heads where it can."""
    technique = small(name)
    shape = SHAPE if technique.capabilities.gqa else replace(SHAPE, n_kv_heads=SHAPE.n_heads)
    torch.manual_seed(0)
    return technique, technique.build(shape).to(dtype), shape


def run(layer, x: Tensor, pos: Tensor | None = None, **options) -> Tensor:
    pos = torch.arange(x.shape[1])[None] if pos is None else pos
    return layer(x, pos=pos, encoding=ENCODING, **options)


def decoded(layer, x: Tensor, sizes: list[int]) -> tuple[Tensor, object]:
    """Outputs of x taken in by pieces, and the state after them."""
    state = layer.init_state(x.shape[0], x.shape[1])
    outputs, start = [], 0
    for size in sizes:
        piece = slice(start, start + size)
        pos = torch.arange(x.shape[1])[None, piece]
        outputs.append(run(layer, x[:, piece], pos, state=state))
        start += size
    return torch.cat(outputs, dim=1), state


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def heads(technique, n_q: int, n_k: int, dtype: torch.dtype = torch.float64):
    """Queries, keys and values of 2 sequences, 4 heads."""
    n_kv = technique.kv_heads(4, 2) if technique.capabilities.gqa else 4
    q = random(2, 4, n_q, 8, seed=1)
    k, v = random(2, n_kv, n_k, 8, seed=2), random(2, n_kv, n_k, 8, seed=3)
    return q.to(dtype), k.to(dtype), v.to(dtype)


def needs_mask(name: str):
    """The kernel, where a softmax under a mask is all there is to it."""
    technique = small(name)
    if not (technique.capabilities.dense or isinstance(technique, SparseAttention)):
        pytest.skip("no softmax under a mask; its own tests have its oracle")
    return technique


def needs(technique, *names: str) -> None:
    for name in names:
        if not getattr(technique.capabilities, name):
            pytest.skip(f"declares {name}=False")


@every_technique
@pytest.mark.parametrize("sizes", [[1] * T, [7, 20, 1, 13]], ids=["tokens", "chunks"])
def test_decoding_equals_one_pass(name, sizes):
    _, layer, _ = built(name)
    x = random(2, T, 32)
    torch.testing.assert_close(decoded(layer, x, sizes)[0], run(layer, x), rtol=0, atol=EXACT)


@every_technique
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_later_token_changes_no_bit(name, dtype):
    _, layer, _ = built(name, dtype)
    x = random(2, 130, 32, dtype=dtype)
    before = run(layer, x)
    for t in (1, 64, 129):
        changed = torch.cat((x[:, :t], random(2, 130 - t, 32, seed=9, dtype=dtype)), dim=1)
        assert torch.equal(run(layer, changed)[:, :t], before[:, :t])


@every_technique
@pytest.mark.parametrize("causal", [True, False])
def test_padding_to_the_right_changes_nothing(name, causal):
    technique, layer, _ = built(name)
    needs(technique, "padding", "causal" if causal else "bidirectional")
    x = random(2, T, 32)
    keep = torch.ones(2, T, dtype=torch.bool)
    keep[1, 30:] = False
    y = run(layer, x, keep=keep, causal=causal)
    alone = run(layer, x[1:, :30], causal=causal)
    torch.testing.assert_close(y[1:, :30], alone, rtol=0, atol=EXACT)


@every_technique
def test_padding_to_the_left_changes_nothing(name):
    technique, layer, _ = built(name)
    needs(technique, "padding", "shift")
    x, n = random(2, T, 32), 11
    keep = torch.ones(2, T, dtype=torch.bool)
    keep[1, :n] = False
    pos = torch.stack((torch.arange(T), (torch.arange(T) - n).clamp(min=0)))
    y = run(layer, x, pos, keep=keep)
    torch.testing.assert_close(y[1:, n:], run(layer, x[1:, n:]), rtol=0, atol=EXACT)


@every_technique
def test_sequences_of_a_batch_do_not_meet(name):
    _, layer, _ = built(name)
    x = random(3, T, 32)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(run(layer, x[order]), run(layer, x)[order], rtol=0, atol=EXACT)


@every_technique
def test_padding_alone_gives_no_nan(name):
    technique, layer, _ = built(name)
    needs(technique, "padding")
    x = random(2, T, 32).requires_grad_()
    keep = torch.ones(2, T, dtype=torch.bool)
    keep[1] = False
    y = run(layer, x, keep=keep)
    y.sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())


@every_technique
def test_gradients(name):
    _, layer, _ = built(name)
    x = random(2, 19, 32).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: run(layer, x), x, fast_mode=True)


@every_technique
def test_any_length(name):
    _, layer, _ = built(name, torch.float32)
    for length in (1, 2, 15, 63, 65):
        y = run(layer, random(1, length, 32, dtype=torch.float32))
        assert y.shape == (1, length, 32)
        assert y.isfinite().all()


@every_technique
def test_inputs_are_not_written(name):
    technique, layer, _ = built(name)
    x, pos = random(2, T, 32), torch.arange(T)[None]
    keep = torch.rand(2, T) < 0.8 if technique.capabilities.padding else None
    given = [y for y in (x, pos, keep) if y is not None]
    copies = [y.clone() for y in given]
    run(layer, x, pos, keep=keep)
    run(layer, x, pos, keep=keep, state=layer.init_state(2, T))
    assert all(torch.equal(a, b) for a, b in zip(given, copies, strict=True))


@every_technique
def test_the_state_grows_as_declared(name):
    technique, layer, shape = built(name)
    x = random(1, 128, 32)
    with torch.no_grad():
        half, whole = (decoded(layer, x[:, :n], [1] * n)[1].nbytes for n in (64, 128))
    growth = technique.cache_bytes_per_token(shape, itemsize=8)
    assert whole - half == 64 * growth
    assert (growth > 0) == (technique.capabilities.decoding == "linear")


@every_technique
def test_what_is_not_declared_is_refused(name):
    technique, layer, _ = built(name)
    if technique.capabilities.bidirectional:
        pytest.skip("declares bidirectional=True")
    with pytest.raises(ValueError, match="causal"):
        run(layer, random(1, T, 32), causal=False)


@every_kernel
def test_a_bias_is_taken_or_refused(name):
    technique = small(name)
    q, k, v = heads(technique, T, T)
    bias = random(1, 4, T, T, seed=4)
    if not technique.capabilities.bias:
        with pytest.raises(ValueError, match="bias"):
            technique.attend(q, k, v, bias=bias)
        return
    assert not torch.equal(technique.attend(q, k, v, bias=bias), technique.attend(q, k, v))


@every_kernel
def test_the_default_puts_the_last_query_beside_the_last_key(name):
    technique = small(name)
    needs(technique, "cross")
    q, k, v = heads(technique, T, T)
    last = technique.attend(q[:, :, -9:], k, v)
    torch.testing.assert_close(last, technique.attend(q, k, v)[:, :, -9:], rtol=0, atol=EXACT)


@every_kernel
@pytest.mark.parametrize(("n_q", "n_k"), [(17, 41), (41, 17)])
def test_offset_0_puts_the_first_query_beside_the_first_key(name, n_q, n_k):
    technique = small(name)
    needs(technique, "cross")
    q, k, v = heads(technique, n_q, n_k)
    y = technique.attend(q, k, v, offset=0)
    n = min(n_q, n_k)
    square = technique.attend(q[:, :, :n], k[:, :, :n], v[:, :, :n])
    torch.testing.assert_close(y[:, :, :n], square, rtol=0, atol=EXACT)
    if technique.capabilities.dense:  # torch's is_causal means this offset, not the default
        group = q.shape[1] // k.shape[1]
        k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
        expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        torch.testing.assert_close(y, expected, rtol=0, atol=EXACT)
        assert not torch.allclose(technique.attend(q, k, v), expected)


@every_kernel
def test_a_row_that_sees_nothing_is_0(name):
    technique = small(name)
    needs(technique, "padding")
    q, k, v = heads(technique, T, T)
    keep = torch.ones(2, T, dtype=torch.bool)
    keep[1, :5] = False
    assert not technique.attend(q, k, v, keep=keep)[1, :, :5].any()
    assert not technique.attend(q, k, v, keep=torch.zeros_like(keep)).any()


@every_kernel
def test_query_heads_share_keys_as_if_repeated(name):
    technique = small(name)
    needs(technique, "gqa")
    q, k, v = heads(technique, T, T)
    repeated = (x.repeat_interleave(4 // x.shape[1], dim=1) for x in (k, v))
    y = technique.attend(q, *repeated)
    torch.testing.assert_close(technique.attend(q, k, v), y, rtol=0, atol=EXACT)


@every_kernel
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("n_q", [1, 15, 130])
def test_equals_a_softmax_under_its_mask(name, causal, n_q):
    technique = needs_mask(name)
    q, k, v = heads(technique, n_q, 130)
    keep, bias = random(2, 130, seed=5) > -1, random(1, 4, n_q, 130, seed=6)
    options = {"causal": causal, "keep": keep}
    mask = technique.mask(n_q, 130, causal=causal, offset=130 - n_q, n_heads=4)
    mask = mask & keep[:, None, None]
    for added in (None, bias):
        y = technique.attend(q, k, v, bias=added, **options)
        expected = masked_attention(q, k, v, mask, bias=added)
        torch.testing.assert_close(y, expected, rtol=0, atol=EXACT)


@every_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_its_error_is_at_most_twice_the_naive_one(name, dtype):
    technique = needs_mask(name)
    q, k, v = heads(technique, 130, 130, dtype)
    mask = technique.mask(130, 130, causal=True, offset=0, n_heads=4)
    exact = masked_attention(q.double(), k.double(), v.double(), mask)
    naive = (masked_attention(q, k, v, mask).double() - exact).abs().max()
    y = technique.attend(q, k, v)
    assert y.dtype == dtype
    assert (y.double() - exact).abs().max() <= 2 * naive


@every_kernel
def test_pairs_are_those_of_the_mask(name):
    technique = needs_mask(name)
    work = Work(batch=1, n_heads=4, n_kv_heads=4, n_q=100, n_k=130)
    mask = technique.mask(100, 130, causal=True, offset=30, n_heads=4)
    assert technique.pairs(work) == round(int(mask.sum()) / mask.shape[1])
