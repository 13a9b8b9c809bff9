// Depthwise convolution on CPUs, forward and backward, over channels_last tensors: each channel has a separate kernel,
// so reading and writing take most of the time. depthwise.py loads it; see there.
//
// x, y, g, gx: input, output, gradients, (n, h, w, c) with c contiguous, float or bfloat16. Weights, bias and all sums
// are float; the weight's gradient adds up in float over an image and in double over images.

#include "compiled.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace {

constexpr int MOST = 7;  // rows and columns of a kernel
constexpr int TILE = 4;  // pixels that are computed together, so that their sums do not wait for one another

struct Shape {  // as depthwise.py passes it; what is missing on the right and below follows from oh, ow
  index_t n, c, h, w, oh, ow, kh, kw, stride, top, left;

  // How many taps of a kernel's side meet a row or column of the input: every stride-th, from `phase` on.
  index_t taps(index_t side, index_t phase) const { return side > phase ? (side - phase + stride - 1) / stride : 0; }

  // Columns of a window's row: with zeros on both sides, as far as the last tile reaches.
  index_t input_columns() const { return std::max(left + w, (ow + TILE - 1) * stride + kw); }
  index_t gradient_columns() const {
    return taps(kw, 0) - 1 + std::max(ow, (w + left) / stride + 1) + TILE + taps(kw, 0);
  }
  index_t scratch() const {  // vectors
    return (kh + 1) * std::max(input_columns(), gradient_columns()) + ow + kh * kw;
  }
};

#define LANES 4
#define PROCESSOR Baseline
#include "depthwise.inc"
#undef LANES
#undef PROCESSOR
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define LANES 8
#define PROCESSOR Avx2
#include "depthwise.inc"
#undef LANES
#undef PROCESSOR
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
#define LANES 16
#define PROCESSOR Avx512
#include "depthwise.inc"
#undef LANES
#undef PROCESSOR
#pragma GCC pop_options
#define DISPATCH(CALL, T, ...)                                                                                         \
  HAS_AVX512 ? CALL<Avx512, T>(__VA_ARGS__)                                                                            \
  : HAS_AVX2 ? CALL<Avx2, T>(__VA_ARGS__)                                                                              \
             : CALL<Baseline, T>(__VA_ARGS__)
#else
#define DISPATCH(CALL, T, ...) CALL<Baseline, T>(__VA_ARGS__)
#endif

struct Buffer {  // of zeros, where vectors begin
  std::vector<float> storage;
  float *data;
  explicit Buffer(index_t size) : storage(size + 15), data(storage.data()) {
    while (reinterpret_cast<std::uintptr_t>(data) % 64) data++;
  }
};

// (c, taps) to (blocks, taps, lanes); zeros for the channels that the last block lacks, and for what is not there.
template <typename K> Buffer packed(const float *values, index_t c, index_t taps) {
  Buffer result((c + K::lanes - 1) / K::lanes * K::lanes * taps);
  for (index_t j = 0; values && j < c; j++)
    for (index_t k = 0; k < taps; k++)
      result.data[(j / K::lanes * taps + k) * K::lanes + j % K::lanes] = values[j * taps + k];
  return result;
}

// The images in pieces of equal size: whole ones, or as many parts of each as there are threads.
index_t parts_of_image(const Shape &s, int threads) { return s.n % threads ? threads : 1; }

template <typename K, typename T>
void forward(const Shape &s, const T *x, const float *weight, const float *bias, T *y, int threads) {
  const Buffer weights = packed<K>(weight, s.c, s.kh * s.kw), start = packed<K>(bias, s.c, 1);
  const index_t parts = parts_of_image(s, threads);
#pragma omp parallel num_threads(threads)
  {
    Buffer scratch(s.scratch() * K::lanes);
    const Range pieces = share_of(s.n * parts, omp_get_thread_num(), omp_get_num_threads());
    for (index_t i = pieces.begin; i < pieces.end; i++)
      K::forward(s, x, weights.data, start.data, y, i / parts, share_of(s.oh, i % parts, parts), scratch.data);
  }
}

template <typename K, typename T>
void backward(const Shape &s, const T *g, const T *x, const float *weight, T *gx, float *gw, int threads) {
  const index_t taps = s.kh * s.kw, size = (s.c + K::lanes - 1) / K::lanes * K::lanes * taps;
  const Buffer weights = packed<K>(weight, s.c, taps);
  const index_t parts = parts_of_image(s, threads);
  std::vector<double> totals(gw ? threads * size : 0);
#pragma omp parallel num_threads(threads)
  {
    Buffer scratch(s.scratch() * K::lanes);
    double *total = totals.data() + omp_get_thread_num() * size;
    const Range pieces = share_of(s.n * parts, omp_get_thread_num(), omp_get_num_threads());
    for (index_t i = pieces.begin; i < pieces.end; i++) {  // both from one image, while its gradient is in the cache
      const index_t image = i / parts, part = i % parts;
      if (gx) K::grad_input(s, g, weights.data, gx, image, share_of(s.h, part, parts), scratch.data);
      if (gw) K::grad_weight(s, x, g, total, image, share_of(s.oh, part, parts), scratch.data);
    }
  }
  for (index_t j = 0; gw && j < s.c; j++)
    for (index_t k = 0; k < taps; k++) {
      double sum = 0;
      for (int t = 0; t < threads; t++) sum += totals[t * size + (j / K::lanes * taps + k) * K::lanes + j % K::lanes];
      gw[j * taps + k] = static_cast<float>(sum);
    }
}

}  // namespace

#define EXPORT(NAME, T)                                                                                                \
  extern "C" void depthwise_forward_##NAME(const Shape *shape, const void *x, const float *weight, const float *bias,  \
                                           void *y, int threads) {                                                     \
    DISPATCH(forward, T, *shape, static_cast<const T *>(x), weight, bias, static_cast<T *>(y), threads);               \
  }                                                                                                                    \
  extern "C" void depthwise_backward_##NAME(const Shape *shape, const void *g, const void *x, const float *weight,     \
                                            void *gx, float *gw, int threads) {                                        \
    DISPATCH(backward, T, *shape, static_cast<const T *>(g), static_cast<const T *>(x), weight,                        \
             static_cast<T *>(gx), gw, threads);                                                                       \
  }

EXPORT(float32, float)
EXPORT(bfloat16, bf16)
