"""The file of a tokenizer: one JSON document of its technique, recipe and state."""

import json
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

if TYPE_CHECKING:
    from impls.tokenizers.interface import Tokenizer

FORMAT = "llmatrix-tokenizer"
FORMAT_VERSION = 1


class TokenizerFileError(ValueError):
    """A file that is not a tokenizer, or one of another version."""


def save(tokenizer: "Tokenizer", path: Path) -> None:
    """Write the file that `load` reads."""
    document = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "technique": type(tokenizer.recipe).__module__.removeprefix("impls.").replace(".", "/"),
        "recipe": asdict(tokenizer.recipe),  # type: ignore[call-overload]
        "state": tokenizer.state(),
    }
    path.write_text(json.dumps(document, ensure_ascii=True), encoding="utf-8")


def load(path: Path) -> "Tokenizer":
    """The tokenizer saved at `path`.

    Raises:
        TokenizerFileError: if the file is none of ours, of another version, or damaged.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TokenizerFileError(f"{path} cannot be read as a tokenizer: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise TokenizerFileError(f"{path} is not a tokenizer file (no format {FORMAT!r})")
    if document.get("version") != FORMAT_VERSION:
        raise TokenizerFileError(
            f"{path} has version {document.get('version')!r}, this release reads "
            f"{FORMAT_VERSION}: train the tokenizer again or use the release that wrote it"
        )
    slug = str(document.get("technique")).removeprefix("tokenizers/")
    if not slug.isidentifier() or find_spec(f"impls.tokenizers.{slug}") is None:
        raise TokenizerFileError(
            f"{path} names the technique {document.get('technique')!r}, which this release lacks"
        )
    module = import_module(f"impls.tokenizers.{slug}")
    recipe_class = getattr(module, module.CARD.cls)
    try:
        recipe = TypeAdapter(recipe_class).validate_json(json.dumps(document["recipe"]))
        return recipe_class.tokenizer_class.from_state(recipe, document["state"])  # type: ignore[no-any-return]
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise TokenizerFileError(f"{path} is damaged: {error}") from error
