// Sums and transforms of one channel of a tensor (n, c, s), with s contiguous.

#pragma once

#include "kernel_values.h"

#include <algorithm>

namespace {

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

// The deviations' own mean corrects both: where the mean is far larger than they are, its sum has lost their digits.
template <typename T, typename A>
INLINE void row_moments(const T *x, index_t n, index_t stride, index_t s, double &mean, double &squares) {
  const double values = static_cast<double>(n) * s;
  const A center =
      static_cast<A>(row_total<A>(n, s, [=](index_t i, index_t j) { return load(x[i * stride + j]); }) / values);
  double rest = 0, total = 0;
  for (index_t i = 0; i < n; i += 2)
    for (index_t start = 0; start < s; start += PART) {
      const index_t end = std::min(s, start + PART);
      const T *x0 = x + i * stride, *x1 = x0 + (i + 1 < n ? stride : 0);
      A r0 = 0, r1 = 0, s0 = 0, s1 = 0;
      if (i + 1 < n) {
#pragma omp simd reduction(+ : r0, r1, s0, s1)
        for (index_t j = start; j < end; j++) {
          const A d0 = load(x0[j]) - center, d1 = load(x1[j]) - center;
          r0 += d0;
          r1 += d1;
          s0 += d0 * d0;
          s1 += d1 * d1;
        }
      } else {
#pragma omp simd reduction(+ : r0, s0)
        for (index_t j = start; j < end; j++) {
          const A d = load(x0[j]) - center;
          r0 += d;
          s0 += d * d;
        }
      }
      rest += static_cast<double>(r0) + r1;
      total += static_cast<double>(s0) + s1;
    }
  mean = center + rest / values;
  squares = std::max(total - rest * rest / values, 0.0);
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

}  // namespace
