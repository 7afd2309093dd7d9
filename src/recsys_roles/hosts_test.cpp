#include "recsys_roles/hosts.h"

#include <gtest/gtest.h>

#include <thread>

namespace tessera::recsys_roles {
namespace {

void sleep_a_beat() {
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
}

TEST(Hosts, OneThatFallsSilentIsLostOnceWithItsRolesAndHearsOfIt) {
  auto store = make_memory_store();
  auto first = *Hosts::join(store, 0.2), second = *Hosts::join(store, 0.2);
  const RoleName server{RoleName::server, 1}, replica{RoleName::replica, 0};
  ASSERT_TRUE(second.say_roles({server, replica}).ok());
  EXPECT_EQ(first.host_of(server), 2);
  std::vector<Hosts::Host> lost;
  while (lost.empty()) {
    lost = first.newly_lost();
    sleep_a_beat();
  }
  ASSERT_EQ(lost.size(), 1u);
  EXPECT_EQ(lost[0].number, 2);
  EXPECT_EQ(lost[0].roles, (std::vector<RoleName>{server, replica}));
  EXPECT_TRUE(second.given_up());
  EXPECT_FALSE(first.given_up());
  EXPECT_EQ(first.host_of(server), 0);
  EXPECT_TRUE(first.newly_lost().empty());
}

TEST(Hosts, OneThatBeatsOrLeavesIsNotLost) {
  auto store = make_memory_store();
  auto first = *Hosts::join(store, 1e6), second = *Hosts::join(store, 1e6), third = *Hosts::join(store, 0);
  EXPECT_TRUE(first.newly_lost().empty());
  second.leave();
  first.leave();
  EXPECT_TRUE(third.newly_lost().empty());  // whoever is silent is lost to it at once
  EXPECT_FALSE(second.given_up());
}

}  // namespace
}  // namespace tessera::recsys_roles
