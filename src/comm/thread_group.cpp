#include "comm/channel_group.h"
#include "comm/host.h"
#include "comm/ring_channel.h"

namespace tessera {
namespace {

using namespace comm;

constexpr int64_t kRingBytes = 1 << 20;

using Segments = std::vector<std::shared_ptr<Segment>>;

Links links_of(int64_t rank, const Segments& segments) {
  Links links;
  links.rank = rank;
  const std::shared_ptr<Segment>& mine = segments[static_cast<size_t>(rank)];
  for (int64_t peer = 0; peer < static_cast<int64_t>(segments.size()); ++peer) {
    links.labels.push_back(fmt::format("rank {}", peer));
    auto& channel = links.channels.emplace_back();
    if (peer == rank) continue;
    channel = std::make_unique<RingChannel>(links.labels.back(), mine, rank,
                                            segments[static_cast<size_t>(peer)], peer, -1);
  }
  links.bell = std::shared_ptr<BellWords>(mine, &mine->bell());
  return links;
}

}  // namespace

std::vector<std::unique_ptr<Group>> make_thread_groups(int64_t size) {
  TESSERA_REQUIRE(size >= 1, "a group has at least one rank, not {}", size);
  Segments segments;
  for (int64_t rank = 0; rank < size; ++rank) {
    auto segment = Segment::make_private(size, kRingBytes);
    TESSERA_REQUIRE(segment.ok(), "{}", segment.error().message);
    segments.push_back(*segment);
  }
  std::vector<std::unique_ptr<Group>> groups;
  for (int64_t rank = 0; rank < size; ++rank) {
    groups.push_back(make_channel_group({"of threads", host_name()}, links_of(rank, segments)));
  }
  return groups;
}

std::unique_ptr<Group> make_single_group() {
  return std::move(make_thread_groups(1).front());
}

}  // namespace tessera
