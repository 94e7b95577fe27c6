"""TUPE: its formula in a loop, its identity with T5's bias, one score for all layers."""

import pytest
import torch

from impls.models.decoder import Decoder, DecoderShape
from impls.positions._buckets import bucket
from impls.positions.interface import Frame, LayerShape
from impls.positions.tupe import TUPE

BOTH_WAYS = LayerShape(d_model=12, n_heads=4, n_kv_heads=2, d_head=6, max_len=40, causal=False)


def encoding_and_inputs(shape=BOTH_WAYS, **fields):
    torch.manual_seed(0)
    encoding = TUPE(**fields).build(shape).double()
    for p in encoding.parameters():
        torch.nn.init.normal_(p)
    q = torch.randn(1, 4, 40, 6, dtype=torch.float64)
    k = torch.randn(1, 2, 40, 6, dtype=torch.float64)
    pos = torch.arange(40)[None]
    return encoding, q, k, Frame(pos, pos, causal=shape.causal)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("n_buckets", "max_distance"), [(32, 128), (8, 20), (64, 1000)])
def test_buckets_equal_t5(bidirectional, n_buckets, max_distance):
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5").T5Attention
    distance = torch.arange(-3000, 3000).view(3, -1)
    expected = t5._relative_position_bucket(-distance, bidirectional, n_buckets, max_distance)
    ours = bucket(
        distance, n_buckets=n_buckets, max_distance=max_distance, bidirectional=bidirectional
    )
    assert torch.equal(ours, expected)


def test_scores_equal_a_loop_over_pairs():
    encoding, q, k, frame = encoding_and_inputs()
    bias = encoding.score_bias(q, k, frame)
    p = encoding.norm(encoding.table.weight)
    p_q, p_k = (f(p).view(40, 4, 6) for f in (encoding.q_proj, encoding.k_proj))
    for h, i, j in ((0, 1, 39), (1, 39, 1), (2, 7, 7), (3, 8, 5)):
        row = bucket(torch.tensor(i - j), bidirectional=True)
        expected = p_q[i, h] @ p_k[j, h] / 12**0.5 + encoding.b.weight[row, h]
        torch.testing.assert_close(bias[0, h, i, j], expected)
    assert encoding.scale(6) == 12**-0.5


def test_without_the_absolute_product_it_is_t5s_bias():
    encoding, q, k, frame = encoding_and_inputs(untied_cls=False)
    torch.nn.init.zeros_(encoding.q_proj.weight)
    t5 = encoding.b(bucket(frame.distance, bidirectional=True)).permute(0, 3, 1, 2)
    torch.testing.assert_close(encoding.score_bias(q, k, frame), t5)


def test_untied_cls_sees_and_is_seen_alike_everywhere():
    encoding, q, k, frame = encoding_and_inputs()
    bias = encoding.score_bias(q, k, frame)[0]
    theta_1, theta_2 = encoding.theta.view(2, 4, 1)
    assert torch.equal(bias[:, 0], theta_1.expand(-1, 40))
    assert torch.equal(bias[:, 1:, 0], theta_2.expand(-1, 39))


def test_cls_is_untied_only_where_attention_goes_both_ways():
    causal = LayerShape(causal=True)
    assert TUPE().build(BOTH_WAYS).theta is not None
    assert TUPE().build(causal).theta is None
    assert TUPE(untied_cls=True).build(causal).theta is not None


def test_score_mod_equals_score_bias():
    encoding, q, k, frame = encoding_and_inputs()
    pos, mod = torch.arange(40), encoding.score_mod()
    h = torch.arange(4)[:, None, None]
    pointwise = mod(torch.zeros(4, 40, 40), torch.tensor(0), h, pos[:, None], pos[None])
    torch.testing.assert_close(pointwise[None], encoding.score_bias(q, k, frame))


def decoder_that_counts(n_layers=3):
    """A decoder, and a list of how many queries each computed score was for."""
    torch.manual_seed(0)
    shape = DecoderShape(d_model=16, n_layers=n_layers, n_heads=2, vocab_size=20, max_len=16)
    model, computed = Decoder(shape, encoding=TUPE()).double(), []
    score = model.encoding.score

    def counted(q_pos, k_pos):
        computed.append(q_pos.shape[1])
        return score(q_pos, k_pos)

    model.encoding.score = counted
    return model, computed


def test_layers_share_one_score():
    model, computed = decoder_that_counts()
    ids = torch.randint(20, (2, 11))
    model(ids)
    state = model.init_state(2, 16)
    model(ids[:, :7], state=state)
    model(ids[:, 7:8], state=state)
    assert computed == [11, 7, 1]


def test_a_shared_score_follows_its_parameters_and_carries_all_gradients():
    model, _ = decoder_that_counts()
    ids, table = torch.randint(20, (2, 11)), model.encoding.table.weight
    for _ in range(2):  # a second pass needs a score and a graph of its own
        model.zero_grad()
        loss = model(ids).logsumexp(-1).sum()
        loss.backward()
        slope, step = table.grad[3, 2].item(), 1e-5
        with torch.no_grad():
            table[3, 2] += step
            risen = model(ids).logsumexp(-1).sum()
        assert (risen - loss).item() / step == pytest.approx(slope, rel=1e-3, abs=1e-7)


def test_positions_beyond_the_table_are_refused():
    model, _ = decoder_that_counts()
    with pytest.raises(ValueError, match="positions 0 to 15, not 16"):
        model(torch.zeros(1, 17, dtype=torch.int64))


def test_settings_out_of_range_are_named():
    with pytest.raises(ValueError, match="got 3"):
        TUPE(n_buckets=3)
    with pytest.raises(ValueError, match="got 16"):
        TUPE(max_distance=16)
