// The functions of kernel_rows.h and kernel_blocks.h, compiled for each kind of processor.

#pragma once

#include "kernel_blocks.h"
#include "kernel_rows.h"

namespace {

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
    TARGET static void rows_moments(const T *x, index_t rows, index_t c, A *mean, A *rest, A *squares) {               \
      block_moments(x, rows, c, mean, rest, squares);                                                                  \
    }                                                                                                                  \
    TARGET static void rows_merge(const A *block_mean, const A *block_rest, const A *block_squares, index_t c,         \
                                  double before, double share, double *mean, double *squares) {                        \
      block_merge(block_mean, block_rest, block_squares, c, before, share, mean, squares);                             \
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

}  // namespace
