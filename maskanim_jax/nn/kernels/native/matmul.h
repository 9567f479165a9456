// How is a product of two small matrices computed in registers? All convolutions here use this kernel.
//
// C (m x n) = sum over segments and k of A[m][k] * B[k][n]. Rows of B are contiguous vectors; A's elements are read one by one, with
// any two strides, and broadcast to a vector. Segments are a convolution's kernel rows, or a picture's rows in a gradient.

#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace maskanim {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kRows = 14;
#elif defined(__AVX__)
constexpr int kLanes = 8, kRows = 6;
#else
constexpr int kLanes = 4, kRows = 6;
#endif
// Two vectors per row: kRows x 2 sums, two vectors of B and one of A fill the registers.
constexpr int kWide = 2;

typedef float Vector __attribute__((vector_size(4 * kLanes)));
typedef float Unaligned __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

inline Vector Load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }
// The value in every lane. Zero is subtracted, since adding it would turn -0 into 0, so the compiler could not drop it.
inline Vector Spread(float value) { return value - Vector{}; }
inline void Store(float* to, Vector value) { *reinterpret_cast<Unaligned*>(to) = value; }

// The sums of neighbouring lanes: a's in the lower half, b's in the upper half.
template <int... Lane>
inline Vector PairSumsOf(Vector a, Vector b, std::integer_sequence<int, Lane...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (2 * Lane)...) + __builtin_shufflevector(a, b, (2 * Lane + 1)...);
#else  // GCC before version 12
  typedef int32_t Lanes __attribute__((vector_size(4 * kLanes)));
  return __builtin_shuffle(a, b, Lanes{(2 * Lane)...}) + __builtin_shuffle(a, b, Lanes{(2 * Lane + 1)...});
#endif
}
inline Vector PairSums(Vector a, Vector b) { return PairSumsOf(a, b, std::make_integer_sequence<int, kLanes>()); }

// Keeps the value in a register: on x86, compilers would read it from memory for each product, which is slow across cache lines.
inline void Keep([[maybe_unused]] Vector& value) {
#if defined(__x86_64__)
  asm("" : "+v"(value));
#endif
}

// The addresses and strides (in floats) of a product's operands.
struct Operands {
  const float* a;
  int64_t a_segment, a_row, a_k;
  const float* b;
  int64_t b_segment, b_k;
  int64_t segments, length;  // length: number of k per segment
};

template <int M, int N>
inline void Product(const Operands& with, float* c, int64_t c_row, bool add) {
  Vector sums[M][N];
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) sums[m][n] = add ? Load(c + m * c_row + n * kLanes) : Vector{};
  }
  for (int64_t segment = 0; segment < with.segments; ++segment) {
    const float* a = with.a + segment * with.a_segment;
    const float* b = with.b + segment * with.b_segment;
    for (int64_t k = 0; k < with.length; ++k, a += with.a_k, b += with.b_k) {
      Vector row[N];
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) row[n] = Load(b + n * kLanes);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const Vector value = Spread(a[m * with.a_row]);
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n) sums[m][n] += value * row[n];
      }
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) Store(c + m * c_row + n * kLanes, sums[m][n]);
  }
}

template <int M>
inline void ProductOfRows(int rows, int vectors, const Operands& with, float* c, int64_t c_row, bool add) {
  if constexpr (M > 0) {
    if (rows == M) {
      vectors == 1 ? Product<M, 1>(with, c, c_row, add) : Product<M, 2>(with, c, c_row, add);
    } else {
      ProductOfRows<M - 1>(rows, vectors, with, c, c_row, add);
    }
  }
}

// Computes `rows` (at most kRows) and `vectors` (1 or 2) of the result, in whole vectors.
void Multiply(int rows, int vectors, const Operands& with, float* c, int64_t c_row, bool add);

// The size of the next block of `left` rows, so that blocks are equally large: 16 as 8 + 8, not as 14 + 2.
inline int Rows(int64_t left) {
  const int64_t blocks = (left + kRows - 1) / kRows;
  return static_cast<int>((left + blocks - 1) / blocks);
}

inline int64_t RoundUp(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

}  // namespace maskanim
