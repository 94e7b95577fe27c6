"""Pre-tokenizers as state machines over UTF-8: the splits of the published expressions.

Each `_end_*` function gives the end of the word that starts at `i`; `spans` walks the texts with
the chosen one. A byte that is not part of valid UTF-8 is a character of its own with no class,
which every pattern treats as a symbol. `data` and `classes` are addresses (see `memory`).
"""

from numba import njit

from impls.tokenizers.kernels.memory import address, load8

UPPER, LOWER, CASELESS, MARK, NUMBER, SPACE, WORD, NEWLINE = (1 << k for k in range(8))
LETTER = UPPER | LOWER | CASELESS

GPT2, CL100K, O200K, SUPERWORDS, WORDS, WHITESPACE = range(6)


@njit(cache=True)
def code_point(data, i, end):
    """(code point, bytes it takes) at i; (-1, 1) where the bytes are not UTF-8."""
    lead = int(load8(data, i))
    if lead < 0x80:
        return lead, 1
    width = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    if lead < 0xC2 or lead > 0xF4 or i + width > end:
        return -1, 1
    point = lead & (0x7F >> width)
    for k in range(1, width):
        byte = int(load8(data, i + k))
        if byte & 0xC0 != 0x80:
            return -1, 1
        point = point << 6 | (byte & 0x3F)
    surrogate = 0xD800 <= point < 0xE000
    overlong = (width == 3 and point < 0x800) or (width == 4 and point < 0x10000)
    if surrogate or overlong or point > 0x10FFFF:
        return -1, 1
    return point, width


@njit(cache=True)
def _kind(data, i, end, classes):
    """(class bits, bytes it takes) of the character at i."""
    byte = load8(data, i)
    if byte < 0x80:
        return int(load8(classes, byte)), 1
    point, width = code_point(data, i, end)
    return (int(load8(classes, point)) if point >= 0 else 0), width


@njit(cache=True)
def _while(data, i, end, classes, mask):
    """The first character from i on that has no bit of the mask."""
    while i < end:
        byte = load8(data, i)
        if byte < 0x80:
            if not load8(classes, byte) & mask:
                break
            i += 1
        else:
            kind, width = _kind(data, i, end, classes)
            if not kind & mask:
                break
            i += width
    return i


@njit(cache=True)
def _until(data, i, end, classes, mask):
    """The first character from i on that has a bit of the mask."""
    while i < end:
        kind, width = _kind(data, i, end, classes)
        if kind & mask:
            break
        i += width
    return i


@njit(cache=True)
def _contraction(data, i, end, any_case):
    """The end of 's 't 'm 'd 're 've 'll at i, or i."""
    if i + 1 >= end or load8(data, i) != 39:
        return i
    fold = 0x20 if any_case else 0
    first = load8(data, i + 1) | fold
    if first in (115, 116, 109, 100):
        return i + 2
    if i + 2 >= end:
        return i
    second = load8(data, i + 2) | fold
    if (first in (114, 118) and second == 101) or (first == 108 and second == 108):
        return i + 3
    if any_case and load8(data, i + 1) == 0xC5 and load8(data, i + 2) == 0xBF:  # U+017F folds to s
        return i + 3
    return i


@njit(cache=True)
def _whitespace(data, i, end, classes, by_line):
    r"""The end of \s*[\r\n]+ (if `by_line`), else of \s+(?!\S), else of \s+ at i."""
    start = last = i
    newline = -1
    while i < end:
        kind, width = _kind(data, i, end, classes)
        if not kind & SPACE:
            break
        last = i
        i += width
        if kind & NEWLINE:
            newline = i
    if by_line and newline >= 0:
        return newline
    return last if i < end and last > start else i


@njit(cache=True)
def _symbols(data, i, end, classes):
    r"""The end of ` ?[^\s\p{L}\p{N}]+` at i, or i."""
    start = i + 1 if load8(data, i) == 32 else i
    stop = _until(data, start, end, classes, SPACE | LETTER | NUMBER)
    return stop if stop > start else i


@njit(cache=True)
def _end_gpt2(data, i, end, classes):
    stop = _contraction(data, i, end, False)
    if stop > i:
        return stop
    start = i + 1 if load8(data, i) == 32 and i + 1 < end else i
    kind, width = _kind(data, start, end, classes)
    if kind & LETTER:
        return _while(data, start + width, end, classes, LETTER)
    if kind & NUMBER:
        return _while(data, start + width, end, classes, NUMBER)
    if kind & SPACE:
        return _whitespace(data, i, end, classes, False)
    return _until(data, start + width, end, classes, SPACE | LETTER | NUMBER)


@njit(cache=True)
def _digits(data, i, end, classes):
    """The end of one to three numbers, the first of which stands at i."""
    for _ in range(3):
        if i >= end:
            break
        kind, width = _kind(data, i, end, classes)
        if not kind & NUMBER:
            break
        i += width
    return i


@njit(cache=True)
def _end_cl100k(data, i, end, classes):
    stop = _contraction(data, i, end, True)
    if stop > i:
        return stop
    kind, width = _kind(data, i, end, classes)
    if kind & NUMBER:
        return _digits(data, i, end, classes)
    start = i if kind & (LETTER | NEWLINE) else i + width
    stop = _while(data, start, end, classes, LETTER)
    if stop > start:
        return stop
    stop = _symbols(data, i, end, classes)
    if stop > i:
        return _while(data, stop, end, classes, NEWLINE)
    return _whitespace(data, i, end, classes, True)


@njit(cache=True)
def _cased(data, i, end, classes):
    """The end of [upper]*[lower]+ at i, and of [upper]+[lower]* where the first does not match.

    Caseless letters and marks are both; where no lower-case letter follows, the expression gives
    characters back until it stands on one of these.
    """
    both = -1
    while i < end:
        kind, width = _kind(data, i, end, classes)
        if not kind & (UPPER | CASELESS | MARK):
            break
        i += width
        if kind & (CASELESS | MARK):
            both = i
    stop = _while(data, i, end, classes, LOWER | CASELESS | MARK)
    return (stop if stop > i else both), i


@njit(cache=True)
def _end_o200k(data, i, end, classes):
    kind, width = _kind(data, i, end, classes)
    if kind & NUMBER:
        return _digits(data, i, end, classes)
    start = i if kind & (LETTER | NEWLINE) else i + width
    lower, upper = _cased(data, start, end, classes)
    if lower < 0 and kind & MARK:
        lower = _cased(data, i, end, classes)[0]
    stop = lower if lower >= 0 else upper
    if stop > start or lower >= 0:
        return _contraction(data, stop, end, True)
    stop = _symbols(data, i, end, classes)
    if stop > i:
        while stop < end and load8(data, stop) in (10, 13, 47):
            stop += 1
        return stop
    return _whitespace(data, i, end, classes, True)


@njit(cache=True)
def _end_superwords(data, i, end, classes):
    kind, _ = _kind(data, i, end, classes)
    if kind & NUMBER:
        return _digits(data, i, end, classes)
    return _while(data, _until(data, i, end, classes, NEWLINE | NUMBER), end, classes, NEWLINE)


@njit(cache=True)
def _end_words(data, i, end, classes):
    if _kind(data, i, end, classes)[0] & WORD:
        return _while(data, i, end, classes, WORD)
    return _until(data, i, end, classes, WORD | SPACE)


@njit(cache=True)
def spans(text_bytes, offsets, cursor, pattern, class_bits, out):
    """Write [start, end) of the next words to `out` and return how many rows it took.

    `cursor` holds the next text and the next byte; a row starting at -1 ends a text.
    """
    text, i = cursor
    n = 0
    data, classes = address(text_bytes), address(class_bits)
    while text < len(offsets) - 1:
        end = offsets[text + 1]
        while n < len(out):
            if pattern in (WORDS, WHITESPACE):
                i = _while(data, i, end, classes, SPACE)
            if i >= end:
                break
            if pattern == GPT2:
                stop = _end_gpt2(data, i, end, classes)
            elif pattern == CL100K:
                stop = _end_cl100k(data, i, end, classes)
            elif pattern == O200K:
                stop = _end_o200k(data, i, end, classes)
            elif pattern == SUPERWORDS:
                stop = _end_superwords(data, i, end, classes)
            elif pattern == WORDS:
                stop = _end_words(data, i, end, classes)
            else:
                stop = _until(data, i, end, classes, SPACE)
            out[n, 0] = i
            out[n, 1] = stop
            n += 1
            i = stop
        if n == len(out):
            break
        out[n] = -1
        n += 1
        text += 1
    cursor[0] = text
    cursor[1] = i
    return n
