// How is work divided among threads, and where are intermediate values stored?
//
// Neither a job's work nor the order of sums depends on the number of threads, so results are the same bit for bit.

#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <thread>

namespace maskanim {

// XLA's threads, without XLA's header, which takes longer to compile than most of these files.
struct Pool {
  int64_t threads;
  std::function<void(std::function<void()>)> schedule;
};

// Uninitialised memory for a call. Up to kKept bytes of returned memory are kept for the next calls: the system would clear
// the pages of new memory each time.
class Scratch {
 public:
  explicit Scratch(int64_t floats);
  ~Scratch();
  Scratch(Scratch&& other) noexcept : data_(other.data_), bytes_(other.bytes_) { other.data_ = nullptr; }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* get() const { return data_; }

 private:
  static constexpr size_t kKept = size_t{64} << 20;
  float* data_;
  size_t bytes_;
};

// Runs `job(i)` for each i below `jobs` on XLA's threads. The caller also works, and only waits for jobs that have started. If all
// other threads are busy it does everything itself, so there is no deadlock. A job's exception is rethrown when all have ended.
template <typename Job>
void InParallel(const Pool& pool, int64_t jobs, const Job& job) {
  struct Shared {
    std::atomic<int64_t> next{0}, done{0};
    std::atomic<bool> failed{false};
    std::exception_ptr error;
    int64_t jobs;
    const Job* job;
  };
  const auto work = [](Shared& shared) {
    for (int64_t i; (i = shared.next.fetch_add(1)) < shared.jobs;) {
      try {
        if (!shared.failed) (*shared.job)(i);
      } catch (...) {  // in one of XLA's threads it would end the process
        if (!shared.failed.exchange(true)) shared.error = std::current_exception();
      }
      shared.done.fetch_add(1, std::memory_order_release);
    }
  };
  if (jobs <= 1 || pool.threads <= 1) {
    for (int64_t i = 0; i < jobs; ++i) job(i);
    return;
  }
  auto shared = std::make_shared<Shared>();  // outlives the call, for threads that start late
  shared->jobs = jobs;
  shared->job = &job;
  for (int64_t i = 1; i < pool.threads && i < jobs; ++i) pool.schedule([shared, work] { work(*shared); });
  work(*shared);
  // The other threads are nearly done, unless the system has given their cores to other processes.
  for (int turn = 0; shared->done.load(std::memory_order_acquire) < jobs; ++turn) {
    turn < 1000 ? std::this_thread::yield() : std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  if (shared->failed) std::rethrow_exception(shared->error);
}

}  // namespace maskanim
