"""Learned positions: a table, and GPT-2's use of one."""

import pytest
import torch

from impls.positions.interface import LayerShape
from impls.positions.learned import Learned


def test_embeddings_are_those_of_gpt_2():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=16, n_positions=12, n_embd=8, n_layer=1, n_head=2, embd_pdrop=0.0
    )
    theirs = transformers.GPT2Model(config)
    encoding = Learned().build(LayerShape(d_model=8, max_len=12))
    encoding.table.data.copy_(theirs.wpe.weight)
    ids, pos = torch.arange(10)[None], torch.arange(2, 12)[None]
    seen = []
    theirs.drop.register_forward_hook(lambda module, inputs, output: seen.append(output))
    theirs(ids, position_ids=pos)
    assert torch.equal(encoding.embed(theirs.wte(ids), pos), seen[0])


def test_equal_tokens_differ_by_the_table_alone():
    encoding = Learned().build(LayerShape(d_model=8, max_len=12))
    x = torch.zeros(1, 12, 8)
    assert torch.equal(encoding.embed(x, torch.arange(12)[None])[0], encoding.table)


@pytest.mark.parametrize("position", [12, -1])
def test_a_position_outside_the_table_is_refused(position):
    encoding = Learned().build(LayerShape(d_model=8, max_len=12))
    with pytest.raises(ValueError, match=f"0 to 11, not {position}"):
        encoding.embed(torch.zeros(1, 2, 8), torch.tensor([[0, position]]))


def test_a_negative_width_is_refused():
    with pytest.raises(ValueError, match=r"got -0\.1"):
        Learned(std=-0.1)
