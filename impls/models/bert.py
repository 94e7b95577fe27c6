"""Encoders as Hugging Face BERT folders, and BERT-type checkpoints as encoders.

What `save` writes loads with `AutoModel` or `AutoModelForMaskedLM`, with equal hidden states;
`load` reads that and real checkpoints, with or without masked-token head and pooler. Neither needs
transformers.
"""

from pathlib import Path

import torch

from impls.models import _hf_folder
from impls.models.checkpoint import distinct, fill
from impls.models.encoder import Encoder
from impls.models.shapes import EncoderShape

FIXED = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}

_BODY = {
    "embedding.": "embeddings.word_embeddings.",
    "segments.": "embeddings.token_type_embeddings.",
    "encoding.table.": "embeddings.position_embeddings.",
    "norm.": "embeddings.LayerNorm.",
    "pooler.": "pooler.dense.",
}
_LAYER = {
    "attention.q_proj.": "attention.self.query.",
    "attention.k_proj.": "attention.self.key.",
    "attention.v_proj.": "attention.self.value.",
    "attention.o_proj.": "attention.output.dense.",
    "attention_norm.": "attention.output.LayerNorm.",
    "up_proj.": "intermediate.dense.",
    "down_proj.": "output.dense.",
    "mlp_norm.": "output.LayerNorm.",
}
_HEAD = {
    "head.dense.": "cls.predictions.transform.dense.",
    "head.norm.": "cls.predictions.transform.LayerNorm.",
    "head.bias": "cls.predictions.bias",
}
# In the files, but not part of the model: tied copies, a buffer, the next-sentence head.
_IGNORED = ("cls.predictions.decoder.", "embeddings.position_ids", "cls.seq_relationship.")


def save(model: Encoder, folder: Path) -> None:
    """Write an encoder as a BERT folder, in the dtype it has.

    Raises:
        ValueError: if the encoder has a position encoding or attention that BERT has not.
    """
    for role, recipe in model.recipes.items():
        if recipe is not None:
            raise ValueError(f"BERT has its own {role}, the model has {recipe}")
    shape = model.shape
    config = {
        "architectures": ["BertForMaskedLM" if shape.mlm_head else "BertModel"],
        "model_type": "bert",
        "dtype": str(model.embedding.weight.dtype).removeprefix("torch."),
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.d_model,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "intermediate_size": shape.hidden,
        "max_position_embeddings": shape.max_len,
        "type_vocab_size": shape.n_segments,
        "layer_norm_eps": shape.norm_eps,
        "pad_token_id": None,
        **FIXED,
    }
    prefix = "bert." if shape.mlm_head else ""
    tensors = {theirs(name, prefix): tensor for name, tensor in distinct(model).items()}
    _hf_folder.write(folder, config, tensors)


def load(folder: Path, *, dtype: torch.dtype = torch.float32) -> Encoder:
    """The model of a BERT folder, in evaluation mode; head and pooler if the folder has them.

    Raises:
        CheckpointError: if a file is missing or damaged, or the model is no plain BERT.
    """
    config = _hf_folder.read_config(folder, ("bert",))
    _hf_folder.required(config, FIXED, folder)
    found = {_modern(name): tensor for name, tensor in _hf_folder.read_weights(folder).items()}
    found = {name: tensor for name, tensor in found.items() if not name.startswith(_IGNORED)}
    shape = EncoderShape(
        vocab_size=config["vocab_size"],
        d_model=config["hidden_size"],
        n_layers=config["num_hidden_layers"],
        n_heads=config["num_attention_heads"],
        d_ff=config["intermediate_size"],
        max_len=config["max_position_embeddings"],
        n_segments=config.get("type_vocab_size", 2),
        norm_eps=config.get("layer_norm_eps", 1e-12),
        pooler="pooler.dense.weight" in found,
        mlm_head="cls.predictions.bias" in found,
    )
    model = Encoder(shape).to(dtype)
    ours = {theirs(name): name for name in distinct(model)}
    fill(model, {ours.get(name, name): t for name, t in found.items()}, str(folder))
    return model.eval()


def theirs(name: str, prefix: str = "") -> str:
    """BERT's name of an encoder's tensor, `prefix` before all but the head's."""
    if name.startswith("blocks."):
        _, number, rest = name.split(".", 2)
        return f"{prefix}encoder.layer.{number}.{_translated(rest, _LAYER)}"
    if name.startswith("head."):
        return _translated(name, _HEAD)
    return prefix + _translated(name, _BODY)


def _translated(name: str, names: dict[str, str]) -> str:
    start = next(ours for ours in names if name.startswith(ours))
    return names[start] + name.removeprefix(start)


def _modern(name: str) -> str:
    """The name without the prefix of whole models, and with the norms' parameters as of today."""
    name = name.removeprefix("bert.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )
