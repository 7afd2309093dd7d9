// Calls between roles that are processes: a request, an answer. A role that serves opens a door; others call it
// by its name, wherever it runs. Between processes of one host calls go through shared memory, else over TCP
// (comm/group.h); both ends must know the job's token. They meet through the launcher's store:
//
//   recsys/ROLE/door           random; a new one for each process that takes the role
//   recsys/ROLE/DOOR/calls     links asked for so far
//   recsys/ROLE/DOOR/call/N    link N is wanted: both ends then form a group of two named recsys/ROLE/DOOR/N
//
// Whoever sees a role die erases recsys/ROLE/, so that nobody calls at the old door. A call whose other end
// dies is made again at the next door, so requests must bear repetition: an answer may be lost, never mixed up.
//
// Threads: any. A link carries one call at a time; a caller makes as many links as it has calls under way.
#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "comm/group.h"
#include "recsys_roles/message.h"

namespace tessera::recsys_roles {

// How a process of the job meets the others.
struct Meeting {
  std::shared_ptr<Store> store;
  std::string token;
  std::string bind_address = "127.0.0.1";
  GroupOptions::Transport transport = GroupOptions::automatic;
  double patience_s = 120;  // for a role that is gone to come back
};

// The last that was said about a slow role, for supervisors.
constexpr const char* kSlow = "recsys-slow";

std::string keys_of(const std::string& role);  // "recsys/ROLE/"

class Door {
 public:
  // Answers a request; an error travels to the caller as it is. Called by a thread for each link.
  using Handler = std::function<Result<Message>(MessageReader& request)>;

  // Serves from now on until it is destroyed. Errors: of the store.
  static Result<std::unique_ptr<Door>> open(const Meeting& meeting, const std::string& role, Handler handler);
  ~Door();

 private:
  struct Guest {
    std::mutex mutex;
    std::shared_ptr<Group> group;
    std::atomic<bool> left = false;
    std::thread thread;
  };
  Door(Meeting meeting, std::string role, Handler handler);
  void receive_guests();
  void attend(Guest& guest, int64_t number);
  void serve(Group& group);
  void forget_those_who_left();

  Meeting meeting_;
  std::string role_, name_;
  Handler handler_;
  std::atomic<bool> stop_ = false;
  std::list<Guest> guests_;  // of the thread below
  std::thread thread_;
};

class Caller {
 public:
  // `given_up`: whether nobody will open that door again; calls then end with `unavailable` at once.
  Caller(Meeting meeting, std::string role, std::function<bool()> given_up = {})
      : meeting_(std::move(meeting)), role_(std::move(role)), given_up_(std::move(given_up)) {}

  // The answer, or the error that the other role answered with; when the role stays away for longer than
  // patience_s, an error that names it.
  Result<Message> call(const Message& request) { return finish(start(request)); }

  // A call in two halves, so that several roles work at once.
  class Pending {
   private:
    friend class Caller;
    Message request;
    std::unique_ptr<Group> link;  // null: it could not be sent
  };
  Pending start(Message request);
  Result<Message> finish(Pending pending);

  const std::string& role() const { return role_; }

 private:
  Result<std::unique_ptr<Group>> take_link(Deadline deadline);
  Result<std::unique_ptr<Group>> connect(Deadline deadline);
  Result<std::string> find_door(Deadline deadline);
  Result<Message> answer(std::unique_ptr<Group> link, std::optional<Error>& broken);

  Meeting meeting_;
  std::string role_;
  std::function<bool()> given_up_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Group>> idle_;
  std::string door_;                 // the last one that links were made at
  Clock::time_point suspect_until_;  // a link to it broke: it is better to wait for the next one
};

}  // namespace tessera::recsys_roles
