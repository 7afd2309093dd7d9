// A pool for the large kernels: tasks are independent, so who runs which changes no bits. The caller works too
// and returns when every task is done. Calls from several threads share the pool; a task may not call
// parallel() with the hope of more threads: it runs its tasks itself.
#pragma once

#include <cstdint>
#include <functional>

namespace tessera::kernels {

// Calls task(i) for i in [0, count), on at most kernel_threads() threads.
void parallel(int64_t count, const std::function<void(int64_t)>& task);

// parallel() over [0, count) in pieces of at least `grain`: task(begin, end).
void parallel_ranges(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& task);

}  // namespace tessera::kernels
