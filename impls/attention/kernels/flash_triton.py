"""FlashAttention in Triton: forward and backward, also for sequences of unequal length.

A program owns one block of queries (forward, dQ) or of keys (dK/dV, all query heads of its group)
and walks over the other side, so nothing is accumulated across programs: results repeat bit for
bit. Blocks that every row sees are walked without a mask, the diagonal with one, the rest not at
all. Exponentials are base 2, with log2(e) folded into the scale, which must be positive.

B batch, H query heads, G key/value heads, M rows (queries) and N columns (keys) of a block.
`Bounds`, where given, holds five int32 a sequence: first and last + 1 of its queries, the same of
its keys, and its causal offset, all in indices of the tensors.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
INFINITY = tl.constexpr(float("inf"))

# (M, N, warps, stages); the tuner drops those that do not fit the device.
FORWARD = ((128, 128, 8, 2), (128, 128, 8, 3), (128, 64, 8, 3), (64, 64, 4, 3))
BACKWARD_KV = ((64, 128, 8, 2), (64, 128, 8, 3), (32, 128, 8, 2), (32, 128, 8, 3), (64, 64, 4, 2))
BACKWARD_Q = ((128, 64, 8, 2), (128, 64, 8, 3), (64, 64, 4, 2), (64, 64, 4, 3))
SMALL = (32, 32, 4, 1)  # fits everything, float32 at width 256 too


@triton.jit
def _sequence(Bounds, b, n_q, n_k, offset, RAGGED: tl.constexpr):
    """First query, last + 1, first key, last + 1, offset of sequence b."""
    first_q, first_k = 0, 0
    if RAGGED:
        at = Bounds + b * 5
        first_q, n_q, first_k, n_k, offset = (
            tl.load(at), tl.load(at + 1), tl.load(at + 2), tl.load(at + 3), tl.load(at + 4),
        )  # fmt: skip
    return first_q, n_q, first_k, n_k, offset


@triton.jit
def _tile_at(X, start, end, stride, D, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """Pointers to rows start.. of X and which of their elements are inside."""
    row, column = tl.arange(0, ROWS), tl.arange(0, BLOCK_D)
    at = X + tl.cast(start, tl.int64) * stride + row[:, None] * stride + column[None, :]
    return at, (start + row < end)[:, None] & (column < D)[None, :]


@triton.jit
def _load(
    X, start, end, stride, D, ROWS: tl.constexpr, BLOCK_D: tl.constexpr, INSIDE: tl.constexpr
):
    """Rows start.. of X, zero from `end` on; INSIDE: `end` is not reached."""
    at, inside = _tile_at(X, start, end, stride, D, ROWS, BLOCK_D)
    if INSIDE and D == BLOCK_D:
        return tl.load(at)
    else:  # noqa: RET505  (the compiler follows one branch only if there are two)
        return tl.load(at, mask=inside, other=0.0)


@triton.jit
def _store(X, tile, start, end, stride, D, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    at, inside = _tile_at(X, start, end, stride, D, ROWS, BLOCK_D)
    tl.store(at, tile.to(X.dtype.element_ty), mask=inside)


INTERPRETED = tl.constexpr(not isinstance(_store, triton.JITFunction))


@triton.jit
def _dot(a, b, start=None):
    """Start + a @ b, accumulated in float32; float32 operands are not cut to TF32."""
    if INTERPRETED:  # the interpreter would multiply the bit patterns of bfloat16
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, start, input_precision="ieee")


@triton.jit
def _seen(
    rows, columns, last_k, offset, Keep, CAUSAL: tl.constexpr, HAS_KEEP: tl.constexpr
):  # rows and columns broadcast
    """Which key each query sees."""
    seen = columns < last_k
    if HAS_KEEP:
        seen &= tl.load(Keep + columns, mask=seen, other=0) != 0
    if CAUSAL:
        seen &= columns <= rows + offset
    else:
        seen &= rows >= 0  # the shape of both
    return seen


@triton.jit
def _key_range(
    row, first_k, last_k, offset,
    M: tl.constexpr, N: tl.constexpr, CAUSAL: tl.constexpr, HAS_KEEP: tl.constexpr,
):  # fmt: skip
    """Up to where the keys are seen by all rows of a block in whole tiles, and by any at all."""
    seen_by_all, seen_by_any = last_k, last_k
    if CAUSAL:
        seen_by_all = tl.minimum(last_k, row + offset + 1)
        seen_by_any = tl.minimum(last_k, row + offset + M)
    whole = first_k
    if not HAS_KEEP:
        whole = first_k + tl.maximum(seen_by_all - first_k, 0) // N * N
    return whole, seen_by_any


@triton.jit
def _gather_values(
    out, top, total, q, K, V, Keep, rows, start, stop, last_k, offset, scale, k_t, v_t, D, DV,
    M: tl.constexpr, N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_KEEP: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Takes keys start..stop into the weighted sum, its running maximum (base 2) and its total."""
    for j in tl.range(start, stop, N):
        k = _load(K, j, last_k, k_t, D, N, BLOCK_D, not MASKED)
        scores = _dot(q, tl.trans(k))
        if MASKED:
            columns = j + tl.arange(0, N)
            seen = _seen(rows[:, None], columns[None], last_k, offset, Keep, CAUSAL, HAS_KEEP)
            scores = tl.where(seen, scores, -INFINITY)
        new_top = tl.maximum(top, tl.max(scores, 1) * scale)
        finite = new_top
        if MASKED:
            finite = tl.where(new_top == -INFINITY, 0.0, new_top)  # nothing seen so far
        weights = tl.exp2(scores * scale - finite[:, None])
        decay = tl.exp2(top - finite)
        total = total * decay + tl.sum(weights, 1)
        v = _load(V, j, last_k, v_t, DV, N, BLOCK_DV, not MASKED)
        out = _dot(weights.to(v.dtype), v, out * decay[:, None])
        top = new_top
    return out, top, total


def affordable(configs, arguments, **_):
    """In float32, which tensor cores do not multiply, larger blocks only spill."""
    return configs[-1:] if arguments["Q"].element_size() == 4 else configs


def tuned(choices):
    """Times the choices once for every kind of call; under the interpreter there is no choice."""

    def wrap(kernel):
        configs = [
            triton.Config({"M": m, "N": n}, num_warps=warps, num_stages=stages)
            for m, n, warps, stages in ((SMALL,) if INTERPRETED else (*choices, SMALL))
        ]
        key = ["bucket", "BLOCK_D", "BLOCK_DV", "CAUSAL", "HAS_KEEP", "RAGGED"]
        prune = {"early_config_prune": affordable}
        return triton.autotune(configs=configs, key=key, prune_configs_by=prune)(kernel)

    return wrap


@tuned(FORWARD)
@triton.jit
def forward(
    Q, K, V, Keep, Bounds, Out, Lse,
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, o_b, o_h, o_t, lse_b, lse_h, keep_b,
    H, group, n_q, n_k, offset, scale, bucket, D: tl.constexpr, DV: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_KEEP: tl.constexpr, RAGGED: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Out and Lse of one block of queries of one head."""
    n_blocks = tl.cdiv(n_q, M)
    pid = tl.program_id(0)
    block = n_blocks - 1 - pid % n_blocks  # the longest causal rows start first
    b, h = (pid // n_blocks // H).to(tl.int64), (pid // n_blocks % H).to(tl.int64)
    first_q, last_q, first_k, last_k, offset = _sequence(Bounds, b, n_q, n_k, offset, RAGGED)
    row = first_q + block * M
    if row >= last_q:
        return
    K += b * k_b + h // group * k_h
    V += b * v_b + h // group * v_h
    if HAS_KEEP:
        Keep += b * keep_b
    rows = row + tl.arange(0, M)
    q = _load(Q + b * q_b + h * q_h, row, last_q, q_t, D, M, BLOCK_D, False)
    whole, stop = _key_range(row, first_k, last_k, offset, M, N, CAUSAL, HAS_KEEP)
    out = tl.zeros((M, BLOCK_DV), tl.float32)
    top = tl.full((M,), -INFINITY, tl.float32)
    total = tl.zeros((M,), tl.float32)
    scale *= LOG2_E
    out, top, total = _gather_values(
        out, top, total, q, K, V, Keep, rows, first_k, whole, last_k, offset, scale, k_t, v_t,
        D, DV, M, N, BLOCK_D, BLOCK_DV, CAUSAL, HAS_KEEP, False,
    )  # fmt: skip
    out, top, total = _gather_values(
        out, top, total, q, K, V, Keep, rows, whole, stop, last_k, offset, scale, k_t, v_t,
        D, DV, M, N, BLOCK_D, BLOCK_DV, CAUSAL, HAS_KEEP, True,
    )  # fmt: skip
    total = tl.where(total == 0.0, 1.0, total)  # rows that see nothing: out 0, lse -inf
    _store(Out + b * o_b + h * o_h, out / total[:, None], row, last_q, o_t, DV, M, BLOCK_DV)
    lse = (top + tl.log2(total)) * LN_2
    tl.store(Lse + b * lse_b + h * lse_h + rows, lse, mask=rows < last_q)


@triton.jit
def row_terms(
    Out, DOut, Lse, DLse, Delta, o_b, o_h, o_t, H, n_q, DV: tl.constexpr,
    BLOCK_DV: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """Delta = sum(dO * O) - dLse: what a row subtracts from the gradient of its weights."""
    n_blocks = tl.cdiv(n_q, M)
    block, head = tl.program_id(0) % n_blocks, (tl.program_id(0) // n_blocks).to(tl.int64)
    at = head // H * o_b + head % H * o_h
    o = _load(Out + at, block * M, n_q, o_t, DV, M, BLOCK_DV, False).to(tl.float32)
    do = _load(DOut + at, block * M, n_q, o_t, DV, M, BLOCK_DV, False).to(tl.float32)
    rows = block * M + tl.arange(0, M)
    lse = tl.load(Lse + head * n_q + rows, mask=rows < n_q, other=0.0)
    d_lse = tl.load(DLse + head * n_q + rows, mask=rows < n_q, other=0.0)
    delta = tl.where(lse == -INFINITY, 0.0, tl.sum(o * do, 1) - d_lse)
    tl.store(Delta + head * n_q + rows, delta, mask=rows < n_q)


@triton.jit
def _gather_queries(
    dk, dv, k, v, Q, DOut, Lse, Delta, Keep, columns, start, stop, last_q, last_k, offset, scale,
    q_t, o_t, D, DV, M: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_KEEP: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Takes queries start..stop into the gradients of one block of keys and values."""
    for i in tl.range(start, stop, M):
        rows = i + tl.arange(0, M)
        q = _load(Q, i, last_q, q_t, D, M, BLOCK_D, not MASKED)
        scores = _dot(k, tl.trans(q))  # (N, M)
        if MASKED:
            lse = tl.load(Lse + rows, mask=rows < last_q, other=INFINITY)
            lse = tl.where(lse == -INFINITY, INFINITY, lse)  # sees nothing: its weights are 0
            delta = tl.load(Delta + rows, mask=rows < last_q, other=0.0)
            seen = _seen(rows[None], columns[:, None], last_k, offset, Keep, CAUSAL, HAS_KEEP)
            scores = tl.where(seen, scores, -INFINITY)
        else:
            lse, delta = tl.load(Lse + rows), tl.load(Delta + rows)
        weights = tl.exp2(scores * scale - (lse * LOG2_E)[None])
        do = _load(DOut, i, last_q, o_t, DV, M, BLOCK_DV, not MASKED)
        dv = _dot(weights.to(do.dtype), do, dv)
        d_weights = _dot(v, tl.trans(do))
        d_scores = weights * (d_weights - delta[None])
        dk = _dot(d_scores.to(q.dtype), q, dk)
    return dk, dv


@tuned(BACKWARD_KV)
@triton.jit
def backward_kv(
    Q, K, V, Keep, Bounds, DOut, Lse, Delta, DK, DV_,
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, o_b, o_h, o_t, lse_b, lse_h, keep_b,
    dk_b, dk_h, dk_t, dv_b, dv_h, dv_t,
    H, group, n_q, n_k, offset, scale, bucket, D: tl.constexpr, DV: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_KEEP: tl.constexpr, RAGGED: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """DK and DV of one block of keys of one key/value head."""
    n_blocks, n_heads = tl.cdiv(n_k, N), H // group
    pid = tl.program_id(0)
    b, g = (pid // n_blocks // n_heads).to(tl.int64), (pid // n_blocks % n_heads).to(tl.int64)
    first_q, last_q, first_k, last_k, offset = _sequence(Bounds, b, n_q, n_k, offset, RAGGED)
    column = first_k + pid % n_blocks * N
    if column >= last_k:
        return
    if HAS_KEEP:
        Keep += b * keep_b
    columns = column + tl.arange(0, N)
    k = _load(K + b * k_b + g * k_h, column, last_k, k_t, D, N, BLOCK_D, False)
    v = _load(V + b * v_b + g * v_h, column, last_k, v_t, DV, N, BLOCK_DV, False)
    dk, dv = tl.zeros((N, BLOCK_D), tl.float32), tl.zeros((N, BLOCK_DV), tl.float32)
    start, whole = first_q, first_q
    if CAUSAL:
        start = tl.maximum(first_q, column - offset)
        whole = start + tl.cdiv(tl.maximum(column + N - 1 - offset - start, 0), M) * M
    if HAS_KEEP:
        whole = last_q
    tail = whole + tl.maximum(last_q - whole, 0) // M * M
    for member in tl.range(group):
        h = g * group + member
        Q_h, DO_h = Q + b * q_b + h * q_h, DOut + b * o_b + h * o_h
        Lse_h, Delta_h = Lse + b * lse_b + h * lse_h, Delta + b * lse_b + h * lse_h
        for part in tl.static_range(3):  # the diagonal, whole blocks, the uneven tail
            begin = start if part == 0 else (whole if part == 1 else tail)
            end = tl.minimum(whole, last_q) if part == 0 else (tail if part == 1 else last_q)
            dk, dv = _gather_queries(
                dk, dv, k, v, Q_h, DO_h, Lse_h, Delta_h, Keep, columns, begin, end, last_q,
                last_k, offset, scale * LOG2_E, q_t, o_t, D, DV, M, BLOCK_D, BLOCK_DV,
                CAUSAL, HAS_KEEP, part != 1,
            )  # fmt: skip
    _store(DK + b * dk_b + g * dk_h, dk * scale, column, last_k, dk_t, D, N, BLOCK_D)
    _store(DV_ + b * dv_b + g * dv_h, dv, column, last_k, dv_t, DV, N, BLOCK_DV)


@triton.jit
def _gather_keys(
    dq, q, do, lse, delta, K, V, Keep, rows, start, stop, last_k, offset, scale, k_t, v_t, D, DV,
    N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_KEEP: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Takes keys start..stop into the gradient of one block of queries."""
    for j in tl.range(start, stop, N):
        k = _load(K, j, last_k, k_t, D, N, BLOCK_D, not MASKED)
        v = _load(V, j, last_k, v_t, DV, N, BLOCK_DV, not MASKED)
        scores = _dot(q, tl.trans(k))
        if MASKED:
            columns = j + tl.arange(0, N)
            seen = _seen(rows[:, None], columns[None], last_k, offset, Keep, CAUSAL, HAS_KEEP)
            scores = tl.where(seen, scores, -INFINITY)
        weights = tl.exp2(scores * scale - lse[:, None])
        d_weights = _dot(do, tl.trans(v))
        d_scores = weights * (d_weights - delta[:, None])
        dq = _dot(d_scores.to(k.dtype), k, dq)
    return dq


@tuned(BACKWARD_Q)
@triton.jit
def backward_q(
    Q, K, V, Keep, Bounds, DOut, Lse, Delta, DQ,
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, o_b, o_h, o_t, lse_b, lse_h, keep_b,
    dq_b, dq_h, dq_t,
    H, group, n_q, n_k, offset, scale, bucket, D: tl.constexpr, DV: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_KEEP: tl.constexpr, RAGGED: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """DQ of one block of queries of one head."""
    n_blocks = tl.cdiv(n_q, M)
    pid = tl.program_id(0)
    block = n_blocks - 1 - pid % n_blocks
    b, h = (pid // n_blocks // H).to(tl.int64), (pid // n_blocks % H).to(tl.int64)
    first_q, last_q, first_k, last_k, offset = _sequence(Bounds, b, n_q, n_k, offset, RAGGED)
    row = first_q + block * M
    if row >= last_q:
        return
    K += b * k_b + h // group * k_h
    V += b * v_b + h // group * v_h
    if HAS_KEEP:
        Keep += b * keep_b
    rows = row + tl.arange(0, M)
    q = _load(Q + b * q_b + h * q_h, row, last_q, q_t, D, M, BLOCK_D, False)
    do = _load(DOut + b * o_b + h * o_h, row, last_q, o_t, DV, M, BLOCK_DV, False)
    lse = tl.load(Lse + b * lse_b + h * lse_h + rows, mask=rows < last_q, other=INFINITY)
    lse = tl.where(lse == -INFINITY, INFINITY, lse * LOG2_E)
    delta = tl.load(Delta + b * lse_b + h * lse_h + rows, mask=rows < last_q, other=0.0)
    whole, stop = _key_range(row, first_k, last_k, offset, M, N, CAUSAL, HAS_KEEP)
    dq = tl.zeros((M, BLOCK_D), tl.float32)
    for masked in tl.static_range(2):
        dq = _gather_keys(
            dq, q, do, lse, delta, K, V, Keep, rows, whole if masked else first_k,
            stop if masked else whole, last_k, offset, scale * LOG2_E, k_t, v_t, D, DV,
            N, BLOCK_D, BLOCK_DV, CAUSAL, HAS_KEEP, masked == 1,
        )  # fmt: skip
    _store(DQ + b * dq_b + h * dq_h, dq * scale, row, last_q, dq_t, D, M, BLOCK_D)
