// How does a convolution with few outputs fill a vector? With the inputs of a pixel in one row, which are contiguous in memory.

#include <algorithm>
#include <cstring>

#include "algorithms.h"

namespace maskanim {
namespace {

constexpr int kPixels = kLanes == 16 ? 8 : 4, kAtOnce = 3;
// The number of pixels (in the gradient: kernel vectors) and outputs whose sums are kept in registers, one vector each.

// A kernel's rows as vectors over a pixel's inputs in a row: (rows, vectors, outputs, kLanes). The last vector of a row ends
// with the row and overlaps the previous one: the overlap is zero in the taps and skipped in the gradient.
struct ThinLayout {
  int64_t rows, length, vectors, outputs;

  explicit ThinLayout(const Shape& s)
      : rows(s.rows), length(s.columns * s.inputs), vectors((length + kLanes - 1) / kLanes), outputs(s.outputs) {}

  int64_t Floats() const { return rows * vectors * outputs * kLanes; }
  int64_t Begin(int64_t vector) const { return std::min(vector * kLanes, length - kLanes); }
  // `visit(i, j)` for each element i of the layout and its element j of the kernel, -1 for none.
  template <typename Visit>
  void Each(const Visit& visit) const {
    int64_t i = 0;
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t v = 0; v < vectors; ++v)
        for (int64_t o = 0; o < outputs; ++o)
          for (int64_t at = Begin(v); at < Begin(v) + kLanes; ++at, ++i)
            visit(i, at < v * kLanes ? -1 : (row * length + at) * outputs + o);
  }
};

// Computes `Outputs` outputs of `Pixels` neighbouring pixels; x: the first pixel's inputs, y: its outputs.
template <int Pixels, int Outputs>
void ThinPixels(const float* x, int64_t row, int64_t inputs, const ThinLayout& layout, const float* taps, float* y) {
  Vector sums[Pixels][Outputs] = {};
  for (int64_t r = 0; r < layout.rows; ++r, x += row) {
    for (int64_t v = 0; v < layout.vectors; ++v, taps += layout.outputs * kLanes) {
      const float* seen = x + layout.Begin(v);
      Vector tap[Outputs];
#pragma GCC unroll 3
      for (int o = 0; o < Outputs; ++o) tap[o] = Load(taps + o * kLanes);
#pragma GCC unroll 8
      for (int p = 0; p < Pixels; ++p) {
        Vector value = Load(seen + p * inputs);
        Keep(value);
#pragma GCC unroll 3
        for (int o = 0; o < Outputs; ++o) sums[p][o] += value * tap[o];
      }
    }
  }
  // Lanes are added in pairs, two vectors at a time, until each lane of a vector is one sum.
  constexpr int kSums = Pixels * Outputs, kVectors = (kSums + kLanes - 1) / kLanes;
  Vector partial[kVectors * kLanes] = {};
#pragma GCC unroll 24
  for (int i = 0; i < kSums; ++i) partial[i] = sums[i / Outputs][i % Outputs];
#pragma GCC unroll 4
  for (int left = kLanes / 2; left > 0; left /= 2)
#pragma GCC unroll 16
    for (int i = 0; i < kVectors * left; ++i) partial[i] = PairSums(partial[2 * i], partial[2 * i + 1]);
  float found[kVectors * kLanes];
#pragma GCC unroll 2
  for (int i = 0; i < kVectors; ++i) Store(found + i * kLanes, partial[i]);
  for (int i = 0; i < kSums; ++i) y[i / Outputs * layout.outputs + i % Outputs] = found[i];
}

template <int Pixels>
void ThinOutputs(const float* x, int64_t row, int64_t inputs, const ThinLayout& layout, const float* taps, float* y) {
  for (int64_t left = layout.outputs; left > 0; left -= kAtOnce, taps += kAtOnce * kLanes, y += kAtOnce) {
    const auto way = left == 1 ? ThinPixels<Pixels, 1> : left == 2 ? ThinPixels<Pixels, 2> : ThinPixels<Pixels, kAtOnce>;
    way(x, row, inputs, layout, taps, y);
  }
}

}  // namespace

void ThinForward(const Pool& pool, const float* x, const float* kernel, float* y, const Shape& s) {
  const int64_t row = (s.out_width + s.columns - 1) * s.inputs, height = s.out_height + s.rows - 1;
  const ThinLayout layout(s);
  const Scratch taps(layout.Floats());
  layout.Each([&](int64_t i, int64_t j) { taps.get()[i] = j < 0 ? 0 : kernel[j]; });
  const Scratch padded = Padded(pool, x, s);
  InParallel(pool, s.count * s.out_height, [&](int64_t job) {
    const float* seen = padded.get() + (job / s.out_height * height + job % s.out_height) * row;
    float* to = y + job * s.out_width * s.outputs;
    const bool wide = s.out_width >= kPixels;
    for (int64_t w = 0; w < s.out_width; w += wide ? kPixels : 1) {
      const int64_t from = wide ? std::min(w, s.out_width - kPixels) : w;  // the last pixels may be computed twice
      const auto way = wide ? ThinOutputs<kPixels> : ThinOutputs<1>;
      way(seen + from * s.inputs, row, s.inputs, layout, taps.get(), to + from * s.outputs);
    }
  });
}

namespace {

// Adds the inputs of a row's pixels times their gradient g, for `Vectors` vectors of the layout and `Outputs` outputs.
template <int Vectors, int Outputs>
void ThinSums(const float* x, int64_t inputs, const float* g, int64_t pixels, const ThinLayout& layout, int64_t first, float* sums) {
  Vector kept[Vectors][Outputs];
#pragma GCC unroll 8
  for (int v = 0; v < Vectors; ++v)
#pragma GCC unroll 3
    for (int o = 0; o < Outputs; ++o) kept[v][o] = Load(sums + (v * layout.outputs + o) * kLanes);
  const int64_t last = layout.Begin(first + Vectors - 1);
  x += first * kLanes;
  for (int64_t pixel = 0; pixel < pixels; ++pixel, x += inputs, g += layout.outputs) {
    Vector gradient[Outputs];
#pragma GCC unroll 3
    for (int o = 0; o < Outputs; ++o) gradient[o] = Spread(g[o]);
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) {
      Vector value = Load(v < Vectors - 1 ? x + v * kLanes : x + last - first * kLanes);
      Keep(value);
#pragma GCC unroll 3
      for (int o = 0; o < Outputs; ++o) kept[v][o] += value * gradient[o];
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < Vectors; ++v)
#pragma GCC unroll 3
    for (int o = 0; o < Outputs; ++o) Store(sums + (v * layout.outputs + o) * kLanes, kept[v][o]);
}

template <int Vectors>
void ThinSumsOf(int64_t vectors, const float* x, int64_t inputs, const float* g, int64_t pixels, const ThinLayout& layout,
                       int64_t first, float* sums) {
  if constexpr (Vectors > 0) {
    if (vectors < Vectors) return ThinSumsOf<Vectors - 1>(vectors, x, inputs, g, pixels, layout, first, sums);
    for (int64_t left = layout.outputs; left > 0; left -= kAtOnce, g += kAtOnce, sums += kAtOnce * kLanes) {
      const auto way = left == 1 ? ThinSums<Vectors, 1> : left == 2 ? ThinSums<Vectors, 2> : ThinSums<Vectors, kAtOnce>;
      way(x, inputs, g, pixels, layout, first, sums);
    }
  }
}

}  // namespace

void ThinKernelGradient(const Pool& pool, const float* x, const float* g, float* gradient, const Shape& s) {
  const int64_t row = (s.out_width + s.columns - 1) * s.inputs, height = s.out_height + s.rows - 1;
  const ThinLayout layout(s);
  const Scratch padded = Padded(pool, x, s);
  const int64_t rows = s.count * s.out_height, parts = std::clamp<int64_t>(rows / 8, 1, 16), part = (rows + parts - 1) / parts;
  const int64_t blocks = (layout.vectors + kPixels - 1) / kPixels, block = (layout.vectors + blocks - 1) / blocks;
  const Scratch sums(parts * layout.Floats());
  InParallel(pool, parts, [&](int64_t job) {
    float* const own = sums.get() + job * layout.Floats();
    std::memset(own, 0, layout.Floats() * sizeof(float));
    for (int64_t i = job * part; i < std::min(rows, (job + 1) * part); ++i) {
      const float* seen = padded.get() + (i / s.out_height * height + i % s.out_height) * row;
      float* to = own;
      for (int64_t r = 0; r < s.rows; ++r, seen += row, to += layout.vectors * layout.outputs * kLanes) {
        for (int64_t v = 0; v < layout.vectors; v += block)
          ThinSumsOf<kPixels>(std::min(block, layout.vectors - v), seen, s.inputs, g + i * s.out_width * s.outputs, s.out_width,
                              layout, v, to + v * layout.outputs * kLanes);
      }
    }
  });
  for (int64_t job = 1; job < parts; ++job)
    for (int64_t i = 0; i < layout.Floats(); i += kLanes)
      Store(sums.get() + i, Load(sums.get() + i) + Load(sums.get() + job * layout.Floats() + i));
  layout.Each([&](int64_t i, int64_t j) {
    if (j >= 0) gradient[j] = sums.get()[i];
  });
}

}  // namespace maskanim
