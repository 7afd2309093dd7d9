#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <random>
#include <thread>

#include "core/file.h"
#include "recsys/disk_file.h"
#include "recsys/disk_index.h"
#include "recsys/hash.h"
#include "recsys/shared_file.h"
#include "recsys/testing_oracle.h"

namespace tessera::recsys {
namespace {

namespace fs = std::filesystem;
using Kind = Store::SnapshotKind;
using State = std::map<uint64_t, std::vector<std::byte>>;

// Memory for a few of its rows only.
GroupOptions small(int64_t budget = 4000) {
  GroupOptions group{.name = "user", .dim = 5};
  group.eviction = {.kind = EvictionOptions::Kind::lru, .budget_bytes = budget};
  return group;
}

std::unique_ptr<Store> make(const StoreOptions& options) {
  auto store = Store::create(options);
  EXPECT_TRUE(store.ok()) << (store.ok() ? "" : store.error().message);
  return store.ok() ? *std::move(store) : nullptr;
}
State state_of(const Store& store) {
  State state;
  Status status = store.for_each(0, [&](uint64_t id, std::span<const std::byte> record) {
    EXPECT_TRUE(state.try_emplace(id, record.begin(), record.end()).second) << "two rows of one id";
  });
  EXPECT_TRUE(status.ok()) << status.error().message;
  return state;
}

// When rows were visited last depends on how often a step was tried.
State without_visits(State state) {
  for (auto& [id, record] : state)
    std::fill_n(record.begin() + sizeof(uint64_t), sizeof(uint32_t), std::byte{0});
  return state;
}

std::vector<uint64_t> ids_of(std::mt19937_64& random, uint64_t universe) {
  std::vector<uint64_t> ids(300);
  for (uint64_t& id : ids) id = random() % universe;
  return ids;
}

// Put number `step`: a function of its number.
Status train(Store& store, uint64_t step, uint64_t universe = 3000) {
  std::mt19937_64 random(step);
  std::vector<uint64_t> ids = ids_of(random, universe);
  size_t dim = static_cast<size_t>(store.group(0).dim);
  std::vector<float> rows(ids.size() * dim), gradients(rows.size());
  for (float& g : gradients) g = static_cast<float>(random() % 2000) * 1e-3f - 1;
  TESSERA_RETURN_IF_ERROR(store.get(0, ids, rows));
  auto count = store.put(0, ids, gradients, {.step = step, .sender = 7, .sequence = step});
  return count.ok() ? Status() : count.error();
}

class DiskTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("tessera-disk-" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  // Rows in private memory and in a file without a name, or both outliving the store.
  StoreOptions options(GroupOptions group = small()) const {
    return {.groups = {std::move(group)}, .num_shards = 4, .disk = {.folder = folder_.string()}};
  }
  StoreOptions lasting(GroupOptions group = small()) {
    if (!keeper_) keeper_ = *MemoryKeeper::create(2);
    StoreOptions all = options(std::move(group));
    all.memory_files = keeper_->paths();
    return all;
  }
  fs::path folder_;
  std::unique_ptr<MemoryKeeper> keeper_;
};

TEST_F(DiskTest, IndexEqualsAMapThroughGrowthAndRemoval) {
  DiskIndex index;
  std::map<uint32_t, uint64_t> slots;  // to their hash
  std::mt19937_64 random(5);
  for (uint32_t step = 0; step < 40'000; ++step) {
    bool remove = !slots.empty() && random() % 5 < 2;
    if (remove) {
      auto gone = slots.lower_bound(static_cast<uint32_t>(random() % step));
      if (gone == slots.end()) gone = slots.begin();
      index.remove(gone->second, gone->first);
      slots.erase(gone);
    } else {
      uint64_t hash = mix64(random() % 500) << (random() % 2 * 20);  // many share their 40 bits
      index.insert(hash, step);
      slots[step] = hash;
    }
  }
  ASSERT_EQ(index.entries(), slots.size());
  for (auto [slot, hash] : slots) {
    int found = 0;
    index.for_each_match(hash, [&, wanted = slot](uint32_t match) {
      found += match == wanted ? 1 : 0;
      return false;
    });
    ASSERT_EQ(found, 1);
  }
}

TEST_F(DiskTest, BothReadersReadWhatWasWritten) {
  std::string path = (folder_ / "pages").string();
  auto file = *DiskFile::open({.folder = folder_.string()}, path);
  std::vector<uint64_t> words(1 << 16);
  std::iota(words.begin(), words.end(), 0);
  ASSERT_TRUE(file->write(0, std::as_bytes(std::span(words))));
  int descriptor = ::open(path.c_str(), O_RDONLY);
  auto uring = make_uring_reader(descriptor, path);
  auto threads = make_thread_reader(descriptor, path);
  if (uring == nullptr) std::puts("io_uring is refused here; only threads are tested");
  std::mt19937_64 random(3);
  for (BatchReader* reader : {uring.get(), threads.get()}) {
    if (reader == nullptr) continue;
    for (size_t count : {1, 5, 300, 2000}) {
      std::vector<uint64_t> places(count), got(count * 8);
      std::vector<DiskRead> reads;
      for (size_t i = 0; i < count; ++i) {
        places[i] = random() % (words.size() - 8);
        reads.push_back({static_cast<int64_t>(places[i] * 8), reinterpret_cast<std::byte*>(&got[i * 8])});
      }
      ASSERT_TRUE(reader->read(reads, 64));
      for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], places[i / 8] + i % 8);
      // One that reaches behind the end names the file and the place.
      reads[count / 2].offset = static_cast<int64_t>(words.size() * 8 - 8);
      Status cut = reader->read(reads, 64);
      ASSERT_FALSE(cut.ok());
      EXPECT_NE(cut.error().message.find(path + " ends at byte 524288"), std::string::npos)
          << cut.error().message;
    }
  }
  ::close(descriptor);
}

TEST_F(DiskTest, StoreEqualsAMapThatLosesNothing) {
  for (bool io_uring : {true, false}) {
    StoreOptions with_disk = options();
    with_disk.disk.io_uring = io_uring;
    bool fresh = true;  // the first store that is asked for is the oracle's own
    Store* tested = nullptr;
    int64_t spilled = 0, returned = 0;
    auto create = [&] {
      auto store =
          make(std::exchange(fresh, false) ? StoreOptions{.groups = {GroupOptions{.dim = 5}}} : with_disk);
      tested = store.get();
      return store;
    };
    testing::Oracle oracle(6, create);
    oracle.lossless = true;
    testing::OracleReport report = oracle.run(io_uring ? 10'000 : 2'000);
    spilled = tested->stats(0).spilled;
    returned = tested->stats(0).returned;
    EXPECT_EQ(report.mismatches, 0);
    EXPECT_EQ(report.evicted, 0);
    EXPECT_GT(spilled, 500);
    EXPECT_GT(returned, 500);
  }
}

TEST_F(DiskTest, StoreEqualsAMapAcrossRestartsAndForgottenRowsAreSeen) {
  for (bool forget : {false, true}) {
    GroupOptions group = small();
    group.admission = {.kind = AdmissionOptions::Kind::probability, .probability = 0.3};
    keeper_.reset();
    StoreOptions on_files = lasting(group);
    fs::remove_all(folder_);
    bool fresh = true;
    auto create = [&] {
      return make(std::exchange(fresh, false) ? StoreOptions{.groups = {group}, .num_shards = 4} : on_files);
    };
    auto restart = [&](std::unique_ptr<Store>& store) {
      store.reset();
      if (forget) fs::remove_all(folder_);  // planted: the rows on disk are gone
      store = make(on_files);
    };
    testing::Oracle oracle(4, create, restart);
    oracle.lossless = true;
    testing::OracleReport report = oracle.run(forget ? 4'000 : 10'000);
    if (forget) {
      EXPECT_GT(report.mismatches, 0);
    } else {
      EXPECT_EQ(report.mismatches, 0);
      EXPECT_EQ(report.evicted, 0);
      EXPECT_GT(report.refused, 1000);
    }
    EXPECT_GT(report.restarts, 1);
  }
}

TEST_F(DiskTest, RowsOnDiskHaveTheBitsOfAStoreThatKeepsAllInMemory) {
  GroupOptions group = small(60'000);
  group.row_type = RowType::bf16;
  group.optimizer.kind = OptimizerOptions::Kind::adam;
  for (bool direct : {false, true}) {
    StoreOptions with_disk = options(group);
    with_disk.disk.direct = direct;
    auto created = Store::create(with_disk);
    if (!created.ok() && direct) continue;  // a file system without direct access
    auto store = *std::move(created);
    GroupOptions roomy = group;
    roomy.eviction.budget_bytes = 0;
    auto memory = make({.groups = {roomy}, .num_shards = 2});
    for (uint64_t step = 1; step <= 60; ++step)
      for (Store* each : {store.get(), memory.get()}) ASSERT_TRUE(train(*each, step));
    EXPECT_EQ(state_of(*store), state_of(*memory));
    GroupStats stats = store->stats(0);
    EXPECT_EQ(stats.rows + stats.disk_rows, memory->stats(0).rows);
    EXPECT_GT(stats.disk_rows, stats.rows);
    EXPECT_EQ(stats.evicted, 0);
  }
}

TEST_F(DiskTest, SeveralThreadsLoseNoUpdate) {
  GroupOptions group = small(40'000);
  group.optimizer = {.kind = OptimizerOptions::Kind::sgd, .learning_rate = 1};
  group.init.kind = InitOptions::Kind::zeros;
  auto store = make(options(group));
  constexpr int kThreads = 3, kRounds = 20;
  constexpr uint64_t kIds = 4000;
  auto work = [&](uint64_t seed) {
    std::mt19937_64 random(seed);
    for (int round = 0; round < kRounds; ++round) {
      // Every id once in a round, in an order of its own; -1 is a step of +1.
      std::vector<uint64_t> ids(kIds);
      std::iota(ids.begin(), ids.end(), 0);
      std::shuffle(ids.begin(), ids.end(), random);
      std::vector<float> rows(kIds * 5), gradients(kIds * 5, -1.0f);
      ASSERT_TRUE(store->get(0, ids, rows));
      ASSERT_TRUE(store->get(0, ids, rows, Access::read));
      ASSERT_EQ(store->put(0, ids, gradients, {.step = static_cast<uint64_t>(round)})->absent, 0);
    }
  };
  std::vector<std::thread> crew;
  for (uint64_t t = 0; t < kThreads; ++t) crew.emplace_back(work, t);
  for (std::thread& thread : crew) thread.join();
  std::vector<uint64_t> ids(kIds);
  std::iota(ids.begin(), ids.end(), 0);
  std::vector<float> rows(kIds * 5);
  ASSERT_TRUE(store->get(0, ids, rows, Access::read));
  for (float value : rows) ASSERT_EQ(value, kThreads * kRounds);
}

TEST_F(DiskTest, RowsThatGoToDiskAndBackStayOwedToEachChain) {
  auto store = make(options(small(40'000)));
  std::vector<std::string> files[kSnapshotChains];
  uint64_t step = 0;
  for (int round = 0; round < 12; ++round) {
    for (int i = 0; i < 12; ++i) ASSERT_TRUE(train(*store, ++step, 8000));
    for (size_t chain = 0; chain < kSnapshotChains; ++chain) {
      if (chain == 0 && round % 3 != 1) continue;  // the other takes the marks twice in between
      std::vector<std::string>& mine = files[chain];
      mine.push_back((folder_ / fmt::format("{}-{}", chain, mine.size())).string());
      auto saved = store->save(mine.back(), mine.size() == 1 ? Kind::full : Kind::delta, {},
                               static_cast<SnapshotChain>(chain));
      ASSERT_TRUE(saved.ok()) << saved.error().message;
    }
  }
  for (size_t chain = 0; chain < kSnapshotChains; ++chain) {
    files[chain].push_back((folder_ / fmt::format("{}-last", chain)).string());
    ASSERT_TRUE(store->save(files[chain].back(), Kind::delta, {}, static_cast<SnapshotChain>(chain)).ok());
    auto copy = make(options(small(40'000)));
    ASSERT_TRUE(copy->load(files[chain]));
    EXPECT_EQ(state_of(*copy), state_of(*store)) << chain;
  }
  EXPECT_GT(store->stats(0).returned, 1000);
}

TEST_F(DiskTest, SnapshotsHoldRowsOnDiskAndCompactionKeepsTheFileSmall) {
  auto store = make(options(small(40'000)));
  uint64_t step = 0;
  auto go_on = [&](uint64_t steps) {
    for (uint64_t last = step + steps; step < last;) {
      ++step;
      ASSERT_TRUE(train(*store, step, 8000));
    }
  };
  go_on(100);
  std::vector<std::string> files;
  std::thread trainer([&] { go_on(100); });  // while the snapshots are taken
  for (int i = 0; i < 4; ++i) {
    files.push_back((folder_ / std::to_string(i)).string());
    auto info = store->save(files.back(), i == 0 ? Kind::full : Kind::delta);
    ASSERT_TRUE(info.ok()) << info.error().message;
    EXPECT_TRUE(i == 0 || info->rows < 8000) << info->rows;
  }
  trainer.join();
  go_on(3);
  files.push_back((folder_ / "last").string());
  auto last = store->save(files.back(), Kind::delta);
  ASSERT_TRUE(last.ok());
  auto idle = store->save((folder_ / "idle").string(), Kind::delta);
  EXPECT_EQ(idle->rows, 0);
  StoreOptions other = options(small(40'000));
  other.num_shards = 2;
  auto copy = make(other);
  ASSERT_TRUE(copy->load(files));
  EXPECT_EQ(state_of(*copy), state_of(*store));
  // Half of the slots, and for each shard its open segment and one more.
  GroupStats stats = store->stats(0);
  int64_t slot = 8 + 4 + 20 + 20 + 8;
  EXPECT_GT(stats.spilled, 10 * stats.disk_rows);
  EXPECT_LT(stats.disk_bytes, 2 * stats.disk_rows * slot * 4096 / (4096 / slot * slot) + 4 * 2 * 64 * 4096);
}

TEST_F(DiskTest, KilledServersKeepTheirRowsOnDisk) {
  StoreOptions on_files = lasting(small(60'000));
  constexpr uint64_t kPuts = 400;
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  std::mt19937_64 random(11);
  uint64_t acknowledged = 0;
  int kills = 0;
  for (int status = -1; status != 0;) {
    pid_t server = ::fork();
    if (server == 0) {
      auto store = Store::create(on_files);
      if (!store) ::_exit(2);
      for (uint64_t step = acknowledged + 1; step <= kPuts; ++step) {
        if (!train(**store, step).ok()) ::_exit(3);
        if (::write(ends[1], &step, sizeof step) != sizeof step) ::_exit(4);
      }
      ::_exit(0);
    }
    bool kill = kills < 20;
    if (kill) {
      ASSERT_EQ(::read(ends[0], &acknowledged, sizeof acknowledged), static_cast<ssize_t>(sizeof acknowledged));
      ::usleep(static_cast<useconds_t>(random() % 2000));
      ::kill(server, SIGKILL);
      ++kills;
    }
    ASSERT_EQ(::waitpid(server, &status, 0), server);
    ASSERT_TRUE(status == 0 || (kill && WIFSIGNALED(status))) << status;
    for (pollfd ready{ends[0], POLLIN, 0}; ::poll(&ready, 1, 0) == 1;)
      ASSERT_EQ(::read(ends[0], &acknowledged, sizeof acknowledged), static_cast<ssize_t>(sizeof acknowledged));
  }
  EXPECT_EQ(acknowledged, kPuts);
  EXPECT_GT(kills, 5);
  auto survivor = make(on_files);
  GroupOptions roomy = small(0);
  auto undisturbed = make({.groups = {roomy}, .num_shards = 4});
  for (uint64_t step = 1; step <= kPuts; ++step) ASSERT_TRUE(train(*undisturbed, step));
  EXPECT_EQ(state_of(*survivor), state_of(*undisturbed));
  EXPECT_GT(survivor->stats(0).disk_rows, 500);
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_F(DiskTest, ABytesChangeIsFoundAndNamedAndATornTailIsNoRow) {
  StoreOptions on_files = lasting(small(20'000));
  State before;
  {
    auto store = make(on_files);
    for (uint64_t step = 1; step <= 30; ++step) ASSERT_TRUE(train(*store, step));
    before = state_of(*store);
    ASSERT_GT(store->stats(0).disk_rows, 100);
  }
  // What a write that was cut short leaves: bytes behind the last whole row, never live.
  std::string path = (folder_ / "user.disk").string();
  {
    std::ofstream tail(path, std::ios::binary | std::ios::app);
    tail << std::string(1000, 'x');
  }
  EXPECT_EQ(state_of(*make(on_files)), before);
  {
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    std::vector<char> all(static_cast<size_t>(fs::file_size(path)));
    file.read(all.data(), static_cast<std::streamsize>(all.size()));
    for (size_t at = 20; at < all.size(); at += 4096) all[at] ^= 1;  // in a value of the first row of each page
    file.seekp(0);
    file.write(all.data(), static_cast<std::streamsize>(all.size()));
  }
  auto damaged = Store::create(on_files);
  ASSERT_FALSE(damaged.ok());
  EXPECT_EQ(damaged.error().code, ErrorCode::data_loss);
  EXPECT_NE(damaged.error().message.find(path + " has a damaged row at byte"), std::string::npos)
      << damaged.error().message;
}

// A child whose files may not grow, so that its disk is full.
int with_full_disk(const std::function<int()>& work) {
  pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    rlimit limit{1 << 20, 1 << 20};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    ::_exit(work());
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

TEST_F(DiskTest, AFullDiskIsAClearErrorAndLosesNothing) {
  auto fill = [&](StoreOptions with_disk, const char* reason) {
    auto store = make(with_disk);
    auto memory = make({.groups = {small(0)}, .num_shards = 4});
    Status status;
    std::vector<float> row(5);
    uint64_t id = 0;
    for (; status.ok() && id < 200'000; ++id) {
      status = store->get(0, std::span(&id, 1), row);
      if (status.ok() && !memory->get(0, std::span(&id, 1), row).ok()) return 1;
    }
    if (status.ok()) return 2;
    if (status.error().message.find(reason) == std::string::npos)
      return std::fputs(status.error().message.c_str(), stderr), 3;
    // Every row is there, reads as it did, and may be read again and again.
    for (int round = 0; round < 2; ++round) {
      std::vector<uint64_t> ids(id - 1);
      std::iota(ids.begin(), ids.end(), 0);
      std::vector<float> got(ids.size() * 5), expected(got.size());
      if (!store->get(0, ids, got, Access::read).ok() || !memory->get(0, ids, expected).ok()) return 4;
      if (got != expected) return 5;
    }
    // Room appears when rows go.
    std::vector<uint64_t> old(id / 2);
    std::iota(old.begin(), old.end(), 0);
    if (store->erase(0, old) != static_cast<int64_t>(old.size())) return 6;
    return store->get(0, std::span(&id, 1), row).ok() ? 0 : 7;
  };
  StoreOptions limited = options();
  limited.disk.budget_bytes = 8 << 18;
  EXPECT_EQ(with_full_disk([&] { return fill(options(), "File too large"); }), 0);
  EXPECT_EQ(fill(limited, "disk budget of 2097152 bytes is used up"), 0);
}

TEST_F(DiskTest, AStepThatFoundTheDiskFullIsDoneOnceWhenItIsRepeated) {
  StoreOptions on_files = lasting();
  on_files.disk.budget_bytes = 12 << 18;
  auto store = make(on_files);
  auto memory = make({.groups = {small(0)}, .num_shards = 4});
  Status status;
  uint64_t step = 0;
  // More and more rows, until no more have room.
  while (status.ok() && step < 2000) {
    ++step;
    status = train(*store, step, 100 * step);
  }
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::resource_exhausted);
  // Half of those that the step does not need go; it is then done once, as if nothing had happened.
  std::mt19937_64 random(step);
  std::vector<uint64_t> needed = ids_of(random, 100 * step), old(50 * step);
  std::iota(old.begin(), old.end(), 0);
  std::erase_if(old, [&](uint64_t id) { return std::ranges::find(needed, id) != needed.end(); });
  store->erase(0, old);
  ASSERT_TRUE(train(*store, step, 100 * step));
  for (uint64_t earlier = 1; earlier < step; ++earlier) ASSERT_TRUE(train(*memory, earlier, 100 * earlier));
  memory->erase(0, old);
  ASSERT_TRUE(train(*memory, step, 100 * step));
  EXPECT_TRUE(without_visits(state_of(*store)) == without_visits(state_of(*memory)));
}

// Changes every place of the file where these eight bytes stand.
void flip_rows_of(const std::string& path, uint64_t id) {
  std::string all = *read_file(path);
  std::string_view wanted(reinterpret_cast<const char*>(&id), sizeof id);
  int descriptor = ::open(path.c_str(), O_WRONLY);
  for (size_t at = all.find(wanted); at != std::string::npos; at = all.find(wanted, at + 1)) {
    char changed = static_cast<char>(all[at + 20] ^ 1);
    EXPECT_EQ(::pwrite(descriptor, &changed, 1, static_cast<off_t>(at) + 20), 1);
  }
  ::close(descriptor);
}

TEST_F(DiskTest, APutThatMeetsADamagedRowGoesOnThereWhenItIsRepeated) {
  StoreOptions on_files = lasting(small(20'000));
  auto store = make(on_files);
  auto memory = make({.groups = {small(0)}, .num_shards = 4});
  std::vector<uint64_t> ids(4000);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = mix64(i);
  std::vector<float> rows(ids.size() * 5), gradients(rows.size(), 0.25f);
  for (Store* each : {store.get(), memory.get()}) ASSERT_TRUE(each->get(0, ids, rows));
  // One that went to disk early, and stands in the last block of the put.
  std::rotate(ids.begin(), ids.begin() + 10, ids.end());
  uint64_t victim = ids.back();
  std::string path = (folder_ / "user.disk").string();
  PutOptions first{.step = 1, .sender = 7, .sequence = 1};
  flip_rows_of(path, victim);
  auto failed = store->put(0, ids, gradients, first);
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().code, ErrorCode::data_loss);
  // One more death before the sender repeats it.
  flip_rows_of(path, victim);
  store.reset();
  store = make(on_files);
  auto repeated = store->put(0, ids, gradients, first);
  ASSERT_TRUE(repeated.ok());
  EXPECT_GT(repeated->updated, 0);
  EXPECT_LT(repeated->updated, 4000) << "some were done by the first try, before it met the row";
  EXPECT_TRUE(store->put(0, ids, gradients, first)->repeated);
  ASSERT_TRUE(memory->put(0, ids, gradients, first).ok());
  EXPECT_EQ(state_of(*store), state_of(*memory));
}

TEST_F(DiskTest, ExpiredRowsOnDiskAreGoneAndFreed) {
  GroupOptions group = small();
  group.eviction.kind = EvictionOptions::Kind::ttl;
  group.eviction.ttl_steps = 5;
  auto store = make(options(group));
  std::vector<uint64_t> ids(1000);
  std::iota(ids.begin(), ids.end(), 0);
  std::vector<float> rows(ids.size() * 5);
  ASSERT_TRUE(store->get(0, ids, rows));
  ASSERT_GT(store->stats(0).disk_rows, 800);
  std::vector<uint8_t> present(ids.size());
  store->find(0, ids, present);
  EXPECT_EQ(std::count(present.begin(), present.end(), 1), 1000);
  store->advance(6);
  store->find(0, ids, present);
  EXPECT_EQ(std::count(present.begin(), present.end(), 1), 0);
  EXPECT_EQ(store->expire(0), 1000);
  EXPECT_EQ(store->stats(0).disk_rows + store->stats(0).rows, 0);
}

// dim x bytes + state + 16, 4 more for a policy. A row on disk keeps its index entry and two bits.
TEST_F(DiskTest, BytesOfARowStayWithinTheirBound) {
  for (bool policy : {false, true}) {
    GroupOptions group{.dim = 16, .expected_rows = 0};
    group.optimizer.kind = OptimizerOptions::Kind::adagrad_row;
    if (policy) group.eviction = {.kind = EvictionOptions::Kind::lru, .budget_bytes = int64_t{1} << 40};
    auto store = make({.groups = {group}, .num_shards = 2});
    std::vector<uint64_t> ids(20'000);
    std::vector<float> rows(ids.size() * 16);
    double worst = 0;
    for (uint64_t first = 0; first < 400'000; first += ids.size()) {
      std::iota(ids.begin(), ids.end(), first);
      ASSERT_TRUE(store->get(0, ids, rows));
      GroupStats stats = store->stats(0);
      if (stats.rows >= 200'000)  // below, the half-empty chunk of each shard counts
        worst = std::max(worst, static_cast<double>(stats.bytes) / static_cast<double>(stats.rows));
    }
    EXPECT_LE(worst, 64 + 4 + 16 + (policy ? 4 : 0));
    EXPECT_GT(worst, 64 + 4 + 8 + (policy ? 4 : 0));
  }
  auto store = make(options(small(200'000)));
  std::vector<uint64_t> ids(60'000);
  std::iota(ids.begin(), ids.end(), 0);
  std::vector<float> rows(ids.size() * 5);
  ASSERT_TRUE(store->get(0, ids, rows));
  GroupStats stats = store->stats(0);
  EXPECT_EQ(stats.rows + stats.disk_rows, 60'000);
  EXPECT_LE(static_cast<double>(stats.bytes - stats.rows * 70),
            static_cast<double>(stats.disk_rows) * 12.5 + 4 * 512 * 52);
}

}  // namespace
}  // namespace tessera::recsys
