"""Transformer-XL against XLNet's code, a gather loop, and dense attention over the memory."""

import pytest
import torch

from impls.models.attention import Dense, SelfAttention
from impls.models.decoder import Decoder, DecoderShape
from impls.positions.interface import Frame, LayerShape
from impls.positions.transformer_xl import SegmentMemory, TransformerXL, segments

SHAPE = LayerShape(d_model=12, n_heads=4, n_kv_heads=2, d_head=6, n_layers=2)


def layer_and_inputs(n_q=5, n_k=9):
    torch.manual_seed(0)
    layer = TransformerXL().build(SHAPE).at(1).double()
    q = torch.randn(2, 4, n_q, 6, dtype=torch.float64)
    k = torch.randn(2, 2, n_k, 6, dtype=torch.float64)
    frame = Frame(torch.arange(n_k - n_q, n_k)[None], torch.arange(n_k)[None])
    return layer, q, k, frame


def sinusoids(distance, width):
    pairs = [distance * 10_000.0 ** (-2 * m / width) for m in range(width // 2)]
    angles = torch.tensor(pairs, dtype=torch.float64)
    return torch.cat((angles.sin(), angles.cos()))


def test_scores_equal_a_loop_over_pairs():
    layer, q, k, frame = layer_and_inputs()
    bias, queries = layer.score_bias(q, k, frame), layer.queries(q, frame)
    u, v = layer._biases[0].u[:, 0], layer._biases[0].v[:, 0]
    for i, j in ((0, 0), (0, 4), (2, 8), (4, 8), (4, 0)):
        r = layer.r_proj(sinusoids(4 + i - j, 12)).view(4, 6)
        expected = ((q[:, :, i] + v) * r).sum(-1) / 6**0.5
        torch.testing.assert_close(bias[:, :, i, j], expected)
        content = (queries[:, :, i] * k[:, :, j].repeat_interleave(2, 1)).sum(-1)
        torch.testing.assert_close(
            content, ((q[:, :, i] + u) * k[:, :, j].repeat_interleave(2, 1)).sum(-1)
        )


def test_scattered_positions_equal_the_same_pairs_of_consecutive_ones():
    layer, q, k, frame = layer_and_inputs(9, 9)
    rows, columns = torch.tensor([7, 1, 4]), torch.tensor([0, 8, 3, 4])
    part = Frame(rows[None], columns[None])
    expected = layer.score_bias(q, k, frame)[:, :, rows][..., columns]
    torch.testing.assert_close(layer.score_bias(q[:, :, rows], k[:, :, columns], part), expected)


def test_attention_equals_xlnet():
    xlnet = pytest.importorskip("transformers.models.xlnet.modeling_xlnet")
    config = pytest.importorskip("transformers").XLNetConfig
    theirs = xlnet.XLNetRelativeAttention(config(d_model=24, n_head=4, d_inner=8, dropout=0.0))
    shape = LayerShape(d_model=24, n_heads=4, n_kv_heads=4, d_head=6)
    layer = TransformerXL().build(shape).at(0)
    q, k, v = torch.randn(3, 2, 4, 7, 6).unbind(0)
    distances = torch.arange(7, -7, -1)  # XLNet's order; its last row is never read
    rows = layer._rows(distances, torch.float32)  # (H, n, d)
    with torch.no_grad():
        theirs.r_w_bias.copy_(layer._biases[0].u[:, 0])
        theirs.r_r_bias.copy_(layer._biases[0].v[:, 0])
        blnd = [x.permute(2, 0, 1, 3) for x in (q, k, v)]  # tokens first, as XLNet has them
        expected = theirs.rel_attn_core(*blnd, rows.transpose(0, 1)[:, None].expand(-1, 2, -1, -1))
    frame = Frame(torch.arange(7)[None], torch.arange(7)[None], causal=False)
    y = Dense().attend(
        layer.queries(q, frame), k, v, causal=False, bias=layer.score_bias(q, k, frame)
    )
    torch.testing.assert_close(y.permute(2, 0, 1, 3), expected, atol=1e-5, rtol=1e-5)


def test_shared_biases_are_one_pair():
    own = sum(p.numel() for p in TransformerXL().build(SHAPE).parameters())
    shared = sum(p.numel() for p in TransformerXL(shared_biases=True).build(SHAPE).parameters())
    assert own - shared == (SHAPE.n_layers - 1) * 2 * SHAPE.n_heads * SHAPE.d_head


class Windowed(Dense):
    """Dense attention in which each query sees no key before a first one."""

    def __init__(self, first):
        self.first = first  # (T,)

    def attend(self, q, k, v, *, bias, **options):
        hidden = torch.arange(k.shape[2]) < self.first[:, None]
        return super().attend(q, k, v, bias=bias.masked_fill(hidden, float("-inf")), **options)


def decoder(n_layers, **changes):
    torch.manual_seed(0)
    shape = DecoderShape(d_model=16, n_layers=n_layers, n_heads=2, vocab_size=40, **changes)
    model = Decoder(shape, encoding=TransformerXL()).double()
    for p in model.parameters():  # the small initial weights would hide what attention reads
        torch.nn.init.normal_(p, std=0.3)
    return model


@pytest.mark.parametrize(("length", "memory"), [(1, 4), (5, 3), (3, 7)])
def test_memory_is_a_window_for_one_layer(length, memory):
    model = decoder(1)
    ids = torch.randint(40, (2, 17))
    by_segments = torch.cat(list(segments(model, ids, length=length, memory=memory)), dim=1)
    start = torch.arange(17) // length * length
    attention = model.blocks[0].attention
    assert isinstance(attention, SelfAttention)
    attention.kernel = Windowed(start - memory)
    torch.testing.assert_close(by_segments, model(ids))


def test_layers_times_memory_is_the_receptive_field():
    model, memory, n_layers = decoder(3), 2, 3
    ids = torch.randint(40, (1, 12))

    def last(ids):
        return list(segments(model, ids, length=1, memory=memory))[-1]

    reached, missed, first = ids.clone(), ids.clone(), 11 - n_layers * memory
    reached[0, first] = (ids[0, first] + 1) % 40
    missed[0, :first] = (ids[0, :first] + 1) % 40
    assert not torch.equal(last(reached), last(ids))
    assert torch.equal(last(missed), last(ids))


def test_no_gradient_crosses_to_an_earlier_segment():
    model = decoder(2, tied=False)
    ids = torch.arange(10)[None]
    first, second = segments(model, ids, length=5, memory=5)
    second.sum().backward()
    touched = model.embedding.weight.grad.abs().sum(-1) > 0
    assert touched.nonzero().flatten().tolist() == [5, 6, 7, 8, 9]
    first.sum().backward()  # the first segment's graph is its own


def test_memory_remembers_padding_and_counts_its_bytes():
    cache = SegmentMemory(2)
    k, pos = torch.randn(1, 1, 3, 4), torch.arange(3)[None]
    keep = torch.tensor([[True, True, False]])
    cache.append(k, k, pos, keep)
    held = cache.append(k, k, pos + 3, None)
    assert held.k_pos.tolist() == [[1, 2, 3, 4, 5]]
    assert held.keep.tolist() == [[True, False, True, True, True]]
    assert cache.nbytes == 2 * 2 * 4 * 4
    assert cache.append(k, k, pos + 6, None).keep is None


def test_settings_out_of_range_are_named():
    with pytest.raises(ValueError, match="got 13"):
        TransformerXL().build(LayerShape(d_model=13))
    with pytest.raises(ValueError, match="got 0"):
        SegmentMemory(0)
    with pytest.raises(ValueError, match=r"got 1\.0"):
        TransformerXL(base=1.0)
