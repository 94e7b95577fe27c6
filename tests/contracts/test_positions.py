"""What every position encoding satisfies, over all techniques of the family.

Most tests go through one attention layer, in float64, with fewer key/value heads than heads, at an
odd length and with parameters that are not at their initial values.
"""

import copy

import pytest
import torch

from harness import catalogue
from impls.models.attention import SelfAttention
from impls.models.decoder import Decoder, DecoderShape
from impls.positions.interface import Frame, LayerShape

TECHNIQUES = tuple(name for name in catalogue.techniques() if name.startswith("positions/"))
SHAPE = LayerShape(d_model=24, n_heads=4, n_kv_heads=2, d_head=8, n_layers=2, max_len=32)
BIDIRECTIONAL = LayerShape(
    d_model=24, n_heads=4, n_kv_heads=2, d_head=8, n_layers=2, max_len=32, causal=False
)
T = 11
EXACT = {"atol": 1e-10, "rtol": 0}

every_technique = pytest.mark.parametrize("name", TECHNIQUES)
either_shape = pytest.mark.parametrize("shape", [SHAPE, BIDIRECTIONAL], ids=["causal", "both ways"])


def moved(module):
    """The module in float64, its parameters off their initial values, ready to evaluate."""
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return module


def built(name, shape=SHAPE):
    torch.manual_seed(0)
    return moved(catalogue.load(name)().build(shape))


def heads(t=T, batch=2, dtype=torch.float64):
    """x, q, k of a layer of this shape."""
    torch.manual_seed(1)
    sizes = (batch, t, 24), (batch, 4, t, 8), (batch, 2, t, 8)
    return tuple(torch.randn(size, dtype=torch.float64).to(dtype) for size in sizes)


def places(t=T, start=0):
    return torch.arange(start, start + t)[None]


def decoder(name):
    torch.manual_seed(0)
    shape = DecoderShape(
        vocab_size=16, d_model=24, n_layers=2, n_heads=4, n_kv_heads=2, d_head=8, max_len=32
    )
    model = Decoder(shape, encoding=catalogue.load(name)())
    moved(model.encoding)
    return model.double().eval()


def tokens(batch=2, t=T):
    return torch.randint(16, (batch, t), generator=torch.Generator().manual_seed(2))


def attended(encoding, shape, x, pos, keep=None):
    """One attention layer over embeddings x."""
    torch.manual_seed(3)
    layer = SelfAttention(shape).to(x.dtype)
    x = encoding.embed(x, pos)
    return layer(x, pos=pos, encoding=encoding.at(0), keep=keep, causal=shape.causal)


def bias_of(layer, q, k, frame):
    held = layer.keys(k, frame) if layer.static_keys else k
    return layer.score_bias(q, held, frame)


def parts(layer, q, k, frame):
    """What a score is made of: queries, keys and bias (0 where there is none)."""
    bias = bias_of(layer, q, k, frame)
    return layer.queries(q, frame), layer.keys(k, frame), q.new_zeros(1) if bias is None else bias


def summed(scale, queries, keys, bias):
    return scale * queries @ keys.repeat_interleave(2, dim=1).mT + bias


def scores(layer, q, k, frame):
    """All of a score, (B, H, Tq, Tk)."""
    return summed(layer.scale(q.shape[-1]), *parts(layer, q, k, frame))


@either_shape
@every_technique
def test_moving_all_positions_changes_what_is_declared(name, shape):
    encoding, (x, _, _) = built(name, shape), heads()
    here, there = (attended(encoding, shape, x, places(start=start)) for start in (0, 9))
    depends_on = catalogue.load(name).depends_on
    if depends_on == "relative":
        torch.testing.assert_close(there, here, **EXACT)
    elif depends_on == "absolute":
        assert (there - here).abs().max() > 1e-4
    else:
        assert torch.equal(there, here)


@every_technique
def test_positions_enter_where_it_says(name):
    encoding, (x, q, k) = built(name), heads()
    layer, frame = encoding.at(0), Frame(places(start=3), places(start=3))
    turned = not torch.equal(layer.queries(q, frame), q) or not torch.equal(layer.keys(k, frame), k)
    found = {
        "embedding": not torch.equal(encoding.embed(x, frame.q_pos), x),
        "product": turned,
        "score": bias_of(layer, q, k, frame) is not None,
        "value": layer.reads_weights,
    }
    where = {place for place, enters in found.items() if enters} or {"nowhere"}
    assert where == set(catalogue.load(name).injected_at)


@pytest.mark.parametrize("chunk", [1, 4])
@every_technique
def test_decoding_with_a_cache_equals_one_pass(name, chunk):
    model, ids = decoder(name), tokens()
    state = model.init_state(2, T)
    pieces = [model(piece, state=state) for piece in ids.split(chunk, dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(ids), **EXACT)


@every_technique
def test_no_logit_depends_on_a_later_token(name):
    model, ids = decoder(name), tokens()
    changed = ids.clone()
    changed[:, 7:] = (ids[:, 7:] + 1) % 16
    assert torch.equal(model(changed)[:, :7], model(ids)[:, :7])


@every_technique
def test_shards_of_queries_and_of_keys_have_the_scores_of_the_whole(name):
    layer, (_, q, k), pos = built(name).at(0), heads(), places()
    whole = scores(layer, q, k, Frame(pos, pos))
    blocks, stripes = (slice(0, 4), slice(4, T)), (slice(0, T, 2), slice(1, T, 2))
    content = catalogue.load(name).depends_on == "content"  # which stands in other shards' keys
    for part in blocks if content else blocks + stripes:
        shard = scores(layer, q[:, :, part], k, Frame(pos[:, part], pos, offset=part.start))
        torch.testing.assert_close(shard, whole[:, :, part], **EXACT)
    for part in () if content else blocks + stripes:
        shard = scores(layer, q, k[:, :, part], Frame(pos, pos[:, part], offset=-part.start))
        torch.testing.assert_close(shard, whole[..., part], **EXACT)


@every_technique
def test_packed_documents_have_the_scores_they_have_alone(name):
    layer, (_, q, k) = built(name).at(0), heads()
    pos = torch.cat((places(6), places(5)), dim=1)
    packed = scores(layer, q, k, Frame(pos, pos))
    for part in (slice(0, 6), slice(6, T)):
        frame = Frame(pos[:, part], pos[:, part])
        alone = scores(layer, q[:, :, part], k[:, :, part], frame)
        visible = frame.visible().expand_as(alone)
        torch.testing.assert_close(packed[:, :, part, part][visible], alone[visible], **EXACT)


@every_technique
def test_padding_on_the_left_changes_nothing(name):
    model, ids = decoder(name), tokens()
    pad = 3
    pos = torch.stack((torch.arange(T), (torch.arange(T) - pad).clamp(min=0)))
    keep = torch.ones(2, T, dtype=torch.bool)
    keep[1, :pad] = False
    logits = model(ids, pos=pos, keep=keep)
    torch.testing.assert_close(logits[:1], model(ids[:1]), **EXACT)
    torch.testing.assert_close(logits[1:, pad:], model(ids[1:, pad:]), **EXACT)


@every_technique
def test_the_order_of_a_batch_changes_nothing(name):
    model, ids = decoder(name), tokens()
    pos = torch.stack((torch.arange(T), torch.arange(T) + 5))
    turned = model(ids.flip(0), pos=pos.flip(0)).flip(0)
    torch.testing.assert_close(turned, model(ids, pos=pos), **EXACT)


@either_shape
@every_technique
def test_gradients_are_right(name, shape):
    encoding, (x, _, _) = built(name, shape), heads(t=5, batch=1)
    values = dict(encoding.named_parameters())

    class Attended(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoding = encoding

        def forward(self, x):
            return attended(self.encoding, shape, x, places(5, start=20))

    def run(x, *parameters):
        named = {f"encoding.{key}": p for key, p in zip(values, parameters, strict=True)}
        return torch.func.functional_call(Attended(), named, (x,))

    inputs = [tensor.detach().requires_grad_() for tensor in (x, *values.values())]
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


@every_technique
def test_every_parameter_learns(name):
    model = decoder(name)
    model(tokens()).logsumexp(-1).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.encoding.parameters())


@either_shape
@every_technique
def test_score_mod_is_the_bias_one_score_at_a_time(name, shape):
    layer, (_, q, k) = built(name, shape).at(0), heads()
    modify = layer.score_mod()
    if modify is None:
        pytest.skip("its bias is not pointwise, or it has none")
    expected = bias_of(layer, q, k, Frame(places(), places(), causal=shape.causal))
    for axis in (3, 2, 1, 0):
        modify = torch.vmap(
            modify, in_dims=tuple(0 if n in {0, axis + 1} else None for n in range(5))
        )
    numbers = (torch.arange(size) for size in (2, 4, T, T))
    found = modify(torch.zeros(2, 4, T, T, dtype=torch.float64), *numbers)
    torch.testing.assert_close(found, expected.expand_as(found), **EXACT)
    assert torch.equal(layer.score_mod()(torch.zeros(()).double(), 0, 1, 4, 2), found[0, 1, 4, 2])


@every_technique
def test_a_position_it_does_not_know_is_refused_by_name(name):
    model = decoder(name)
    bound = model.encoding.max_len
    if bound is None:
        far = torch.tensor([[100_000, 100_001]])
        assert model(tokens(t=2), pos=far).isfinite().all()
        return
    model(tokens(t=1), pos=torch.tensor([[bound - 1]]))
    with pytest.raises(ValueError, match=rf"0 to {bound - 1}, not {bound}"):
        model(tokens(t=1), pos=torch.tensor([[bound]]))


@pytest.mark.parametrize("t", [1, 13])
@every_technique
def test_shapes_at_odd_lengths(name, t):
    encoding, (x, q, k) = built(name), heads(t)
    layer, frame = encoding.at(0), Frame(places(t), places(t))
    assert encoding.embed(x, frame.q_pos).shape == x.shape
    assert layer.queries(q, frame).shape == q.shape
    assert layer.keys(k, frame).shape == k.shape
    bias = bias_of(layer, q, k, frame)
    assert bias is None or bias.expand(2, 4, t, t).shape == (2, 4, t, t)


@every_technique
def test_nothing_is_written_to_inputs(name):
    encoding, (x, q, k) = built(name), heads()
    layer, pos = encoding.at(0), places()
    given = (x, q, k, pos)
    before = [tensor.clone() for tensor in given]
    encoding.embed(x, pos)
    scores(layer, q, k, Frame(pos, pos))
    layer.value_bias(torch.ones(2, 4, T, T, dtype=torch.float64), Frame(pos, pos))
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))


@every_technique
def test_bfloat16_is_kept_and_errs_at_most_twice_as_the_naive_computation(name):
    narrow = built(name).bfloat16()
    wide = copy.deepcopy(narrow).double()
    frame = Frame(places(start=20), places(start=20))
    x, q, k = heads(dtype=torch.bfloat16)

    def error(found, exact):
        return (found.double() - exact).abs().max()

    embedded, exact = narrow.embed(x, frame.q_pos), wide.embed(x.double(), frame.q_pos)
    assert embedded.dtype == torch.bfloat16
    assert error(embedded, exact) <= 2 * error(exact.bfloat16(), exact)

    narrow, wide = narrow.at(0), wide.at(0)
    found, right = parts(narrow, q, k, frame), parts(wide, q.double(), k.double(), frame)
    assert [part.dtype for part in found[:2]] == [torch.bfloat16] * 2
    scale = wide.scale(8)
    exact = summed(scale, *right)
    naive = summed(scale, *(part.bfloat16() for part in right))  # positions without any error
    assert error(summed(scale, *found), exact) <= 2 * error(naive, exact)


@every_technique
def test_a_model_in_bfloat16_stays_in_it(name):
    model = decoder(name).bfloat16()
    logits = model(tokens())
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()
