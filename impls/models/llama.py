"""Decoders as Hugging Face Llama folders, and Llama-type checkpoints as decoders.

What `save` writes loads with `AutoModelForCausalLM.from_pretrained`, with equal logits; `load`
reads that and real checkpoints, sharded or in bfloat16, with the rotation's base where old configs
have it (`rope_theta`) or new ones (`rope_parameters`). Neither needs transformers.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import catalogue
from impls.models import _hf_folder
from impls.models.checkpoint import CheckpointError, distinct, fill
from impls.models.decoder import Decoder
from impls.models.shapes import DecoderShape

ROPE = "positions/rope"
DENSE = ("attention/full",)  # what Llama's attention computes, whatever computes it
TYPES = ("llama", "mistral")  # mistral without its window is the same model
FIXED = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "sliding_window": None}

_NAMES = {
    "attention_norm": "input_layernorm",
    "attention.": "self_attn.",
    "mlp_norm": "post_attention_layernorm",
}


def save(model: Decoder, folder: Path) -> None:
    """Write a decoder as a Llama folder, in the dtype it has.

    Raises:
        ValueError: if Llama has no such position encoding, attention or shape.
    """
    rope = _rotation(model)
    shape, layer = model.shape, model.shape.layer
    if shape.d_model % shape.n_heads:
        raise ValueError(
            f"Llama's config wants d_model {shape.d_model} to be a multiple of n_heads "
            f"{shape.n_heads}, whatever d_head is"
        )
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": str(model.embedding.weight.dtype).removeprefix("torch."),
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.d_model,
        "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": layer.n_heads,
        "num_key_value_heads": layer.n_kv_heads,
        "head_dim": layer.d_head,
        "max_position_embeddings": shape.max_len,
        "rms_norm_eps": shape.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": rope.base},
        "tie_word_embeddings": shape.tied,
        "bos_token_id": None,
        "eos_token_id": None,
        **{key: value for key, value in FIXED.items() if key != "sliding_window"},
    }
    _hf_folder.write(folder, config, {theirs(name): t for name, t in distinct(model).items()})


def load(folder: Path, *, dtype: torch.dtype = torch.float32) -> Decoder:
    """The model of a Llama-type folder, in evaluation mode.

    Raises:
        CheckpointError: if a file is missing or damaged, or the model is no plain Llama.
    """
    config = _hf_folder.read_config(folder, TYPES)
    _hf_folder.required(config, FIXED, folder)
    base = _base(config, folder)
    shape = DecoderShape(
        vocab_size=config["vocab_size"],
        d_model=config["hidden_size"],
        n_layers=config["num_hidden_layers"],
        n_heads=config["num_attention_heads"],
        n_kv_heads=config.get("num_key_value_heads"),
        d_head=config.get("head_dim"),
        d_ff=config["intermediate_size"],
        max_len=config.get("max_position_embeddings", 2048),
        tied=config.get("tie_word_embeddings", False),
        norm_eps=config.get("rms_norm_eps", 1e-6),
    )
    model = Decoder(shape, encoding=catalogue.load(ROPE)(base=base)).to(dtype)
    found = {
        name: tensor
        for name, tensor in _hf_folder.read_weights(folder).items()
        if not name.endswith("rotary_emb.inv_freq")
        and not (shape.tied and name == "lm_head.weight")
    }
    fill(model, _renamed(found, model), str(folder))
    return model.eval()


def theirs(name: str) -> str:
    """Llama's name of a decoder's tensor."""
    first, _, rest = name.partition(".")
    if first == "blocks":
        for ours, other in _NAMES.items():
            rest = rest.replace(f".{ours}", f".{other}")
        return f"model.layers.{rest}"
    ends = {"embedding": "model.embed_tokens.", "norm": "model.norm.", "head": "lm_head."}
    return ends[first] + rest


def _renamed(found: Mapping[str, Tensor], model: Decoder) -> dict[str, Tensor]:
    """Tensors under this project's names; names that are unknown stay, to be refused."""
    ours = {theirs(name): name for name in distinct(model)}
    return {ours.get(name, name): tensor for name, tensor in found.items()}


def _rotation(model: Decoder) -> Any:
    """The model's RoPE recipe, if Llama can say it.

    Raises:
        ValueError: if not.
    """
    encoding, attention = (model.recipes[role] for role in ("encoding", "attention"))
    if type(encoding) is not catalogue.load(ROPE):
        raise ValueError(f"Llama's positions are {ROPE}, the model's are {encoding}")
    if encoding.layout != "half" or encoding.partial != 1.0:
        raise ValueError(f"Llama turns whole heads in the half layout, the model has {encoding}")
    if attention is not None and catalogue.name_of(attention) not in DENSE:
        raise ValueError(f"Llama's attention is dense, the model has {attention}")
    return encoding


def _base(config: Mapping[str, Any], folder: Path) -> float:
    """The base of the rotation.

    Raises:
        CheckpointError: if the frequencies are not the plain ones.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise CheckpointError(
            f"{folder / 'config.json'} extends its context by rope_type {kind!r}: set that to "
            "'default', load, and apply the technique of impls.context that extends it so"
        )
    return float(rope.get("rope_theta", config.get("rope_theta", 10_000.0)))
