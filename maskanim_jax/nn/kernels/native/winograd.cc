// How is a 3x3 convolution computed with Winograd's points (winograd_transform.h)? Pixels to points, products, points to results.
// The gradient uses the transposed transforms.

#include <algorithm>

#include "winograd_transform.h"
#include "algorithms.h"

namespace maskanim {
namespace {

// Size limit in bytes of the data that all threads share.
constexpr int64_t kRoom = int64_t{32} << 20;

// Tiles of 4x4 results; those at a picture's end extend beyond it.
struct Tiles {
  int64_t height, width, down, across, count;
  Tiles(int64_t pictures, int64_t height, int64_t width)
      : height(height), width(width), down((height + 3) / 4), across((width + 3) / 4), count(pictures * down * across) {}
};

struct Place {
  int64_t picture, row, column;  // position of the tile's first result
  Place(const Tiles& tiles, int64_t tile)
      : picture(tile / (tiles.down * tiles.across)),
        row(tile / tiles.across % tiles.down * 4),
        column(tile % tiles.across * 4) {}
};

// The points of some tiles of a picture (count, height >> up, width >> up, channels): to[point * stride + tile * tile_stride + c / kLanes * lane_stride + c % kLanes].
// With `up` 1, the picture is first upsampled 2x by nearest neighbour.
void PictureToPoints(const float* x, int64_t channels, int up, const Tiles& tiles, int64_t first, int64_t last,
                            float* to, int64_t stride, int64_t tile_stride, int64_t lane_stride = kLanes) {
  const int64_t height = tiles.height >> up, width = tiles.width >> up;
  for (int64_t tile = first; tile < last; ++tile) {
    const Place at(tiles, tile);
    const float* pixels[6][6];
    for (int i = 0; i < 6; ++i) {
      for (int j = 0; j < 6; ++j) {
        const int64_t row = at.row + i - 1, column = at.column + j - 1;
        const bool inside = row >= 0 && row < tiles.height && column >= 0 && column < tiles.width;
        pixels[i][j] =
            inside ? x + ((at.picture * height + (row >> up)) * width + (column >> up)) * channels : nullptr;
      }
    }
    for (int64_t c = 0; c < channels; c += kLanes) {
      Vector seen[6][6], points[6][6];
      for (int i = 0; i < 6; ++i)
        for (int j = 0; j < 6; ++j) seen[i][j] = pixels[i][j] != nullptr ? Load(pixels[i][j] + c) : Vector{};
      BothWays<6, 6, PixelsToPoints>(seen, points);
      float* out = to + (tile - first) * tile_stride + c / kLanes * lane_stride;
      for (int i = 0; i < 6; ++i)
        for (int j = 0; j < 6; ++j) Store(out + (i * 6 + j) * stride, points[i][j]);
    }
  }
}

// Transforms the points of one strip of outputs to results, y (count, height, width, outputs).
void PointsToPicture(const float* from, int64_t stride, int vectors, const Tiles& tiles, int64_t first,
                            int64_t last, float* y, int64_t outputs) {
  for (int64_t tile = first; tile < last; ++tile) {
    const Place at(tiles, tile);
    const int64_t rows = std::min<int64_t>(4, tiles.height - at.row), columns = std::min<int64_t>(4, tiles.width - at.column);
    float* corner = y + ((at.picture * tiles.height + at.row) * tiles.width + at.column) * outputs;
    for (int v = 0; v < vectors; ++v) {
      Vector points[6][6], results[4][4];
      for (int i = 0; i < kPoints; ++i)
        points[i / 6][i % 6] = Load(from + i * stride + (tile - first) * kStrip + v * kLanes);
      BothWays<6, 4, PointsToResults>(points, results);
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j)
          Store(corner + (i * tiles.width + j) * outputs + v * kLanes, results[i][j]);
    }
  }
}

int Vectors(int64_t outputs, int64_t first) { return outputs - first > kLanes ? 2 : 1; }

// The points of a strip of a kernel (3, 3, inputs, outputs) for inputs from `first` to `last`: to[point * stride + input * kStrip + output].
void KernelToPoints(const float* kernel, int64_t inputs, int64_t outputs, int64_t strip, int64_t first, int64_t last,
                           float* to, int64_t stride) {
  for (int64_t i = first; i < last; ++i) {
    for (int v = 0; v < Vectors(outputs, strip * kStrip); ++v) {
      Vector taps[3][3], values[6][6];
      for (int tap = 0; tap < 9; ++tap)
        taps[tap / 3][tap % 3] = Load(kernel + (tap * inputs + i) * outputs + strip * kStrip + v * kLanes);
      BothWays<3, 6, TapsToPoints>(taps, values);
      for (int p = 0; p < kPoints; ++p) Store(to + p * stride + i * kStrip + v * kLanes, values[p / 6][p % 6]);
    }
  }
}

// The products of some tiles' points with the points of a kernel's strip.
void Products(const float* seen, int64_t seen_stride, int64_t tile_stride, int64_t tiles, const float* points,
                     int64_t points_stride, int64_t inputs, int vectors, float* made, int64_t made_stride) {
  for (int p = 0; p < kPoints; ++p) {
    for (int64_t tile = 0; tile < tiles;) {
      const int rows = Rows(tiles - tile);
      const Operands with{seen + p * seen_stride + tile * tile_stride, 0, tile_stride, 1,
                          points + p * points_stride, 0, kStrip, 1, inputs};
      Multiply(rows, vectors, with, made + p * made_stride + tile * kStrip, kStrip, false);
      tile += rows;
    }
  }
}

}  // namespace

// Strides have kLanes more, since at power-of-two strides values would compete for the same cache lines.
void WinogradForward(const Pool& pool, const float* x, const float* kernel, float* y, int64_t count,
                            int64_t height, int64_t width, int64_t inputs, int64_t outputs, int up) {
  const Tiles tiles(count, height << up, width << up);
  const int64_t strips = (outputs + kStrip - 1) / kStrip, tile_stride = inputs + kLanes;
  if (inputs * outputs >= kWideKernel) {
    // The kernel's points are computed strip by strip, once per block of as many tiles as fit into the limit.
    const int64_t block = std::min(tiles.count, std::max<int64_t>(8 * kRows, kRoom / (kPoints * 4 * inputs)));
    const int64_t seen_stride = block * tile_stride + kLanes, made_stride = block * kStrip + kLanes;
    const int64_t points_stride = inputs * kStrip + kLanes;
    const Scratch seen(kPoints * seen_stride);
    for (int64_t first = 0; first < tiles.count; first += block) {
      const int64_t last = std::min(tiles.count, first + block), here = last - first;
      InParallel(pool, (here + 3) / 4, [&](int64_t job) {
        const int64_t from = first + job * 4;
        PictureToPoints(x, inputs, up, tiles, from, std::min(last, from + 4), seen.get() + job * 4 * tile_stride,
                        seen_stride, tile_stride);
      });
      InParallel(pool, strips, [&](int64_t strip) {
        const int vectors = Vectors(outputs, strip * kStrip);
        const Scratch points(kPoints * points_stride), made(kPoints * made_stride);
        KernelToPoints(kernel, inputs, outputs, strip, 0, inputs, points.get(), points_stride);
        Products(seen.get(), seen_stride, tile_stride, here, points.get(), points_stride, inputs, vectors, made.get(),
                 made_stride);
        PointsToPicture(made.get(), made_stride, vectors, tiles, first, last, y + strip * kStrip, outputs);
      });
    }
    return;
  }
  // First all points of the kernel, then blocks of tiles that stay in a core's cache from pixels to results; at least eight blocks, for the threads.
  const int64_t points_stride = inputs * kStrip;
  const Scratch points(strips * kPoints * points_stride);
  InParallel(pool, strips * ((inputs + 15) / 16), [&](int64_t job) {
    const int64_t strip = job % strips, first = job / strips * 16;
    KernelToPoints(kernel, inputs, outputs, strip, first, std::min(inputs, first + 16),
                   points.get() + strip * kPoints * points_stride, points_stride);
  });
  const int64_t fitting = std::clamp<int64_t>((1 << 18) / (kPoints * 4 * inputs) / kRows, 1, 8) * kRows;
  const int64_t block = std::min(fitting, RoundUp((tiles.count + 7) / 8, kRows));
  InParallel(pool, (tiles.count + block - 1) / block, [&](int64_t job) {
    const int64_t first = job * block, last = std::min(tiles.count, first + block);
    const int64_t seen_stride = block * tile_stride + kLanes, made_stride = block * kStrip + kLanes;
    const Scratch seen(kPoints * seen_stride), made(kPoints * made_stride);
    PictureToPoints(x, inputs, up, tiles, first, last, seen.get(), seen_stride, tile_stride);
    for (int64_t strip = 0; strip < strips; ++strip) {
      const int vectors = Vectors(outputs, strip * kStrip);
      Products(seen.get(), seen_stride, tile_stride, last - first, points.get() + strip * kPoints * points_stride,
               points_stride, inputs, vectors, made.get(), made_stride);
      PointsToPicture(made.get(), made_stride, vectors, tiles, first, last, y + strip * kStrip, outputs);
    }
  });
}

namespace {

// The points of one strip of a gradient g (count, height, width, outputs) for some tiles: to[point * stride + tile * kStrip + output].
void ResultsToPointsOfStrip(const float* g, int64_t outputs, int64_t strip, const Tiles& tiles, int64_t first,
                                   int64_t last, float* to, int64_t stride) {
  for (int64_t tile = first; tile < last; ++tile) {
    const Place at(tiles, tile);
    const float* corner = g + ((at.picture * tiles.height + at.row) * tiles.width + at.column) * outputs + strip * kStrip;
    for (int v = 0; v < Vectors(outputs, strip * kStrip); ++v) {
      Vector results[4][4], values[6][6];
      for (int64_t i = 0; i < 4; ++i) {
        for (int64_t j = 0; j < 4; ++j) {
          const bool inside = at.row + i < tiles.height && at.column + j < tiles.width;
          results[i][j] = inside ? Load(corner + (i * tiles.width + j) * outputs + v * kLanes) : Vector{};
        }
      }
      BothWays<4, 6, ResultsToPoints>(results, values);
      float* out = to + (tile - first) * kStrip + v * kLanes;
      for (int p = 0; p < kPoints; ++p) Store(out + p * stride, values[p / 6][p % 6]);
    }
  }
}

// Transforms sums of points to the gradient's taps, for inputs from `first` to `last` and one strip: from[point * stride + input * kStrip + output].
void PointsToKernel(const float* from, int64_t stride, int64_t inputs, int64_t outputs, int64_t strip, int64_t first,
                           int64_t last, float* gradient) {
  for (int64_t i = first; i < last; ++i) {
    for (int v = 0; v < Vectors(outputs, strip * kStrip); ++v) {
      Vector points[6][6], taps[3][3];
      for (int p = 0; p < kPoints; ++p) points[p / 6][p % 6] = Load(from + p * stride + i * kStrip + v * kLanes);
      BothWays<6, 3, PointsToTaps>(points, taps);
      for (int tap = 0; tap < 9; ++tap)
        Store(gradient + (tap * inputs + i) * outputs + strip * kStrip + v * kLanes, taps[tap / 3][tap % 3]);
    }
  }
}

// WinogradKernelGradient for kernels whose points fit into a core's cache: each job processes some tiles, from pixels to its own sums.
void GradientByTiles(const Pool& pool, const float* x, const float* g, float* gradient, const Tiles& tiles,
                            int64_t inputs, int64_t outputs, int up) {
  const int64_t strips = (outputs + kStrip - 1) / kStrip;
  const int64_t chunks = std::clamp<int64_t>(tiles.count / 64, 1, 8), chunk = (tiles.count + chunks - 1) / chunks;
  const int64_t block = std::clamp<int64_t>((1 << 19) / (kPoints * 4 * inputs) / 8, 2, 12) * 8;
  const int64_t points_stride = inputs * kStrip, sums_size = strips * kPoints * points_stride;
  const Scratch sums(chunks * sums_size);
  InParallel(pool, chunks, [&](int64_t job) {
    const int64_t begin = job * chunk, end = std::min(tiles.count, begin + chunk);
    const int64_t seen_stride = block * inputs + kLanes, wanted_stride = block * kStrip + kLanes;
    const Scratch seen(kPoints * seen_stride), wanted(kPoints * wanted_stride);
    for (int64_t first = begin; first < end; first += block) {
      const int64_t last = std::min(end, first + block);
      PictureToPoints(x, inputs, up, tiles, first, last, seen.get(), seen_stride, inputs);
      for (int64_t strip = 0; strip < strips; ++strip) {
        ResultsToPointsOfStrip(g, outputs, strip, tiles, first, last, wanted.get(), wanted_stride);
        for (int p = 0; p < kPoints; ++p) {
          for (int64_t i = 0; i < inputs;) {
            const int rows = Rows(inputs - i);
            const Operands with{seen.get() + p * seen_stride + i, 0, 1, inputs, wanted.get() + p * wanted_stride, 0, kStrip, 1,
                                last - first};
            float* to = sums.get() + job * sums_size + (strip * kPoints + p) * points_stride + i * kStrip;
            Multiply(rows, Vectors(outputs, strip * kStrip), with, to, kStrip, first > begin);
            i += rows;
          }
        }
      }
    }
  });
  InParallel(pool, strips * kPoints, [&](int64_t job) {  // adds the chunks' sums, in order
    for (int64_t c = 1; c < chunks; ++c)
      for (int64_t i = job * points_stride; i < (job + 1) * points_stride; i += kLanes)
        Store(sums.get() + i, Load(sums.get() + i) + Load(sums.get() + c * sums_size + i));
  });
  InParallel(pool, strips, [&](int64_t strip) {
    PointsToKernel(sums.get() + strip * kPoints * points_stride, points_stride, inputs, outputs, strip, 0, inputs, gradient);
  });
}

}  // namespace

void WinogradKernelGradient(const Pool& pool, const float* x, const float* g, float* gradient,
                                   int64_t count, int64_t height, int64_t width, int64_t inputs, int64_t outputs, int up) {
  const Tiles tiles(count, height << up, width << up);
  if (inputs * outputs < kWideKernel) return GradientByTiles(pool, x, g, gradient, tiles, inputs, outputs, up);
  const int64_t strips = (outputs + kStrip - 1) / kStrip, groups = inputs / kLanes;
  // As many tiles at a time as fit into the limit; sums of points accumulate over the blocks and become taps in the last one.
  const int64_t room = kRoom / 2 / (kPoints * 4 * (inputs + outputs));
  const int64_t blocks = (tiles.count + std::max<int64_t>(128, room) - 1) / std::max<int64_t>(128, room);
  const int64_t block = (tiles.count + blocks - 1) / blocks;
  // Each job's data is contiguous: pixels by (point, kLanes channels, tile), results by (point, strip, tile).
  const int64_t lane_stride = block * kLanes, seen_stride = groups * lane_stride;
  const int64_t wanted_stride = block * kStrip, sums_size = kPoints * kLanes * kStrip;
  const Scratch seen(kPoints * seen_stride), wanted(strips * kPoints * wanted_stride);
  const Scratch sums(blocks > 1 ? strips * groups * sums_size : 0);
  const int64_t share = std::max<int64_t>(1, groups * strips / 16), shares = (groups + share - 1) / share;
  for (int64_t first = 0; first < tiles.count; first += block) {
    const int64_t last = std::min(tiles.count, first + block), parts = (last - first + 7) / 8;
    InParallel(pool, parts * (strips + 1), [&](int64_t job) {
      const int64_t from = job % parts * 8, to = std::min(last - first, from + 8), strip = job / parts;
      if (strip < strips) {
        ResultsToPointsOfStrip(g, outputs, strip, tiles, first + from, first + to,
                               wanted.get() + strip * kPoints * wanted_stride + from * kStrip, wanted_stride);
      } else {
        PictureToPoints(x, inputs, up, tiles, first + from, first + to, seen.get() + from * kLanes, seen_stride, kLanes,
                        lane_stride);
      }
    });
    InParallel(pool, strips * shares, [&](int64_t job) {
      const int64_t strip = job / shares, begin = job % shares * share, end = std::min(groups, begin + share);
      const int vectors = Vectors(outputs, strip * kStrip);
      const Scratch own(blocks > 1 ? 0 : sums_size);
      for (int64_t group = begin; group < end; ++group) {
        float* const to = blocks > 1 ? sums.get() + (strip * groups + group) * sums_size : own.get();
        for (int p = 0; p < kPoints; ++p) {
          for (int i = 0; i < kLanes;) {
            const int rows = Rows(kLanes - i);
            const Operands with{seen.get() + p * seen_stride + group * lane_stride + i, 0, 1, kLanes,
                                wanted.get() + (strip * kPoints + p) * wanted_stride, 0, kStrip, 1, last - first};
            Multiply(rows, vectors, with, to + (p * kLanes + i) * kStrip, kStrip, first > 0);
            i += rows;
          }
        }
        if (last == tiles.count) {
          const int64_t i = group * kLanes;  // `to` only has this group's inputs
          PointsToKernel(to - i * kStrip, kLanes * kStrip, inputs, outputs, strip, i, i + kLanes, gradient);
        }
      }
    });
  }
}

}  // namespace maskanim
