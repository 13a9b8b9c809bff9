// Sums and transforms of rows of all channels of a tensor (rows, c), with c contiguous (channels_last).

#pragma once

#include "kernel_values.h"

#include <algorithm>

namespace {

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

// The mean, what it lacks by rounding (`rest`), and the sum of squared deviations. Where the mean is far larger than the
// deviations, its sum has lost their digits; the deviations from it, whose mean should be 0, have them.
template <typename T, typename A>
INLINE void block_moments(const T *x, index_t rows, index_t c, A *mean, A *rest, A *squares) {
  block_total(rows, c, mean, [=](index_t r, index_t j) { return load(x[r * c + j]); });
  const A share = A(1) / rows;
  for (index_t j = 0; j < c; j++) mean[j] *= share;
  std::fill(rest, rest + c, A(0));
  std::fill(squares, squares + c, A(0));
  index_t r = 0;
  for (; r + 4 <= rows; r += 4, x += 4 * c) {
#pragma omp simd
    for (index_t j = 0; j < c; j++) {
      const A m = mean[j];
      const A d0 = load(x[j]) - m, d1 = load(x[c + j]) - m, d2 = load(x[2 * c + j]) - m, d3 = load(x[3 * c + j]) - m;
      rest[j] += (d0 + d1) + (d2 + d3);
      squares[j] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3);
    }
  }
  for (; r < rows; r++, x += c) {
#pragma omp simd
    for (index_t j = 0; j < c; j++) {
      const A d = load(x[j]) - mean[j];
      rest[j] += d;
      squares[j] += d * d;
    }
  }
  for (index_t j = 0; j < c; j++) {
    const A sum = rest[j];
    rest[j] *= share;
    squares[j] = std::max(squares[j] - sum * rest[j], A(0));
  }
}

// Mean and squares of the rows so far, `before` of them, and of a block's, which is `share` of all (Chan, Golub, LeVeque
// 1983).
template <typename A>
INLINE void block_merge(const A *block_mean, const A *block_rest, const A *block_squares, index_t c, double before,
                        double share, double *mean, double *squares) {
#pragma omp simd
  for (index_t j = 0; j < c; j++) {
    const double delta = (block_mean[j] - mean[j]) + block_rest[j];
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

// Two tensors are read here, in short rows: asking for what comes a page later is faster than to let the processor
// guess it. It guesses long rows well. (An address behind the tensor does no harm.)
constexpr index_t AHEAD = 4096, SHORT_ROW = 1024;  // bytes

template <typename T> INLINE void fetch_ahead(const T *x, const T *g, index_t count) {
  const char *next_x = reinterpret_cast<const char *>(x) + AHEAD, *next_g = reinterpret_cast<const char *>(g) + AHEAD;
  for (index_t i = 0; i < count * static_cast<index_t>(sizeof(T)); i += 64) {
    __builtin_prefetch(next_x + i);
    __builtin_prefetch(next_g + i);
  }
}

template <typename T> INLINE bool short_rows(index_t c) { return c * static_cast<index_t>(sizeof(T)) <= SHORT_ROW; }

template <bool CLAMP, typename T, typename A>
INLINE void block_products(const T *g, const T *x, index_t rows, index_t c, Affines<A> affines, const A *mean, A *sum_g,
                           A *sum_gx) {
  const auto [scale, shift, low, high] = affines;
  std::fill(sum_g, sum_g + c, A(0));
  std::fill(sum_gx, sum_gx + c, A(0));
  index_t r = 0;
  for (; r + 4 <= rows; r += 4, g += 4 * c, x += 4 * c) {
    if (short_rows<T>(c)) fetch_ahead(x, g, 4 * c);
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
    if (short_rows<T>(c)) fetch_ahead(x, g, c);
#pragma omp simd
    for (index_t j = 0; j < c; j++)
      store(gx[j], passing<CLAMP>(load(g[j]), load(x[j]), scale[j], shift[j], low, high) * scale[j] +
                       ((load(x[j]) - mean[j]) * slope[j] + offset[j]));
  }
}

}  // namespace
