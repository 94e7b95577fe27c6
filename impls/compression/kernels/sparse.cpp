// Sparse weights on CPU: a bit for each place of W (R, C), and the kept numbers in order.
//
//   y = x W^T + bias
//
// Sixteen columns of a row are sixteen bits; as many numbers as there are ones among them are taken
// from the row's stretch, widened to float and spread to their lanes: one instruction on AVX-512,
// a loop over the ones elsewhere. A spread vector serves up to ROWS rows of x. Sums are in float32,
// and no result depends on the number of threads.
//
//   kept     (R, ceil(C / 8)) bytes, the first column in the lowest bit
//   values   row after row, float16, bfloat16 or float32

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define WIDE
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))
#define INLINE_CALL __attribute__((always_inline))

struct Problem {
  const uint8_t* kept;
  const void* values;
  const float* x;     // (M, C); not read by `expand`
  const float* bias;  // (R,), or null
  float* out;         // (M, R); of `expand` (R, C)
  int64_t M, R, C, K, threads;
};

namespace {

constexpr int64_t LANES = 16, STEP = 2 * LANES;  // columns
constexpr int64_t ROWS = 8;                      // of x that one pass over W serves
constexpr int64_t WORTH = 1 << 21;  // weights (times rows of x) that are worth another thread

using Vec = float __attribute__((vector_size(4 * LANES)));

struct Half { uint16_t bits; };
struct BFloat { uint16_t bits; };

INLINE float as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

INLINE float to_float(float x) { return x; }
INLINE float to_float(BFloat x) { return as_float(uint32_t(x.bits) << 16); }
INLINE float to_float(Half x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000) << 16, size = x.bits & 0x7fff;
  if (size >= 0x400) return as_float(sign | ((size << 13) + (112u << 23)));
  return as_float(sign | 0x3f800000) * (float(size) * 0x1p-24f);  // below the normal numbers
}

#ifdef WIDE
INLINE __m512 first(const float* from, int n) { return _mm512_maskz_loadu_ps((1u << n) - 1, from); }
INLINE __m512 first(const Half* from, int n) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16((1u << n) - 1, from));
}
INLINE __m512 first(const BFloat* from, int n) {
  const __m256i words = _mm256_maskz_loadu_epi16((1u << n) - 1, from);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
}
#endif

// The next sixteen columns of W; `values` moves on by as many as are kept.
template <class T>
INLINE Vec spread(uint32_t bits, const T*& values) {
  const int n = __builtin_popcount(bits);
#ifdef WIDE
  const Vec w = (Vec)_mm512_maskz_expand_ps(bits, first(values, n));
#else
  Vec w = {};
  const T* next = values;
  for (uint32_t left = bits; left; left &= left - 1) w[__builtin_ctz(left)] = to_float(*next++);
#endif
  values += n;
  return w;
}

INLINE Vec load(const float* from) {
  Vec x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

// Calls f(column, both vectors) for each 32 columns of a row; what is beyond C is 0.
template <class T, class F>
INLINE void row(const uint8_t* kept, const T* values, int64_t C, F f) {
  const auto step = [&](int64_t c, uint32_t bits) INLINE_CALL {
    const Vec low = spread(bits & 0xffff, values);
    f(c, low, spread(bits >> 16, values));
  };
  uint32_t bits;
  int64_t c = 0;
  for (; c + STEP <= C; c += STEP) {
    std::memcpy(&bits, kept + c / 8, 4);
    step(c, bits);
  }
  if (c == C) return;
  bits = 0;
  std::memcpy(&bits, kept + c / 8, (C - c + 7) / 8);
  step(c, bits);
}

// `x` is padded to whole steps.
template <int M, class T>
void dot(const Problem& p, const float* x, int64_t stride, int64_t r, const T* values, float* out) {
  Vec low[M] = {}, high[M] = {};
  row(p.kept + r * ((p.C + 7) / 8), values, p.C, [&](int64_t c, Vec w, Vec v) {
    for (int m = 0; m < M; ++m) {
      low[m] += w * load(x + m * stride + c);
      high[m] += v * load(x + m * stride + c + LANES);
    }
  });
  for (int m = 0; m < M; ++m) {
    const Vec both = low[m] + high[m];
    float sum = 0;
    for (int lane = 0; lane < LANES; ++lane) sum += both[lane];
    out[m * p.R + r] = sum + (p.bias ? p.bias[r] : 0);
  }
}

// Where each row's values start; the last is how many there are.
std::vector<int64_t> starts(const Problem& p) {
  const int64_t width = (p.C + 7) / 8;
  std::vector<int64_t> start(p.R + 1, 0);
  for (int64_t r = 0; r < p.R; ++r) {
    const uint8_t* bytes = p.kept + r * width;
    int64_t n = 0, b = 0;
    for (uint64_t bits; b + 8 <= width; b += 8) {
      std::memcpy(&bits, bytes + b, 8);
      n += __builtin_popcountll(bits);
    }
    for (; b < width; ++b) n += __builtin_popcount(bytes[b]);
    start[r + 1] = start[r] + n;
  }
  return start;
}

template <class F>
void over_rows(const Problem& p, F f) {
  const int64_t work = p.R * p.C * std::max<int64_t>(1, p.M) / WORTH;
  const int64_t n = std::max<int64_t>(1, std::min({p.threads, p.R, work}));
  const auto part = [&](int64_t i) {
    for (int64_t r = p.R * i / n; r < p.R * (i + 1) / n; ++r) f(r);
  };
  std::vector<std::thread> others;
  for (int64_t i = 1; i < n; ++i) {
    try {
      others.emplace_back(part, i);
    } catch (const std::system_error&) {  // no more threads to be had
      part(i);
    }
  }
  part(0);
  for (auto& other : others) other.join();
}

template <class T>
int linear(const Problem& p) {
  const auto start = starts(p);
  if (start[p.R] != p.K) return 1;
  const int64_t stride = (p.C + STEP - 1) / STEP * STEP;
  std::vector<float> x(p.M * stride, 0.0f);
  for (int64_t m = 0; m < p.M; ++m) std::copy_n(p.x + m * p.C, p.C, x.data() + m * stride);
  const T* values = static_cast<const T*>(p.values);
  over_rows(p, [&](int64_t r) {
    const T* from = values + start[r];
    int64_t m = 0;
    const auto rows = [&](auto n) {
      for (; m + n <= p.M; m += n) dot<n>(p, &x[m * stride], stride, r, from, p.out + m * p.R);
    };
    rows(std::integral_constant<int, ROWS>());
    rows(std::integral_constant<int, ROWS / 2>());
    rows(std::integral_constant<int, 1>());
  });
  return 0;
}

template <class T>
int expand(const Problem& p) {
  const auto start = starts(p);
  if (start[p.R] != p.K) return 1;
  const T* values = static_cast<const T*>(p.values);
  over_rows(p, [&](int64_t r) {
    float* out = p.out + r * p.C;
    row(p.kept + r * ((p.C + 7) / 8), values + start[r], p.C, [&](int64_t c, Vec low, Vec high) {
      std::memcpy(out + c, &low, 4 * std::min(LANES, p.C - c));
      if (c + LANES < p.C) std::memcpy(out + c + LANES, &high, 4 * std::min(LANES, p.C - c - LANES));
    });
  });
  return 0;
}

template <class F>
int guarded(const Problem* p, F f) {
  try {
    return f(*p);
  } catch (const std::bad_alloc&) {
    return 2;
  }
}

}  // namespace

// Each returns 0, or 1 where the map has other than K ones, or 2 where memory is short.
extern "C" {
int linear_float16(const Problem* p) { return guarded(p, linear<Half>); }
int linear_bfloat16(const Problem* p) { return guarded(p, linear<BFloat>); }
int linear_float32(const Problem* p) { return guarded(p, linear<float>); }
int expand_float16(const Problem* p) { return guarded(p, expand<Half>); }
int expand_bfloat16(const Problem* p) { return guarded(p, expand<BFloat>); }
int expand_float32(const Problem* p) { return guarded(p, expand<float>); }
}
