// How does a convolution with few outputs fill a vector? The kernel's columns become outputs, too; their results are shifted and added.

#pragma once

#include "direct.h"

namespace maskanim {

constexpr int64_t kThin = 8;
// So few outputs are worth it.

inline bool IsThin(const Shape& s) { return s.outputs <= kThin && s.columns > 1; }

// As DirectForward.
inline void ThinForward(xla::ffi::ThreadPool& pool, const float* x, const float* kernel, float* y, const Shape& s) {
  const int64_t width = s.out_width + s.columns - 1, height = s.out_height + s.rows - 1;
  const int64_t beside = s.columns * s.outputs, strips = (beside + kStrip - 1) / kStrip;
  // (rows, inputs, columns * outputs)
  const Scratch turned(s.rows * s.inputs * beside), packed(s.rows * strips * s.inputs * kStrip);
  for (int64_t row = 0; row < s.rows; ++row) {
    float* const to = turned.get() + row * s.inputs * beside;
    for (int64_t column = 0; column < s.columns; ++column)
      for (int64_t i = 0; i < s.inputs; ++i)
        std::memcpy(to + i * beside + column * s.outputs,
                    kernel + ((row * s.columns + column) * s.inputs + i) * s.outputs, s.outputs * sizeof(float));
    for (int64_t strip = 0; strip < strips; ++strip)
      PackStrip(to, s.inputs, beside, strip * kStrip, packed.get() + (strip * s.rows + row) * s.inputs * kStrip);
  }
  const Scratch padded = Padded(pool, x, s);
  InParallel(pool, s.count * s.out_height, [&](int64_t job) {
    const float* row = padded.get() + (job / s.out_height * height + job % s.out_height) * width * s.inputs;
    const int64_t all = strips * kStrip;
    const Scratch products(width * all);
    for (int64_t strip = 0; strip < strips; ++strip) {
      for (int64_t w = 0; w < width;) {
        const int rows = Rows(width - w);
        const Operands with{row + w * s.inputs, width * s.inputs, s.inputs, 1, packed.get() + strip * s.rows * s.inputs * kStrip,
                            s.inputs * kStrip, kStrip, s.rows, s.inputs};
        const int vectors = beside - strip * kStrip > kLanes ? 2 : 1;
        Multiply(rows, vectors, with, products.get() + w * all + strip * kStrip, all, false);
        w += rows;
      }
    }
    for (int64_t w = 0; w < s.out_width; ++w) {
      float sums[kThin] = {};
      for (int64_t column = 0; column < s.columns; ++column) {
        const float* from = products.get() + (w + column) * all + column * s.outputs;
        for (int64_t o = 0; o < s.outputs; ++o) sums[o] += from[o];
      }
      std::memcpy(y + (job * s.out_width + w) * s.outputs, sums, s.outputs * sizeof(float));
    }
  });
}

// As DirectKernelGradient: the gradient is laid beside itself, once for each of the kernel's columns.
inline void ThinKernelGradient(xla::ffi::ThreadPool& pool, const float* x, const float* g, float* gradient, const Shape& s) {
  const int64_t width = s.out_width + s.columns - 1, beside = s.columns * s.outputs;
  Shape one = s;
  one.columns = 1;
  one.out_width = width;
  one.outputs = RoundUp(beside, kLanes);
  const Scratch wide(s.count * s.out_height * width * one.outputs), found(s.rows * s.inputs * one.outputs);
  InParallel(pool, s.count * s.out_height, [&](int64_t job) {
    float* const to = wide.get() + job * width * one.outputs;
    std::memset(to, 0, width * one.outputs * sizeof(float));
    for (int64_t w = 0; w < s.out_width; ++w)
      for (int64_t column = 0; column < s.columns; ++column)
        std::memcpy(to + (w + column) * one.outputs + column * s.outputs, g + (job * s.out_width + w) * s.outputs,
                    s.outputs * sizeof(float));
  });
  DirectKernelGradient(pool, x, wide.get(), found.get(), one);
  for (int64_t row = 0; row < s.rows; ++row)
    for (int64_t column = 0; column < s.columns; ++column)
      for (int64_t i = 0; i < s.inputs; ++i)
        std::memcpy(gradient + ((row * s.columns + column) * s.inputs + i) * s.outputs,
                    found.get() + (row * s.inputs + i) * one.outputs + column * s.outputs, s.outputs * sizeof(float));
}

}  // namespace maskanim
