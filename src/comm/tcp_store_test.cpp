#include "comm/tcp_store.h"

#include <gtest/gtest.h>

#include <atomic>
#include <ctime>
#include <thread>

#include "comm/socket.h"

namespace tessera {
namespace {

constexpr const char* kToken = "a job's token";

class TcpStore : public testing::Test {
 protected:
  void SetUp() override {
    auto started = StoreServer::start("127.0.0.1", 0, kToken);
    ASSERT_TRUE(started.ok()) << started.error().message;
    server_ = std::move(*started);
  }
  std::shared_ptr<Store> client() {
    auto connected = connect_store("127.0.0.1", server_->port(), kToken, Deadline::after(5));
    EXPECT_TRUE(connected.ok()) << connected.error().message;
    return *connected;
  }
  std::unique_ptr<StoreServer> server_;
};

TEST_F(TcpStore, ClientsAndOwnerSeeTheSameKeys) {
  std::shared_ptr<Store> a = client(), b = client();
  std::string value("bytes\0of any kind", 17);
  ASSERT_TRUE(a->set("k", value).ok());
  EXPECT_EQ(*b->get("k", Deadline::after(1)), value);
  EXPECT_EQ(*server_->store()->get("k", Deadline::after(1)), value);
  EXPECT_EQ(*a->add("n", 2), 2);
  EXPECT_EQ(*server_->store()->add("n", 40), 42);
  EXPECT_EQ(*b->get("n", Deadline::after(1)), "42");
  EXPECT_EQ(**b->try_get("k"), value);
  EXPECT_FALSE(b->try_get("nothing")->has_value());
  EXPECT_EQ(a->add("k", 1).error().code, ErrorCode::invalid_argument);
}

TEST_F(TcpStore, ErasePrefixTakesItsKeysOnly) {
  std::shared_ptr<Store> store = client();
  for (const char* key : {"gen1/a", "gen1/b", "gen10", "gen2/a"}) ASSERT_TRUE(store->set(key, "x").ok());
  EXPECT_EQ(*store->erase_prefix("gen1/"), 2);
  EXPECT_FALSE(store->try_get("gen1/a")->has_value());
  EXPECT_TRUE(store->try_get("gen10")->has_value());
  EXPECT_TRUE(store->try_get("gen2/a")->has_value());
}

TEST_F(TcpStore, GetWaitsForRemoteAndLocalSet) {
  std::shared_ptr<Store> waiter = client(), setter = client();
  for (Store* from : {setter.get(), server_->store().get()}) {
    std::thread thread([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(30));
      EXPECT_TRUE(from->set("late", "there").ok());
    });
    Clock::time_point start = Clock::now();
    EXPECT_EQ(*waiter->get("late", Deadline::after(10)), "there");
    EXPECT_LT(seconds_since(start), 2);
    thread.join();
    ASSERT_EQ(*setter->erase_prefix("late"), 1);
  }
}

TEST_F(TcpStore, WaitingUsesNoProcessorAndEndsAtTheDeadline) {
  std::shared_ptr<Store> store = client();
  Clock::time_point start = Clock::now();
  std::clock_t used = std::clock();
  Result<std::string> value = store->get("never", Deadline::after(0.3));
  EXPECT_EQ(value.error().code, ErrorCode::deadline_exceeded);
  EXPECT_NE(value.error().message.find("'never'"), std::string::npos);
  EXPECT_GE(seconds_since(start), 0.28);
  EXPECT_LT(seconds_since(start), 1.3);
  EXPECT_LT(static_cast<double>(std::clock() - used) / CLOCKS_PER_SEC, 0.1);
}

TEST_F(TcpStore, WaitingCallDoesNotHoldUpAnotherThreadsCall) {
  std::shared_ptr<Store> store = client();
  std::thread waiter([&] { EXPECT_TRUE(store->get("go", Deadline::after(10)).ok()); });
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  Clock::time_point start = Clock::now();
  EXPECT_EQ(*store->add("beat", 1), 1);
  EXPECT_LT(seconds_since(start), 1);
  ASSERT_TRUE(store->set("go", "").ok());
  waiter.join();
}

TEST_F(TcpStore, ManyThreadsAddExactly) {
  std::shared_ptr<Store> store = client();
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) EXPECT_TRUE(store->add("n", 1).ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(*store->add("n", 0), 400);
}

TEST_F(TcpStore, WrongTokenIsRefusedWithAReadableError) {
  auto refused = connect_store("127.0.0.1", server_->port(), "another token", Deadline::after(5));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
  EXPECT_NE(refused.error().message.find("does not accept this token"), std::string::npos)
      << refused.error().message;
}

TEST_F(TcpStore, StrangersDisturbNobody) {
  std::shared_ptr<Store> store = client();
  std::string requests = "GET / HTTP/1.1\r\nHost: x\r\n\r\n", large(100000, '\xff');
  std::string untrusted_set("\x08\0\0\0\x02\x01\0\0\0kvvv", 13);  // a set before any hello
  for (const std::string& bytes : {requests, large, untrusted_set, std::string()}) {
    auto stranger = comm::connect_tcp("127.0.0.1", server_->port(), Deadline::after(2));
    ASSERT_TRUE(stranger.ok());
    comm::send_all(*stranger, std::as_bytes(std::span(bytes)), Deadline::after(1)).ok();
    EXPECT_TRUE(store->set("still", "works").ok());
  }
  EXPECT_FALSE(store->try_get("k")->has_value());
}

TEST_F(TcpStore, PortInUseIsAReadableError) {
  auto second = StoreServer::start("127.0.0.1", server_->port(), kToken);
  ASSERT_FALSE(second.ok());
  EXPECT_NE(second.error().message.find("cannot listen on 127.0.0.1:"), std::string::npos)
      << second.error().message;
}

TEST_F(TcpStore, ClientsOfAStoppedServerGetUnavailable) {
  std::shared_ptr<Store> store = client(), late = client();
  std::thread waiter(
      [&] { EXPECT_EQ(late->get("never", Deadline::after(10)).error().code, ErrorCode::unavailable); });
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  server_.reset();
  waiter.join();
  EXPECT_EQ(store->set("k", "v").error().code, ErrorCode::unavailable);
}

TEST_F(TcpStore, LargeValuesPass) {
  std::shared_ptr<Store> store = client();
  std::string value(3 << 20, 'v');
  ASSERT_TRUE(store->set("large", value).ok());
  EXPECT_EQ(*store->get("large", Deadline::after(5)), value);
}

}  // namespace
}  // namespace tessera
