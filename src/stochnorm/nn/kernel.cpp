// Stochastic Normalization on CPUs in two calls: what functional.py composes of ATen's kernels, with the choice of
// statistics inside and nothing of the input's size computed or stored twice. kernel.py loads it; see there.
//
// x, y, g: input, output, gradient, either (n, c, s) with s contiguous, or (rows, c) with c contiguous
// (channels_last; then n = 1 and s = rows). Everything per channel is in the accumulation type A.
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

template <typename T, typename A>
INLINE void row_affine(const T *x, T *y, index_t n, index_t stride, index_t s, A scale, A shift) {
  for (index_t i = 0; i < n; i++, x += stride, y += stride) {
#pragma omp simd
    for (index_t j = 0; j < s; j++) store(y[j], load(x[j]) * scale + shift);
  }
}

template <typename T, typename A>
INLINE void row_products(const T *g, const T *x, index_t n, index_t stride, index_t s, A mean, double &sum_g,
                         double &sum_gx) {
  sum_g = sum_gx = 0;
  for (index_t i = 0; i < n; i += 2)
    for (index_t start = 0; start < s; start += PART) {
      const index_t end = std::min(s, start + PART);
      const T *g0 = g + i * stride, *x0 = x + i * stride;
      const T *g1 = g0 + stride, *x1 = x0 + stride;
      A a0 = 0, a1 = 0, b0 = 0, b1 = 0;
      if (i + 2 <= n) {
#pragma omp simd reduction(+ : a0, a1, b0, b1)
        for (index_t j = start; j < end; j++) {
          const A first = load(g0[j]), second = load(g1[j]);
          a0 += first;
          a1 += second;
          b0 += first * (load(x0[j]) - mean);
          b1 += second * (load(x1[j]) - mean);
        }
      } else {
#pragma omp simd reduction(+ : a0, b0)
        for (index_t j = start; j < end; j++) {
          const A first = load(g0[j]);
          a0 += first;
          b0 += first * (load(x0[j]) - mean);
        }
      }
      sum_g += static_cast<double>(a0) + a1;
      sum_gx += static_cast<double>(b0) + b1;
    }
}

template <typename T, typename A>
INLINE void row_gradient(const T *g, const T *x, T *gx, index_t n, index_t stride, index_t s, A mean, A scale, A slope,
                         A offset) {
  for (index_t i = 0; i < n; i++, x += stride, g += stride, gx += stride) {
#pragma omp simd
    for (index_t j = 0; j < s; j++)
      store(gx[j], load(g[j]) * scale + ((load(x[j]) - mean) * slope + offset));
  }
}

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

template <typename T, typename A>
INLINE void block_affine(const T *x, T *y, index_t rows, index_t c, const A *scale, const A *shift) {
  for (index_t r = 0; r < rows; r++, x += c, y += c) {
#pragma omp simd
    for (index_t j = 0; j < c; j++) store(y[j], load(x[j]) * scale[j] + shift[j]);
  }
}

template <typename T, typename A>
INLINE void block_products(const T *g, const T *x, index_t rows, index_t c, const A *mean, A *sum_g, A *sum_gx) {
  std::fill(sum_g, sum_g + c, A(0));
  std::fill(sum_gx, sum_gx + c, A(0));
  index_t r = 0;
  for (; r + 2 <= rows; r += 2, g += 2 * c, x += 2 * c) {
#pragma omp simd
    for (index_t j = 0; j < c; j++) {
      const A first = load(g[j]), second = load(g[c + j]);
      sum_g[j] += first + second;
      sum_gx[j] += first * (load(x[j]) - mean[j]) + second * (load(x[c + j]) - mean[j]);
    }
  }
  for (index_t j = 0; r < rows && j < c; j++) {
    sum_g[j] += load(g[j]);
    sum_gx[j] += load(g[j]) * (load(x[j]) - mean[j]);
  }
}

template <typename T, typename A>
INLINE void block_gradient(const T *g, const T *x, T *gx, index_t rows, index_t c, const A *mean, const A *scale,
                           const A *slope, const A *offset) {
  for (index_t r = 0; r < rows; r++, g += c, x += c, gx += c) {
#pragma omp simd
    for (index_t j = 0; j < c; j++)
      store(gx[j], load(g[j]) * scale[j] + ((load(x[j]) - mean[j]) * slope[j] + offset[j]));
  }
}

// The same for each kind of processor. (Functions of their own, since OpenMP's parallel regions ignore the attribute.)

#define PROCESSOR(NAME, TARGET)                                                                                        \
  template <typename T, typename A> struct NAME {                                                                      \
    TARGET static void channel_moments(const T *x, index_t n, index_t stride, index_t s, double &mean,                 \
                                       double &squares) {                                                              \
      row_moments<T, A>(x, n, stride, s, mean, squares);                                                               \
    }                                                                                                                  \
    TARGET static void channel_affine(const T *x, T *y, index_t n, index_t stride, index_t s, A scale, A shift) {      \
      row_affine(x, y, n, stride, s, scale, shift);                                                                    \
    }                                                                                                                  \
    TARGET static void channel_products(const T *g, const T *x, index_t n, index_t stride, index_t s, A mean,          \
                                        double &sum_g, double &sum_gx) {                                               \
      row_products(g, x, n, stride, s, mean, sum_g, sum_gx);                                                           \
    }                                                                                                                  \
    TARGET static void channel_gradient(const T *g, const T *x, T *gx, index_t n, index_t stride, index_t s, A mean,   \
                                        A scale, A slope, A offset) {                                                  \
      row_gradient(g, x, gx, n, stride, s, mean, scale, slope, offset);                                                \
    }                                                                                                                  \
    TARGET static void rows_moments(const T *x, index_t rows, index_t c, A *mean, A *squares) {                        \
      block_moments(x, rows, c, mean, squares);                                                                        \
    }                                                                                                                  \
    TARGET static void rows_affine(const T *x, T *y, index_t rows, index_t c, const A *scale, const A *shift) {        \
      block_affine(x, y, rows, c, scale, shift);                                                                       \
    }                                                                                                                  \
    TARGET static void rows_products(const T *g, const T *x, index_t rows, index_t c, const A *mean, A *sum_g,         \
                                     A *sum_gx) {                                                                      \
      block_products(g, x, rows, c, mean, sum_g, sum_gx);                                                              \
    }                                                                                                                  \
    TARGET static void rows_gradient(const T *g, const T *x, T *gx, index_t rows, index_t c, const A *mean,            \
                                     const A *scale, const A *slope, const A *offset) {                                \
      block_gradient(g, x, gx, rows, c, mean, scale, slope, offset);                                                   \
    }                                                                                                                  \
  };

PROCESSOR(Baseline, )
#if defined(__x86_64__) && defined(__GNUC__)
PROCESSOR(Avx2, __attribute__((target("avx2,fma"))))
PROCESSOR(Avx512, __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))))
#define DISPATCH(CALL, T, A, ...)                                                                                      \
  HAS_AVX512 ? CALL<Avx512<T, A>, T, A>(__VA_ARGS__)                                                                   \
  : HAS_AVX2 ? CALL<Avx2<T, A>, T, A>(__VA_ARGS__)                                                                     \
             : CALL<Baseline<T, A>, T, A>(__VA_ARGS__)
#else
#define DISPATCH(CALL, T, A, ...) CALL<Baseline<T, A>, T, A>(__VA_ARGS__)
#endif

// About 16 KB of input a block, so that its second reading comes from the first-level cache; 8 rows at least, so that
// the sums over blocks cost little; 128 at most, so that the sums within keep their digits.
template <typename A> index_t block_rows(index_t c) {
  return std::clamp<index_t>(16384 / (c * static_cast<index_t>(sizeof(A))), 8, 128);
}

template <typename A> struct Channels {  // arguments of the forward direction
  A *running_mean, *running_var;
  const A *weight, *bias;  // or null
  const bool *use_batch;
  double momentum, eps;
  A *mean, *var, *batch_mean;

  // Chooses the statistics of a channel, updates the moving ones, returns scale and shift.
  void settle(index_t j, double mean_of_batch, double squares, double m, A &scale, A &shift) const {
    const double batch_var = squares / m;
    batch_mean[j] = static_cast<A>(mean_of_batch);
    mean[j] = use_batch[j] ? batch_mean[j] : running_mean[j];
    var[j] = use_batch[j] ? static_cast<A>(batch_var) : running_var[j];
    running_mean[j] = static_cast<A>(momentum * mean_of_batch + (1 - momentum) * running_mean[j]);
    running_var[j] = static_cast<A>(momentum * (squares / (m - 1)) + (1 - momentum) * running_var[j]);
    const double s = (weight ? weight[j] : 1.0) / std::sqrt(static_cast<double>(var[j]) + eps);
    scale = static_cast<A>(s);
    shift = static_cast<A>((bias ? bias[j] : 0.0) - mean[j] * s);
  }
};

template <typename K, typename T, typename A>
void forward(const T *x, T *y, index_t n, index_t c, index_t s, bool channels_last, const Channels<A> &channels,
             int threads) {
  const double m = static_cast<double>(n) * s;
  if (!channels_last) {
#pragma omp parallel for num_threads(threads)
    for (index_t j = 0; j < c; j++) {
      double mean, squares;
      A scale, shift;
      K::channel_moments(x + j * s, n, c * s, s, mean, squares);
      channels.settle(j, mean, squares, m, scale, shift);
      K::channel_affine(x + j * s, y + j * s, n, c * s, s, scale, shift);
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
      for (index_t j = 0; j < c; j++) {  // Chan, Golub, LeVeque 1983
        const double delta = block_mean[j] - mean[j];
        mean[j] += delta * share;
        square[j] += block_square[j] + delta * delta * before * share;
      }
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
      channels.settle(j, total_mean, total, m, scale[j], shift[j]);
    }
    K::rows_affine(x + rows.begin * c, y + rows.begin * c, rows.end - rows.begin, c, scale.data(), shift.data());
  }
}

template <typename A> struct Gradients {  // arguments of the backward direction
  const A *mean, *var, *weight;
  const bool *use_batch;
  double eps;
  A *grad_weight, *grad_bias;

  // dx = scale * (g - s / m * (sum_g + x_hat * sum(g * x_hat))) = scale * g + slope * (x - mean) + offset
  void settle(index_t j, double sum_g, double sum_gx, double m, A &scale, A &slope, A &offset) const {
    const double invstd = 1 / std::sqrt(static_cast<double>(var[j]) + eps);
    const double through = use_batch[j] ? -invstd * (weight ? weight[j] : 1.0) / m : 0;
    scale = static_cast<A>(invstd * (weight ? weight[j] : 1.0));
    slope = static_cast<A>(through * invstd * invstd * sum_gx);
    offset = static_cast<A>(through * sum_g);
    grad_weight[j] = static_cast<A>(sum_gx * invstd);
    grad_bias[j] = static_cast<A>(sum_g);
  }
};

template <typename K, typename T, typename A>
void backward(const T *g, const T *x, T *gx, index_t n, index_t c, index_t s, bool channels_last,
              const Gradients<A> &gradients, int threads) {
  const double m = static_cast<double>(n) * s;
  if (!channels_last) {
#pragma omp parallel for num_threads(threads)
    for (index_t j = 0; j < c; j++) {
      double sum_g, sum_gx;
      A scale, slope, offset;
      K::channel_products(g + j * s, x + j * s, n, c * s, s, gradients.mean[j], sum_g, sum_gx);
      gradients.settle(j, sum_g, sum_gx, m, scale, slope, offset);
      if (gx)
        K::channel_gradient(g + j * s, x + j * s, gx + j * s, n, c * s, s, gradients.mean[j], scale, slope, offset);
    }
    return;
  }
  std::vector<double> sums_g(threads * c), sums_gx(threads * c);
  std::vector<A> scale(c), slope(c), offset(c);
#pragma omp parallel num_threads(threads)
  {
    const int thread = omp_get_thread_num(), running = omp_get_num_threads();
    const Range rows = share_of(s, thread, running);
    double *sum_g = sums_g.data() + thread * c, *sum_gx = sums_gx.data() + thread * c;
    std::vector<A> block_g(c), block_gx(c);
    for (index_t r = rows.begin, step = block_rows<A>(c); r < rows.end; r += step) {
      K::rows_products(g + r * c, x + r * c, std::min(step, rows.end - r), c, gradients.mean, block_g.data(),
                     block_gx.data());
      for (index_t j = 0; j < c; j++) {
        sum_g[j] += block_g[j];
        sum_gx[j] += block_gx[j];
      }
    }
#pragma omp barrier
#pragma omp for
    for (index_t j = 0; j < c; j++) {
      for (int t = 1; t < running; t++) {
        sums_g[j] += sums_g[t * c + j];
        sums_gx[j] += sums_gx[t * c + j];
      }
      gradients.settle(j, sums_g[j], sums_gx[j], m, scale[j], slope[j], offset[j]);
    }
    if (gx)
      K::rows_gradient(g + rows.begin * c, x + rows.begin * c, gx + rows.begin * c, rows.end - rows.begin, c,
                     gradients.mean, scale.data(), slope.data(), offset.data());
  }
}

}  // namespace

#define EXPORT(NAME, T, A)                                                                                             \
  extern "C" void stoch_norm_forward_##NAME(const void *x, void *y, index_t n, index_t c, index_t s, int last,         \
                                            A *running_mean, A *running_var, const A *weight, const A *bias,           \
                                            const bool *use_batch, double momentum, double eps, A *statistics,         \
                                            int threads) {                                                             \
    const Channels<A> channels{running_mean, running_var, weight,     bias,           use_batch,                       \
                               momentum,     eps,         statistics, statistics + c, statistics + 2 * c};             \
    DISPATCH(forward, T, A, static_cast<const T *>(x), static_cast<T *>(y), n, c, s, last != 0, channels, threads);    \
  }                                                                                                                    \
  extern "C" void stoch_norm_backward_##NAME(const void *g, const void *x, void *gx, index_t n, index_t c, index_t s,  \
                                             int last, const A *statistics, const A *weight, const bool *use_batch,    \
                                             double eps, A *gradients, int threads) {                                  \
    const Gradients<A> vectors{statistics, statistics + c, weight, use_batch, eps, gradients, gradients + c};          \
    DISPATCH(backward, T, A, static_cast<const T *>(g), static_cast<const T *>(x), static_cast<T *>(gx), n, c, s,      \
             last != 0, vectors, threads);                                                                             \
  }

EXPORT(float32, float, float)
EXPORT(float64, double, double)
EXPORT(bfloat16, bf16, float)
