"""The frame of a Hugging Face `tokenizer.json` around a model."""

import json
from collections.abc import Mapping
from typing import Any

from impls.tokenizers._normalize import Normalizer

_NORMALIZERS: dict[Normalizer, dict[str, Any] | None] = {
    "none": None,
    "nfc": {"type": "NFC"},
    "nfkc": {"type": "NFKC"},
    "bert": {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
    },
}


def hf_document(
    normalizer: Normalizer,
    special_tokens: Mapping[str, int],
    *,
    pre_tokenizer: dict[str, Any],
    decoder: dict[str, Any],
    model: dict[str, Any],
) -> str:
    """The document as JSON; special tokens by name are the library's added tokens."""
    added = [
        {"id": n, "content": token, "special": True, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for token, n in special_tokens.items()
    ]
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": _NORMALIZERS[normalizer],
            "pre_tokenizer": pre_tokenizer,
            "post_processor": None,
            "decoder": decoder,
            "model": model,
        }
    )
