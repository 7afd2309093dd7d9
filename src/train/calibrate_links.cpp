#include <fmt/format.h>

#include <thread>

#include "comm/group.h"
#include "train/calibrate_parts.h"
#include "train/timing.h"

namespace tessera::train {
namespace {

using Groups = std::vector<std::unique_ptr<Group>>;

Result<Groups> host_groups(int64_t ranks) {
  std::shared_ptr<Store> store = make_memory_store();
  Groups groups(static_cast<size_t>(ranks));
  std::vector<Status> statuses(static_cast<size_t>(ranks));
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] {
      GroupOptions options{.name = fmt::format("calibrate-{}", ranks), .my_rank = rank, .token = "calibrate"};
      options.timeout_s = 30;
      for (int64_t member = 0; member < ranks; ++member) options.members.push_back(member);
      auto group = make_process_group(*store, options);
      if (group)
        groups[static_cast<size_t>(rank)] = std::move(*group);
      else
        statuses[static_cast<size_t>(rank)] = group.error();
    });
  for (std::thread& thread : threads) thread.join();
  for (const Status& status : statuses) TESSERA_RETURN_IF_ERROR(status);
  return groups;
}

// One collective on one rank; `bytes` as in plan::LinkPoint.
class Exchange {
 public:
  Exchange(Group& group, plan::Collective collective, size_t bytes)
      : group_(group), collective_(collective), out_(bytes), in_(bytes) {
    size_t part = bytes / static_cast<size_t>(group.size());
    for (size_t i = 0; i < static_cast<size_t>(group.size()); ++i) {
      outs_.push_back(Bytes(out_).subspan(i * part, part));
      ins_.push_back(MutableBytes(in_).subspan(i * part, part));
    }
  }
  Status run() {
    if (collective_ == plan::Collective::all_gather) return group_.all_gather(outs_[0], whole());
    if (collective_ == plan::Collective::all_to_all) return group_.all_to_all(outs_, ins_);
    // There and back between ranks 0 and 1: two messages.
    int64_t peer = 1 - group_.rank();
    if (group_.rank() > 1) return {};
    if (group_.rank() == 0) TESSERA_RETURN_IF_ERROR(group_.send(peer, out_));
    TESSERA_RETURN_IF_ERROR(group_.recv(peer, in_));
    return group_.rank() == 1 ? group_.send(peer, out_) : Status();
  }

 private:
  MutableBytes whole() { return MutableBytes(in_).first(outs_[0].size() * outs_.size()); }
  Group& group_;
  plan::Collective collective_;
  std::vector<std::byte> out_, in_;
  std::vector<Bytes> outs_;
  std::vector<MutableBytes> ins_;
};

// Seconds of one collective with all ranks running: `calls` of them, back to back.
Result<double> time_collective(Groups& groups, plan::Collective collective, size_t bytes, int64_t calls) {
  std::vector<Status> statuses(groups.size());
  std::vector<double> seconds(groups.size(), 0);
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < groups.size(); ++rank)
    threads.emplace_back([&, rank] {
      Exchange exchange(*groups[rank], collective, bytes);
      Status status = exchange.run();
      if (status) status = groups[rank]->barrier();
      Clock::time_point start = Clock::now();
      for (int64_t i = 0; i < calls && status; ++i) status = exchange.run();
      seconds[rank] = seconds_since(start) / static_cast<double>(calls);
      statuses[rank] = status;
    });
  for (std::thread& thread : threads) thread.join();
  for (const Status& status : statuses) TESSERA_RETURN_IF_ERROR(status);
  double slowest = *std::max_element(seconds.begin(), seconds.end());
  return collective == plan::Collective::send ? seconds[0] / 2 : slowest;
}

}  // namespace

Status measure_links(plan::Cluster& cluster, int64_t ranks, double budget_s) {
  TESSERA_ASSIGN_OR_RETURN(Groups groups, host_groups(ranks));
  const std::vector<size_t> sizes = {512, 8192, 65536, 1 << 20, 8 << 20};
  std::vector<plan::Collective> collectives = {plan::Collective::all_gather, plan::Collective::all_to_all};
  if (ranks == 2) collectives.push_back(plan::Collective::send);
  double each = budget_s / static_cast<double>(sizes.size() * collectives.size());
  for (plan::Collective collective : collectives)
    for (size_t bytes : sizes) {
      TESSERA_ASSIGN_OR_RETURN(double once, time_collective(groups, collective, bytes, 3));
      auto calls = static_cast<int64_t>(std::clamp(each / std::max(once, 1e-7), 3.0, 300.0));
      TESSERA_ASSIGN_OR_RETURN(double seconds, time_collective(groups, collective, bytes, calls));
      bool alternate = collective == plan::Collective::send;  // one of the two ranks runs at a time
      double speed = alternate ? 1 : cluster.speed_of(static_cast<double>(ranks));
      cluster.links.push_back({collective, ranks, static_cast<double>(bytes), seconds * speed});
    }
  return {};
}

}  // namespace tessera::train
