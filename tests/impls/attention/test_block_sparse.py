"""Block-sparse attention: its butterfly, its lists, and layouts in general."""

import pytest
import torch
from pydantic import TypeAdapter

from impls.attention import BigBird, BlockSparseAttention, FullAttention, SlidingWindow
from impls.attention._blocks import Everything, block_attention, layout
from impls.attention._masked import masked_attention
from impls.attention.interface import Work


def pairs(technique: BlockSparseAttention, n: int, causal: bool) -> set[tuple[int, int]]:
    """Block pairs read."""
    mask = technique.mask(4 * n, 4 * n, causal=causal, offset=0, n_heads=1)[0, 0]
    return {tuple(pair) for pair in (mask.nonzero() // 4).tolist()}


def test_the_butterfly_joins_blocks_that_differ_in_one_digit():
    expected = {
        (b, c) for b in range(16) for c in range(16) if abs(b - c) < 2 or (b ^ c).bit_count() == 1
    }
    assert pairs(BlockSparseAttention(block=4), 16, causal=False) == expected


def test_a_list_is_read_as_it_stands():
    kept = ((0, 0), (1, 0), (2, 2), (3, 1), (3, 3))
    assert pairs(BlockSparseAttention(block=4, kept=kept), 4, causal=False) == set(kept)


def test_a_list_of_all_blocks_is_full_attention():
    kept = tuple((b, c) for b in range(5) for c in range(5))
    q = torch.randn(1, 2, 70, 8, dtype=torch.float64)
    y = BlockSparseAttention(block=16, kept=kept).attend(q, q, q)
    torch.testing.assert_close(y, FullAttention().attend(q, q, q))


def test_a_list_survives_json():
    adapter = TypeAdapter(BlockSparseAttention)
    technique = BlockSparseAttention(kept=((0, 0), (1, 0)))
    assert adapter.validate_json(adapter.dump_json(technique), strict=True) == technique


def test_the_share_of_blocks_falls_with_the_length():
    shares = [BlockSparseAttention().kept_share(Work(n_q=n, n_k=n)) for n in (1024, 4096)]
    assert shares[1] < shares[0] / 2


def test_a_layout_for_another_length_is_refused():
    q = torch.randn(1, 1, 70, 8)
    with pytest.raises(ValueError, match="for 64 queries and 64 keys, not 70 and 70"):
        block_attention(q, q, q, layout(Everything(), 64, 64, causal=True, offset=0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "technique",
    [BlockSparseAttention(block=16), BigBird(block=16), SlidingWindow(window=40)],
    ids=["butterfly", "heads differ", "window"],
)
def test_gradients_equal_those_of_a_softmax_under_the_mask(technique, dtype):
    torch.manual_seed(0)
    q, k, v, dy = (torch.randn(2, heads, 150, 16, dtype=dtype) for heads in (4, 2, 2, 4))
    leaves = [x.requires_grad_() for x in (q, k, v)]
    mask = technique.mask(150, 150, causal=True, offset=0, n_heads=4)
    found = torch.autograd.grad(technique.attend(q, k, v), leaves, dy)
    naive = torch.autograd.grad(masked_attention(q, k, v, mask), leaves, dy)
    doubles = [x.detach().double().requires_grad_() for x in leaves]
    exact = torch.autograd.grad(masked_attention(*doubles, mask), doubles, dy.double())
    rounding = torch.finfo(dtype).eps
    for ours, theirs, truth in zip(found, naive, exact, strict=True):
        error, allowed = (ours - truth).abs().max(), (theirs - truth).abs().max()
        assert error <= 2 * allowed + 8 * rounding * truth.abs().max()
