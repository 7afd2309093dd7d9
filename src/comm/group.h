// Ranks that compute together: the collectives that training and serving need, over any transport.
//
// Every operation has a deadline, can be aborted from any thread, and names rank, host, operation number and
// peer in its error. A failed group stays failed: pending and later calls return the same error, and the owner
// builds a new group on a new generation. Sums follow one binary tree over global leaf indices and never depend
// on ranks or arrival.
//
// Threads: operations of one group are started by one thread at a time, in the same order on all ranks.
// Asynchronous operations run on the group's own thread in the order in which they were started; abort() may
// come from any thread. Buffers belong to the caller and must stay until the Work is waited for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/result.h"

namespace tessera {

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

// Views of plain values as bytes: bytes_of(std::span<const float>).
template <class T>
Bytes bytes_of(std::span<const T> values) {
  return std::as_bytes(values);
}
template <class T>
MutableBytes mutable_bytes_of(std::span<T> values) {
  return std::as_writable_bytes(values);
}

// An operation under way. Must be waited for exactly once before its buffers go.
class PendingOperation {
 public:
  virtual ~PendingOperation() = default;
  virtual Status wait() = 0;
  virtual bool done() const = 0;
};
using Pending = std::unique_ptr<PendingOperation>;

// Counters since the group was made. `exposed_s` is time that a caller spent inside wait() or a blocking call;
// `busy_s` is time that operations took on any thread; hidden time is their difference.
struct TrafficCounters {
  uint64_t bytes_sent = 0, operations = 0;
  double exposed_s = 0, busy_s = 0;
};

class Group {
 public:
  virtual ~Group() = default;
  virtual int64_t rank() const = 0;  // within the group
  virtual int64_t size() const = 0;

  // Seconds that any one operation may take from now on; default 300.
  virtual void set_timeout(double seconds) = 0;

  // Point to point. send() returns when the bytes are handed to the transport or copied, so that two ranks may
  // send to each other before they receive, whatever the size. Messages of a pair arrive in order; sizes must
  // agree, or the call fails.
  virtual Status send(int64_t to, Bytes data) = 0;
  virtual Status recv(int64_t from, MutableBytes data) = 0;

  virtual Status barrier() = 0;
  virtual Status broadcast(int64_t root, MutableBytes data) = 0;
  // all[r] is mine of rank r; all.size() == size() * mine.size(). `mine` may lie in its own place within `all`.
  virtual Status all_gather(Bytes mine, MutableBytes all) = 0;
  // in[r] gets out[own rank] of rank r. Sizes may differ per pair (ranks know them); a zero size sends nothing.
  virtual Status all_to_all(std::span<const Bytes> out, std::span<const MutableBytes> in) = 0;
  // Sum of int64 values over ranks, in place: exact, so the order does not matter.
  virtual Status all_reduce_sum(std::span<int64_t> values) = 0;
  virtual Status all_reduce_max(std::span<float> values) = 0;

  // The same operations, run by the group's thread.
  virtual Pending start_all_gather(Bytes mine, MutableBytes all) = 0;
  virtual Pending start_all_to_all(std::vector<Bytes> out, std::vector<MutableBytes> in) = 0;

  // Makes every pending and later operation of this group on this rank fail with `error`, at once. Any thread.
  virtual void abort(Error error) = 0;
  virtual TrafficCounters counters() const = 0;
  // What runs now and since when, for a watchdog: "all_gather #812, waiting for rank 3, 2.1 s"; "" when idle.
  // Any thread.
  virtual std::string current_operation() const = 0;
};

// A group of one rank: every collective is a copy.
std::unique_ptr<Group> make_single_group();

// `size` groups of one process for ranks that are threads: element r belongs to rank r.
std::vector<std::unique_ptr<Group>> make_thread_groups(int64_t size);

// The launcher's key-value store, which outlives every worker; over TCP: comm/tcp_store.h. Values can be waited
// for; set() replaces what is there. Counters of add() are kept as decimal text. Threads: any.
class Store {
 public:
  virtual ~Store() = default;
  virtual Status set(const std::string& key, const std::string& value) = 0;
  virtual Result<std::string> get(const std::string& key,
                                  Deadline deadline) = 0;                   // waits until the key is there
  virtual Result<int64_t> add(const std::string& key, int64_t amount) = 0;  // returns the new value; absent = 0
  virtual Result<std::optional<std::string>> try_get(const std::string& key) = 0;  // at once
  // Removes every key that starts with `prefix`; returns how many. The launcher clears an old generation so.
  virtual Result<int64_t> erase_prefix(const std::string& prefix) = 0;
};
std::shared_ptr<Store> make_memory_store();  // for ranks that are threads

// A group of processes. `members` are ranks of the job in group order; `name` is unique to this group and
// generation. Peers of one host (equal boot id and network namespace) talk through shared memory, a memfd
// passed over a Unix socket; others, or all with transport = tcp, over TCP. Each peer must present the job's
// token.
struct GroupOptions {
  enum Transport { automatic, shared_memory, tcp } transport = automatic;
  std::string name;
  std::vector<int64_t> members;
  int64_t my_rank = 0;  // of the job; must be in members
  std::string token;    // of the job
  std::string bind_address = "127.0.0.1";
  double timeout_s = 300;
  int64_t ring_bytes = 1 << 20;  // of one direction of one pair
};
Result<std::unique_ptr<Group>> make_process_group(Store& store, GroupOptions options);

}  // namespace tessera
