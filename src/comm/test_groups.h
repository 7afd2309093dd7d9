// Groups of every transport for tests, with threads as ranks.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "comm/process_group.h"

namespace tessera::comm {

enum class Transport { threads, shared_memory, tcp, mixed };

inline std::string name_of(Transport transport) {
  constexpr const char* kNames[] = {"Threads", "SharedMemory", "Tcp", "Mixed"};
  return kNames[static_cast<int>(transport)];
}

inline GroupOptions test_options(const std::string& name, int64_t rank, int64_t size) {
  GroupOptions options{
      .name = name, .my_rank = rank, .token = "secret", .timeout_s = 20, .ring_bytes = 1 << 16};
  for (int64_t r = 0; r < size; ++r) options.members.push_back(r);
  return options;
}

// With `mixed`, even and odd ranks take each other to be on different hosts.
inline std::vector<std::unique_ptr<Group>> make_groups(Transport transport, int64_t size) {
  if (transport == Transport::threads) return make_thread_groups(size);
  std::shared_ptr<Store> store = make_memory_store();
  std::vector<std::unique_ptr<Group>> groups(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      GroupOptions options = test_options("test", rank, size);
      if (transport == Transport::shared_memory) options.transport = GroupOptions::shared_memory;
      if (transport == Transport::tcp) options.transport = GroupOptions::tcp;
      auto group = join_group(*store, options, rank % 2 == 1 && transport == Transport::mixed ? "odd" : "even");
      ASSERT_TRUE(group.ok()) << group.error().message;
      groups[static_cast<size_t>(rank)] = std::move(*group);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return groups;
}

// Runs one thread per rank.
inline void on_ranks(Transport transport, int64_t size, const std::function<void(Group&)>& body) {
  std::vector<std::unique_ptr<Group>> groups = make_groups(transport, size);
  std::vector<std::thread> threads;
  for (std::unique_ptr<Group>& group : groups) {
    group->set_timeout(20);
    threads.emplace_back([&body, mine = std::move(group)] { body(*mine); });
  }
  for (std::thread& thread : threads) thread.join();
}

// What rank `from` sends to rank `to`: different for every pair and place. Copied from a table, because loops
// over bytes are slow under sanitizers.
inline std::vector<std::byte> pattern(int64_t from, int64_t to, size_t bytes) {
  static const std::vector<std::byte> table = [] {
    std::vector<std::byte> made(1 << 16);
    for (size_t i = 0; i < made.size(); ++i) made[i] = static_cast<std::byte>((i * 2654435761u) >> 13);
    return made;
  }();
  std::vector<std::byte> data(bytes);
  size_t place = static_cast<size_t>(from * 3001 + to * 1709) % 30011;
  for (size_t done = 0; done < bytes; place = (place + 17) % 30011) {
    size_t piece = std::min<size_t>(bytes - done, 30011);
    std::memcpy(data.data() + done, table.data() + place, piece);
    done += piece;
  }
  return data;
}

inline bool same(Bytes a, Bytes b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

}  // namespace tessera::comm
