// Stochastic Normalization on CPUs in two calls: what functional.py composes of ATen's kernels, with the choice of
// statistics inside and nothing of the input's size computed or stored twice. kernel.py loads it; see there.
//
// x, y, g: input, output, gradient, either (n, c, s) with s contiguous, or (rows, c) with c contiguous
// (channels_last; then n = 1 and s = rows). Everything per channel is in the accumulation type A.
// With CLAMP the output is kept within two bounds, which is what ReLU and ReLU6 do, and the gradient of what lies on
// them is zero; backward finds out from x which values these are, so that nothing more is stored.
// Sums run in A over blocks of a few thousand values and in double over blocks.

#include "kernel_processors.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace {

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
    const A scale = static_cast<A>((weight ? weight[j] : 1.0) / std::sqrt(static_cast<double>(var[j]) + eps));
    const double at_mean = static_cast<double>(mean[j]) * scale;  // with the scale that x is multiplied by
    return {scale, static_cast<A>((bias ? bias[j] : 0.0) - at_mean), static_cast<A>(low), static_cast<A>(high)};
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
    std::vector<A> block_mean(c), block_rest(c), block_square(c);
    for (index_t r = rows.begin, step = block_rows<A>(c); r < rows.end; r += step) {
      const index_t count = std::min(step, rows.end - r);
      K::rows_moments(x + r * c, count, c, block_mean.data(), block_rest.data(), block_square.data());
      const double before = static_cast<double>(r - rows.begin), share = count / (before + count);
      K::rows_merge(block_mean.data(), block_rest.data(), block_square.data(), c, before, share, mean, square);
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
