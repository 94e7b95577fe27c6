"""Scores of an encoding by its hooks, and pair by pair as complex numbers; models to extend."""

import pytest
import torch

from impls.models.decoder import Decoder, DecoderShape
from impls.models.hooks import Frame
from impls.positions import RoPE

B, H, D = 2, 4, 8


@pytest.fixture
def vectors():
    """q and k of T tokens, (2, 4, T, 8) float64."""

    def draw(t):
        generator = torch.Generator().manual_seed(0)
        return torch.randn(2, B, H, t, D, dtype=torch.float64, generator=generator).unbind()

    return draw


@pytest.fixture
def scores():
    """All of an encoding's scaled scores, as an attention layer adds them up."""

    def added_up(encoding, q, k):
        pos = torch.arange(q.shape[2])[None]
        frame = Frame(pos, pos)
        keys = encoding.keys(k, frame)
        bias = encoding.score_bias(q, keys if encoding.static_keys else k, frame)
        product = encoding.scale(D) * encoding.queries(q, frame) @ keys.mT
        return product if bias is None else product + bias

    return added_up


@pytest.fixture
def pairwise():
    """Scaled scores of pairs at given distances (T, T), under frequencies (d/2,) or (T, 1, d/2)."""

    def by_pair(q, k, distance, theta):
        a, b = (torch.complex(*x.chunk(2, dim=-1)) for x in (q, k))
        turn = torch.polar(torch.ones(()).double(), distance[..., None].double() * theta)
        return D**-0.5 * torch.einsum("bhic,ijc,bhjc->bhij", a, turn, b.conj()).real

    return by_pair


@pytest.fixture
def rope():
    """A trained rotation of this width."""
    return RoPE().build(DecoderShape(d_model=H * D, n_heads=H, d_head=D).layer)


@pytest.fixture
def decoder():
    """A decoder of sharp attention in float64, trained length 16."""

    def build(encoding=None, n_layers=2):
        torch.manual_seed(0)
        shape = DecoderShape(
            vocab_size=32, d_model=32, n_layers=n_layers, n_heads=H, d_head=D, max_len=16
        )
        model = Decoder(shape, encoding=RoPE() if encoding is None else encoding)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.3)
        return model.double().eval()

    return build


@pytest.fixture
def ids():
    """Tokens (2, T)."""

    def draw(t=48):
        return torch.randint(32, (2, t), generator=torch.Generator().manual_seed(1))

    return draw


@pytest.fixture
def hf_frequencies():
    """Inverse frequencies and factor that transformers computes in float32, for L = 128, d = 32."""
    transformers = pytest.importorskip("transformers")
    rules = pytest.importorskip("transformers.modeling_rope_utils").ROPE_INIT_FUNCTIONS

    def compute(rope_type, *, length=None, longest=128, **parameters):
        config = transformers.LlamaConfig(
            hidden_size=64,
            num_attention_heads=2,
            max_position_embeddings=longest,
            rope_parameters={"rope_type": rope_type, "rope_theta": 10_000.0, **parameters},
        )
        theta, factor = rules[rope_type](config, "cpu", seq_len=length)
        return theta.double(), factor

    return compute
