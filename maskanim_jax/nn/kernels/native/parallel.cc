#include "parallel.h"

#include <cstdlib>
#include <iterator>
#include <map>
#include <mutex>
#include <new>

namespace maskanim {
namespace {

struct Kept {
  std::mutex mutex;
  std::multimap<size_t, float*> buffers;
  size_t bytes = 0;
};

Kept& TheKept() {
  static Kept* kept = new Kept;  // never destroyed: threads may outlive the end of main
  return *kept;
}

}  // namespace

Scratch::Scratch(int64_t floats) {
  const size_t wanted = (static_cast<size_t>(floats > 0 ? floats : 1) * sizeof(float) + 4095) / 4096 * 4096;
  Kept& kept = TheKept();
  {
    const std::lock_guard<std::mutex> lock(kept.mutex);
    const auto found = kept.buffers.lower_bound(wanted);
    if (found != kept.buffers.end() && found->first <= 2 * wanted) {
      bytes_ = found->first;
      data_ = found->second;
      kept.bytes -= bytes_;
      kept.buffers.erase(found);
      return;
    }
  }
  bytes_ = wanted;
  data_ = static_cast<float*>(std::aligned_alloc(4096, wanted));
  if (data_ == nullptr) throw std::bad_alloc();
}

Scratch::~Scratch() {
  if (data_ == nullptr) return;
  Kept& kept = TheKept();
  const std::lock_guard<std::mutex> lock(kept.mutex);
  kept.buffers.emplace(bytes_, data_);
  kept.bytes += bytes_;
  while (kept.bytes > kKept) {  // the largest buffer is the least likely to be reused
    const auto largest = std::prev(kept.buffers.end());
    kept.bytes -= largest->first;
    std::free(largest->second);
    kept.buffers.erase(largest);
  }
}

}  // namespace maskanim
