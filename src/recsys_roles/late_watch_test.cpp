#include "recsys_roles/late_watch.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "recsys_roles/remote_servers.h"

namespace tessera::recsys_roles {
namespace {

TEST(LateWatch, NamesTheSlowRoleOnceAndSaysWhenThatIsOver) {
  std::vector<std::string> said;
  LateWatch watch({"server:0", "server:1", "server:2"}, [&](const std::string& line) { said.push_back(line); },
                  {.calls = 10});
  auto calls = [&](int count, double of_second) {
    for (int i = 0; i < count; ++i)
      for (size_t role = 0; role < 3; ++role) watch.waited(role, role == 1 ? of_second : 0.001);
  };
  calls(30, 0.004);  // not much, and noise is no news
  EXPECT_TRUE(said.empty());
  calls(30, 0.02);
  ASSERT_EQ(said.size(), 1u);
  EXPECT_EQ(said[0], "server:1 is slow: its answers are waited for 20.0 ms, those of the others 1.0 ms");
  for (int burst = 0; burst < 10; ++burst) {  // quick moments of a throttled role
    calls(10, 0.001);
    calls(10, 0.02);
  }
  EXPECT_EQ(said.size(), 1u);
  calls(50, 0.001);
  ASSERT_EQ(said.size(), 2u);
  EXPECT_EQ(said[1], "server:1 answers as soon as the others again");
}

TEST(LateWatch, OneRoleHasNobodyToBeComparedWith) {
  LateWatch watch({"server:0"}, [](const std::string&) { FAIL(); }, {.calls = 2});
  for (int i = 0; i < 20; ++i) watch.waited(0, 1);
}

TEST(LateWatch, TheJobHearsOfAServerThatTakesItsTime) {
  Meeting meeting;
  meeting.store = make_memory_store();
  meeting.token = "secret";
  std::vector<std::unique_ptr<recsys_train::ServedStore>> stores;
  std::vector<std::unique_ptr<Door>> doors;
  for (int64_t i = 0; i < 3; ++i) {
    stores.push_back(*recsys_train::ServedStore::open({.groups = {{.dim = 4}}}, {}, i, 3));
    Door::Handler answer = serve_store(*stores.back());
    if (i == 1)
      answer = [answer](MessageReader& request) {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        return answer(request);
      };
    doors.push_back(*Door::open(meeting, server_role(i), answer));
  }
  auto servers = make_remote_servers(meeting, 3, {}, {4});
  std::vector<uint64_t> ids(100);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = i;
  std::vector<float> rows(400);
  for (int call = 0; call < 60; ++call) ASSERT_TRUE(servers->get(0, ids, rows, {}).ok());
  auto said = meeting.store->try_get(kSlow);
  ASSERT_TRUE(said.ok() && *said);
  EXPECT_TRUE((*said)->starts_with("server:1 is slow: ")) << **said;
}

}  // namespace
}  // namespace tessera::recsys_roles
