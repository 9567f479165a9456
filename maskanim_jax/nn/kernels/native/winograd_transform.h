// How is a 3x3 convolution computed with a quarter of the multiplications? With Winograd's F(4x4, 3x3) (Lavin and Gray 2016).
//
// A tile of 4x4 results needs 6x6 pixels. Along each axis, three taps and six pixels are polynomials, represented by their values at six points
// (0, 1, -1, 2, -2, infinity), so 36 products of points replace 144. Tiles are processed in blocks that stay in a core's cache, from
// pixels to results. The gradient with respect to the kernel uses the transposed transforms. Results differ by rounding, 1e-5 of their size.

#pragma once

#include "matmul.h"

namespace maskanim {

constexpr int kPoints = 36;

// Six pixels to six points.
inline void PixelsToPoints(const Vector d[6], Vector v[6]) {
  const Vector even = d[4] - 4.0f * d[2], odd = d[3] - 4.0f * d[1], near = d[4] - d[2], far = 2.0f * (d[3] - d[1]);
  v[0] = 4.0f * d[0] - 5.0f * d[2] + d[4];
  v[1] = even + odd;
  v[2] = even - odd;
  v[3] = near + far;
  v[4] = near - far;
  v[5] = 4.0f * d[1] - 5.0f * d[3] + d[5];
}

// Three taps to six points.
inline void TapsToPoints(const Vector k[3], Vector u[6]) {
  const Vector ends = (k[0] + k[2]) * (-1.0f / 6), middle = k[1] * (1.0f / 6);
  const Vector wide = k[0] * (1.0f / 24) + k[2] * (1.0f / 6), half = k[1] * (1.0f / 12);
  u[0] = k[0] * 0.25f;
  u[1] = ends - middle;
  u[2] = ends + middle;
  u[3] = wide + half;
  u[4] = wide - half;
  u[5] = k[2];
}

// Six points to four results.
inline void PointsToResults(const Vector m[6], Vector y[4]) {
  const Vector sum = m[1] + m[2], difference = m[1] - m[2], wide = m[3] + m[4], far = m[3] - m[4];
  y[0] = m[0] + sum + wide;
  y[1] = difference + 2.0f * far;
  y[2] = sum + 4.0f * wide;
  y[3] = difference + 8.0f * far + m[5];
}

// The transposed transforms: four results to six points, six points to three taps.
inline void ResultsToPoints(const Vector g[4], Vector w[6]) {
  const Vector even = g[0] + g[2], odd = g[1] + g[3], wide = g[0] + 4.0f * g[2], far = 2.0f * g[1] + 8.0f * g[3];
  w[0] = g[0];
  w[1] = even + odd;
  w[2] = even - odd;
  w[3] = wide + far;
  w[4] = wide - far;
  w[5] = g[3];
}

inline void PointsToTaps(const Vector u[6], Vector k[3]) {
  const Vector near = (u[1] + u[2]) * (1.0f / 6), far = u[3] + u[4];
  k[0] = 0.25f * u[0] - near + far * (1.0f / 24);
  k[1] = (u[2] - u[1]) * (1.0f / 6) + (u[3] - u[4]) * (1.0f / 12);
  k[2] = far * (1.0f / 6) - near + u[5];
}

// Applies `way` along both axes: In x In vectors to Out x Out.
template <int In, int Out, void (*way)(const Vector*, Vector*)>
inline void BothWays(const Vector (&from)[In][In], Vector (&to)[Out][Out]) {
  Vector between[Out][In];
  for (int j = 0; j < In; ++j) {
    Vector column[In], changed[Out];
    for (int i = 0; i < In; ++i) column[i] = from[i][j];
    way(column, changed);
    for (int i = 0; i < Out; ++i) between[i][j] = changed[i];
  }
  for (int i = 0; i < Out; ++i) way(between[i], to[i]);
}

}  // namespace maskanim
