"""Decoders trained on a corpus, as artifacts that cells share.

A position technique encodes, an attention technique replaces the attention of a decoder with the
baseline's positions, a context extension is applied to a decoder that was trained without it.
N windows, T tokens, V vocabulary.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor, nn

from harness import catalogue
from harness.code import code_digest
from harness.instruments import Instruments
from impls.attention.interface import AttentionBlock, AttentionKernel
from impls.context.interface import ModelRule
from impls.models.checkpoint import described, load, save
from impls.models.decoder import Decoder
from impls.models.objectives import next_token
from impls.models.shapes import DecoderShape, sized
from impls.models.training import Trained, Training
from impls.positions.interface import PositionRecipe
from impls.tokenizers.interface import load as load_tokenizer
from suites.data import corpus
from suites.data.recall import Recall
from suites.data.vocabulary import trained as trained_tokenizer

BASELINE = "positions/rope"  # what a decoder has where a technique says nothing of positions
SAVE_EVERY = 200  # steps between checkpoints of a training


@dataclass(frozen=True, kw_only=True, slots=True)
class LessonSetting:
    """The axes of a suite that trains a decoder."""

    data: str = "code"  # english, code, multilingual, file:PATH, hf:NAME
    corpus_bytes: int = 4_000_000
    tokenizer: str = "tokenizers/bytes"
    size: str = "120k"  # a size of impls.models.shapes.SIZES; below, what to change of it
    d_model: int | None = None
    n_layers: int | None = None
    n_heads: int | None = None
    n_kv_heads: int | None = None
    train_len: int = 64  # tokens
    steps: int = 1000
    batch: int = 24
    lr: float = 4e-3
    recall_share: float = 0.5  # of training windows that hold pairs to recall
    seed: int = 0

    def __post_init__(self) -> None:
        corpus.check(self.data)
        if not catalogue.known(self.tokenizer) or not self.tokenizer.startswith("tokenizers/"):
            raise ValueError(f"no tokenizer is called {self.tokenizer!r}: see `llmatrix list`")
        for name in ("train_len", "steps", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.recall_share <= 1:
            raise ValueError(f"recall_share must be in [0, 1], got {self.recall_share}")
        self.shape(vocab_size=1)  # refuses an unknown size and dimensions that do not fit

    def shape(self, vocab_size: int) -> DecoderShape:
        """The decoder's dimensions; tables hold the longest window read, 8 times the trained."""
        names = ("d_model", "n_layers", "n_heads", "n_kv_heads")
        changes = {name: n for name in names if (n := getattr(self, name)) is not None}
        return sized(self.size, vocab_size=vocab_size, max_len=8 * self.train_len, **changes)


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What a decoder is trained on and how; the same for every technique of a suite."""

    tokens: NDArray[np.int64]
    held_out: NDArray[np.int64]
    token_bytes: NDArray[np.int64]  # of each id
    recall: Recall
    recall_share: float
    shape: DecoderShape
    training: Training
    facts: dict[str, Any]

    @classmethod
    def of(cls, setting: LessonSetting, instruments: Instruments) -> "Lesson":
        """The lesson of a setting: corpus read, tokenizer trained, text encoded."""
        texts = corpus.load(setting.data, instruments, n_bytes=setting.corpus_bytes, seed=0)
        recipe = catalogue.load(setting.tokenizer)()
        tokenizer = load_tokenizer(trained_tokenizer(recipe, texts, instruments))
        encode = tokenizer.encode_batch
        size = tokenizer.vocab_size
        return cls(
            tokens=encode(texts.train_texts).ids.astype(np.int64),
            held_out=encode(texts.held_out_texts).ids.astype(np.int64),
            token_bytes=np.array([len(tokenizer.token_bytes(n)) for n in range(size)]),
            recall=Recall(size),
            recall_share=setting.recall_share,
            shape=setting.shape(vocab_size=size + 1),
            training=Training(
                steps=setting.steps, batch=setting.batch, length=setting.train_len,
                lr=setting.lr, seed=setting.seed,
            ),
            facts=texts.facts(),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class NextTokenWithRecall:
    """The objective of a decoder's training: pairs are planted in a share of the windows."""

    recall: Recall
    share: float

    def __call__(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Mean loss in nats of ids (B, T); where pairs stand depends on torch's generator."""
        if not self.share:
            return next_token(model, batch)
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        planted = self.recall.plant(batch.numpy(force=True), self.share, rng)
        return next_token(model, torch.from_numpy(planted).to(batch.device))


class Pupil(NamedTuple):
    """A trained decoder."""

    model: Decoder
    train_loss: float  # nats, mean over the last tenth of the steps
    tokens_per_s: float  # of its training, on the machine that trained it


def trained(technique: Any, lesson: Lesson, instruments: Instruments) -> Pupil:
    """The decoder that a technique is measured in, trained once and kept as an artifact."""
    recipes = _recipes(technique)
    told = {part: described(recipe) for part, recipe in recipes.items()}
    modules = [type(recipe).__module__ for recipe in recipes.values() if recipe is not None]
    folder = instruments.artifacts.get(
        "decoder",
        {
            "recipes": told,
            "shape": TypeAdapter(DecoderShape).dump_python(lesson.shape, mode="json"),
            "training": TypeAdapter(Training).dump_python(lesson.training, mode="json"),
            "recall_share": lesson.recall_share,
            "corpus": lesson.facts["sha256"],
            "code": code_digest([*modules, "impls.models.training", "suites.data.recall"]),
        },
        lambda path: _train(path, recipes, lesson),
        resumable=True,
    )
    report = json.loads((folder / "training.json").read_text())
    return Pupil(load(folder), report["train_loss"], report["tokens_per_s"])


def _recipes(technique: Any) -> dict[str, Any]:
    """Position and attention recipes of the decoder a technique is measured in."""
    if isinstance(technique, PositionRecipe):
        return {"encoding": technique, "attention": None}
    if isinstance(technique, AttentionKernel | AttentionBlock):
        return {"encoding": catalogue.load(BASELINE)(), "attention": technique}
    name = technique.trained_with if isinstance(technique, ModelRule) else BASELINE
    return {"encoding": catalogue.load(name)(), "attention": None}


def _train(path: Path, recipes: dict[str, Any], lesson: Lesson) -> None:
    torch.manual_seed(lesson.training.seed)
    model = Decoder(lesson.shape, **recipes)
    # The folder beside `path` outlives a killed builder, so the next one goes on from there.
    unfinished = path.with_name("training")
    loss = NextTokenWithRecall(recall=lesson.recall, share=lesson.recall_share)
    done: Trained = lesson.training.run(
        model, lesson.tokens, loss=loss, folder=unfinished, save_every=SAVE_EVERY
    )
    shutil.rmtree(unfinished)
    save(model, path)
    last = done.losses[-max(1, len(done.losses) // 10) :]
    report = {
        "train_loss": sum(last) / len(last),
        "tokens_per_s": done.tokens_per_s,
        "losses": done.losses,
    }
    (path / "training.json").write_text(json.dumps(report))
