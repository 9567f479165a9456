// Which functions does XLA call? A convolution with stride 1, and its gradient with respect to the kernel. float32, NHWC by HWIO.

#include <algorithm>
#include <cstring>
#include <exception>
#include <functional>
#include <new>
#include <utility>

#include "algorithms.h"
#include "xla/ffi/api/ffi.h"

namespace maskanim {

namespace {

namespace ffi = xla::ffi;
using Array = ffi::Buffer<ffi::F32>;
using Result = ffi::ResultBuffer<ffi::F32>;

// With fewer tiles, transforming the kernel costs more than it saves.
constexpr int64_t kTiles = 24, kTilesOfWide = 16;
constexpr int64_t kChannels = 16;

bool IsWinograd(const Shape& s, int up) {
  const int64_t tiles = s.count * ((s.out_height + 3) / 4) * ((s.out_width + 3) / 4);
  const bool same = s.rows == 3 && s.columns == 3 && s.top == 1 && s.left == 1 && s.out_height == s.height << up &&
                    s.out_width == s.width << up;
  return same && s.inputs % kLanes == 0 && s.outputs % kLanes == 0 && std::min(s.inputs, s.outputs) >= kChannels &&
         tiles >= (s.inputs * s.outputs >= kWideKernel ? kTilesOfWide : kTiles);
}

// (N, H, W, C) to (N, 2H, 2W, C) by nearest neighbour.
Scratch Upsampled(const Pool& pool, const float* x, Shape& s) {
  const int64_t row = 2 * s.width * s.inputs;
  Scratch large(s.count * 2 * s.height * row);
  InParallel(pool, s.count * s.height, [&](int64_t job) {
    float* to = large.get() + job * 2 * row;
    for (int64_t w = 0; w < 2 * s.width; ++w)
      std::memcpy(to + w * s.inputs, x + (job * s.width + w / 2) * s.inputs, s.inputs * sizeof(float));
    std::memcpy(to + row, to, row * sizeof(float));
  });
  s.height *= 2;
  s.width *= 2;
  return large;
}

// The kernel rotated by 180 degrees, with inputs and outputs exchanged: convolving with it gives the gradient with respect to the input.
Scratch Turned(const Pool& pool, const float* kernel, int64_t taps, int64_t inputs, int64_t outputs) {
  Scratch turned(taps * inputs * outputs);
  constexpr int64_t side = 16;  // squares that are read and written in whole cache lines
  const int64_t blocks = (inputs + side - 1) / side;
  InParallel(pool, taps * blocks, [&](int64_t job) {
    const int64_t tap = job / blocks, first = job % blocks * side, rows = std::min(side, inputs - first);
    const float* from = kernel + ((taps - 1 - tap) * inputs + first) * outputs;
    float* to = turned.get() + tap * inputs * outputs + first;
    float square[side][side];
    for (int64_t o = 0; o < outputs; o += side) {
      const int64_t columns = std::min(side, outputs - o);
      for (int64_t i = 0; i < rows; ++i) std::memcpy(square[i], from + i * outputs + o, columns * sizeof(float));
      for (int64_t c = 0; c < columns; ++c)
        for (int64_t i = 0; i < rows; ++i) to[(o + c) * inputs + i] = square[i][c];
    }
  });
  return turned;
}

Pool Of(ffi::ThreadPool& threads) {
  return {threads.num_threads(), [&](std::function<void()> task) { threads.Schedule(std::move(task)); }};
}

template <typename Body>
ffi::Error Guarded(const Body& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "out of memory: a convolution did not get what it needs for a moment");
  } catch (const std::exception& error) {
    return ffi::Error::Internal(error.what());
  }
}

bool Fits(const Shape& s, int up, int64_t count) {
  return s.count == count && s.top >= 0 && s.left >= 0 && s.out_height >= 0 && s.out_width >= 0 && (up == 0 || up == 1) &&
         s.out_height + s.rows - 1 >= s.top + (s.height << up) && s.out_width + s.columns - 1 >= s.left + (s.width << up);
}

// `transpose`: the kernel is (K, K, outputs, inputs) and is rotated first. `upsample`: the input is upsampled first.
ffi::Error Convolution(ffi::ThreadPool threads, Array x, Array kernel, Result y, int64_t top, int64_t left, int64_t upsample, bool transpose) {
  return Guarded([&] {
    const Pool pool = Of(threads);
    const auto p = x.dimensions(), k = kernel.dimensions(), r = y->dimensions();
    const bool four = p.size() == 4 && k.size() == 4 && r.size() == 4;
    if (!four) return ffi::Error::InvalidArgument("pictures and kernels have four axes");
    Shape s{p[0], p[1], p[2], k[transpose ? 3 : 2], k[transpose ? 2 : 3], k[0], k[1], top, left, r[1], r[2]};
    if (!Fits(s, upsample, r[0]) || p[3] != s.inputs || r[3] != s.outputs)
      return ffi::Error::InvalidArgument("picture, kernel and result do not fit");
    const Scratch turned = transpose ? Turned(pool, kernel.typed_data(), s.rows * s.columns, s.outputs, s.inputs) : Scratch(0);
    const float* taps = transpose ? turned.get() : kernel.typed_data();
    if (IsWinograd(s, upsample)) {
      WinogradForward(pool, x.typed_data(), taps, y->typed_data(), s.count, s.height, s.width, s.inputs, s.outputs, upsample);
    } else {
      const Scratch large = upsample ? Upsampled(pool, x.typed_data(), s) : Scratch(0);
      (IsThin(s) ? ThinForward : DirectForward)(pool, upsample ? large.get() : x.typed_data(), taps, y->typed_data(), s);
    }
    return ffi::Error::Success();
  });
}

ffi::Error KernelGradient(ffi::ThreadPool threads, Array x, Array g, Result gradient, int64_t top, int64_t left, int64_t upsample) {
  return Guarded([&] {
    const Pool pool = Of(threads);
    const auto p = x.dimensions(), r = g.dimensions(), k = gradient->dimensions();
    const bool four = p.size() == 4 && k.size() == 4 && r.size() == 4;
    if (!four) return ffi::Error::InvalidArgument("pictures and kernels have four axes");
    Shape s{p[0], p[1], p[2], k[2], k[3], k[0], k[1], top, left, r[1], r[2]};
    if (!Fits(s, upsample, r[0]) || p[3] != s.inputs || r[3] != s.outputs)
      return ffi::Error::InvalidArgument("picture, gradient and kernel do not fit");
    float* to = gradient->typed_data();
    if (IsWinograd(s, upsample)) {
      WinogradKernelGradient(pool, x.typed_data(), g.typed_data(), to, s.count, s.height, s.width, s.inputs, s.outputs, upsample);
    } else {
      const Scratch large = upsample ? Upsampled(pool, x.typed_data(), s) : Scratch(0);
      const auto way = IsThin(s) ? ThinKernelGradient : DirectKernelGradient;
      way(pool, upsample ? large.get() : x.typed_data(), g.typed_data(), to, s);
    }
    return ffi::Error::Success();
  });
}

// The arguments of both functions.
auto Bound() {
  return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Array>().Arg<Array>().Ret<Array>().Attr<int64_t>("top").Attr<int64_t>("left").Attr<int64_t>("upsample");
}

}  // namespace
}  // namespace maskanim

XLA_FFI_DEFINE_HANDLER_SYMBOL(maskanim_convolution, maskanim::Convolution, maskanim::Bound().Attr<bool>("transpose"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(maskanim_kernel_gradient, maskanim::KernelGradient, maskanim::Bound());
