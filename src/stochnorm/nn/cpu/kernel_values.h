// Read, write and transform single values; the scale and shift of a channel.

#pragma once

#include "compiled.h"

#include <cstring>

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

}  // namespace
