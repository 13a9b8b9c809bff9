// Stochastic Normalization on CPUs in two calls: what functional.py composes of ATen's kernels, with the choice of
// statistics inside and nothing of the input's size computed or stored twice. kernel.py loads it; see there.
//
// x, y, g: input, output, gradient, either (n, c, s) with s contiguous, or (rows, c) with c contiguous
// (channels_last; then n = 1 and s = rows). Everything per channel is in the accumulation type A.
// With CLAMP the output is kept within two bounds, which is what ReLU and ReLU6 do, and the gradient of what lies on
// them is zero; backward finds out from x which values these are, so that nothing more is stored.
// Sums run in A over blocks of a few thousand values and in double over blocks.

#include "compiled.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace {

template <typename A> INLINE A load(const A &value) { return value; }
INLINE float load(const bf16 &value) {
  const std::uint32_t bits = static_cast<std::uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

template <typename A> INLINE void store(A &to, A value) { to = value; }
INLINE void store(bf16 &to, float value) {  // round to nearest, ties to even; NaN stays NaN
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const std::uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  to.bits = static_cast<std::uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
}

// (By values alone: what is passed by reference within a loop of `omp simd` keeps it from becoming vectors.)

template <bool CLAMP, typename A> INLINE A output(A x, A scale, A shift, A low, A high) {
  const A y = x * scale + shift;
  if (!CLAMP) return y;
  const A above = y < low ? low : y;
  return above > high ? high : above;  // NaN stays NaN
}

// What of an output's gradient passes.
template <bool CLAMP, typename A> INLINE A passing(A g, A x, A scale, A shift, A low, A high) {
  if (!CLAMP) return g;
  const A y = x * scale + shift;
  return (y <= low) | (y >= high) ? A(0) : g;
}

template <typename A> struct Affine {  // from x to y, of a channel
  A scale, shift, low, high;
};

template <typename A> struct Affines {  // of all channels
  const A *scale, *shift;
  A low, high;
};

// One channel of (n, c, s): n rows of s contiguous values, `stride` apart. Four rows at a time, since one sum after the
// other would wait for each addition.

constexpr index_t PART = 4096;  // values of a row that are summed in A

template <typename A, typename F> INLINE double row_total(index_t n, index_t s, F value) {
  double total = 0;
  for (index_t i = 0; i < n; i += 4)
    for (index_t start = 0; start < s; start += PART) {
      const index_t end = std::min(s, start + PART);
      if (i + 4 <= n) {
        A s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
        for (index_t j = start; j < end; j++) {
          s0 += value(i, j);
          s1 += value(i + 1, j);
          s2 += value(i + 2, j);
          s3 += value(i + 3, j);
        }
        total += (static_cast<double>(s0) + s1) + (static_cast<double>(s2) + s3);
      } else {
        for (index_t k = i; k < n; k++) {
          A sum = 0;
#pragma omp simd reduction(+ : sum)
          for (index_t j = start; j < end; j++) sum += value(k, j);
          total += sum;
        }
      }
    }
  return total;
}

template <typename T, typename A>
INLINE void row_moments(const T *x, index_t n, index_t stride, index_t s, double &mean, double &squares) {
  mean = row_total<A>(n, s, [=](index_t i, index_t j) { return load(x[i * stride + j]); }) / (static_cast<double>(n) * s);
  const A center = static_cast<A>(mean);
  squares = row_total<A>(n, s, [=](index_t i, index_t j) {
    const A d = load(x[i * stride + j]) - center;
    return d * d;
  });
}

template <bool CLAMP, typename S, typename T, typename A>
INLINE void row_affine(const S *x, index_t x_stride, T *y, index_t y_stride, index_t n, index_t s, Affine<A> affine) {
  const auto [scale, shift, low, high] = affine;
  for (index_t i = 0; i < n; i++, x += x_stride, y += y_stride) {
#pragma omp simd
    for (index_t j = 0; j < s; j++) store(y[j], output<CLAMP>(load(x[j]), scale, shift, low, high));
  }
}

template <bool CLAMP, typename T, typename A>
INLINE void row_products(const T *g, const T *x, index_t n, index_t stride, index_t s, Affine<A> affine, A mean,
                         double &sum_g, double &sum_gx) {
  const auto [scale, shift, low, high] = affine;
  sum_g = sum_gx = 0;
  for (index_t i = 0; i < n; i += 2)
    for (index_t start = 0; start < s; start += PART) {
      const index_t end = std::min(s, start + PART);
      const T *g0 = g + i * stride, *x0 = x + i * stride;
      const T *g1 = g0 + stride, *x1 = x0 + stride;
      if (i + 2 <= n) {
        A a0 = 0, a1 = 0, b0 = 0, b1 = 0;
#pragma omp simd reduction(+ : a0, a1, b0, b1)
        for (index_t j = start; j < end; j++) {
          const A first = passing<CLAMP>(load(g0[j]), load(x0[j]), scale, shift, low, high);
          const A second = passing<CLAMP>(load(g1[j]), load(x1[j]), scale, shift, low, high);
          a0 += first;
          a1 += second;
          b0 += first * (load(x0[j]) - mean);
          b1 += second * (load(x1[j]) - mean);
        }
        sum_g += static_cast<double>(a0) + a1;
        sum_gx += static_cast<double>(b0) + b1;
      } else {
        A a = 0, b = 0;
#pragma omp simd reduction(+ : a, b)
        for (index_t j = start; j < end; j++) {
          const A only = passing<CLAMP>(load(g0[j]), load(x0[j]), scale, shift, low, high);
          a += only;
          b += only * (load(x0[j]) - mean);
        }
        sum_g += a;
        sum_gx += b;
      }
    }
}

template <bool CLAMP, typename S, typename T, typename A>
INLINE void row_gradient(const S *g, const S *x, index_t stride, T *gx, index_t gx_stride, index_t n, index_t s,
                         Affine<A> affine, A mean, A slope, A offset) {
  const auto [scale, shift, low, high] = affine;
  for (index_t i = 0; i < n; i++, x += stride, g += stride, gx += gx_stride) {
#pragma omp simd
    for (index_t j = 0; j < s; j++)
      store(gx[j], passing<CLAMP>(load(g[j]), load(x[j]), scale, shift, low, high) * scale +
                       ((load(x[j]) - mean) * slope + offset));
  }
}

// Short rows are brought together first: what is done with a channel then runs over them as one.
template <typename T, typename A> INLINE void row_gather(const T *x, index_t n, index_t stride, index_t s, A *to) {
  for (index_t i = 0; i < n; i++, x += stride, to += s) {
#pragma omp simd
    for (index_t j = 0; j < s; j++) to[j] = load(x[j]);
  }
}

constexpr index_t SHORT = 256, MOST_GATHERED = 8192;  // values of a row, and in all: what stays in the smallest cache

bool gathers(index_t n, index_t s, int tensors) { return s <= SHORT && n * s * tensors <= MOST_GATHERED; }

// In how many rows they are then read, for the sums that run side by side.
index_t gathered_rows(index_t values) { return values % 4 ? 1 : 4; }

// A block of rows of channels_last: c contiguous values a row, a sum per channel. Four rows at a time, since each sum is
// loaded and stored again.

template <typename A, typename F> INLINE void block_total(index_t rows, index_t c, A *sum, F value) {
  std::fill(sum, sum + c, A(0));
  index_t r = 0;
  for (; r + 4 <= rows; r += 4) {
#pragma omp simd
    for (index_t j = 0; j < c; j++) sum[j] += (value(r, j) + value(r + 1, j)) + (value(r + 2, j) + value(r + 3, j));
  }
  for (; r < rows; r++) {
#pragma omp simd
    for (index_t j = 0; j < c; j++) sum[j] += value(r, j);
  }
}

template <typename T, typename A> INLINE void block_moments(const T *x, index_t rows, index_t c, A *mean, A *squares) {
  block_total(rows, c, mean, [=](index_t r, index_t j) { return load(x[r * c + j]); });
  const A share = A(1) / rows;
  for (index_t j = 0; j < c; j++) mean[j] *= share;
  block_total(rows, c, squares, [=](index_t r, index_t j) {
    const A d = load(x[r * c + j]) - mean[j];
    return d * d;
  });
}

// Mean and squares of the rows so far, `before` of them, and of a block's, which is `share` of all (Chan, Golub, LeVeque
// 1983).
template <typename A>
INLINE void block_merge(const A *block_mean, const A *block_squares, index_t c, double before, double share, double *mean,
                        double *squares) {
#pragma omp simd
  for (index_t j = 0; j < c; j++) {
    const double delta = block_mean[j] - mean[j];
    mean[j] += delta * share;
    squares[j] += block_squares[j] + delta * delta * before * share;
  }
}

template <typename A> INLINE void block_add(const A *block, index_t c, double *sum) {
#pragma omp simd
  for (index_t j = 0; j < c; j++) sum[j] += block[j];
}

template <bool CLAMP, typename T, typename A>
INLINE void block_affine(const T *x, T *y, index_t rows, index_t c, Affines<A> affines) {
  const auto [scale, shift, low, high] = affines;
  for (index_t r = 0; r < rows; r++, x += c, y += c) {
#pragma omp simd
    for (index_t j = 0; j < c; j++) store(y[j], output<CLAMP>(load(x[j]), scale[j], shift[j], low, high));
  }
}

template <bool CLAMP, typename T, typename A>
INLINE void block_products(const T *g, const T *x, index_t rows, index_t c, Affines<A> affines, const A *mean, A *sum_g,
                           A *sum_gx) {
  const auto [scale, shift, low, high] = affines;
  std::fill(sum_g, sum_g + c, A(0));
  std::fill(sum_gx, sum_gx + c, A(0));
  index_t r = 0;
  for (; r + 4 <= rows; r += 4, g += 4 * c, x += 4 * c) {
#pragma omp simd
    for (index_t j = 0; j < c; j++) {
      const A x0 = load(x[j]), x1 = load(x[c + j]), x2 = load(x[2 * c + j]), x3 = load(x[3 * c + j]), m = mean[j];
      const A g0 = passing<CLAMP>(load(g[j]), x0, scale[j], shift[j], low, high);
      const A g1 = passing<CLAMP>(load(g[c + j]), x1, scale[j], shift[j], low, high);
      const A g2 = passing<CLAMP>(load(g[2 * c + j]), x2, scale[j], shift[j], low, high);
      const A g3 = passing<CLAMP>(load(g[3 * c + j]), x3, scale[j], shift[j], low, high);
      sum_g[j] += (g0 + g1) + (g2 + g3);
      sum_gx[j] += (g0 * (x0 - m) + g1 * (x1 - m)) + (g2 * (x2 - m) + g3 * (x3 - m));
    }
  }
  for (; r < rows; r++, g += c, x += c) {
#pragma omp simd
    for (index_t j = 0; j < c; j++) {
      const A gradient = passing<CLAMP>(load(g[j]), load(x[j]), scale[j], shift[j], low, high);
      sum_g[j] += gradient;
      sum_gx[j] += gradient * (load(x[j]) - mean[j]);
    }
  }
}

template <bool CLAMP, typename T, typename A>
INLINE void block_gradient(const T *g, const T *x, T *gx, index_t rows, index_t c, Affines<A> affines, const A *mean,
                           const A *slope, const A *offset) {
  const auto [scale, shift, low, high] = affines;
  for (index_t r = 0; r < rows; r++, g += c, x += c, gx += c) {
#pragma omp simd
    for (index_t j = 0; j < c; j++)
      store(gx[j], passing<CLAMP>(load(g[j]), load(x[j]), scale[j], shift[j], low, high) * scale[j] +
                       ((load(x[j]) - mean[j]) * slope[j] + offset[j]));
  }
}

// The same for each kind of processor. (Functions of their own, since OpenMP's parallel regions ignore the attribute; and
// no clones of them, which lose it.)

#define PROCESSOR(NAME, TARGET)                                                                                        \
  template <bool CLAMP, typename T, typename A> struct NAME {                                                          \
    TARGET static void gather(const T *x, index_t n, index_t stride, index_t s, A *to) {                               \
      row_gather(x, n, stride, s, to);                                                                                 \
    }                                                                                                                  \
    template <typename S>                                                                                              \
    TARGET static void channel_moments(const S *x, index_t n, index_t stride, index_t s, double &mean,                 \
                                       double &squares) {                                                              \
      row_moments<S, A>(x, n, stride, s, mean, squares);                                                               \
    }                                                                                                                  \
    template <typename S>                                                                                              \
    TARGET static void channel_affine(const S *x, index_t x_stride, T *y, index_t y_stride, index_t n, index_t s,      \
                                      Affine<A> affine) {                                                              \
      row_affine<CLAMP>(x, x_stride, y, y_stride, n, s, affine);                                                       \
    }                                                                                                                  \
    template <typename S>                                                                                              \
    TARGET static void channel_products(const S *g, const S *x, index_t n, index_t stride, index_t s,                  \
                                        Affine<A> affine, A mean, double &sum_g, double &sum_gx) {                     \
      row_products<CLAMP>(g, x, n, stride, s, affine, mean, sum_g, sum_gx);                                            \
    }                                                                                                                  \
    template <typename S>                                                                                              \
    TARGET static void channel_gradient(const S *g, const S *x, index_t stride, T *gx, index_t gx_stride, index_t n,   \
                                        index_t s, Affine<A> affine, A mean, A slope, A offset) {                      \
      row_gradient<CLAMP>(g, x, stride, gx, gx_stride, n, s, affine, mean, slope, offset);                             \
    }                                                                                                                  \
    TARGET static void rows_moments(const T *x, index_t rows, index_t c, A *mean, A *squares) {                        \
      block_moments(x, rows, c, mean, squares);                                                                        \
    }                                                                                                                  \
    TARGET static void rows_merge(const A *block_mean, const A *block_squares, index_t c, double before, double share, \
                                  double *mean, double *squares) {                                                     \
      block_merge(block_mean, block_squares, c, before, share, mean, squares);                                         \
    }                                                                                                                  \
    TARGET static void rows_add(const A *block, index_t c, double *sum) { block_add(block, c, sum); }                  \
    TARGET static void rows_affine(const T *x, T *y, index_t rows, index_t c, Affines<A> affines) {                    \
      block_affine<CLAMP>(x, y, rows, c, affines);                                                                     \
    }                                                                                                                  \
    TARGET static void rows_products(const T *g, const T *x, index_t rows, index_t c, Affines<A> affines,              \
                                     const A *mean, A *sum_g, A *sum_gx) {                                             \
      block_products<CLAMP>(g, x, rows, c, affines, mean, sum_g, sum_gx);                                              \
    }                                                                                                                  \
    TARGET static void rows_gradient(const T *g, const T *x, T *gx, index_t rows, index_t c, Affines<A> affines,       \
                                     const A *mean, const A *slope, const A *offset) {                                 \
      block_gradient<CLAMP>(g, x, gx, rows, c, affines, mean, slope, offset);                                          \
    }                                                                                                                  \
  };

#if defined(__GNUC__) && !defined(__clang__)
#define OWN __attribute__((noinline, noclone))
#else
#define OWN __attribute__((noinline))
#endif

PROCESSOR(Baseline, )
#if defined(__x86_64__) && defined(__GNUC__)
PROCESSOR(Avx2, OWN __attribute__((target("avx2,fma"))))
PROCESSOR(Avx512, OWN __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))))
#define DISPATCH(CALL, CLAMP, T, A, ...)                                                                               \
  HAS_AVX512 ? CALL<Avx512<CLAMP, T, A>, CLAMP, T, A>(__VA_ARGS__)                                                     \
  : HAS_AVX2 ? CALL<Avx2<CLAMP, T, A>, CLAMP, T, A>(__VA_ARGS__)                                                       \
             : CALL<Baseline<CLAMP, T, A>, CLAMP, T, A>(__VA_ARGS__)
#else
#define DISPATCH(CALL, CLAMP, T, A, ...) CALL<Baseline<CLAMP, T, A>, CLAMP, T, A>(__VA_ARGS__)
#endif

// About 64 KB of input a block, so that its second reading comes from the second-level cache; 16 rows at least, so that
// the sums over blocks cost little; 128 at most, so that the sums within keep their digits.
template <typename A> index_t block_rows(index_t c) {
  return std::clamp<index_t>(65536 / (c * static_cast<index_t>(sizeof(A))), 16, 128);
}

template <typename A> struct Vectors {  // of length c
  const A *weight, *bias;  // or null
  const bool *use_batch;
  A *mean, *var;  // that each channel is normalized by
  double eps, low, high;

  Affine<A> affine(index_t j) const {
    const double scale = (weight ? weight[j] : 1.0) / std::sqrt(static_cast<double>(var[j]) + eps);
    return {static_cast<A>(scale), static_cast<A>((bias ? bias[j] : 0.0) - mean[j] * scale), static_cast<A>(low),
            static_cast<A>(high)};
  }
  Affines<A> affines(const std::vector<A> &scale, const std::vector<A> &shift) const {
    return {scale.data(), shift.data(), static_cast<A>(low), static_cast<A>(high)};
  }
};

template <typename A> struct Moving {  // updated by the forward direction
  A *running_mean, *running_var, *batch_mean;
  double momentum;

  // Chooses the statistics of a channel, updates the moving ones, returns what they make of x.
  Affine<A> settle(index_t j, double mean_of_batch, double squares, double m, const Vectors<A> &vectors) const {
    const double batch_var = squares / m;
    batch_mean[j] = static_cast<A>(mean_of_batch);
    vectors.mean[j] = vectors.use_batch[j] ? batch_mean[j] : running_mean[j];
    vectors.var[j] = vectors.use_batch[j] ? static_cast<A>(batch_var) : running_var[j];
    running_mean[j] = static_cast<A>(momentum * mean_of_batch + (1 - momentum) * running_mean[j]);
    running_var[j] = static_cast<A>(momentum * (squares / (m - 1)) + (1 - momentum) * running_var[j]);
    return vectors.affine(j);
  }
};

template <typename K, bool CLAMP, typename T, typename A>
void forward(const T *x, T *y, index_t n, index_t c, index_t s, bool channels_last, const Vectors<A> &vectors,
             const Moving<A> &moving, int threads) {
  const double m = static_cast<double>(n) * s;
  if (!channels_last) {
#pragma omp parallel num_threads(threads)
    {
      std::vector<A> values(gathers(n, s, 1) ? n * s : 0);
      const index_t rows = gathered_rows(n * s), row = n * s / rows;
#pragma omp for
      for (index_t j = 0; j < c; j++) {
        double mean, squares;
        if (values.empty()) {
          K::channel_moments(x + j * s, n, c * s, s, mean, squares);
          const Affine<A> affine = moving.settle(j, mean, squares, m, vectors);
          K::channel_affine(x + j * s, c * s, y + j * s, c * s, n, s, affine);
        } else {
          K::gather(x + j * s, n, c * s, s, values.data());
          K::channel_moments(values.data(), rows, row, row, mean, squares);
          const Affine<A> affine = moving.settle(j, mean, squares, m, vectors);
          K::channel_affine(values.data(), s, y + j * s, c * s, n, s, affine);
        }
      }
    }
    return;
  }
  std::vector<double> means(threads * c), squares(threads * c);
  std::vector<A> scale(c), shift(c);
#pragma omp parallel num_threads(threads)
  {
    const int thread = omp_get_thread_num(), running = omp_get_num_threads();
    const Range rows = share_of(s, thread, running);
    double *mean = means.data() + thread * c, *square = squares.data() + thread * c;
    std::vector<A> block_mean(c), block_square(c);
    for (index_t r = rows.begin, step = block_rows<A>(c); r < rows.end; r += step) {
      const index_t count = std::min(step, rows.end - r);
      K::rows_moments(x + r * c, count, c, block_mean.data(), block_square.data());
      const double before = static_cast<double>(r - rows.begin), share = count / (before + count);
      K::rows_merge(block_mean.data(), block_square.data(), c, before, share, mean, square);
    }
#pragma omp barrier
#pragma omp for
    for (index_t j = 0; j < c; j++) {
      double total_mean = means[j], total = squares[j], before = static_cast<double>(share_of(s, 0, running).end);
      for (int t = 1; t < running; t++) {
        const Range other = share_of(s, t, running);
        const double count = static_cast<double>(other.end - other.begin);
        if (count == 0) continue;
        const double delta = means[t * c + j] - total_mean, share = count / (before + count);
        total_mean += delta * share;
        total += squares[t * c + j] + delta * delta * before * share;
        before += count;
      }
      const Affine<A> affine = moving.settle(j, total_mean, total, m, vectors);
      scale[j] = affine.scale;
      shift[j] = affine.shift;
    }
    K::rows_affine(x + rows.begin * c, y + rows.begin * c, rows.end - rows.begin, c, vectors.affines(scale, shift));
  }
}

template <typename A> struct Gradients {  // of weight and bias
  A *weight, *bias;

  // dx = scale * (g - s / m * (sum_g + x_hat * sum(g * x_hat))) = scale * g + slope * (x - mean) + offset
  void settle(index_t j, double sum_g, double sum_gx, double m, const Vectors<A> &vectors, A &slope, A &offset) const {
    const double invstd = 1 / std::sqrt(static_cast<double>(vectors.var[j]) + vectors.eps);
    const double through = vectors.use_batch[j] ? -invstd * (vectors.weight ? vectors.weight[j] : 1.0) / m : 0;
    slope = static_cast<A>(through * invstd * invstd * sum_gx);
    offset = static_cast<A>(through * sum_g);
    weight[j] = static_cast<A>(sum_gx * invstd);
    bias[j] = static_cast<A>(sum_g);
  }
};

template <typename K, bool CLAMP, typename T, typename A>
void backward(const T *g, const T *x, T *gx, index_t n, index_t c, index_t s, bool channels_last,
              const Vectors<A> &vectors, const Gradients<A> &gradients, int threads) {
  const double m = static_cast<double>(n) * s;
  if (!channels_last) {
#pragma omp parallel num_threads(threads)
    {
      std::vector<A> values(gathers(n, s, 2) ? n * s : 0), outer(values.size());
      const index_t rows = gathered_rows(n * s), row = n * s / rows;
#pragma omp for
      for (index_t j = 0; j < c; j++) {
        const Affine<A> affine = vectors.affine(j);
        const A mean = vectors.mean[j];
        double sum_g, sum_gx;
        A slope, offset;
        if (values.empty()) {
          K::channel_products(g + j * s, x + j * s, n, c * s, s, affine, mean, sum_g, sum_gx);
          gradients.settle(j, sum_g, sum_gx, m, vectors, slope, offset);
          if (gx)
            K::channel_gradient(g + j * s, x + j * s, c * s, gx + j * s, c * s, n, s, affine, mean, slope, offset);
        } else {
          K::gather(x + j * s, n, c * s, s, values.data());
          K::gather(g + j * s, n, c * s, s, outer.data());
          K::channel_products(outer.data(), values.data(), rows, row, row, affine, mean, sum_g, sum_gx);
          gradients.settle(j, sum_g, sum_gx, m, vectors, slope, offset);
          if (gx)
            K::channel_gradient(outer.data(), values.data(), s, gx + j * s, c * s, n, s, affine, mean, slope, offset);
        }
      }
    }
    return;
  }
  std::vector<double> sums_g(threads * c), sums_gx(threads * c);
  std::vector<A> scale(c), shift(c), slope(c), offset(c);
  for (index_t j = 0; j < c; j++) {
    const Affine<A> affine = vectors.affine(j);
    scale[j] = affine.scale;
    shift[j] = affine.shift;
  }
  const Affines<A> affines = vectors.affines(scale, shift);
#pragma omp parallel num_threads(threads)
  {
    const int thread = omp_get_thread_num(), running = omp_get_num_threads();
    const Range rows = share_of(s, thread, running);
    double *sum_g = sums_g.data() + thread * c, *sum_gx = sums_gx.data() + thread * c;
    std::vector<A> block_g(c), block_gx(c);
    for (index_t r = rows.begin, step = block_rows<A>(c); r < rows.end; r += step) {
      K::rows_products(g + r * c, x + r * c, std::min(step, rows.end - r), c, affines, vectors.mean, block_g.data(),
                       block_gx.data());
      K::rows_add(block_g.data(), c, sum_g);
      K::rows_add(block_gx.data(), c, sum_gx);
    }
#pragma omp barrier
#pragma omp for
    for (index_t j = 0; j < c; j++) {
      for (int t = 1; t < running; t++) {
        sums_g[j] += sums_g[t * c + j];
        sums_gx[j] += sums_gx[t * c + j];
      }
      gradients.settle(j, sums_g[j], sums_gx[j], m, vectors, slope[j], offset[j]);
    }
    if (gx)
      K::rows_gradient(g + rows.begin * c, x + rows.begin * c, gx + rows.begin * c, rows.end - rows.begin, c, affines,
                       vectors.mean, slope.data(), offset.data());
  }
}

bool bounded(double low, double high) { return std::isfinite(low) || std::isfinite(high); }

// The farthest value that is stored as `bound`, going up (1) or down (-1); for bounds that are not below 0.
template <typename T> double stored_as(double bound, int direction) {
  if (sizeof(T) != sizeof(bf16) || bound < 0) return bound;
  const float exact = static_cast<float>(bound);
  std::uint32_t bits;
  std::memcpy(&bits, &exact, sizeof bits);
  bits += direction * (0x7fff + !(bits >> 16 & 1));  // ties to even
  float farthest;
  std::memcpy(&farthest, &bits, sizeof bits);
  return farthest;
}

}  // namespace

#define EXPORT(NAME, T, A)                                                                                             \
  extern "C" void stoch_norm_forward_##NAME(const void *x, void *y, index_t n, index_t c, index_t s, int last,         \
                                            A *running_mean, A *running_var, const A *weight, const A *bias,           \
                                            const bool *use_batch, double momentum, double eps, double low,            \
                                            double high, A *statistics, int threads) {                                 \
    const Vectors<A> vectors{weight, bias, use_batch, statistics, statistics + c, eps, low, high};                     \
    const Moving<A> moving{running_mean, running_var, statistics + 2 * c, momentum};                                   \
    if (bounded(low, high))                                                                                            \
      DISPATCH(forward, true, T, A, static_cast<const T *>(x), static_cast<T *>(y), n, c, s, last != 0, vectors,       \
               moving, threads);                                                                                       \
    else                                                                                                               \
      DISPATCH(forward, false, T, A, static_cast<const T *>(x), static_cast<T *>(y), n, c, s, last != 0, vectors,      \
               moving, threads);                                                                                       \
  }                                                                                                                    \
  extern "C" void stoch_norm_backward_##NAME(const void *g, const void *x, void *gx, index_t n, index_t c, index_t s,  \
                                             int last, A *statistics, const A *weight, const A *bias,                  \
                                             const bool *use_batch, double eps, double low, double high,               \
                                             A *gradients, int threads) {                                              \
    const double lowest = stored_as<T>(low, 1), highest = stored_as<T>(high, -1);                                      \
    const Vectors<A> vectors{weight, bias, use_batch, statistics, statistics + c, eps, lowest, highest};               \
    const Gradients<A> of{gradients, gradients + c};                                                                   \
    if (bounded(low, high))                                                                                            \
      DISPATCH(backward, true, T, A, static_cast<const T *>(g), static_cast<const T *>(x), static_cast<T *>(gx), n, c, \
               s, last != 0, vectors, of, threads);                                                                    \
    else                                                                                                               \
      DISPATCH(backward, false, T, A, static_cast<const T *>(g), static_cast<const T *>(x), static_cast<T *>(gx), n,   \
               c, s, last != 0, vectors, of, threads);                                                                 \
  }

EXPORT(float32, float, float)
EXPORT(float64, double, double)
EXPORT(bfloat16, bf16, float)
