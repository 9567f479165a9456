// Which convolution algorithms are there? Three, each in its own file.

#pragma once

#include <cstdint>

#include "matmul.h"
#include "parallel.h"

namespace maskanim {

constexpr int64_t kStrip = kWide * kLanes;

// Pictures are (count, height, width, channels); a kernel is (rows, columns, inputs, outputs).
struct Shape {
  int64_t count, height, width, inputs, outputs, rows, columns;
  int64_t top, left;            // zeros before the first row and column
  int64_t out_height, out_width;
};

// The picture with its zero padding, followed by space for one vector: (count, out_height + rows - 1, out_width + columns - 1, channels).
Scratch Padded(const Pool& pool, const float* x, const Shape& s);

// y (count, out_height, out_width, outputs) from x and the kernel, and the gradient with respect to the kernel from x and y's gradient g.
void DirectForward(const Pool& pool, const float* x, const float* kernel, float* y, const Shape& s);
void DirectKernelGradient(const Pool& pool, const float* x, const float* g, float* gradient, const Shape& s);

// The same for kernels whose few outputs do not fill a vector.
constexpr int64_t kThin = 8;
inline bool IsThin(const Shape& s) { return s.outputs <= kThin && s.columns * s.inputs >= kLanes; }
void ThinForward(const Pool& pool, const float* x, const float* kernel, float* y, const Shape& s);
void ThinKernelGradient(const Pool& pool, const float* x, const float* g, float* gradient, const Shape& s);

// y (count, height << up, width << up, outputs) of x (count, height, width, inputs) and the kernel (3, 3, inputs, outputs), with zero padding; inputs
// and outputs are multiples of kLanes. With `up` 1, x is first upsampled 2x by nearest neighbour.
void WinogradForward(const Pool& pool, const float* x, const float* kernel, float* y, int64_t count, int64_t height,
                     int64_t width, int64_t inputs, int64_t outputs, int up);
void WinogradKernelGradient(const Pool& pool, const float* x, const float* g, float* gradient, int64_t count, int64_t height,
                            int64_t width, int64_t inputs, int64_t outputs, int up);
// In point form, kernels with at least this many inputs times outputs do not fit into a core's cache.
constexpr int64_t kWideKernel = 256 * 256;

}  // namespace maskanim
