#include "recsys_roles/link.h"

#include <gtest/gtest.h>

#include <numeric>

namespace tessera::recsys_roles {
namespace {

Meeting meeting(GroupOptions::Transport transport = GroupOptions::automatic) {
  Meeting meeting;
  meeting.store = make_memory_store();
  meeting.token = "secret";
  meeting.transport = transport;
  meeting.patience_s = 20;
  return meeting;
}

// Answers with the sum of the numbers that it gets.
Result<Message> add_up(MessageReader& request) {
  auto numbers = request.array<int64_t>();
  TESSERA_RETURN_IF_ERROR(request.end());
  if (numbers.empty()) return invalid("nothing to add");
  return MessageWriter().value(std::accumulate(numbers.begin(), numbers.end(), int64_t{0})).take();
}

Result<int64_t> ask(Caller& caller, std::vector<int64_t> numbers) {
  TESSERA_ASSIGN_OR_RETURN(Message bytes, caller.call(MessageWriter().array(numbers).take()));
  MessageReader answer(bytes);
  auto sum = answer.value<int64_t>();
  TESSERA_RETURN_IF_ERROR(answer.end());
  return sum;
}

TEST(Link, AnswersAndErrorsTravelOverSharedMemoryAndTcp) {
  for (auto transport : {GroupOptions::automatic, GroupOptions::tcp}) {
    Meeting here = meeting(transport);
    auto door = Door::open(here, "adder", add_up);
    ASSERT_TRUE(door.ok());
    Caller caller(here, "adder");
    EXPECT_EQ(*ask(caller, {1, 2, 3}), 6);
    std::vector<int64_t> many(1 << 20, 2);  // more than the rings between the two hold
    EXPECT_EQ(*ask(caller, many), 2 << 20);
    auto refused = ask(caller, {});
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
    EXPECT_EQ(refused.error().message, "nothing to add");
    EXPECT_EQ(*ask(caller, {4}), 4);
  }
}

TEST(Link, CallsOfManyThreadsAreNotMixedUp) {
  Meeting here = meeting();
  auto door = Door::open(here, "adder", add_up);
  Caller caller(here, "adder");
  std::vector<std::thread> threads;
  for (int64_t thread = 0; thread < 4; ++thread)
    threads.emplace_back([&, thread] {
      for (int64_t i = 0; i < 50; ++i) EXPECT_EQ(*ask(caller, {thread, 1000 * i}), thread + 1000 * i);
    });
  for (auto& thread : threads) thread.join();
}

TEST(Link, ACallGoesOnAtTheNextDoorWhenTheFirstOneIsGone) {
  Meeting here = meeting();
  Caller caller(here, "adder");
  auto first = Door::open(here, "adder", add_up);
  EXPECT_EQ(*ask(caller, {1, 1}), 2);
  first->reset();
  ASSERT_TRUE(here.store->erase_prefix(keys_of("adder")).ok());
  std::thread successor([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    first = Door::open(here, "adder", add_up);
  });
  EXPECT_EQ(*ask(caller, {2, 2}), 4);
  successor.join();
}

TEST(Link, ARoleThatStaysAwayIsNamed) {
  Meeting here = meeting();
  here.patience_s = 0.3;
  Caller caller(here, "adder");
  auto answer = ask(caller, {1});
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.error().code, ErrorCode::unavailable);
  EXPECT_NE(answer.error().message.find("adder has been away for"), std::string::npos);
}

TEST(Link, WhoDoesNotKnowTheTokenGetsNoAnswer) {
  Meeting here = meeting(), stranger = here;
  auto door = Door::open(here, "adder", add_up);
  stranger.token = "guess";
  stranger.patience_s = 0.2;
  Caller caller(stranger, "adder");
  EXPECT_FALSE(ask(caller, {1}).ok());
  Caller friendly(here, "adder");
  EXPECT_EQ(*ask(friendly, {1}), 1);
}

TEST(Message, ReadersNeverPassTheEnd) {
  Message bytes = MessageWriter().value(int32_t{7}).array(std::vector<float>{1, 2}).text("abc").take();
  MessageReader whole(bytes);
  EXPECT_EQ(whole.value<int32_t>(), 7);
  EXPECT_EQ(whole.array<float>(), (std::vector<float>{1, 2}));
  EXPECT_EQ(whole.text(), "abc");
  EXPECT_TRUE(whole.end().ok());
  for (size_t cut = 0; cut < bytes.size(); ++cut) {
    MessageReader reader(Bytes(bytes).first(cut));
    reader.value<int32_t>();
    reader.array<float>();
    reader.text();
    EXPECT_FALSE(reader.end().ok()) << cut;
  }
  Message huge = MessageWriter().value(~uint64_t{0}).take();
  MessageReader reader(huge);
  EXPECT_TRUE(reader.array<double>().empty());
  EXPECT_FALSE(reader.end().ok());
}

}  // namespace
}  // namespace tessera::recsys_roles
