// A role that is dead or stopped is replaced; one that is only slow (a throttled core, a bad link) holds
// everybody up and nobody sees why. Whoever calls several roles at once tells for how long it waited for the
// answer of each; the one that it waits for much longer than for the others is named, once, until that is over
// for good: a throttled role has quick moments too.
//
// Answers must be taken in an order that changes from call to call, or the first one is always the one that is
// waited for. Threads: any.
#pragma once

#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace tessera::recsys_roles {

class LateWatch {
 public:
  struct Options {
    int64_t calls = 60;      // of each role, before it is judged
    double factor = 4;       // times the mean of the others
    double least_s = 0.003;  // beyond that
    int64_t calm = 5;        // judgements in a row below half of that, until it counts as over
  };
  using Say = std::function<void(const std::string& line)>;
  LateWatch(std::vector<std::string> roles, Say say, Options options);
  LateWatch(std::vector<std::string> roles, Say say) : LateWatch(std::move(roles), std::move(say), {}) {}

  void waited(size_t role, double seconds);

 private:
  struct Wait {
    int64_t calls = 0;
    double seconds = 0;
    double mean() const { return seconds / static_cast<double>(calls); }
  };
  size_t slowest() const;
  double mean_of_others(size_t role) const;
  std::optional<std::string> judge();
  std::optional<std::string> judge_late(size_t late);

  std::vector<std::string> roles_;
  Say say_;
  Options options_;
  std::mutex mutex_;
  std::vector<Wait> waits_;
  std::optional<size_t> late_;
  int64_t calm_ = 0;  // judgements that late_ has passed
};

}  // namespace tessera::recsys_roles
