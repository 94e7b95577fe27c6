"""Normalizing and splitting into BERT's words in one pass over UTF-8."""

import numpy as np
from numba import njit

LETTER, ALONE, SPACE, SEQUENCE, DROPPED, UNKNOWN = range(6)  # as in impls/tokenizers/_bert.py


@njit(cache=True, inline="always")
def _put(out, at, code):
    """Write one code point as UTF-8 at `at`; where the next one goes."""
    if code < 0x80:
        out[at] = code
        return at + 1
    if code < 0x800:
        out[at] = 0xC0 | code >> 6
        out[at + 1] = 0x80 | code & 0x3F
        return at + 2
    if code < 0x10000:
        out[at] = 0xE0 | code >> 12
        out[at + 1] = 0x80 | code >> 6 & 0x3F
        out[at + 2] = 0x80 | code & 0x3F
        return at + 3
    out[at] = 0xF0 | code >> 18
    out[at + 1] = 0x80 | code >> 12 & 0x3F
    out[at + 2] = 0x80 | code >> 6 & 0x3F
    out[at + 3] = 0x80 | code & 0x3F
    return at + 4


@njit(cache=True, inline="always")
def _get(data, at):
    """The code point at `at` of valid UTF-8 and where the next one starts."""
    lead = np.int64(data[at])
    if lead < 0x80:
        return lead, at + 1
    if lead < 0xE0:
        return (lead & 0x1F) << 6 | np.int64(data[at + 1]) & 0x3F, at + 2
    code = (np.int64(data[at + 1]) & 0x3F) << 6 | np.int64(data[at + 2]) & 0x3F
    if lead < 0xF0:
        return (lead & 0x0F) << 12 | code, at + 3
    return (lead & 0x07) << 18 | code << 6 | np.int64(data[at + 3]) & 0x3F, at + 4


@njit(cache=True)
def scan(data, text_ends, entries, sequences, out, ends, text_words):
    """Words of the texts: fills out (bytes), ends (of each word), text_words (up to each text).

    Returns the code point the table (entries, sequences) does not know, or -1, and the number of
    words.
    """
    at = np.int64(0)  # in data
    put = np.int64(0)  # in out
    n = 0
    for text in range(text_ends.size):
        word = put
        while at < text_ends[text]:
            code, at = _get(data, at)
            entry = np.int64(entries[code])
            kind = entry >> 24
            if kind == LETTER:
                put = _put(out, put, entry)
                continue
            first, last = np.int64(0), np.int64(1)
            if kind == SEQUENCE:
                first = (entry & 0xFFFFFF) + 1
                last = first + np.int64(sequences[first - 1])
            elif kind == UNKNOWN:
                return code, n
            for k in range(first, last):
                if first > 0:
                    entry = np.int64(sequences[k])
                    kind = entry >> 24
                if kind == LETTER:
                    put = _put(out, put, entry)
                elif kind != DROPPED:
                    if put > word:
                        ends[n] = put
                        n += 1
                    if kind == ALONE:
                        put = _put(out, put, entry & 0xFFFFFF)
                        ends[n] = put
                        n += 1
                    word = put
        if put > word:
            ends[n] = put
            n += 1
        text_words[text] = n
    return np.int64(-1), n
