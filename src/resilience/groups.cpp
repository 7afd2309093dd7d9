#include "resilience/groups.h"

#include <algorithm>

namespace tessera::resilience {
namespace {

constexpr double kSlice = 0.05;      // seconds between two looks at the abort while a group is made
constexpr double kMakeTimeout = 60;  // seconds

}  // namespace

// Every call goes on to the real group; being in the list is all it adds.
class Groups::Tracked : public Group {
 public:
  Tracked(Groups& owner, std::unique_ptr<Group> group) : owner_(owner), group_(std::move(group)) {
    std::lock_guard lock(owner_.mutex_);
    owner_.alive_.insert(group_.get());
    if (owner_.aborted_) group_->abort(*owner_.aborted_);
  }
  ~Tracked() override {
    std::lock_guard lock(owner_.mutex_);
    owner_.alive_.erase(group_.get());
  }

  int64_t rank() const override { return group_->rank(); }
  int64_t size() const override { return group_->size(); }
  void set_timeout(double seconds) override { group_->set_timeout(seconds); }
  Status send(int64_t to, Bytes data) override { return group_->send(to, data); }
  Status recv(int64_t from, MutableBytes data) override { return group_->recv(from, data); }
  Status barrier() override { return group_->barrier(); }
  Status broadcast(int64_t root, MutableBytes data) override { return group_->broadcast(root, data); }
  Status all_gather(Bytes mine, MutableBytes all) override { return group_->all_gather(mine, all); }
  Status all_to_all(std::span<const Bytes> out, std::span<const MutableBytes> in) override {
    return group_->all_to_all(out, in);
  }
  Status all_reduce_sum(std::span<int64_t> values) override { return group_->all_reduce_sum(values); }
  Status all_reduce_max(std::span<float> values) override { return group_->all_reduce_max(values); }
  Pending start_all_gather(Bytes mine, MutableBytes all) override {
    return group_->start_all_gather(mine, all);
  }
  Pending start_all_to_all(std::vector<Bytes> out, std::vector<MutableBytes> in) override {
    return group_->start_all_to_all(std::move(out), std::move(in));
  }
  void abort(Error error) override { group_->abort(std::move(error)); }
  TrafficCounters counters() const override { return group_->counters(); }
  std::string current_operation() const override { return group_->current_operation(); }

 private:
  Groups& owner_;
  std::unique_ptr<Group> group_;
};

// A store whose waits end when the generation does.
class Groups::Impatient : public Store {
 public:
  explicit Impatient(Groups& owner) : owner_(owner) {}
  Status set(const std::string& key, const std::string& value) override {
    return owner_.store_->set(key, value);
  }
  Result<int64_t> add(const std::string& key, int64_t amount) override {
    return owner_.store_->add(key, amount);
  }
  Result<std::optional<std::string>> try_get(const std::string& key) override {
    return owner_.store_->try_get(key);
  }
  Result<int64_t> erase_prefix(const std::string& prefix) override {
    return owner_.store_->erase_prefix(prefix);
  }
  Result<std::string> get(const std::string& key, Deadline deadline) override {
    for (;;) {
      if (auto error = owner_.aborted()) return *error;
      Deadline slice = Deadline::after(std::min(kSlice, std::max(0.0, deadline.seconds_left())));
      auto value = owner_.store_->get(key, slice);
      bool again = !value && value.error().code == ErrorCode::deadline_exceeded && !deadline.passed();
      if (!again) return value;
    }
  }

 private:
  Groups& owner_;
};

Groups::Groups(std::shared_ptr<Store> store, GroupsOptions options)
    : store_(std::move(store)), options_(std::move(options)) {}

Result<std::unique_ptr<Group>> Groups::make(const std::string& name, const std::vector<int64_t>& members,
                                            int64_t me) {
  if (auto error = aborted()) return *error;
  if (members.size() == 1) return make_single_group();
  Impatient store(*this);
  GroupOptions options;
  options.name = options_.prefix + name;
  options.members = members;
  options.my_rank = me;
  options.token = options_.token;
  options.bind_address = options_.bind_address;
  options.timeout_s = kMakeTimeout;
  TESSERA_ASSIGN_OR_RETURN(auto group, make_process_group(store, options));
  group->set_timeout(GroupOptions().timeout_s);
  return std::unique_ptr<Group>(std::make_unique<Tracked>(*this, std::move(group)));
}

void Groups::abort(const Error& error) {
  std::lock_guard lock(mutex_);
  if (!aborted_) aborted_ = error;
  for (Group* group : alive_) group->abort(*aborted_);
}

std::optional<Error> Groups::aborted() const {
  std::lock_guard lock(mutex_);
  return aborted_;
}

}  // namespace tessera::resilience
