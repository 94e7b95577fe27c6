"""Training as a recipe in steps: AdamW, warm-up and cosine decay, on windows of one text.

    lr(n) = lr * n / warmup,                                          n <= warmup
            lr * (m + (1 - m) (1 + cos(pi (n - warmup) / (steps - warmup))) / 2),  m = min_lr_share

The windows of step n, and all random choices within it, depend on (seed, n) alone. So a run that
was killed goes on from its last checkpoint and, on the same machine with as many threads, ends with
the very bits it would have ended with.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from impls.models import _resume
from impls.models._progress import shown
from impls.models.objectives import next_token

Loss = Callable[[Any, Tensor], Tensor]
FILE = "training.safetensors"


class TrainingError(RuntimeError):
    """Training that cannot go on; the message names the step and the remedy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """How a model is trained."""

    steps: int = 1000
    batch: int = 16  # windows a step
    length: int = 256  # tokens a window, and one more to predict
    lr: float = 3e-3
    min_lr_share: float = 0.1  # of lr, at the last step
    warmup: int = 50  # steps
    weight_decay: float = 0.1  # on matrices only
    betas: tuple[float, float] = (0.9, 0.95)
    grad_clip: float = 1.0  # norm of all gradients together
    seed: int = 0
    autocast: Literal["auto", "off", "bf16"] = "auto"  # auto: bf16 where the processor has it

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("lr", "grad_clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("warmup", "weight_decay", "min_lr_share", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        share = self.min_lr_share
        return self.lr * (share + (1 - share) * 0.5 * (1 + math.cos(math.pi * done)))

    def windows(self, tokens: np.ndarray, step: int) -> Tensor:
        """The windows of a step, (batch, length + 1) int64, drawn evenly from all there are."""
        draw = np.random.default_rng((self.seed, step))
        starts = draw.integers(0, len(tokens) - self.length, size=self.batch)
        picked = np.stack([tokens[start : start + self.length + 1] for start in starts])
        return torch.from_numpy(picked.astype(np.int64))

    def run(
        self,
        model: nn.Module,
        tokens: np.ndarray,
        *,
        loss: Loss = next_token,
        folder: Path | None = None,
        save_every: int = 200,
    ) -> "Trained":
        """Train a model in place.

        Args:
            model: any module that `loss` can be computed with; left in evaluation mode.
            tokens: ids of one long text, (n,) unsigned integers; may be a memory map.
            loss: from the model and ids (B, T) int64 to the mean loss in nats, a scalar.
            folder: where checkpoints go, and where a run that was cut off is found; None: nowhere.
            save_every: steps between checkpoints.

        Raises:
            ValueError: if the text is shorter than a window, or has ids the model does not know.
            CheckpointError: if the folder holds a checkpoint of another recipe, model or text.
            TrainingError: if the loss or a gradient is no number; the last checkpoint stays.
        """
        _check_tokens(model, tokens, self.length)
        optimizer = _optimizer(model, self)
        kept = folder and _resume.Kept(folder / FILE, _resume.identity(self, model, tokens, loss))
        losses, seconds = kept.restore(model, optimizer) if kept else ([], 0.0)
        model.train()
        with torch.random.fork_rng(), shown(self.steps, self.batch * self.length) as show:
            for step in range(len(losses), self.steps):
                began = time.perf_counter()
                losses.append(self._step(model, optimizer, tokens, loss, step))
                seconds += time.perf_counter() - began
                show(step + 1, losses[-1])
                if kept and ((step + 1) % save_every == 0 or step + 1 == self.steps):
                    kept.save(model, optimizer, losses, seconds)
        model.eval()
        rate = self.steps * self.batch * self.length / seconds
        return Trained(losses=tuple(losses), seconds=seconds, tokens_per_s=rate)

    def _step(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        tokens: np.ndarray,
        loss: Loss,
        step: int,
    ) -> float:
        """One step; its loss in nats."""
        device = next(model.parameters()).device
        torch.manual_seed(int(np.random.SeedSequence((self.seed, step)).generate_state(1)[0]))
        batch = self.windows(tokens, step).to(device)
        bf16 = self.autocast == "bf16" or (self.autocast == "auto" and has_bf16(device))
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            value = loss(model, batch)
        value.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), self.grad_clip)
        if not math.isfinite(value.item()) or not math.isfinite(norm.item()):
            raise TrainingError(
                f"step {step}: loss {value.item()}, gradient norm {norm.item()}; lower lr "
                f"(now {self.lr}), lengthen warmup (now {self.warmup}), or set autocast='off'"
            )
        for group in optimizer.param_groups:
            group["lr"] = self.lr_at(step)
        optimizer.step()
        optimizer.zero_grad()
        return value.item()


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What a training run took and reached, over all its parts if it was cut off and went on."""

    losses: tuple[float, ...]  # nats, one for each step
    seconds: float  # spent in steps that were kept
    tokens_per_s: float


def has_bf16(device: torch.device) -> bool:
    """Whether products of bfloat16 numbers are instructions of the device, not emulated.

    There training is faster for it: 1.8 times on AMD Zen 4 (AVX512-BF16) with the default decoder.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _optimizer(model: nn.Module, recipe: Training) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, fused=True)


def _check_tokens(model: nn.Module, tokens: np.ndarray, length: int) -> None:
    if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
        raise ValueError(f"tokens must be one row of integers, got {tokens.dtype} {tokens.shape}")
    if len(tokens) <= length:
        raise ValueError(
            f"a window takes {length + 1} tokens and the text has {len(tokens)}: shorten length"
        )
    size = getattr(getattr(model, "shape", None), "vocab_size", None)
    if size is not None and int(tokens.max()) >= size:
        raise ValueError(
            f"the text has id {int(tokens.max())} and the model knows 0 to {size - 1}: "
            "raise vocab_size or use the tokenizer the model is for"
        )
