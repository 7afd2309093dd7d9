// Random schedules with shared prefixes, priorities, tenants, guesses, tiers, cancellations and losses of the
// whole cache, against a plain model of the bytes: every slot holds a hash of the salt and of all tokens up to
// it, and what a request reads must be the hash of its own tokens.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "batching/batching.h"

namespace tessera::batching {
namespace {

uint64_t mixed(uint64_t state, uint64_t value) {
  state = (state ^ value) * 0x9e3779b97f4a7c15ULL;
  return state ^ (state >> 29);
}

struct Talk {
  std::string salt;
  std::vector<int64_t> tokens;  // known ones
  size_t goal = 0;

  uint64_t content(size_t position) const { return content(position, tokens); }
  uint64_t content(size_t position, const std::vector<int64_t>& all) const {
    uint64_t state = std::hash<std::string>()(salt) | 1;
    for (size_t i = 0; i <= position; ++i) state = mixed(state, static_cast<uint64_t>(all[i]) + 1);
    return state;
  }
  // What the model says next: the same for equal tokens.
  int64_t next(const std::vector<int64_t>& all) const {
    return static_cast<int64_t>(content(all.size() - 1, all) >> 60) % 3;
  }
};

class World {
 public:
  explicit World(uint32_t seed) : random_(seed), scheduler_(draw_options()) {}

  int64_t draw(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random_); }

  void submit() {
    Talk talk{.salt = draw(0, 3) == 0 ? "other" : ""};
    auto room = scheduler_.options().capacity_tokens();
    int64_t prompt = draw(1, room - 1);
    for (int64_t i = 0; i < prompt; ++i) talk.tokens.push_back(i % 7 == 6 ? draw(0, 1) : i % 3);
    talk.goal = static_cast<size_t>(prompt + draw(1, std::min<int64_t>(room - prompt, 12)));
    Submission submission{.id = next_id_,
                          .prompt_tokens = prompt,
                          .max_length = static_cast<int64_t>(talk.goal),
                          .tokens = talk.tokens,
                          .reuse = draw(0, 4) > 0,
                          .salt = talk.salt,
                          .priority = draw(0, 2),
                          .tenant = draw(0, 1) ? "a" : "b"};
    ASSERT_TRUE(scheduler_.submit(std::move(submission)).ok());
    talks_[next_id_++] = std::move(talk);
  }

  void cancel() {
    if (talks_.empty()) return;
    auto it = std::next(talks_.begin(), draw(0, std::ssize(talks_) - 1));
    EXPECT_TRUE(scheduler_.finish(it->first));
    talks_.erase(it);
  }

  void lose_everything() {
    scheduler_.reset();
    slots_.clear();
  }

  void step() {
    guesses_.clear();
    for (auto& [id, talk] : talks_)
      if (draw(0, 1)) guess(id, talk);
    Step step = scheduler_.next_step();
    for (const KvMove& move : step.moves) slots_[{move.to_tier, move.to}] = slots_[{move.from_tier, move.from}];
    ASSERT_LE(step.tokens(), scheduler_.options().max_batch_tokens);
    ASSERT_TRUE(!step.entries.empty() || !step.preempted.empty() || talks_.empty());
    written_.clear();
    for (const StepEntry& entry : step.entries) write(entry);
    for (const StepEntry& entry : step.entries) read(entry);
    count_blocks(step);
    for (const StepEntry& entry : step.entries)
      if (entry.samples) sample(entry);
  }

  void drain() {
    for (int i = 0; i < 20'000 && !talks_.empty(); ++i) step();
    EXPECT_TRUE(talks_.empty());
    EXPECT_EQ(scheduler_.blocks_in_use(), 0);
  }

  const Scheduler& scheduler() const { return scheduler_; }
  int64_t accepted = 0;

 private:
  SchedulerOptions draw_options() {
    SchedulerOptions options{.blocks = draw(3, 24),
                             .block_tokens = draw(1, 4),
                             .max_batch_tokens = draw(2, 24),
                             .max_waiting = 1000,
                             .host_blocks = std::max<int64_t>(0, draw(-4, 6)),
                             .disk_blocks = std::max<int64_t>(0, draw(-4, 9))};
    options.max_running = draw(1, std::min<int64_t>(options.max_batch_tokens, 6));
    return options;
  }

  // Guesses are right two times of three each.
  void guess(RequestId id, const Talk& talk) {
    std::vector<int64_t> all = talk.tokens;
    for (int64_t i = draw(1, 5); i > 0; --i) all.push_back((talk.next(all) + (draw(0, 2) == 0)) % 3);
    guesses_[id].assign(all.begin() + std::ssize(talk.tokens), all.end());
    scheduler_.propose(id, std::ssize(guesses_[id]));
  }

  std::vector<int64_t> with_guesses(const StepEntry& entry) {
    std::vector<int64_t> all = talks_.at(entry.id).tokens;
    auto& guesses = guesses_[entry.id];
    all.insert(all.end(), guesses.begin(), guesses.begin() + entry.drafts);
    return all;
  }

  uint64_t& slot(const StepEntry& entry, int64_t position) {
    auto size = scheduler_.options().block_tokens;
    auto block = scheduler_.blocks_of(entry.id)[static_cast<size_t>(position / size)];
    auto& content = slots_[{0, block}];
    content.resize(static_cast<size_t>(size));
    return content[static_cast<size_t>(position % size)];
  }

  void write(const StepEntry& entry) {
    auto all = with_guesses(entry);
    ASSERT_EQ(entry.samples, entry.first + entry.count == std::ssize(all));
    for (int64_t p = entry.first; p < entry.first + entry.count; ++p) {
      uint64_t content = talks_.at(entry.id).content(static_cast<size_t>(p), all);
      auto [where, is_new] = written_.emplace(&slot(entry, p), content);
      ASSERT_TRUE(is_new || where->second == content) << "two requests write one slot";
      slot(entry, p) = content;
    }
  }

  void read(const StepEntry& entry) {
    auto all = with_guesses(entry);
    for (int64_t p = 0; p < entry.first + entry.count; ++p)
      ASSERT_EQ(slot(entry, p), talks_.at(entry.id).content(static_cast<size_t>(p), all))
          << "request " << entry.id << " position " << p;
  }

  void count_blocks(const Step& step) {
    std::set<BlockId> owned;
    for (const auto& [id, talk] : talks_) {
      auto blocks = scheduler_.blocks_of(id);
      owned.insert(blocks.begin(), blocks.end());
    }
    ASSERT_EQ(scheduler_.blocks_in_use(), std::ssize(owned)) << step.entries.size();
  }

  void sample(const StepEntry& entry) {
    Talk& talk = talks_.at(entry.id);
    std::vector<int64_t> all = talk.tokens, news;
    for (int64_t i = 0; i <= entry.drafts; ++i) {
      news.push_back(talk.next(all));
      all.push_back(news.back());
      bool right = i < entry.drafts && guesses_[entry.id][static_cast<size_t>(i)] == news.back();
      if (!right || all.size() == talk.goal) break;
      ++accepted;
    }
    talk.tokens = all;
    if (all.size() < talk.goal) return scheduler_.append_tokens(entry.id, news);
    EXPECT_TRUE(scheduler_.finish(entry.id));
    talks_.erase(entry.id);
  }

  std::mt19937 random_;
  Scheduler scheduler_;
  RequestId next_id_ = 0;
  std::map<RequestId, Talk> talks_;
  std::map<RequestId, std::vector<int64_t>> guesses_;
  std::map<std::pair<int64_t, BlockId>, std::vector<uint64_t>> slots_;
  std::map<uint64_t*, uint64_t> written_;
};

TEST(Reuse, EveryRequestReadsItsOwnTokensInAnySchedule) {
  int64_t found = 0, accepted = 0;
  for (uint32_t seed = 0; seed < 300; ++seed) {
    World world(seed);
    for (int i = 0; i < 60; ++i) {
      if (world.draw(0, 2) == 0) world.submit();
      if (world.draw(0, 9) == 0) world.cancel();
      if (world.draw(0, 59) == 0) world.lose_everything();
      world.step();
      if (testing::Test::HasFatalFailure()) FAIL() << "seed " << seed;
    }
    world.drain();
    found += world.scheduler().reuse().found_tokens;
    accepted += world.accepted;
    if (testing::Test::HasFailure()) FAIL() << "seed " << seed;
  }
  EXPECT_GT(found, 10'000);
  EXPECT_GT(accepted, 1'000);
}

TEST(KvCache, TakesSucceedAsLongAsABlockIsKept) {
  KvCache cache({4, 0, 0}, 2);
  std::vector<int64_t> tokens = {1, 2, 3, 4, 5, 6};
  KvOwned first;
  for (int i = 0; i < 3; ++i) cache.take(first);
  cache.name(tokens, 6, first);
  cache.release(first);
  EXPECT_EQ(cache.num_available(), 4);
  EXPECT_EQ(cache.match("", tokens, 3).size(), 3u);
  KvOwned second;
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(cache.match("", tokens, 3).size(), static_cast<size_t>(i == 0 ? 3 : 4 - i));
    cache.take(second);
  }
  EXPECT_EQ(cache.num_available(), 0);
  EXPECT_TRUE(cache.match("", tokens, 3).empty());
}

TEST(KvCache, AnotherSaltFindsNothing) {
  KvCache cache({4, 0, 0}, 1);
  std::vector<int64_t> tokens = {1, 2};
  KvOwned owned{.salt = "tenant a"};
  cache.take(owned);
  cache.name(tokens, 1, owned);
  EXPECT_EQ(cache.match("tenant a", tokens, 9).size(), 1u);
  EXPECT_TRUE(cache.match("tenant b", tokens, 9).empty());
}

TEST(KvCache, EvictedBlocksGoDownTheTiersAndComeBack) {
  KvCache cache({1, 1, 1}, 1);
  std::vector<std::vector<int64_t>> prompts = {{1}, {2}, {3}, {4}};
  for (const auto& prompt : prompts) {
    KvOwned owned;
    cache.take(owned);
    cache.name(prompt, 1, owned);
    cache.release(owned);
  }
  EXPECT_TRUE(cache.match("", prompts[0], 1).empty());  // fell out of the last tier
  EXPECT_EQ(cache.match("", prompts[1], 1)[0]->tier, 2);
  EXPECT_EQ(cache.match("", prompts[2], 1)[0]->tier, 1);
  (void)cache.take_moves();
  KvOwned again;
  cache.share(cache.match("", prompts[2], 1), again);
  // The fourth prompt's block makes room; the only host block is on its way up, so it goes to the disk.
  EXPECT_EQ(cache.take_moves(), (std::vector<KvMove>{{0, 2, 0, 0}, {1, 0, 0, 0}}));
  EXPECT_EQ(cache.match("", prompts[3], 1)[0]->tier, 2);
}

}  // namespace
}  // namespace tessera::batching
