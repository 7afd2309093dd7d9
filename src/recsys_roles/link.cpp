#include "recsys_roles/link.h"

#include "comm/socket.h"
#include "core/log.h"

namespace tessera::recsys_roles {
namespace {

constexpr double kJoin_s = 5;                     // for both ends of a link to meet
constexpr double kListen_s = 0.5;                 // between two looks whether the door is to be closed
constexpr double kSuspect_s = 2;                  // a door whose link broke is not called at again for so long
constexpr double kPause_s = 0.02;                 // between two tries
constexpr double kLookAgain_s = 0.2;              // between two looks whether a role is given up
constexpr double kNoLimit_s = 1e8;                // links may idle; the death of a peer ends a wait at once
constexpr uint64_t kLongest = uint64_t{4} << 30;  // bytes of a message

// Before each message.
struct Head {
  uint64_t bytes = 0;
  uint32_t failed = 0;  // of an answer: the message is the text of an error with this code
  int32_t code = 0;
};

GroupOptions link_options(const Meeting& meeting, const std::string& name, int64_t rank) {
  GroupOptions options{.transport = meeting.transport, .name = name};
  options.members = {0, 1};
  options.my_rank = rank;
  options.token = meeting.token;
  options.bind_address = meeting.bind_address;
  options.timeout_s = kJoin_s;
  return options;
}

Status send(Group& link, int64_t to, const Message& message, Head head = {}) {
  head.bytes = message.size();
  TESSERA_RETURN_IF_ERROR(link.send(to, std::as_bytes(std::span(&head, 1))));
  return link.send(to, message);
}

Status send_error(Group& link, int64_t to, const Error& error) {
  auto text = std::as_bytes(std::span(error.message));
  return send(link, to, Message(text.begin(), text.end()),
              {.failed = 1, .code = static_cast<int32_t>(error.code)});
}

Result<Message> receive(Group& link, int64_t from, Head& head) {
  TESSERA_RETURN_IF_ERROR(link.recv(from, std::as_writable_bytes(std::span(&head, 1))));
  if (head.bytes > kLongest) return make_error(ErrorCode::data_loss, "a message of {} bytes", head.bytes);
  Message message(head.bytes);
  TESSERA_RETURN_IF_ERROR(link.recv(from, message));
  return message;
}

Error error_of(const Head& head, const Message& text) {
  return {static_cast<ErrorCode>(head.code), {reinterpret_cast<const char*>(text.data()), text.size()}};
}

void pause() {
  std::this_thread::sleep_for(std::chrono::duration<double>(kPause_s));
}

}  // namespace

std::string keys_of(const std::string& role) {
  return "recsys/" + role + "/";
}

// ---- the end that serves ----

Door::Door(Meeting meeting, std::string role, Handler handler)
    : meeting_(std::move(meeting)),
      role_(std::move(role)),
      name_(comm::random_name()),
      handler_(std::move(handler)) {}

Result<std::unique_ptr<Door>> Door::open(const Meeting& meeting, const std::string& role, Handler handler) {
  std::unique_ptr<Door> door(new Door(meeting, role, std::move(handler)));
  TESSERA_RETURN_IF_ERROR(meeting.store->set(keys_of(role) + "door", door->name_));
  door->thread_ = std::thread([raw = door.get()] { raw->receive_guests(); });
  return door;
}

Door::~Door() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
  for (Guest& guest : guests_) {
    {
      std::lock_guard lock(guest.mutex);
      if (guest.group) guest.group->abort(make_error(ErrorCode::aborted, "{} has closed its door", role_));
    }
    guest.thread.join();
  }
}

void Door::receive_guests() {
  for (int64_t number = 1; !stop_;) {
    std::string key = fmt::format("{}{}/call/{}", keys_of(role_), name_, number);
    auto wanted = meeting_.store->get(key, Deadline::after(kListen_s));
    forget_those_who_left();
    if (wanted) {
      Guest& guest = guests_.emplace_back();
      guest.thread = std::thread([this, &guest, at = number++] { attend(guest, at); });
    } else if (wanted.error().code != ErrorCode::deadline_exceeded) {
      log(LogLevel::warn, "{}: nobody new can call: {}", role_, wanted.error().message);
      return;
    }
  }
}

void Door::forget_those_who_left() {
  for (auto guest = guests_.begin(); guest != guests_.end();) {
    if (!guest->left) {
      ++guest;
      continue;
    }
    guest->thread.join();
    guest = guests_.erase(guest);
  }
}

void Door::attend(Guest& guest, int64_t number) {
  std::string name = fmt::format("{}{}/{}", keys_of(role_), name_, number);
  auto group = make_process_group(*meeting_.store, link_options(meeting_, name, 0));
  (void)meeting_.store->erase_prefix("comm/" + name + "/");
  if (group) {
    (*group)->set_timeout(kNoLimit_s);
    {
      std::lock_guard lock(guest.mutex);
      guest.group = std::move(*group);
    }
    if (!stop_) serve(*guest.group);
  } else {
    log(LogLevel::debug, "{}: a caller went away: {}", role_, group.error().message);
  }
  guest.left = true;
}

void Door::serve(Group& group) {
  for (;;) {
    Head head;
    auto request = receive(group, 1, head);
    if (!request) return;
    MessageReader reader(*request);
    auto answer = handler_(reader);
    Status sent = answer ? send(group, 1, *answer) : send_error(group, 1, answer.error());
    if (!sent) return;
  }
}

// ---- the end that calls ----

// A process that died leaves its door in the store until somebody sees that it is gone.
Result<std::string> Caller::find_door(Deadline deadline) {
  for (;;) {
    const std::string key = keys_of(role_) + "door";
    auto there = meeting_.store->get(key, given_up_ ? std::min(deadline, Deadline::after(kLookAgain_s),
                                                               [](auto& a, auto& b) { return a.at < b.at; })
                                                    : deadline);
    if (!there && given_up_ && given_up_())
      return make_error(ErrorCode::unavailable, "{} is there no more", role_);
    if (!there && given_up_ && !deadline.passed()) continue;
    TESSERA_ASSIGN_OR_RETURN(std::string door, std::move(there));
    {
      std::lock_guard lock(mutex_);
      if (door != door_ || Clock::now() >= suspect_until_) return door_ = door;
    }
    pause();
  }
}

Result<std::unique_ptr<Group>> Caller::connect(Deadline deadline) {
  Store& store = *meeting_.store;
  TESSERA_ASSIGN_OR_RETURN(std::string door, find_door(deadline));
  std::string at = keys_of(role_) + door;
  TESSERA_ASSIGN_OR_RETURN(int64_t number, store.add(at + "/calls", 1));
  TESSERA_RETURN_IF_ERROR(store.set(fmt::format("{}/call/{}", at, number), "wanted"));
  TESSERA_ASSIGN_OR_RETURN(
      auto link, make_process_group(store, link_options(meeting_, fmt::format("{}/{}", at, number), 1)));
  link->set_timeout(kNoLimit_s);
  return link;
}

Result<std::unique_ptr<Group>> Caller::take_link(Deadline deadline) {
  {
    std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      auto link = std::move(idle_.back());
      idle_.pop_back();
      return link;
    }
  }
  return connect(deadline);
}

Caller::Pending Caller::start(Message request) {
  Pending pending;
  pending.request = std::move(request);
  auto link = take_link(Deadline::after(meeting_.patience_s));
  if (link && send(**link, 0, pending.request)) pending.link = std::move(*link);
  return pending;
}

// The answer of the other role, which may be an error; or, when the link broke, that error in `broken`.
Result<Message> Caller::answer(std::unique_ptr<Group> link, std::optional<Error>& broken) {
  Head head;
  auto bytes = receive(*link, 0, head);
  std::lock_guard lock(mutex_);
  if (!bytes) {
    idle_.clear();  // they have the same other end
    suspect_until_ = Deadline::after(kSuspect_s).at;
    broken = bytes.error();
    return bytes;
  }
  idle_.push_back(std::move(link));
  if (head.failed != 0) return error_of(head, *bytes);
  return bytes;
}

Result<Message> Caller::finish(Pending pending) {
  std::optional<Deadline> deadline;  // once the other end is gone
  Error last = make_error(ErrorCode::unavailable, "it could not be reached");
  for (;;) {
    if (pending.link) {
      std::optional<Error> broken;
      auto bytes = answer(std::move(pending.link), broken);
      if (!broken) return bytes;
      last = *broken;
    }
    if (given_up_ && given_up_()) return make_error(ErrorCode::unavailable, "{} is there no more", role_);
    if (!deadline) deadline = Deadline::after(meeting_.patience_s);
    if (deadline->passed())
      return make_error(ErrorCode::unavailable, "{} has been away for {:.0f} s: {}", role_, meeting_.patience_s,
                        last.message);
    auto link = take_link(*deadline);
    if (link && send(**link, 0, pending.request)) {
      pending.link = std::move(*link);
      continue;
    }
    if (!link) last = link.error();
    pause();
  }
}

}  // namespace tessera::recsys_roles
