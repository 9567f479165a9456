// How is a convolution computed without transforms? The general case: any kernel, few channels, or too few pixels for Winograd.

#include <algorithm>
#include <cstring>

#include "algorithms.h"

namespace maskanim {

Scratch Padded(const Pool& pool, const float* x, const Shape& s) {
  const int64_t height = s.out_height + s.rows - 1, width = s.out_width + s.columns - 1, row = width * s.inputs;
  Scratch padded(s.count * height * row + kLanes);
  float* to = padded.get();
  InParallel(pool, s.count * height, [&](int64_t job) {
    const int64_t n = job / height, h = job % height - s.top;
    float* out = to + job * row;
    if (h < 0 || h >= s.height) {
      std::memset(out, 0, row * sizeof(float));
      return;
    }
    const int64_t before = s.left * s.inputs, inside = s.width * s.inputs;
    std::memset(out, 0, before * sizeof(float));
    std::memcpy(out + before, x + (n * s.height + h) * inside, inside * sizeof(float));
    std::memset(out + before + inside, 0, (row - before - inside) * sizeof(float));
  });
  return padded;
}

namespace {

// One strip of a kernel (length, outputs), with the columns from `first` on: (length, kStrip), with zeros after the last column.
void PackStrip(const float* kernel, int64_t length, int64_t outputs, int64_t first, float* to) {
  const int64_t width = std::min(kStrip, outputs - first);
  for (int64_t k = 0; k < length; ++k, to += kStrip) {
    std::memcpy(to, kernel + k * outputs + first, width * sizeof(float));
    std::memset(to + width, 0, (kStrip - width) * sizeof(float));
  }
}

}  // namespace

void DirectForward(const Pool& pool, const float* x, const float* kernel, float* y, const Shape& s) {
  const int64_t length = s.rows * s.columns * s.inputs, width = s.out_width + s.columns - 1;
  const int64_t height = s.out_height + s.rows - 1, strips = (s.outputs + kStrip - 1) / kStrip;
  const Scratch padded = Padded(pool, x, s);
  const auto row_of_strip = [&](int64_t job, int64_t o, const float* packed) {
    const float* row = padded.get() + (job / s.out_height * height + job % s.out_height) * width * s.inputs;
    const int64_t left = std::min(kStrip, s.outputs - o);
    const int vectors = left > kLanes ? 2 : 1;
    const bool whole = left == vectors * kLanes;
    float part[kRows * kStrip];
    for (int64_t w = 0; w < s.out_width;) {
      const int rows = Rows(s.out_width - w);
      const Operands with{row + w * s.inputs, width * s.inputs, s.inputs, 1, packed, s.columns * s.inputs * kStrip, kStrip,
                          s.rows, s.columns * s.inputs};
      float* out = y + (job * s.out_width + w) * s.outputs + o;
      Multiply(rows, vectors, with, whole ? out : part, whole ? s.outputs : kStrip, false);
      for (int m = 0; !whole && m < rows; ++m) std::memcpy(out + m * s.outputs, part + m * kStrip, left * sizeof(float));
      w += rows;
    }
  };
  const int64_t all_rows = s.count * s.out_height;
  if (strips >= 8 && s.count * height * width < 9 * s.outputs) {  // the kernel is larger than the picture, so it is read only once
    InParallel(pool, strips, [&](int64_t strip) {
      const Scratch packed(length * kStrip);
      PackStrip(kernel, length, s.outputs, strip * kStrip, packed.get());
      for (int64_t job = 0; job < all_rows; ++job) row_of_strip(job, strip * kStrip, packed.get());
    });
    return;
  }
  const Scratch packed(strips * length * kStrip);
  InParallel(pool, strips, [&](int64_t strip) {
    PackStrip(kernel, length, s.outputs, strip * kStrip, packed.get() + strip * length * kStrip);
  });
  InParallel(pool, all_rows, [&](int64_t job) {
    for (int64_t strip = 0; strip < strips; ++strip)
      row_of_strip(job, strip * kStrip, packed.get() + strip * length * kStrip);
  });
}

void DirectKernelGradient(const Pool& pool, const float* x, const float* g, float* gradient,
                                 const Shape& s) {
  const int64_t height = s.out_height + s.rows - 1, width = s.out_width + s.columns - 1;
  const Scratch padded = Padded(pool, x, s);
  const int64_t padded_outputs = RoundUp(s.outputs, kLanes), pixels = s.count * s.out_height * s.out_width;
  const bool fits = padded_outputs == s.outputs;
  const Scratch wide(fits ? 0 : pixels * padded_outputs);
  if (!fits) {
    InParallel(pool, s.count * s.out_height, [&](int64_t job) {
      for (int64_t pixel = job * s.out_width; pixel < (job + 1) * s.out_width; ++pixel) {
        float* to = wide.get() + pixel * padded_outputs;
        std::memcpy(to, g + pixel * s.outputs, s.outputs * sizeof(float));
        std::memset(to + s.outputs, 0, (padded_outputs - s.outputs) * sizeof(float));
      }
    });
  }
  const float* from = fits ? g : wide.get();
  // Within a kernel row, (column, input) is also one contiguous axis of the picture.
  const int64_t across = s.columns * s.inputs, blocks = (across + kRows - 1) / kRows;
  const int64_t strips = (s.outputs + kStrip - 1) / kStrip;
  // A band of rows stays in a core's cache while all kernel elements use it.
  const int64_t row_bytes = (width * s.inputs + s.out_width * padded_outputs) * static_cast<int64_t>(sizeof(float));
  const int64_t band = std::max<int64_t>(1, std::min<int64_t>(s.out_height, (512 << 10) / std::max<int64_t>(1, row_bytes)));
  const int64_t all = s.rows * blocks, chunk = std::max<int64_t>(1, std::min<int64_t>(all, (all + 15) / 16));
  const int64_t chunks = (all + chunk - 1) / chunk;
  InParallel(pool, strips * chunks, [&](int64_t job) {
    const int64_t o = job / chunks * kStrip, first = job % chunks * chunk;
    const int64_t left = std::min(kStrip, s.outputs - o);
    const int vectors = left > kLanes ? 2 : 1;
    const int64_t last = std::min(all, first + chunk);
    const Scratch sums((last - first) * kRows * kStrip);
    for (int64_t n = 0; n < s.count; ++n) {
      for (int64_t h = 0; h < s.out_height; h += band) {
        const int64_t rows_here = std::min(band, s.out_height - h);
        for (int64_t i = first; i < last; ++i) {
          const int64_t r = i / blocks, m = i % blocks * kRows;
          const int rows = static_cast<int>(std::min<int64_t>(kRows, across - m));
          const Operands with{padded.get() + (n * height + h + r) * width * s.inputs + m, width * s.inputs, 1, s.inputs,
                              from + (n * s.out_height + h) * s.out_width * padded_outputs + o,
                              s.out_width * padded_outputs, padded_outputs, rows_here, s.out_width};
          Multiply(rows, vectors, with, sums.get() + (i - first) * kRows * kStrip, kStrip, n + h > 0);
        }
      }
    }
    for (int64_t i = first; i < last; ++i) {
      const int64_t r = i / blocks, m = i % blocks * kRows, rows = std::min<int64_t>(kRows, across - m);
      for (int64_t row = 0; row < rows; ++row) {
        std::memcpy(gradient + (r * across + m + row) * s.outputs + o, sums.get() + ((i - first) * kRows + row) * kStrip,
                    left * sizeof(float));
      }
    }
  });
}

}  // namespace maskanim
