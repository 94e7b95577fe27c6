"""DeBERTa against transformers' two versions, and the paper's formula against a loop."""

import pytest
import torch

from impls.models.attention import Dense
from impls.positions.deberta import DeBERTa, log_bucket
from impls.positions.interface import Frame, LayerShape

SHAPE = LayerShape(d_model=24, n_heads=4, n_kv_heads=4, d_head=6, causal=False)
COMMON = {
    "hidden_size": 24,
    "num_attention_heads": 4,
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def encoding_of(recipe):
    torch.manual_seed(0)
    encoding = recipe.build(SHAPE)
    for p in encoding.parameters():  # at 0.02 the two terms would vanish beside the tolerance
        torch.nn.init.normal_(p, std=0.5)
    return encoding


def attended(layer, q, k, v):
    pos = torch.arange(q.shape[2])[None]
    frame = Frame(pos, pos, causal=False)
    bias, scale = layer.score_bias(q, k, frame), layer.scale(6)
    return Dense().attend(q, k, v, causal=False, bias=bias, scale=scale).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("n", [5, 17])
def test_attention_equals_transformers_deberta(n):
    pytest.importorskip("transformers")
    from transformers import DebertaConfig
    from transformers.models.deberta import modeling_deberta

    theirs = modeling_deberta.DisentangledSelfAttention(
        DebertaConfig(**COMMON, max_relative_positions=8)
    )
    encoding = encoding_of(DeBERTa(max_distance=8, released_p2c=True))
    layer, x = encoding.at(1), torch.randn(2, n, 24)
    with torch.no_grad():
        theirs.pos_proj.weight.copy_(layer.k_proj.weight)
        theirs.pos_q_proj.weight.copy_(layer.q_proj.weight)
        theirs.pos_q_proj.bias.zero_()
        qkv = theirs.in_proj(x).unflatten(-1, (4, 18)).transpose(1, 2).chunk(3, dim=-1)
        distance = (torch.arange(n)[:, None] - torch.arange(n))[None]
        everyone = torch.ones(2, 1, n, n, dtype=torch.bool)
        table = encoding.table.weight
        expected, _ = theirs(x, everyone, relative_pos=distance, rel_embeddings=table)
    torch.testing.assert_close(attended(layer, *qkv), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("n", [5, 29])
def test_attention_equals_transformers_deberta_v2(n):
    pytest.importorskip("transformers")
    from transformers import DebertaV2Config
    from transformers.models.deberta_v2 import modeling_deberta_v2

    theirs = modeling_deberta_v2.DisentangledSelfAttention(
        DebertaV2Config(**COMMON, max_relative_positions=24, position_buckets=8)
    )
    encoding = encoding_of(DeBERTa(max_distance=24, n_buckets=8, released_p2c=True))
    layer, x = encoding.at(0), torch.randn(2, n, 24)
    with torch.no_grad():
        theirs.pos_key_proj.weight.copy_(layer.k_proj.weight)
        theirs.pos_query_proj.weight.copy_(layer.q_proj.weight)
        for projection in (theirs.pos_key_proj, theirs.pos_query_proj):
            if projection.bias is not None:
                projection.bias.zero_()
        projections = (theirs.query_proj, theirs.key_proj, theirs.value_proj)
        qkv = [p(x).unflatten(-1, (4, 6)).transpose(1, 2) for p in projections]
        everyone, table = torch.ones(2, 1, n, n, dtype=torch.bool), encoding.table.weight
        expected, _ = theirs(x, everyone, rel_embeddings=table)
    torch.testing.assert_close(attended(layer, *qkv), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("n_buckets", "max_distance"), [(256, 512), (32, 128), (8, 24)])
def test_buckets_equal_transformers(n_buckets, max_distance):
    theirs = pytest.importorskip("transformers.models.deberta_v2.modeling_deberta_v2")
    distance = torch.arange(-max_distance, max_distance + 1)
    expected = theirs.make_log_bucket_position(distance, n_buckets, max_distance)
    assert torch.equal(log_bucket(distance, n_buckets, max_distance), expected.long())


@pytest.mark.parametrize("released", [False, True])
def test_scores_equal_a_loop_over_pairs(released):
    encoding = encoding_of(DeBERTa(max_distance=4, released_p2c=released)).double()
    layer, table = encoding.at(0), encoding.table.weight
    q, k = torch.randn(2, 1, 4, 11, 6, dtype=torch.float64)
    pos = torch.arange(11)[None]
    bias = layer.score_bias(q, k, Frame(pos, pos))
    k_rel, q_rel = layer.k_proj(table).view(8, 4, 6), layer.q_proj(table).view(8, 4, 6)

    def delta(i, j):
        return max(0, min(i - j + 4, 7))

    for h, i, j in ((0, 10, 0), (1, 0, 10), (2, 5, 3), (3, 3, 5), (3, 4, 4)):
        p2c = delta(i, j) if released else delta(j, i)
        expected = q[0, h, i] @ k_rel[delta(i, j), h] + k[0, h, j] @ q_rel[p2c, h]
        torch.testing.assert_close(bias[0, h, i, j], expected / 18**0.5)


def test_the_table_is_one_for_all_layers():
    names = dict(DeBERTa(max_distance=8).build(SHAPE).named_parameters())
    assert sorted(names) == [
        *(f"layers.{n}.{p}_proj.weight" for n in range(SHAPE.n_layers) for p in "kq"),
        "table.weight",
    ]


def test_settings_out_of_range_are_named():
    with pytest.raises(ValueError, match="got 1"):
        DeBERTa(max_distance=1)
    with pytest.raises(ValueError, match="got 1022"):
        DeBERTa(n_buckets=1022)
