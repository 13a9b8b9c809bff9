// What kernel.cpp and depthwise.cpp share: OpenMP or its absence, kinds of processors, types, shares of threads.

#pragma once

#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num() { return 0; }
static int omp_get_num_threads() { return 1; }
#endif

#define INLINE inline __attribute__((always_inline))

#define HAS_AVX2 (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#define HAS_AVX512                                                                                                     \
  (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))

namespace {

using index_t = std::int64_t;

struct bf16 {
  std::uint16_t bits;
};

struct Range {
  index_t begin, end;
};

Range share_of(index_t count, index_t part, index_t parts) {
  return {count * part / parts, count * (part + 1) / parts};
}

}  // namespace
