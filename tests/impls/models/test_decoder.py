"""The decoder: shapes, decoding, and the way its attention is computed in training."""

import pytest
import torch
from torch.nn import functional as F

from harness import catalogue
from impls.models import _training_attention
from impls.models.decoder import SIZES, Decoder, DecoderShape, RMSNorm, sized

RoPE = catalogue.load("positions/rope")
SHAPE = DecoderShape(d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, d_head=6)


def decoder(shape=SHAPE, dtype=torch.float64):
    torch.manual_seed(0)
    model = Decoder(shape, encoding=RoPE()).to(dtype)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.2)
    return model.eval()


def random_ids(n=23):
    return torch.randint(256, (2, n), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", SIZES)
def test_a_size_has_about_the_parameters_its_name_says(size):
    said = float(size[:-1]) * {"k": 1e3, "m": 1e6}[size[-1]]
    with torch.device("meta"):
        counted = sum(p.numel() for p in Decoder(sized(size)).parameters())
    assert counted == pytest.approx(said, rel=0.2)


@torch.no_grad()
def test_decoding_with_a_state_equals_one_pass():
    model, ids = decoder(), random_ids()
    state = model.init_state(2, 23)
    parts = [model(part, state=state) for part in ids.split([7, 1, 1, 14], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(ids), atol=1e-10, rtol=1e-10)


@torch.no_grad()
def test_padding_before_a_text_changes_nothing():
    model, ids = decoder(), random_ids()
    padded = F.pad(ids, (3, 0))
    keep = torch.arange(26)[None].expand(2, -1) >= 3
    torch.testing.assert_close(model(padded, keep=keep)[:, 3:], model(ids), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 30}, "d_model 30 is no multiple of n_heads 4: set d_head"),
        ({"n_heads": 4, "n_kv_heads": 3}, "n_heads 4 is no multiple of n_kv_heads 3"),
        ({"n_layers": 0}, "n_layers must be at least 1, got 0"),
        ({"d_head": -2}, "d_head must be at least 1, got -2"),
    ],
)
def test_shapes_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        DecoderShape(**changes)


def test_an_unknown_size_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"'2m': choose one of .*150k, .*10m"):
        sized("2m")


def test_the_norm_is_computed_in_float32_under_autocast():
    x, norm = torch.randn(3, 64, generator=torch.Generator().manual_seed(0)), RMSNorm(64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(norm(x), norm(x.clone()).to(torch.bfloat16))
        seen = norm(x)
    assert torch.equal(seen, norm(x).bfloat16())


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("n", [1, 64, 150])
def test_attention_in_training_is_right_in_every_gradient(n, causal):
    """The same function in double precision, where only its mathematics can be wrong."""
    torch.manual_seed(0)
    q, k, v = (
        torch.randn(2, h, n, d, dtype=torch.float64, requires_grad=True)
        for h, d in ((4, 8), (2, 8), (2, 5))
    )
    grad = torch.randn(2, 4, n, 5, dtype=torch.float64)
    ours = _training_attention.attend(q, k, v, 0.3, causal=causal)
    wide = [x.repeat_interleave(2, dim=1) for x in (k, v)]
    exact = F.scaled_dot_product_attention(q, *wide, is_causal=causal, scale=0.3)
    torch.testing.assert_close(ours, exact, atol=1e-12, rtol=1e-12)
    found, expected = (torch.autograd.grad(y, (q, k, v), grad) for y in (ours, exact))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


def test_attention_in_training_errs_at_most_twice_as_much_as_naive_attention():
    torch.manual_seed(0)
    exact = [torch.randn(2, 4, 256, 32, dtype=torch.float64) for _ in range(4)]
    *inputs, grad = exact

    def naive(q, k, v):
        hidden = torch.ones(256, 256, dtype=torch.bool).triu(1)
        return (q @ k.mT * 32**-0.5).masked_fill(hidden, float("-inf")).softmax(-1) @ v

    def ours(q, k, v):
        return _training_attention.attend(q, k, v, 32**-0.5, causal=True)

    def results(function, dtype):
        leaves = [x.to(dtype).requires_grad_() for x in inputs]
        y = function(*leaves)
        return y, *torch.autograd.grad(y, leaves, grad.to(dtype))

    truth = results(naive, torch.float64)
    for true, a, b in zip(
        truth, results(ours, torch.bfloat16), results(naive, torch.bfloat16), strict=True
    ):
        assert (a.double() - true).norm() <= 2 * (b.double() - true).norm()


def test_attention_in_training_is_used_for_short_bfloat16_with_gradients_only():
    q = torch.zeros(1, 1, 8, 4, dtype=torch.bfloat16, requires_grad=True)
    assert _training_attention.suits(q, q)
    assert not _training_attention.suits(q.float(), q.float())
    assert not _training_attention.suits(q.detach(), q.detach())
    assert not _training_attention.suits(q, q[:, :, :4])
    long = torch.zeros(1, 1, 2048, 1, dtype=torch.bfloat16, requires_grad=True)
    assert not _training_attention.suits(long, long)
    with torch.no_grad():
        assert not _training_attention.suits(q, q)
