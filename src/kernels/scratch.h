// Working memory of a kernel: allocating megabytes per product costs page faults, so each thread keeps a few
// buffers and lends them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tessera::kernels {

// Uninitialised floats, aligned to 64 bytes, for the life of the object. Must die on the thread that made it.
class Scratch {
 public:
  explicit Scratch(int64_t floats);
  ~Scratch();
  Scratch(Scratch&& other) noexcept : data_(other.data_), bytes_(other.bytes_) { other.data_ = nullptr; }
  Scratch& operator=(Scratch&&) = delete;

  float* data() const { return data_; }

 private:
  float* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace tessera::kernels
