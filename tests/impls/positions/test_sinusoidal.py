"""Sinusoidal positions: rotations of each other, and the tables of transformers."""

import pytest
import torch

from impls.positions._rotary import inverse_frequencies, rotated
from impls.positions._sinusoids import sinusoids
from impls.positions.interface import LayerShape
from impls.positions.sinusoidal import Sinusoidal

POS = torch.arange(60)


@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_a_step_is_a_rotation(layout):
    k, table = 7, sinusoids(POS, 16, 10_000.0, layout)
    # (sin, cos) turned back by an angle is (sin, cos) of the sum.
    angles = torch.full((1, 1), -k) * inverse_frequencies(16, 10_000.0)
    torch.testing.assert_close(rotated(table[:-k], angles, layout), table[k:])


def test_an_inner_product_knows_only_the_distance():
    table = sinusoids(POS, 16, 10_000.0)
    gram = table @ table.T
    for k in (0, 1, 20):
        torch.testing.assert_close(gram.diagonal(k), gram[0, k].expand(60 - k))


def test_eight_components_have_four_wavelengths():
    expected = torch.tensor([1, 0.1, 0.01, 0.001], dtype=torch.float64)
    torch.testing.assert_close(inverse_frequencies(8, 10_000.0), expected)
    one = sinusoids(torch.tensor(1), 8, 10_000.0)
    torch.testing.assert_close(one[::2], expected.sin())
    torch.testing.assert_close(one[1::2], expected.cos())


def test_the_tables_are_those_of_xlm_and_marian():
    xlm = pytest.importorskip("transformers.models.xlm.modeling_xlm")
    marian = pytest.importorskip("transformers.models.marian.modeling_marian")
    theirs = xlm.create_sinusoidal_embeddings(60, 16, torch.empty(60, 16))
    torch.testing.assert_close(sinusoids(POS, 16, 10_000.0).float(), theirs)
    theirs = marian.MarianSinusoidalPositionalEmbedding(60, 16).create_weight()
    torch.testing.assert_close(sinusoids(POS, 16, 10_000.0, "half").float(), theirs)


@pytest.mark.parametrize(("scaled", "factor"), [(True, 4.0), (False, 1.0)])
def test_embeddings_are_scaled_by_the_root_of_the_width(scaled, factor):
    encoding = Sinusoidal(scale_embedding=scaled).build(LayerShape(d_model=16))
    torch.manual_seed(0)
    x = torch.randn(2, 60, 16, dtype=torch.float64)
    expected = factor * x + sinusoids(POS, 16, 10_000.0)
    torch.testing.assert_close(encoding.embed(x, POS[None]), expected)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="got 1"):
        Sinusoidal(base=1.0)
    with pytest.raises(ValueError, match="even, got 7"):
        Sinusoidal().build(LayerShape(d_model=7))
