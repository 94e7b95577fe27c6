"""KERPLE: what its kernels are."""

import pytest
import torch

from impls.positions._slopes import slopes
from impls.positions.alibi import ALiBi
from impls.positions.interface import Frame, LayerShape
from impls.positions.kerple import KERPLE

SHAPE = LayerShape(n_heads=4, n_kv_heads=4)


def bias(encoding, t=40):
    pos = torch.arange(t)[None]
    q = torch.zeros(1, 4, t, 8, dtype=torch.float64)
    return encoding.score_bias(q, q, Frame(pos, pos))


def test_a_power_of_one_is_alibi():
    encoding = KERPLE(kernel="power").build(SHAPE).double()
    encoding.set_rates(torch.tensor(slopes(4), dtype=torch.float64), torch.ones(4).double())
    torch.testing.assert_close(bias(encoding), bias(ALiBi().build(SHAPE)))


def test_the_logarithmic_kernel_is_its_formula():
    encoding = KERPLE().build(SHAPE).double()
    r_1, r_2 = torch.tensor([[0.5, 1, 2, 3], [0.01, 0.3, 1, 4]], dtype=torch.float64)
    encoding.set_rates(r_1, r_2)
    found = bias(encoding)[0, :, 39, 3]
    torch.testing.assert_close(found, -r_1 * torch.log(1 + 36 * r_2))


@pytest.mark.parametrize("kernel", ["log", "power"])
def test_kernels_are_conditionally_positive_definite(kernel):
    torch.manual_seed(0)
    found = bias(KERPLE(kernel=kernel).build(SHAPE).double())[0].detach()
    centre = torch.eye(40, dtype=torch.float64) - 1 / 40
    eigenvalues = torch.linalg.eigvalsh(centre @ found @ centre)
    assert (eigenvalues.min(-1).values >= -1e-12 * eigenvalues.max(-1).values).all()


@pytest.mark.parametrize("kernel", ["log", "power"])
def test_rates_stay_in_their_ranges_wherever_training_goes(kernel):
    encoding = KERPLE(kernel=kernel).build(SHAPE)
    for value in (-20.0, 20.0):
        encoding.raw.data.fill_(value)
        r_1, r_2 = encoding.rates(torch.float64)
        assert (r_1 > 0).all()
        assert (r_2 > 0).all()
        assert kernel == "log" or (r_2 <= 2).all()
