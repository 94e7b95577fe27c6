"""Training: the recipe, resuming bit for bit after a kill, refusals."""

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from impls.models.checkpoint import CheckpointError
from impls.models.decoder import Decoder, DecoderShape
from impls.models.encoder import Encoder, EncoderShape
from impls.models.encoder_decoder import EncoderDecoder
from impls.models.objectives import MaskedTokens, SpanCorruption, next_token
from impls.models.shapes import EncoderDecoderShape
from impls.models.training import FILE, Training, TrainingError

TINY = DecoderShape(d_model=32, n_layers=1, n_heads=2)
RECIPE = Training(steps=12, batch=2, length=16, warmup=3, autocast="off")
TEXT = np.frombuffer(b"she sells sea shells by the sea shore; " * 40, dtype=np.uint8)

RUN = """
import sys
from pathlib import Path
import numpy as np, torch
from impls.models.decoder import Decoder, DecoderShape
from impls.models.training import Training
torch.set_num_threads(1)
torch.manual_seed(0)
text = np.frombuffer(b"she sells sea shells by the sea shore; " * 40, dtype=np.uint8)
model = Decoder(DecoderShape(d_model=32, n_layers=1, n_heads=2))
Training(steps=400, batch=2, length=16, warmup=3).run(
    model, text, folder=Path(sys.argv[1]), save_every=20
)
"""


def tiny(seed=0, shape=TINY):
    torch.manual_seed(seed)
    return Decoder(shape)


def weights(folder):
    return {n: t for n, t in load_file(folder / FILE).items() if not n.endswith("|step")}


def start(folder):
    return subprocess.Popen([sys.executable, "-c", RUN, str(folder)], env={**os.environ})


def test_a_run_killed_half_way_ends_with_the_bits_of_an_undisturbed_one(tmp_path):
    whole = start(tmp_path / "whole")
    cut = start(tmp_path / "cut")
    deadline = time.monotonic() + 60
    while not (tmp_path / "cut" / FILE).exists():
        assert time.monotonic() < deadline
        assert cut.poll() is None
        time.sleep(0.002)
    os.kill(cut.pid, signal.SIGKILL)
    assert cut.wait() == -signal.SIGKILL
    assert start(tmp_path / "cut").wait() == whole.wait() == 0
    expected, resumed = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert expected.keys() == resumed.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, resumed[name]), name


def test_a_run_that_is_done_is_not_done_again(tmp_path):
    first = tiny()
    done = RECIPE.run(first, TEXT, folder=tmp_path)
    again = tiny(seed=1)
    assert RECIPE.run(again, TEXT, folder=tmp_path) == done
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)
    )


def test_the_frequency_of_checkpoints_changes_no_bit(tmp_path):
    models = [tiny(), tiny()]
    RECIPE.run(models[0], TEXT)
    RECIPE.run(models[1], TEXT, folder=tmp_path, save_every=1)
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in models), strict=True))


@pytest.mark.parametrize(
    ("recipe", "shape", "text", "named"),
    [
        (replace(RECIPE, lr=0.5), TINY, TEXT, "lr: 0.003 there, 0.5 here"),
        (replace(RECIPE, steps=24), TINY, TEXT, "steps: 12 there, 24 here"),
        (RECIPE, replace(TINY, d_model=64), TEXT, "parameters"),
        (RECIPE, TINY, TEXT[1:], "text"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, recipe, shape, text, named):
    RECIPE.run(tiny(), TEXT, folder=tmp_path)
    with pytest.raises(CheckpointError, match=named):
        recipe.run(tiny(shape=shape), text, folder=tmp_path)


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path):
    RECIPE.run(tiny(), TEXT, folder=tmp_path)
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=FILE):
        RECIPE.run(tiny(), TEXT, folder=tmp_path)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(tmp_path):
    calls = []

    def failing(model, batch):
        calls.append(1)
        return next_token(model, batch) * (math.nan if len(calls) == 8 else 1.0)

    with pytest.raises(TrainingError, match=r"step 7: .*lower lr"):
        RECIPE.run(tiny(), TEXT, loss=failing, folder=tmp_path, save_every=5)
    assert all(t.isfinite().all() for t in weights(tmp_path).values())
    calls += [1] * 8
    assert len(RECIPE.run(tiny(), TEXT, loss=failing, folder=tmp_path).losses) == 12


def test_the_learning_rate_rises_to_its_peak_and_falls_to_its_share():
    recipe = Training(steps=101, warmup=1, lr=1.0, min_lr_share=0.1)
    assert recipe.lr_at(0) == 1.0
    assert recipe.lr_at(51) == pytest.approx(0.55)
    assert recipe.lr_at(101) == pytest.approx(0.1)
    assert Training(warmup=4, lr=1.0).lr_at(1) == 0.5


def test_windows_depend_on_seed_and_step_alone():
    assert torch.equal(RECIPE.windows(TEXT, 5), RECIPE.windows(TEXT.copy(), 5))
    assert not torch.equal(RECIPE.windows(TEXT, 5), RECIPE.windows(TEXT, 6))
    assert not torch.equal(RECIPE.windows(TEXT, 5), replace(RECIPE, seed=1).windows(TEXT, 5))


def test_every_window_can_be_drawn_and_none_reaches_beyond_the_text():
    short = np.arange(18, dtype=np.uint16)
    firsts = {int(w[0]) for step in range(20) for w in RECIPE.windows(short, step)}
    assert firsts == {0, 1}
    assert RECIPE.windows(short, 0).shape == (2, 17)


def test_training_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    model = tiny(seed=3)
    torch.manual_seed(3)
    RECIPE.run(model, TEXT)
    assert torch.equal(torch.rand(1), expected)


def test_texts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="a window takes 17 tokens and the text has 16"):
        RECIPE.run(tiny(), TEXT[:16])
    with pytest.raises(ValueError, match="id 300 and the model knows 0 to 255"):
        RECIPE.run(tiny(), np.full(40, 300, dtype=np.uint16))
    with pytest.raises(ValueError, match="float32"):
        RECIPE.run(tiny(), np.zeros(40, dtype=np.float32))


def test_weight_decay_moves_matrices_only():
    def frozen(model, batch):
        return 0.0 * sum(p.sum() for p in model.parameters())

    model = tiny()
    before = [p.detach().clone() for p in model.parameters()]
    RECIPE.run(model, TEXT, loss=frozen)
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.equal(old, new) == (new.ndim < 2)


@pytest.mark.parametrize(
    ("build", "loss"),
    [
        (lambda: Decoder(TINY), next_token),
        (lambda: Encoder(EncoderShape(d_model=32, n_layers=1, n_heads=2)), MaskedTokens()),
        (
            lambda: EncoderDecoder(
                EncoderDecoderShape(d_model=32, n_encoder_layers=1, n_decoder_layers=1, n_heads=2)
            ),
            SpanCorruption(),
        ),
    ],
    ids=["decoder", "encoder", "encoder-decoder"],
)
def test_every_kind_of_model_learns(build, loss):
    torch.manual_seed(0)
    losses = replace(RECIPE, steps=60, length=32).run(build(), TEXT, loss=loss).losses
    assert np.mean(losses[-10:]) < 0.75 * losses[0]


def test_lost_spans_and_what_is_left_make_up_the_text():
    loss = SpanCorruption()
    batch = torch.arange(60)[None].repeat(5, 1)
    torch.manual_seed(0)
    lost = loss.lost(batch)
    assert lost.sum(1).tolist() == [9] * 5  # 15 % of 60
    assert (lost & ~lost.roll(1, 1)).sum(1).tolist() == [3] * 5  # spans of 3 on average
    inputs, targets = loss._marked(batch, lost), loss._marked(batch, ~lost)
    assert inputs.shape == (5, 54)
    assert targets.shape == (5, 12)
    for left, gone in zip(inputs.tolist(), targets.tolist(), strict=True):
        assert [i for i in left if i > 256] == [i for i in gone if i > 256] == [257, 258, 259]
        assert sorted(i for i in left + gone if i < 256) == list(range(60))
