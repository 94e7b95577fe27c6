// Block-sparse attention on CPU, forward and backward; dense causal is one of its layouts.
//
//   forward    s = scale q k^T    p = exp(s - lse)    out = p v
//   backward   delta = rowsum(dout * out)    ds = p * (dout v^T - delta)
//              dq = scale ds k    dk = scale ds^T q    dv = p^T dout
//
// Queries and keys are cut into blocks of 64. All matrix products are of one kind: the left
// operand is read one 32-bit word at a time and multiplied by a row of words of the right one. A
// word holds a float, or two neighbours along the contracted axis in bfloat16, where the machine
// has an instruction for that (AVX512-BF16); elsewhere bfloat16 is widened to float on packing.
// A block of 64 vectors of width d is packed in one of three forms, each of 64 * d elements:
//
//   rows          word (n, c)    elements 2c, 2c+1 of vector n        left, contracting d
//   transposed    word (c, n)    the same words                       right, contracting d
//   interleaved   word (c, i)    element i of vectors 2c, 2c+1        right, contracting vectors
//
// (for float, word (n, i) is element i of vector n, so interleaved and rows are the same).
// Sums are in float32. No result depends on the number of threads.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#endif

#define INLINE inline __attribute__((always_inline))

struct Tensor {  // (batch, head, token, width); width is contiguous
  void* data;
  int64_t batch, head, token;  // strides in elements
};

struct Layout {  // CSR over query blocks; see _blocks.py
  const int32_t *rows, *cols, *masks_of;
  const uint8_t* masks;
  int64_t heads;  // 1: all heads alike
};

struct Problem {
  Tensor q, k, v, out, dout, dq, dk, dv;
  float* lse;           // (B, H, Tq)
  const uint8_t* keep;  // (B, Tk), or null: every key
  Layout layout;
  int64_t B, H, G, Tq, Tk, d, dv_width, threads;
  float scale;
};

namespace {

constexpr int64_t BLOCK = 64;
constexpr int64_t ROWS = 4;  // of a register tile
#ifdef __AVX512F__
constexpr int64_t WIDTH = 16, COLUMNS = 4;  // floats in a vector, vectors in a row of a tile
#else
constexpr int64_t WIDTH = 8, COLUMNS = 2;
#endif
constexpr int64_t PADDING = 16;         // widths are rounded up to it
constexpr int64_t BACKWARD_ITEMS = 16;  // at least so many, so that threads can share the work
constexpr float LOG2E = 1.44269504f;
constexpr float INF = std::numeric_limits<float>::infinity();

using Word = int32_t;
using Vec = float __attribute__((vector_size(4 * WIDTH)));
using Int = int32_t __attribute__((vector_size(4 * WIDTH)));
using Byte = uint8_t __attribute__((vector_size(WIDTH)));

constexpr auto LARGER = [](auto a, auto b) { return a > b ? a : b; };
constexpr auto SUM = [](auto a, auto b) { return a + b; };

template <class V, class T>
INLINE V load(const T* from) {
  V x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

template <class V, class T>
INLINE void store(T* to, V x) {
  std::memcpy(to, &x, sizeof x);
}

struct BFloat {
  uint16_t bits;
};

INLINE float to_float(float x) { return x; }

INLINE float to_float(BFloat x) {
  const uint32_t bits = uint32_t(x.bits) << 16;
  float y;
  std::memcpy(&y, &bits, sizeof y);
  return y;
}

template <class S>
INLINE S from_float(float x) {
  if constexpr (std::is_same_v<S, float>) return x;
  else {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;  // to nearest, ties to even
    const bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
    return S{uint16_t(is_nan ? 0x7fc0 : rounded)};
  }
}

template <class E>
constexpr int64_t PAIR = int64_t(sizeof(Word) / sizeof(E));  // elements in a word

// acc + a b, word by word.
template <class E>
INLINE Vec multiply_add(Vec acc, Int a, Int b) {
#ifdef __AVX512BF16__
  if constexpr (PAIR<E> == 2)
    return (Vec)_mm512_dpbf16_ps((__m512)acc, (__m512bh)(__m512i)a, (__m512bh)(__m512i)b);
#endif
  return acc + (Vec)a * (Vec)b;
}

// e^y for y < 88; 0 below -87. The error of 2^x for x = y log2(e) is below 1.5e-7.
INLINE Vec exp(Vec y) {
  const Vec x = y * LOG2E;
  const Vec shifted = x + 12582912.f;  // 1.5 * 2^23: the low bits are x to the nearest integer
  const Vec f = x - (shifted - 12582912.f);
  Vec power = 1.53458124e-4f * f + 1.33999309e-3f;  // minimax polynomial of 2^f on [-1/2, 1/2]
  power = power * f + 9.61848907e-3f;
  power = power * f + 5.55032864e-2f;
  power = power * f + 0.240226462f;
  power = power * f + 0.693147182f;
  power = power * f + 1.f;
  const Vec scaled = (Vec)((Int)power + ((Int)shifted << 23));
  return x < -126.f ? Vec{} : scaled;
}

// join over the floats of a vector.
template <class Join>
INLINE float fold(Vec x, Join join) {
  using Quad = float __attribute__((vector_size(16)));
  Quad quads[WIDTH / 4];
  std::memcpy(quads, &x, sizeof x);
  for (int64_t n = WIDTH / 8; n; n /= 2)
    for (int64_t i = 0; i < n; ++i) quads[i] = join(quads[i], quads[i + n]);
  return join(join(quads[0][0], quads[0][2]), join(quads[0][1], quads[0][3]));
}

struct Left {  // word (m, k) is words[m * row + k * step]
  const Word* words;
  int64_t row, step;
};

// A tile of ROWS x (N * WIDTH): c = factor c + a b, or a b where there is no factor.
template <class E, int64_t N>
INLINE void tile(Left a, const Word* b, int64_t steps, int64_t columns, const float* factor,
                 float* c) {
  Vec acc[ROWS][N];
#pragma GCC unroll 8
  for (int64_t m = 0; m < ROWS; ++m)
#pragma GCC unroll 8
    for (int64_t n = 0; n < N; ++n)
      acc[m][n] = factor ? load<Vec>(c + m * columns + n * WIDTH) * factor[m] : Vec{};
  for (int64_t k = 0; k < steps; ++k) {
    Int right[N];
#pragma GCC unroll 8
    for (int64_t n = 0; n < N; ++n) right[n] = load<Int>(b + k * columns + n * WIDTH);
#pragma GCC unroll 8
    for (int64_t m = 0; m < ROWS; ++m) {
      const Int left = a.words[m * a.row + k * a.step] - Int{};  // the same word in every place
#pragma GCC unroll 8
      for (int64_t n = 0; n < N; ++n) acc[m][n] = multiply_add<E>(acc[m][n], left, right[n]);
    }
  }
#pragma GCC unroll 8
  for (int64_t m = 0; m < ROWS; ++m)
#pragma GCC unroll 8
    for (int64_t n = 0; n < N; ++n) store(c + m * columns + n * WIDTH, acc[m][n]);
}

// c (rows, columns) = factor c + a b; columns n and later, N vectors at a time, then fewer.
template <class E, int64_t N = COLUMNS>
void product(Left a, const Word* b, int64_t steps, int64_t rows, int64_t columns,
             const float* factor, float* c, int64_t n = 0) {
  for (; n + N * WIDTH <= columns; n += N * WIDTH)
    for (int64_t m = 0; m < rows; m += ROWS)
      tile<E, N>({a.words + m * a.row, a.row, a.step}, b + n, steps, columns,
                 factor ? factor + m : nullptr, c + m * columns + n);
  if constexpr (N > 1) product<E, N / 2>(a, b, steps, rows, columns, factor, c, n);
}

// `count` rows of the tensor, then zeros up to BLOCK rows; `padded` elements each.
template <class S, class E>
void pack_rows(const Tensor& from, int64_t b, int64_t h, int64_t first, int64_t count,
               int64_t width, int64_t padded, Word* words) {
  E* to = reinterpret_cast<E*>(words);
  const S* source = static_cast<const S*>(from.data) + b * from.batch + h * from.head;
  if (count < BLOCK || width < padded) std::memset(to, 0, BLOCK * padded * sizeof(E));
  for (int64_t n = 0; n < count; ++n) {
    const S* row = source + (first + n) * from.token;
    if constexpr (std::is_same_v<S, E>) std::memcpy(to + n * padded, row, width * sizeof(E));
    else
      for (int64_t i = 0; i < width; ++i) to[n * padded + i] = to_float(row[i]);
  }
}

// (BLOCK, words_a_row) to (words_a_row, BLOCK).
void transpose(const Word* rows, int64_t words_a_row, Word* to) {
  using Quad = Word __attribute__((vector_size(16)));
  for (int64_t n = 0; n < BLOCK; n += 4) {
    const Word* row = rows + n * words_a_row;
    for (int64_t c = 0; c < words_a_row; ++c, ++row)
      store(to + c * BLOCK + n,
            Quad{row[0], row[words_a_row], row[2 * words_a_row], row[3 * words_a_row]});
  }
}

// Rows as the interleaved form; for float they are the same, and nothing is written.
template <class E>
const Word* interleave(const Word* rows, int64_t padded, Word* to) {
  if constexpr (PAIR<E> == 1) return rows;
  const uint16_t* x = reinterpret_cast<const uint16_t*>(rows);
  for (int64_t c = 0; c < BLOCK / 2; ++c)
    for (int64_t i = 0; i < padded; ++i)
      to[c * padded + i] = x[2 * c * padded + i] | Word(x[(2 * c + 1) * padded + i]) << 16;
  return to;
}

// Floats (rows, BLOCK) rounded to the elements of words; for float nothing is written.
template <class E>
const Word* round_rows(const float* x, [[maybe_unused]] int64_t rows, [[maybe_unused]] Word* to) {
#ifdef __AVX512BF16__
  if constexpr (PAIR<E> == 2) {
    for (int64_t i = 0; i < rows * BLOCK; i += WIDTH)
      store(to + i / 2, _mm512_cvtneps_pbh(_mm512_loadu_ps(x + i)));
    return to;
  }
#endif
  return reinterpret_cast<const Word*>(x);
}

// The first `count` rows, each times its factor, into the tensor.
template <class S>
void unpack_rows(const float* rows, int64_t padded, const float* factor, const Tensor& to,
                 int64_t b, int64_t h, int64_t first, int64_t count, int64_t width) {
  S* target = static_cast<S*>(to.data) + b * to.batch + h * to.head;
  for (int64_t n = 0; n < count; ++n) {
    S* row = target + (first + n) * to.token;
    for (int64_t i = 0; i < width; ++i) row[i] = from_float<S>(factor[n] * rows[n * padded + i]);
  }
}

// Uninitialised memory on a cache line's boundary; large ones ask for large pages, since touching
// thousands of fresh small ones takes as long as packing into them.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t size) : first_(nullptr, std::free) {
    const size_t bytes = size * sizeof(T), page = 2 << 20;
    const size_t unit = bytes < page ? 64 : page, rounded = (bytes / unit + 1) * unit;
    first_.reset(static_cast<T*>(std::aligned_alloc(unit, rounded)));
    if (!first_) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    if (unit == page) madvise(first_.get(), rounded, MADV_HUGEPAGE);
#endif
  }
  T* operator+(int64_t offset) const { return first_.get() + offset; }
  T& operator[](int64_t index) const { return first_.get()[index]; }

 private:
  std::unique_ptr<T, decltype(&std::free)> first_;
};

// body(item, worker) for every item; idle workers take the next one.
template <class Body>
void parallel(int64_t items, int64_t threads, const Body& body) {
  std::atomic<int64_t> next{0};
  const auto work = [&](int64_t worker) {
    for (int64_t item; (item = next.fetch_add(1)) < items;) body(item, worker);
  };
  std::vector<std::thread> others;
  others.reserve(threads);
  for (int64_t worker = 1; worker < std::min(threads, items); ++worker) try {
      others.emplace_back(work, worker);
    } catch (const std::system_error&) {
      break;  // the system gives no more threads: those there are do all items
    }
  work(0);
  for (auto& other : others) other.join();
}

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

struct Shape {  // what follows from a problem
  int64_t nq, nk;            // blocks of queries and keys
  int64_t d, dv;             // padded widths
  int64_t k_words, v_words;  // of a packed block
  int64_t group;             // query heads of a key head

  template <class E>
  static Shape of(const Problem& p) {
    const int64_t d = round_up(p.d, PADDING), dv = round_up(p.dv_width, PADDING);
    return {round_up(p.Tq, BLOCK) / BLOCK, round_up(p.Tk, BLOCK) / BLOCK, d, dv,
            BLOCK * d / PAIR<E>, BLOCK * dv / PAIR<E>, p.H / p.G};
  }
};

struct Hidden {  // 1 for what is visible; null: all of it
  const uint8_t *pairs, *keys;
};

// Keys that a block may not see: padding, and what lies behind the last key.
class KeyMask {
 public:
  KeyMask(const Problem& p, int64_t nk) : nk_(nk), keys_(p.B * nk * BLOCK), full_(p.B * nk) {
    std::memset(&keys_[0], 0, p.B * nk * BLOCK);
    for (int64_t b = 0; b < p.B; ++b)
      for (int64_t t = 0; t < p.Tk; ++t)
        keys_[b * nk * BLOCK + t] = !p.keep || p.keep[b * p.Tk + t];
    for (int64_t n = 0; n < p.B * nk; ++n)
      full_[n] = !std::memchr(keys_ + n * BLOCK, 0, BLOCK);
  }
  const uint8_t* of(int64_t b, int64_t block) const {
    const int64_t n = b * nk_ + block;
    return full_[n] ? nullptr : keys_ + n * BLOCK;
  }

 private:
  int64_t nk_;
  Buffer<uint8_t> keys_, full_;
};

INLINE void hide(Vec* x, const uint8_t* visible) {
  for (int64_t n = 0; n < BLOCK / WIDTH; ++n) {
    const Int seen = __builtin_convertvector(load<Byte>(visible + n * WIDTH), Int);
    x[n] = seen != 0 ? x[n] : -INF - Vec{};
  }
}

// Row m of s, hidden scores -inf.
INLINE void visible_scores(const float* s, int64_t m, Hidden hidden, Vec* x) {
  for (int64_t n = 0; n < BLOCK / WIDTH; ++n) x[n] = load<Vec>(s + m * BLOCK + n * WIDTH);
  if (hidden.pairs) hide(x, hidden.pairs + m * BLOCK);
  if (hidden.keys) hide(x, hidden.keys);
}

Hidden hidden_in(const Layout& layout, int64_t entry, const uint8_t* keys) {
  const int64_t mask = layout.masks_of[entry];
  return {mask < 0 ? nullptr : layout.masks + mask * BLOCK * BLOCK, keys};
}

struct Softmax {  // running maximum and sum of 64 rows
  float max[BLOCK], factor[BLOCK];
  Vec sums[BLOCK];  // WIDTH shares of each sum

  Softmax() {
    std::fill_n(max, BLOCK, -INF);
    std::fill_n(factor, BLOCK, 0.f);
    std::fill_n(sums, BLOCK, Vec{});
  }

  // Scores become exponentials in place; `factor` is what earlier sums must be multiplied by.
  void update(float* s, int64_t rows, float scale, Hidden hidden) {
    Vec added[BLOCK];
    for (int64_t m = 0; m < rows; ++m) {
      Vec x[BLOCK / WIDTH], top;
      visible_scores(s, m, hidden, x);
      top = x[0];
      for (int64_t n = 1; n < BLOCK / WIDTH; ++n) top = LARGER(top, x[n]);
      const float peak = std::max(max[m], fold(top, LARGER) * scale);
      const float shift = peak == -INF ? 0.f : peak;  // a row that has seen nothing yet
      added[m] = Vec{};
      for (int64_t n = 0; n < BLOCK / WIDTH; ++n) {
        x[n] = exp(x[n] * scale - shift);
        store(s + m * BLOCK + n * WIDTH, x[n]);
        added[m] += x[n];
      }
      factor[m] = max[m] - shift;
      max[m] = peak;
    }
    for (int64_t m = 0; m < rows; m += WIDTH) store(factor + m, exp(load<Vec>(factor + m)));
    for (int64_t m = 0; m < rows; ++m) sums[m] = sums[m] * factor[m] + added[m];
  }
};

template <class S, class E>
struct Forward {
  const Problem& p;
  Shape shape = Shape::of<E>(p);
  KeyMask keys{p, shape.nk};
  Buffer<Word> k{p.B * p.G * shape.nk * shape.k_words};  // transposed
  Buffer<Word> v{p.B * p.G * shape.nk * shape.v_words};  // interleaved
  int64_t scratch_words = BLOCK * (shape.d + shape.dv);
  Buffer<Word> scratch{p.threads * scratch_words};

  explicit Forward(const Problem& problem) : p(problem) {}

  void run() {
    parallel(p.B * p.G * shape.nk, p.threads, [this](int64_t i, int64_t w) { pack(i, w); });
    parallel(p.B * p.H * shape.nq, p.threads, [this](int64_t i, int64_t w) { attend(i, w); });
  }

  void pack(int64_t item, int64_t worker) {
    const int64_t block = item % shape.nk, first = block * BLOCK;
    const int64_t bg = item / shape.nk, b = bg / p.G, g = bg % p.G;
    const int64_t count = std::min(BLOCK, p.Tk - first);
    Word *rows = scratch + worker * scratch_words, *v_to = v + item * shape.v_words;
    pack_rows<S, E>(p.k, b, g, first, count, p.d, shape.d, rows);
    transpose(rows, shape.d / PAIR<E>, k + item * shape.k_words);
    pack_rows<S, E>(p.v, b, g, first, count, p.dv_width, shape.dv, PAIR<E> == 1 ? v_to : rows);
    interleave<E>(rows, shape.dv, v_to);
  }

  // One block of queries: all the key blocks of its row of the layout.
  void attend(int64_t item, int64_t worker) {
    const int64_t bh = item / shape.nq, b = bh / p.H, h = bh % p.H;
    const int64_t block = shape.nq - 1 - item % shape.nq;  // causal rows: the longest first
    const int64_t first = block * BLOCK, count = std::min(BLOCK, p.Tq - first);
    const int64_t rows = round_up(count, ROWS), bg = b * p.G + h / shape.group;
    const int32_t* row = p.layout.rows + (p.layout.heads > 1 ? h : 0) * shape.nq + block;
    Word* q = scratch + worker * scratch_words;
    float* out = reinterpret_cast<float*>(q + shape.k_words);
    alignas(64) float s[BLOCK * BLOCK];
    alignas(64) Word rounded[BLOCK * BLOCK / PAIR<E>];
    Softmax softmax;
    pack_rows<S, E>(p.q, b, h, first, count, p.d, shape.d, q);
    std::memset(out, 0, BLOCK * shape.dv * sizeof(float));
    for (int64_t entry = row[0]; entry < row[1]; ++entry) {
      const int64_t col = p.layout.cols[entry], kv = bg * shape.nk + col;
      product<E>({q, shape.d / PAIR<E>, 1}, k + kv * shape.k_words, shape.d / PAIR<E>, rows, BLOCK,
                 nullptr, s);
      softmax.update(s, rows, p.scale, hidden_in(p.layout, entry, keys.of(b, col)));
      product<E>({round_rows<E>(s, rows, rounded), BLOCK / PAIR<E>, 1}, v + kv * shape.v_words,
                 BLOCK / PAIR<E>, rows, shape.dv, softmax.factor, out);
    }
    finish(softmax, out, b, h, first, count);
  }

  void finish(const Softmax& softmax, const float* out, int64_t b, int64_t h, int64_t first,
              int64_t count) {
    float inverse[BLOCK];
    for (int64_t m = 0; m < count; ++m) {
      const float sum = fold(softmax.sums[m], SUM);
      inverse[m] = sum == 0 ? 0.f : 1 / sum;  // 0: the row has seen nothing
      p.lse[(b * p.H + h) * p.Tq + first + m] =
          sum == 0 ? -INF : float(softmax.max[m] + std::log(double(sum)));
    }
    unpack_rows<S>(out, shape.dv, inverse, p.out, b, h, first, count, p.dv_width);
  }
};

// For each head of the layout and key block, the query blocks that see it, ascending.
struct Transposed {
  struct Entry {
    int32_t block, entry;
  };
  std::vector<int64_t> starts;
  std::vector<Entry> entries;

  Transposed(const Layout& layout, int64_t nq, int64_t nk)
      : starts(layout.heads * nk + 1), entries(layout.rows[layout.heads * nq]) {
    for_each(layout, nq, nk, [&](int64_t column, int64_t, int64_t) { ++starts[column + 1]; });
    for (size_t n = 1; n < starts.size(); ++n) starts[n] += starts[n - 1];
    std::vector<int64_t> next(starts.begin(), starts.end() - 1);
    for_each(layout, nq, nk, [&](int64_t column, int64_t block, int64_t entry) {
      entries[next[column]++] = {int32_t(block), int32_t(entry)};
    });
  }

  template <class Body>
  static void for_each(const Layout& layout, int64_t nq, int64_t nk, const Body& body) {
    for (int64_t r = 0; r < layout.heads * nq; ++r)
      for (int64_t e = layout.rows[r]; e < layout.rows[r + 1]; ++e)
        body(r / nq * nk + layout.cols[e], r % nq, e);
  }
};

template <class S, class E>
struct Backward {
  const Problem& p;
  Shape shape = Shape::of<E>(p);
  KeyMask keys{p, shape.nk};
  Transposed seen_by{p.layout, shape.nq, shape.nk};
  int64_t heads = p.B * p.H, n_queries = heads * shape.nq, n_keys = heads * shape.nk;  // blocks
  int64_t copies = PAIR<E>;  // rows, and for pairs the interleaved form
  Buffer<Word> q{n_queries * shape.k_words * copies}, dout{n_queries * shape.v_words * copies};
  Buffer<float> delta{n_queries * BLOCK}, lse{n_queries * BLOCK};
  // The key blocks of a head are dealt to `chunks` items: each sums a dq of its own, and each
  // query head a dk and dv. Shares are added in a fixed order at the end.
  int64_t chunks = std::max<int64_t>(1, BACKWARD_ITEMS / std::max<int64_t>(1, heads));
  Buffer<float> dq{chunks * n_queries * BLOCK * shape.d};
  Buffer<float> dk{n_keys * BLOCK * shape.d}, dv{n_keys * BLOCK * shape.dv};
  int64_t scratch_words = 3 * shape.k_words + 2 * shape.v_words;
  Buffer<Word> scratch{p.threads * scratch_words};
  float ones[BLOCK], scales[BLOCK];

  explicit Backward(const Problem& problem) : p(problem) {
    std::fill_n(ones, BLOCK, 1.f);
    std::fill_n(scales, BLOCK, p.scale);
  }

  void run() {
    parallel(n_queries, p.threads, [this](int64_t i, int64_t) { pack_queries(i); });
    parallel(heads * chunks, p.threads, [this](int64_t i, int64_t w) { pass(i, w); });
    parallel(n_queries, p.threads, [this](int64_t i, int64_t) { finish_queries(i); });
    parallel(p.B * p.G * shape.nk, p.threads, [this](int64_t i, int64_t) { finish_keys(i); });
  }

  void pack_queries(int64_t item) {
    const int64_t bh = item / shape.nq, b = bh / p.H, h = bh % p.H;
    const int64_t first = item % shape.nq * BLOCK, count = std::min(BLOCK, p.Tq - first);
    Word* q_to = q + item * shape.k_words * copies;
    Word* dout_to = dout + item * shape.v_words * copies;
    pack_rows<S, E>(p.q, b, h, first, count, p.d, shape.d, q_to);
    interleave<E>(q_to, shape.d, q_to + shape.k_words);
    pack_rows<S, E>(p.dout, b, h, first, count, p.dv_width, shape.dv, dout_to);
    interleave<E>(dout_to, shape.dv, dout_to + shape.v_words);
    const S* out = static_cast<const S*>(p.out.data) + b * p.out.batch + h * p.out.head;
    const E* rows = reinterpret_cast<const E*>(dout_to);
    for (int64_t m = 0; m < BLOCK; ++m) {
      const float sum = m < count ? p.lse[bh * p.Tq + first + m] : -INF;
      lse[item * BLOCK + m] = sum == -INF ? INF : sum;  // p = exp(s - inf) = 0: no gradient
      float dot = 0;
      if (m < count)
        for (int64_t i = 0; i < p.dv_width; ++i)
          dot += to_float(rows[m * shape.dv + i]) * to_float(out[(first + m) * p.out.token + i]);
      delta[item * BLOCK + m] = dot;
    }
  }

  struct Keys {  // one block of keys and values, and their gradients
    const Word *k_transposed, *k_interleaved, *v_transposed;
    float *dk, *dv;
  };

  // The key blocks of one chunk of a query head, each with all the queries that see it.
  void pass(int64_t item, int64_t worker) {
    const int64_t chunk = item % chunks, bh = item / chunks, b = bh / p.H, h = bh % p.H;
    const int64_t size = BLOCK * shape.d, layer = p.layout.heads > 1 ? h : 0;
    float* share = dq + (chunk * heads + bh) * shape.nq * size;
    std::memset(share, 0, shape.nq * size * sizeof(float));
    for (int64_t block = chunk; block < shape.nk; block += chunks) {
      const Keys of = pack_keys(bh, block, scratch + worker * scratch_words);
      const int64_t column = layer * shape.nk + block;
      for (int64_t n = seen_by.starts[column]; n < seen_by.starts[column + 1]; ++n) {
        const auto [query, entry] = seen_by.entries[n];
        pair(of, bh * shape.nq + query, hidden_in(p.layout, entry, keys.of(b, block)),
             share + query * size);
      }
    }
  }

  Keys pack_keys(int64_t bh, int64_t block, Word* rows) {
    const int64_t b = bh / p.H, g = bh % p.H / shape.group;
    const int64_t first = block * BLOCK, count = std::min(BLOCK, p.Tk - first);
    Word *k_transposed = rows + shape.k_words, *interleaved = k_transposed + shape.k_words;
    Word *v_rows = interleaved + shape.k_words, *v_transposed = v_rows + shape.v_words;
    const int64_t at = (bh * shape.nk + block) * BLOCK;
    std::fill_n(dk + at * shape.d, BLOCK * shape.d, 0.f);
    std::fill_n(dv + at * shape.dv, BLOCK * shape.dv, 0.f);
    pack_rows<S, E>(p.k, b, g, first, count, p.d, shape.d, rows);
    transpose(rows, shape.d / PAIR<E>, k_transposed);
    pack_rows<S, E>(p.v, b, g, first, count, p.dv_width, shape.dv, v_rows);
    transpose(v_rows, shape.dv / PAIR<E>, v_transposed);
    return {k_transposed, interleave<E>(rows, shape.d, interleaved), v_transposed,
            dk + at * shape.d, dv + at * shape.dv};
  }

  // The share of one query block and one key block in all three gradients.
  void pair(const Keys& of, int64_t at, Hidden hidden, float* dq_sum) {
    alignas(64) float s[BLOCK * BLOCK], ds[BLOCK * BLOCK];
    alignas(64) Word rows[BLOCK * BLOCK / 2], columns[BLOCK * BLOCK / 2];
    const int64_t k_steps = shape.d / PAIR<E>, v_steps = shape.dv / PAIR<E>;
    const int64_t steps = BLOCK / PAIR<E>;
    const Word* q_rows = q + at * shape.k_words * copies;
    const Word* dout_rows = dout + at * shape.v_words * copies;
    const Word* q_interleaved = q_rows + (copies - 1) * shape.k_words;
    const Word* dout_interleaved = dout_rows + (copies - 1) * shape.v_words;
    product<E>({q_rows, k_steps, 1}, of.k_transposed, k_steps, BLOCK, BLOCK, nullptr, s);
    product<E>({dout_rows, v_steps, 1}, of.v_transposed, v_steps, BLOCK, BLOCK, nullptr, ds);
    gradient_of_scores(s, ds, hidden, lse + at * BLOCK, delta + at * BLOCK);
    const Word* p_rows = round_rows<E>(s, BLOCK, rows);
    const Word* p_columns = interleave<E>(p_rows, BLOCK, columns);
    product<E>({p_columns, 1, BLOCK}, dout_interleaved, steps, BLOCK, shape.dv, ones, of.dv);
    const Word* ds_rows = round_rows<E>(ds, BLOCK, rows);
    const Word* ds_columns = interleave<E>(ds_rows, BLOCK, columns);
    product<E>({ds_rows, steps, 1}, of.k_interleaved, steps, BLOCK, shape.d, ones, dq_sum);
    product<E>({ds_columns, 1, BLOCK}, q_interleaved, steps, BLOCK, shape.d, ones, of.dk);
  }

  // Scores become p, and dout v^T becomes ds, in place.
  void gradient_of_scores(float* s, float* ds, Hidden hidden, const float* sums,
                          const float* deltas) {
    for (int64_t m = 0; m < BLOCK; ++m) {
      Vec x[BLOCK / WIDTH];
      visible_scores(s, m, hidden, x);
      for (int64_t n = 0; n < BLOCK / WIDTH; ++n) {
        const int64_t i = m * BLOCK + n * WIDTH;
        const Vec probability = exp(x[n] * p.scale - sums[m]);
        store(s + i, probability);
        store(ds + i, probability * (load<Vec>(ds + i) - deltas[m]));
      }
    }
  }

  void finish_queries(int64_t item) {
    const int64_t bh = item / shape.nq, first = item % shape.nq * BLOCK;
    const int64_t size = BLOCK * shape.d, count = std::min(BLOCK, p.Tq - first);
    float* sum = add_shares(dq + item * size, chunks, n_queries * size, size);
    unpack_rows<S>(sum, shape.d, scales, p.dq, bh / p.H, bh % p.H, first, count, p.d);
  }

  void finish_keys(int64_t item) {
    const int64_t block = item % shape.nk, bg = item / shape.nk, b = bg / p.G, g = bg % p.G;
    const int64_t first = block * BLOCK, count = std::min(BLOCK, p.Tk - first);
    const int64_t at = bg * shape.group * shape.nk + block;  // in the first head of the group
    const int64_t k_size = BLOCK * shape.d, v_size = BLOCK * shape.dv;
    float* k_sum = add_shares(dk + at * k_size, shape.group, shape.nk * k_size, k_size);
    float* v_sum = add_shares(dv + at * v_size, shape.group, shape.nk * v_size, v_size);
    unpack_rows<S>(k_sum, shape.d, scales, p.dk, b, g, first, count, p.d);
    unpack_rows<S>(v_sum, shape.dv, ones, p.dv, b, g, first, count, p.dv_width);
  }

  // The sum of n blocks that lie `stride` apart, in place of the first.
  static float* add_shares(float* first, int64_t n, int64_t stride, int64_t size) {
    for (int64_t share = 1; share < n; ++share)
      for (int64_t i = 0; i < size; ++i) first[i] += first[share * stride + i];
    return first;
  }
};

// 0, or 1 where memory ran out.
template <class Pass>
int run(const Problem* problem) {
  try {
    Pass(*problem).run();
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

#ifdef __AVX512BF16__
using Half = BFloat;
#else
using Half = float;
#endif

}  // namespace

extern "C" {
int forward_float32(const Problem* p) { return run<Forward<float, float>>(p); }
int forward_bfloat16(const Problem* p) { return run<Forward<BFloat, Half>>(p); }
int backward_float32(const Problem* p) { return run<Backward<float, float>>(p); }
int backward_bfloat16(const Problem* p) { return run<Backward<BFloat, Half>>(p); }
}
