"""The `.model` file of the sentencepiece library: the part of its protobuf that encoding needs.

The wire format is a sequence of (field number << 3 | wire type) varints and values: 0 a varint,
1 eight bytes, 2 a length and that many bytes, 5 four bytes. Fields not named here are skipped.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
UNIGRAM, BPE = 1, 2


class Piece(NamedTuple):
    """One entry of the vocabulary."""

    text: str
    score: float
    kind: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelProto:
    """What a `.model` says about encoding; defaults are the format's."""

    pieces: tuple[Piece, ...]
    model_type: int = UNIGRAM
    byte_fallback: bool = False
    treat_whitespace_as_suffix: bool = False
    normalizer: str = ""
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True

    def __post_init__(self) -> None:
        if len({piece.text for piece in self.pieces}) < len(self.pieces):
            raise ValueError("a damaged .model: it holds the same piece twice")
        if [piece.kind for piece in self.pieces].count(UNKNOWN) != 1:
            raise ValueError("a damaged .model: it must hold exactly one unknown piece")
        if not any(piece.kind == NORMAL for piece in self.pieces):
            raise ValueError("a damaged .model: it holds no normal piece")
        if not all(math.isfinite(piece.score) for piece in self.pieces):
            raise ValueError("a damaged .model: a score is not a finite number")


def read_model(data: bytes) -> ModelProto:
    """The model in the bytes of a `.model` file.

    Raises:
        ValueError: if the data is damaged, truncated, or no such file.
    """
    pieces = []
    trainer: dict[int, int | bytes] | None = None
    normalizer: dict[int, int | bytes] | None = None
    for number, value in _fields(data):
        if number == 1:
            pieces.append(_piece(_message(value)))
        elif number == 2:
            trainer = _message(value)
        elif number == 3:
            normalizer = _message(value)
    if trainer is None or normalizer is None:
        raise ValueError("not a whole .model: its trainer or normalizer part is missing")
    return ModelProto(
        pieces=tuple(pieces),
        model_type=_number(trainer, 3, UNIGRAM),
        byte_fallback=bool(_number(trainer, 35, 0)),
        treat_whitespace_as_suffix=bool(_number(trainer, 24, 0)),
        normalizer=_bytes(normalizer, 1).decode(errors="replace"),
        charsmap=_bytes(normalizer, 2),
        add_dummy_prefix=bool(_number(normalizer, 3, 1)),
        remove_extra_whitespaces=bool(_number(normalizer, 4, 1)),
        escape_whitespaces=bool(_number(normalizer, 5, 1)),
    )


def write_model(model: ModelProto) -> bytes:
    """The bytes of a `.model` file that the library loads."""
    pieces = b"".join(
        _field(
            1,
            _field(1, piece.text.encode())
            + _key(2, 5)
            + struct.pack("<f", piece.score)
            + _field(3, piece.kind),
        )
        for piece in model.pieces
    )
    trainer = (
        _field(3, model.model_type)
        + _field(4, len(model.pieces))
        + _field(24, model.treat_whitespace_as_suffix)
        + _field(35, model.byte_fallback)
    )
    for number, name in ((40, "<unk>"), (41, "<s>"), (42, "</s>"), (43, "<pad>")):
        trainer += _field(number, _index(model, name))
    normalizer = (
        _field(1, model.normalizer.encode())
        + _field(2, model.charsmap)
        + _field(3, model.add_dummy_prefix)
        + _field(4, model.remove_extra_whitespaces)
        + _field(5, model.escape_whitespaces)
    )
    return pieces + _field(2, trainer) + _field(3, normalizer)


def _index(model: ModelProto, name: str) -> int:
    """Id of a named piece; -1, which switches it off, where there is none."""
    return next((n for n, piece in enumerate(model.pieces) if piece.text == name), -1)


def _piece(fields: dict[int, int | bytes]) -> Piece:
    score = _bytes(fields, 2) or bytes(4)
    kind = _number(fields, 3, NORMAL)
    if not NORMAL <= kind <= BYTE or len(score) != 4:
        raise ValueError(f"a damaged .model: a piece of type {kind} with {len(score)} score bytes")
    try:
        text = _bytes(fields, 1).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"a damaged .model: a piece is not UTF-8: {error}") from error
    return Piece(text, struct.unpack("<f", score)[0], kind)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        value: int | bytes
        if key & 7 == 0:
            value, at = _varint(data, at)
        else:
            size = {1: 8, 5: 4}.get(key & 7)
            if key & 7 == 2:
                size, at = _varint(data, at)
            if size is None or at + size > len(data) or key >> 3 == 0:
                raise ValueError(
                    f"a damaged or truncated .model: bad field at byte {at} of {len(data)}"
                )
            value, at = data[at : at + size], at + size
        yield key >> 3, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    raise ValueError(f"a damaged or truncated .model: bad number at byte {at} of {len(data)}")


def _message(value: int | bytes) -> dict[int, int | bytes]:
    if isinstance(value, int):
        raise ValueError("a damaged .model: a number where a message belongs")  # noqa: TRY004
    return dict(_fields(value))


def _number(fields: dict[int, int | bytes], number: int, default: int) -> int:
    value = fields.get(number, default)
    if isinstance(value, bytes):
        raise ValueError(f"a damaged .model: field {number} is not a number")  # noqa: TRY004
    return value


def _bytes(fields: dict[int, int | bytes], number: int) -> bytes:
    value = fields.get(number, b"")
    if isinstance(value, int):
        raise ValueError(f"a damaged .model: field {number} is a number")  # noqa: TRY004
    return value


def _key(number: int, wire: int) -> bytes:
    return _encoded(number << 3 | wire)


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return _key(number, 2) + _encoded(len(value)) + value
    return _key(number, 0) + _encoded(int(value) % (1 << 64))


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
