// Weight-only linear on CPU: y = x W^T + bias, W = scale (code - zero), codes of 4 or 8 bits.
//
// Each row of W has a scale and a zero for every group of its columns. A chunk is a group, or a
// part of a long one:
//
//   y = sum over chunks of scale (sum over columns of x (code - centre) + (centre - zero) sum x)
//
// A code less the middle of its range is exact in bfloat16, so that no weight is ever rounded, and
// the zero costs no more than setting the chunk's sum to 0. All products are of one kind: words
// broadcast from x times vectors of words, one for each of 16 rows of W. A word holds a float, or
// two neighbouring columns in bfloat16, where the machine has an instruction for that
// (AVX512-BF16). There a float32 x is the sum of three bfloat16 parts, without error, and its
// product the sum of theirs; elsewhere bfloat16 is widened to float.
//
// 32 rows of W are a strip: two vectors. Blocks of codes, in the order they are read:
//
//   codes    (strip, columns / 8 or 4, 2 vectors, 64 bytes): a block of 16 rows
//   4 bits   32 bits a row: column 2j in bits 4j to 4j+3, column 2j+1 sixteen bits higher
//   8 bits   (4 fours of rows, 2 pairs of columns, 4 rows, 2 columns); the byte is the sign and
//            the magnitude of code - 127.5, less a half
//   scales, centred zeros   (strip, group, 32 rows) float32 or float16
//
// Codes are decoded as they come, for up to ROWS rows of x at a time: that costs less than decoding
// them once into the cache and reading from there, however many rows there are. Sums are in
// float32. No result depends on the number of threads, or of rows of x.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <type_traits>

#include <unistd.h>

#ifdef __linux__
#include <sys/mman.h>
#endif
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))

struct Problem {
  const uint8_t* codes;
  const void *scales, *zeros;  // zeros less the centre
  const void* x;               // (M, C)
  const float* bias;           // (R,), or null
  void* out;                   // (M, R)
  int64_t M, R, C, G, bits, half, threads;
};

namespace {

constexpr int64_t LANES = 16, VECTORS = 2, STRIP = LANES * VECTORS;  // rows of W
#ifdef __AVX512F__
constexpr int64_t ROWS = 8;  // of x in a register tile
#else
constexpr int64_t ROWS = 2;
#endif
constexpr int64_t CHUNK = 256;      // columns, at most: longer sums would lose accuracy
constexpr int64_t NEAR = 2048;      // bytes ahead: what is fetched from one cache to the next
constexpr int64_t FAR = 8192;       // and what from memory
constexpr int64_t PASS = 256;       // rows of x whose sums stay in the cache
constexpr int64_t ITEM = 1 << 20;   // codes that a thread takes at a time, for one row of x
constexpr int64_t WORTH = 1 << 21;  // codes that are worth another thread for one row of x
constexpr int64_t YIELDS = 100;     // before a caller sleeps until its job is done
constexpr std::chrono::microseconds AWAKE{100};  // how long a thread waits for its next job

using Clock = std::chrono::steady_clock;
using Word = int32_t;
using Vec = float __attribute__((vector_size(4 * LANES)));
using Int = int32_t __attribute__((vector_size(4 * LANES)));
using Short = uint16_t __attribute__((vector_size(2 * LANES)));

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

template <class To, class From>
INLINE To cast(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To y;
  std::memcpy(&y, &x, sizeof y);
  return y;
}

struct BFloat {
  uint16_t bits;
};

INLINE float to_float(float x) { return x; }
INLINE float to_float(BFloat x) { return cast<float>(uint32_t(x.bits) << 16); }

template <class S>
INLINE S from_float(float x) {
  if constexpr (std::is_same_v<S, float>) return x;
  else {
    const uint32_t bits = cast<uint32_t>(x);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;  // to nearest, ties to even
    const bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
    return S{uint16_t(is_nan ? 0x7fc0 : rounded)};
  }
}

#ifdef __AVX512BF16__
using Element = BFloat;
#else
using Element = float;
#endif
constexpr int64_t PAIR = int64_t(sizeof(Word) / sizeof(Element));  // columns in a word
template <class S>
constexpr int64_t PARTS = sizeof(S) > sizeof(Element) ? 3 : 1;  // words that sum to one of x

// sum + a b, word by word.
INLINE Vec multiply_add(Vec sum, Int a, Int b) {
#ifdef __AVX512BF16__
  return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)(__m512i)a, (__m512bh)(__m512i)b);
#else
  return sum + (Vec)a * (Vec)b;
#endif
}

INLINE Vec widen(Short half) {  // float16 that is finite
#ifdef __AVX512F__
  return (Vec)_mm512_cvtph_ps((__m256i)half);
#else
  const Int bits = __builtin_convertvector(half, Int);
  const Vec size = (Vec)((bits & 0x7fff) << 13) * 0x1p112f;
  return (Vec)((Int)size | (bits & 0x8000) << 16);
#endif
}

INLINE void prefetch(const uint8_t* from) {
  __builtin_prefetch(from + FAR, 0, 2);
  __builtin_prefetch(from + NEAR);
}

// Vectors of words from the codes of a strip; word j of a block is columns PAIR * j and on.
template <int64_t BITS>
struct Codes {
  static constexpr int64_t COLUMNS = 32 / BITS;  // of a block
  const uint8_t* first;

  struct Block {
    Int parts[VECTORS][2];
    INLINE Int word(int64_t j, int64_t n) const;
  };

  INLINE Block block(int64_t index) const;
};

#ifdef __AVX512BF16__

struct Four {  // a 16-bit value is the bfloat16 of its low 4 bits less 8: the table holds it twice
  uint16_t values[32];
};

constexpr uint16_t bfloat_of_half(int twice) {  // of half this number, |twice| < 256
  const int size = twice < 0 ? -twice : twice;
  int top = 0;
  while (size >> (top + 1)) ++top;
  const int mantissa = (size << (7 - top)) & 0x7f;
  return size ? uint16_t((twice < 0) << 15 | (126 + top) << 7 | mantissa) : 0;
}

constexpr Four four_bits() {
  Four table{};
  for (int i = 0; i < 32; ++i) table.values[i] = bfloat_of_half(2 * (i % 16) - 16);
  return table;
}

alignas(64) constexpr Four FOUR = four_bits();

template <>
INLINE Codes<4>::Block Codes<4>::block(int64_t index) const {
  const uint8_t* from = first + index * 64 * VECTORS;
  Block block;
  for (int64_t n = 0; n < VECTORS; ++n) {
    prefetch(from + 64 * n);
    block.parts[n][0] = load<Int>(from + 64 * n);
  }
  return block;
}

template <>
INLINE Int Codes<4>::Block::word(int64_t j, int64_t n) const {
  const __m512i index = _mm512_srli_epi16((__m512i)parts[n][0], 4 * j);
  return (Int)_mm512_permutexvar_epi16(index, _mm512_load_si512(&FOUR));
}

#else

template <>
INLINE Codes<4>::Block Codes<4>::block(int64_t index) const {
  const uint8_t* from = first + index * 64 * VECTORS;
  Block block;
  for (int64_t n = 0; n < VECTORS; ++n) block.parts[n][0] = load<Int>(from + 64 * n);
  return block;
}

template <>
INLINE Int Codes<4>::Block::word(int64_t j, int64_t n) const {
  const Int code = parts[n][0] >> int32_t(16 * (j % 2) + 4 * (j / 2)) & 15;
  return (Int)__builtin_convertvector(code - 8, Vec);
}

#endif

#if defined(__AVX512BF16__) && defined(__AVX512VBMI__)

struct Eight {  // bytes of the bfloat16 of m + 1/2
  uint8_t low[128], high[128];
};

constexpr Eight eight_bits() {
  Eight table{};
  for (int m = 0; m < 128; ++m) {
    table.low[m] = bfloat_of_half(2 * m + 1) & 255;
    table.high[m] = bfloat_of_half(2 * m + 1) >> 8;
  }
  return table;
}

alignas(64) constexpr Eight EIGHT = eight_bits();

template <>
INLINE Codes<8>::Block Codes<8>::block(int64_t index) const {
  const uint8_t* from = first + index * 64 * VECTORS;
  const auto look_up = [](const uint8_t* table, __m512i at) {  // by the low 7 bits
    return _mm512_permutex2var_epi8(_mm512_load_si512(table), at, _mm512_load_si512(table + 64));
  };
  Block block;
  for (int64_t n = 0; n < VECTORS; ++n) {
    prefetch(from + 64 * n);
    const __m512i codes = _mm512_loadu_si512(from + 64 * n);
    const __m512i sign = _mm512_and_si512(codes, _mm512_set1_epi8(-128));
    block.parts[n][0] = (Int)look_up(EIGHT.low, codes);
    block.parts[n][1] = (Int)_mm512_or_si512(look_up(EIGHT.high, codes), sign);
  }
  return block;
}

template <>
INLINE Int Codes<8>::Block::word(int64_t j, int64_t n) const {
  const __m512i low = (__m512i)parts[n][0], high = (__m512i)parts[n][1];
  return (Int)(j ? _mm512_unpackhi_epi8(low, high) : _mm512_unpacklo_epi8(low, high));
}

#else

template <>
INLINE Codes<8>::Block Codes<8>::block(int64_t index) const {
  const uint8_t* from = first + index * 64 * VECTORS;
  Block block;
  for (int64_t n = 0; n < VECTORS; ++n)
    for (int64_t pair = 0; pair < 2; ++pair) {
      uint16_t columns[LANES];
      for (int64_t four = 0; four < 4; ++four)
        std::memcpy(columns + 4 * four, from + 64 * n + 16 * four + 8 * pair, 8);
      block.parts[n][pair] = __builtin_convertvector(load<Short>(columns), Int);
    }
  return block;
}

INLINE Int eight_bits(Int byte) {  // the float of a code - 127.5
  const Int value = byte << 24 >> 24;
  return (Int)(__builtin_convertvector(value ^ (value >> 31 & 0x7f), Vec) + 0.5f);
}

template <>
INLINE Int Codes<8>::Block::word(int64_t j, int64_t n) const {
#ifdef __AVX512BF16__
  const Int even = eight_bits(parts[n][j]), odd = eight_bits(parts[n][j] >> 8);
  return (even >> 16 & 0xffff) | odd;  // the low halves of both are 0
#else
  return eight_bits(parts[n][j / 2] >> int32_t(8 * (j % 2)));
#endif
}

#endif

struct Scales {  // of one strip
  const void *scales, *zeros;
  bool half;
  int64_t chunks;  // of a group

  INLINE Vec of(const void* from, int64_t chunk, int64_t n) const {
    const int64_t at = chunk / chunks * STRIP + n * LANES;
    return half ? widen(load<Short>(static_cast<const uint16_t*>(from) + at))
                : load<Vec>(static_cast<const float*>(from) + at);
  }
};

struct Rows {         // of x, packed for a tile of M of them
  const Word* words;  // (word, part, M)
  const float* sums;  // (chunk, M), negative
};

// totals (M, STRIP) = x W^T.
template <int64_t BITS, int64_t M, int64_t P>
void tile(Codes<BITS> codes, Rows x, const Scales& scales, int64_t chunks, int64_t chunk_columns,
          float* totals) {
  constexpr int64_t COLUMNS = codes.COLUMNS;
  const int64_t blocks = chunk_columns / COLUMNS;
  const Word* words = x.words;
  std::memset(totals, 0, M * STRIP * sizeof(float));
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    Vec sum[M][VECTORS];
#pragma GCC unroll 8
    for (int64_t n = 0; n < VECTORS; ++n) {
      const Vec zero = scales.of(scales.zeros, chunk, n);
#pragma GCC unroll 8
      for (int64_t m = 0; m < M; ++m) sum[m][n] = zero * x.sums[chunk * M + m];
    }
    for (int64_t i = chunk * blocks; i < (chunk + 1) * blocks; ++i) {
      const auto block = codes.block(i);
#pragma GCC unroll 8
      for (int64_t j = 0; j < COLUMNS / PAIR; ++j) {
        Int w[VECTORS];
#pragma GCC unroll 8
        for (int64_t n = 0; n < VECTORS; ++n) w[n] = block.word(j, n);
#pragma GCC unroll 8
        for (int64_t part = 0; part < P; ++part)
#pragma GCC unroll 8
          for (int64_t m = 0; m < M; ++m) {
            const Int left = *words++ - Int{};  // the same word in every place
#pragma GCC unroll 8
            for (int64_t n = 0; n < VECTORS; ++n) sum[m][n] = multiply_add(sum[m][n], left, w[n]);
          }
      }
    }
#pragma GCC unroll 8
    for (int64_t n = 0; n < VECTORS; ++n) {
      const Vec scale = scales.of(scales.scales, chunk, n);
#pragma GCC unroll 8
      for (int64_t m = 0; m < M; ++m) {
        float* total = totals + m * STRIP + n * LANES;
        store(total, load<Vec>(total) + scale * sum[m][n]);
      }
    }
  }
}

// Uninitialised memory on a cache line's boundary.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t size) : first_(nullptr, std::free) {
    first_.reset(static_cast<T*>(std::aligned_alloc(64, (size * sizeof(T) / 64 + 1) * 64)));
    if (!first_) throw std::bad_alloc();
  }
  T* operator+(int64_t offset) const { return first_.get() + offset; }

 private:
  std::unique_ptr<T, decltype(&std::free)> first_;
};

// Threads that sleep between jobs: to wake one takes 10 us, to start one 40, and where every core
// is busy 10 to 40 against 400. A job waits for no thread that has not begun on it. A forked
// process has none of its parent's threads, and makes a team of its own.
class Team {
 public:
  static Team& of_this_process() {
    static std::atomic<Team*> current{nullptr};
    Team* team = current;
    while (!team || team->process_ != getpid()) {
      auto fresh = std::make_unique<Team>();
      if (current.compare_exchange_strong(team, fresh.get())) team = fresh.release();
    }
    return *team;
  }

  // work(worker) by up to `threads` threads, the caller among them as worker 0.
  void run(int64_t threads, const std::function<void(int64_t)>& work) {
    const std::unique_lock<std::mutex> mine(one_job_, std::try_to_lock);
    if (threads == 1 || !mine) return work(0);
    grow(threads);
    {
      const std::lock_guard<std::mutex> hold(lock_);
      work_ = &work;
      threads_ = threads;
      ++job_;
    }
    wake_.notify_all();
    work(0);
    std::unique_lock<std::mutex> hold(lock_);
    work_ = nullptr;
    for (int64_t i = 0; i < YIELDS && active_; ++i) {  // mostly they are just done
      hold.unlock();
      std::this_thread::yield();
      hold.lock();
    }
    done_.wait(hold, [this] { return !active_; });
  }

 private:
  void grow(int64_t threads) try {
    for (; size_ < threads; ++size_) std::thread(&Team::serve, this, size_).detach();
  } catch (const std::system_error&) {
  }  // the system gives no more threads: those there are do all

  void serve(int64_t worker) {
    std::unique_lock<std::mutex> hold(lock_);
    for (int64_t last = 0;;) {
      hold.unlock();
      for (const auto end = Clock::now() + AWAKE; job_ == last && Clock::now() < end;) {
      }
      hold.lock();
      wake_.wait(hold, [&] { return work_ && job_ != last && worker < threads_; });
      last = job_;
      ++active_;
      const auto& work = *work_;
      hold.unlock();
      work(worker);
      hold.lock();
      if (!--active_) done_.notify_one();
    }
  }

  const pid_t process_ = getpid();
  std::mutex one_job_, lock_;
  std::condition_variable wake_, done_;
  const std::function<void(int64_t)>* work_ = nullptr;
  std::atomic<int64_t> job_{0};
  int64_t threads_ = 0, active_ = 0, size_ = 1;
};

// body(item, worker) for every item; idle workers take the next one.
template <class Body>
void parallel(int64_t items, int64_t threads, const Body& body) {
  std::atomic<int64_t> next{0};
  Team::of_this_process().run(std::min(threads, items), [&](int64_t worker) {
    for (int64_t item; (item = next.fetch_add(1)) < items;) body(item, worker);
  });
}

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// The largest part of a group that is a multiple of 8, divides it and has at most CHUNK columns.
int64_t chunk_of(int64_t group) {
  int64_t parts = (group + CHUNK - 1) / CHUNK;
  while (group % (8 * parts)) ++parts;
  return group / parts;
}

// `rows` rows of x from `begin` on. S is the type of x and of the output.
template <class S, int64_t BITS>
struct Pass {
  static constexpr int64_t P = PARTS<S>;
  const Problem& p;
  int64_t begin, rows, threads;
  int64_t chunk = chunk_of(p.C / p.G), chunks = p.C / chunk, words = p.C / PAIR;
  int64_t strips = round_up(p.R, STRIP) / STRIP, tiles = round_up(rows, ROWS) / ROWS;
  Buffer<Word> x{rows * words * P};
  Buffer<float> sums{rows * chunks}, totals{threads * rows * STRIP};

  void run() {
    if (tiles == 1) pack(0);
    else parallel(tiles, threads, [this](int64_t t, int64_t) { pack(t); });
    const int64_t item = ITEM / (STRIP * p.C * rows), share = strips / threads;
    const int64_t step = std::max<int64_t>(1, std::min(item, share));
    parallel((strips + step - 1) / step, threads, [&](int64_t item, int64_t worker) {
      for (int64_t s = item * step; s < std::min(strips, (item + 1) * step); ++s) strip(s, worker);
    });
  }

  int64_t first_row(int64_t t) const { return t * rows / tiles; }

  // The rows of one tile as words, and the sums of their chunks.
  void pack(int64_t t) {
    const int64_t M = first_row(t + 1) - first_row(t);
    for (int64_t m = 0; m < M; ++m) {
      const S* row = static_cast<const S*>(p.x) + (begin + first_row(t) + m) * p.C;
      Word* to = x + first_row(t) * words * P + m;
      for (int64_t w = 0; w < words; ++w, to += P * M) split(row + w * PAIR, to, M);
      for (int64_t c = 0; c < chunks; ++c) {
        float part[8] = {};
        for (int64_t i = c * chunk; i < (c + 1) * chunk; i += 8)
          for (int64_t j = 0; j < 8; ++j) part[j] -= to_float(row[i + j]);
        for (int64_t n = 4; n; n /= 2)
          for (int64_t j = 0; j < n; ++j) part[j] += part[j + n];
        *(sums + first_row(t) * chunks + c * M + m) = part[0];
      }
    }
  }

  // One word of x, or the words of its parts, `stride` apart.
  static INLINE void split(const S* from, Word* to, int64_t stride) {
    if constexpr (P == 1 && sizeof(S) == sizeof(Element)) std::memcpy(to, from, sizeof(Word));
    else if constexpr (P == 1) *to = cast<Word>(to_float(*from));
    else {
      uint32_t bits[2] = {cast<uint32_t>(from[0]), cast<uint32_t>(from[1])};
      for (int64_t part = 0; part < P; ++part, to += stride) {
        *to = Word(bits[0] >> 16 | (bits[1] & 0xffff0000));
        for (uint32_t& b : bits) {  // what the upper half leaves of it, exactly
          const float rest = cast<float>(b) - cast<float>(b & 0xffff0000);
          b = cast<uint32_t>(rest);
        }
      }
    }
  }

  void strip(int64_t s, int64_t worker) {
    const Codes<BITS> codes{p.codes + s * STRIP * p.C * BITS / 8};
    const int64_t at = s * p.G * STRIP * (p.half ? 2 : 4);
    const Scales scales{static_cast<const uint8_t*>(p.scales) + at,
                        static_cast<const uint8_t*>(p.zeros) + at, p.half != 0, chunks / p.G};
    float* sum = totals + worker * rows * STRIP;
    for (int64_t t = 0; t < tiles; ++t)
      any_tile(codes, scales, first_row(t), first_row(t + 1) - first_row(t), sum);
    write(sum, s);
  }

  template <int64_t M = ROWS>
  void any_tile(Codes<BITS> codes, const Scales& scales, int64_t row, int64_t count, float* sum) {
    if (count == M)
      tile<BITS, M, P>(codes, {x + row * words * P, sums + row * chunks}, scales, chunks, chunk,
                       sum + row * STRIP);
    else if constexpr (M > 1) any_tile<M - 1>(codes, scales, row, count, sum);
  }

  void write(const float* sum, int64_t s) {
    const int64_t first = s * STRIP, count = std::min(STRIP, p.R - first);
    for (int64_t m = 0; m < rows; ++m) {
      S* to = static_cast<S*>(p.out) + (begin + m) * p.R + first;
      for (int64_t r = 0; r < count; ++r)
        to[r] = from_float<S>(sum[m * STRIP + r] + (p.bias ? p.bias[first + r] : 0));
    }
  }
};

// 0, or 1 where memory ran out.
template <class S, int64_t BITS>
int run(const Problem& p) {
  try {
    for (int64_t begin = 0; begin < p.M; begin += PASS) {
      const int64_t rows = std::min(PASS, p.M - begin), work = p.R * p.C * (3 + rows) / 4;
      const int64_t threads = std::clamp<int64_t>(work / WORTH, 1, p.threads);
      Pass<S, BITS>{p, begin, rows, threads}.run();
    }
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

// The codes of one row in one block.
INLINE void put(const uint8_t* codes, int64_t bits, int64_t row, uint8_t* block) {
  if (bits == 4)
    for (int64_t byte = 0; byte < 4; ++byte) {
      const int64_t column = byte % 2 * 4 + byte / 2;
      block[4 * row + byte] = uint8_t(codes[column] | codes[column + 2] << 4);
    }
  else
    for (int64_t c = 0; c < 4; ++c) {
      const int64_t byte = row / 4 * 16 + c / 2 * 8 + row % 4 * 2 + c % 2;
      block[byte] = codes[c] ^ (codes[c] < 128 ? 255 : 128);
    }
}

// Codes (R, C), a byte each, in the order they are read in; rows beyond R are 0.
void order(const uint8_t* codes, int64_t R, int64_t C, int64_t bits, uint8_t* to) {
  const int64_t columns = 32 / bits, blocks = C / columns;
  std::memset(to, 0, round_up(R, STRIP) * C * bits / 8);
  for (int64_t row = 0; row < R; ++row)
    for (int64_t i = 0; i < blocks; ++i)
      put(codes + row * C + i * columns, bits, row % LANES,
          to + ((row / STRIP * blocks + i) * VECTORS + row % STRIP / LANES) * 64);
}

}  // namespace

extern "C" {
// Ask for large pages where memory is not written to yet: reading 9 MB through small ones takes a
// fifth longer.
void use_large_pages([[maybe_unused]] uint8_t* memory, [[maybe_unused]] int64_t bytes) {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t PAGE = 2 << 20;
  const uintptr_t first = (uintptr_t(memory) + PAGE - 1) / PAGE * PAGE;
  const uintptr_t end = (uintptr_t(memory) + bytes) / PAGE * PAGE;
  if (first < end) madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
#endif
}

void prepare(const uint8_t* codes, int64_t R, int64_t C, int64_t bits, uint8_t* to) {
  order(codes, R, C, bits, to);
}
int linear_float32(const Problem* p) {
  return p->bits == 4 ? run<float, 4>(*p) : run<float, 8>(*p);
}
int linear_bfloat16(const Problem* p) {
  return p->bits == 4 ? run<BFloat, 4>(*p) : run<BFloat, 8>(*p);
}
}
