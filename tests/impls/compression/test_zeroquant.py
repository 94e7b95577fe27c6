"""ZeroQuant: block after block learns from the model's own, behind what is quantized already."""

import copy

import pytest
import torch
from torch import nn

from impls.compression import RTN, ZeroQuant
from impls.compression._blockwise import call_of, called
from impls.compression._learning import learn
from impls.compression._straight import StraightLinear
from impls.compression.interface import Calibration, CompressedLinear, blocks_of, linears_of, run
from impls.compression.zeroquant import lesson
from impls.models.decoder import Decoder, DecoderShape
from impls.models.encoder import Encoder, EncoderShape

SIZES = {"vocab_size": 32, "d_model": 64, "n_layers": 2, "n_heads": 4, "d_ff": 128}
OPTIONS = {"bits": 3, "group": 32}


def shaken(model):
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.2)
    return model.eval()


def decoder():
    return shaken(Decoder(DecoderShape(**SIZES)))


def encoder():
    return shaken(Encoder(EncoderShape(**SIZES, mlm_head=False)))


def batches(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(32, (4, 24), generator=generator) for _ in range(3)]


def trained():
    """A decoder that has learned that tokens count upwards, in steps of 1 to 3."""
    model = Decoder(DecoderShape(**SIZES))
    torch.manual_seed(0)
    model = Decoder(model.shape)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(60):
        ids = counting(step)
        loss = nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def counting(seed):
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(32, (8, 1), generator=generator)
    step = torch.randint(1, 4, (8, 1), generator=generator)
    return (start + step * torch.arange(16)) % 32


@pytest.mark.parametrize("model", [decoder(), encoder()], ids=["decoder", "encoder"])
def test_without_steps_it_is_rounding_to_nearest(model):
    plain = RTN(symmetric=True, activation_bits=8).compressed(model)
    ours = ZeroQuant(steps=0).compressed(model)
    theirs = plain.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize("model", [decoder(), encoder()], ids=["decoder", "encoder"])
def test_no_block_errs_more_than_rounding_on_its_lesson(model):
    """On calibration, each on the input that the quantized model before it gives."""
    small = ZeroQuant(**OPTIONS, steps=9).compressed(model, Calibration(batches()))
    originals = blocks_of(model)
    for name, block in blocks_of(small).items():
        nearest = ZeroQuant(**OPTIONS, steps=0).compressed(model, layers=f"{name}.*")
        rounded = nearest.get_submodule(name)
        wrong = [0.0, 0.0]
        for batch in batches():
            call = call_of(small, block, batch)
            wanted = called(originals[name], call)
            for n, tried in enumerate((block, rounded)):
                wrong[n] += float((called(tried, call) - wanted).square().sum())
        assert wrong[0] < wrong[1]


def test_on_held_out_data_a_trained_model_errs_less_than_rounded():
    model = trained()
    taught = ZeroQuant(**OPTIONS, steps=30).compressed(
        model, Calibration([counting(seed) for seed in range(100, 110)])
    )
    rounded = ZeroQuant(**OPTIONS, steps=0).compressed(model)
    ids = torch.cat([counting(seed) for seed in range(200, 204)])
    with torch.no_grad():
        errors = [(run(m, ids) - run(model, ids)).norm() for m in (taught, rounded)]
    assert errors[0] < 0.8 * errors[1]


def test_gradients_are_one_block_s_and_go_again(monkeypatch):
    model, seen = decoder(), []
    step = torch.optim.Adam.step

    def spied(self, *args, **kwargs):
        held = [p for group in self.param_groups for p in group["params"]]
        seen.append((len(held), all(p.grad is not None for p in held)))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", spied)
    small = ZeroQuant(**OPTIONS, steps=3).compressed(model, Calibration(batches()))
    of_one_block = len(list(model.blocks[0].parameters()))
    assert seen == [(of_one_block, True)] * 6
    assert all(p.grad is None for m in (model, small) for p in m.parameters())


def test_only_the_block_that_learns_has_a_graph():
    model = decoder()
    teacher = copy.deepcopy(model.blocks[1])
    with torch.no_grad():
        model.blocks[1].mlp.down_proj.weight *= 1.1
    lesson(model, model.blocks[1], teacher)(batches()[0]).backward()
    with_gradients = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradients == {f"blocks.1.{name}" for name, _ in model.blocks[1].named_parameters()}
    assert all(p.grad is None for p in teacher.parameters())


def test_a_lesson_that_makes_it_worse_is_undone():
    model = decoder()
    block = model.blocks[0]
    with torch.no_grad():
        teacher = copy.deepcopy(block)
        block.mlp.down_proj.weight += 1e-4
    before = copy.deepcopy(model.state_dict())
    learn(block, lesson(model, block, teacher), batches(), steps=2, lr=10.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_padding_teaches_nothing():
    model = decoder()
    keep = torch.ones(4, 24, dtype=torch.bool)
    keep[:, 16:] = False
    found = [
        ZeroQuant(**OPTIONS, steps=2).compressed(
            model, Calibration([{"ids": torch.where(keep, batches()[0], pad), "keep": keep}])
        )
        for pad in (0, 7)
    ]
    # Sums that gradients are made of also pass through products with zeros of the padding.
    for one, other in zip(*(linears(small) for small in found), strict=True):
        torch.testing.assert_close(one.dequantize(), other.dequantize())


def linears(model):
    return [layer for layer in model.modules() if isinstance(layer, CompressedLinear)]


def test_gradients_pass_straight_through_rounding():
    linear, x = nn.Linear(8, 4), torch.randn(3, 8, requires_grad=True)
    layer = StraightLinear(linear, torch.round, lambda x: torch.round(2 * x) / 2)
    y = layer(x)
    rounded = torch.round(2 * x) / 2
    wanted = nn.functional.linear(rounded, torch.round(linear.weight), linear.bias)
    torch.testing.assert_close(y, wanted)
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.round(linear.weight).detach().sum(0).expand(3, 8))
    torch.testing.assert_close(linear.weight.grad, rounded.detach().sum(0).expand(4, 8))


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_models_of_transformers_learn_too(kind):
    """A Llama passes its blocks a cache, which a second call must not write to."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 32,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    if kind == "llama":
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).eval()
    else:
        model = transformers.BertModel(transformers.BertConfig(**sizes)).eval()
    calibration = Calibration(batches())
    small = ZeroQuant(**OPTIONS, steps=6).compressed(model, calibration)
    rounded = ZeroQuant(**OPTIONS, steps=0).compressed(model)
    assert len(linears(small)) == len(linears_of(model))
    with torch.no_grad():
        taught, nearest = (
            sum(float((run(m, b)[0] - run(model, b)[0]).norm()) for b in calibration.batches)
            for m in (small, rounded)
        )
    assert taught < nearest


def test_steps_need_calibration_and_numbers_that_fit():
    with pytest.raises(ValueError, match="ZeroQuant needs calibration"):
        ZeroQuant().compressed(decoder())
    with pytest.raises(ValueError, match="lr must be above 0, got 0"):
        ZeroQuant(lr=0)
    with pytest.raises(ValueError, match="moves as blocks train"):
        ZeroQuant(activation_static=True, activation_granularity="tensor")
