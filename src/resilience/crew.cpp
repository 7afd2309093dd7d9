#include "resilience/crew.h"

#include <poll.h>

#include <cerrno>

#include "core/file.h"

namespace tessera::resilience {
namespace {

constexpr double kOwnGap = 1.0;          // seconds between two listen() that mean this process was stopped
constexpr size_t kMostHeldBack = 10000;  // lines

void watch(std::vector<pollfd>& entries, const LineReader& reader) {
  if (!reader.closed()) entries.push_back({.fd = reader.descriptor(), .events = POLLIN, .revents = 0});
}

}  // namespace

Crew::Crew(OutputSink sink, std::filesystem::path log_folder)
    : sink_(std::move(sink)), log_folder_(std::move(log_folder)) {}

Status Crew::start(int64_t worker, const ProcessOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(Process process, Process::start(options));
  auto member = std::make_unique<CrewMember>(worker, std::move(process));
  if (!log_folder_.empty()) {
    std::error_code failure;
    std::filesystem::create_directories(log_folder_, failure);
    std::filesystem::path file = log_folder_ / fmt::format("worker-{}.log", worker);
    member->log.open(file);
    if (!member->log) return system_error("create", file, errno);
  }
  members_[worker] = std::move(member);
  return {};
}

void Crew::wait(double seconds) {
  std::vector<pollfd> entries;
  for (auto& [id, member] : members_) {
    entries.push_back({.fd = member->process.pidfd(), .events = POLLIN, .revents = 0});
    watch(entries, member->output);
    watch(entries, member->errors);
  }
  ::poll(entries.data(), entries.size(), static_cast<int>(seconds * 1000));
  for (auto& [id, member] : members_) pass_on(*member);
}

std::vector<std::pair<std::unique_ptr<CrewMember>, ExitStatus>> Crew::reap() {
  std::vector<std::pair<std::unique_ptr<CrewMember>, ExitStatus>> ended;
  for (auto at = members_.begin(); at != members_.end();) {
    auto status = at->second->process.ended();
    if (!status) {
      ++at;
      continue;
    }
    pass_on(*at->second);
    ended.emplace_back(std::move(at->second), *status);
    at = members_.erase(at);
  }
  return ended;
}

void Crew::listen(Store& store) {
  double gap = seconds_since(listened_at_);
  listened_at_ = Clock::now();
  for (auto& [id, member] : members_) {
    if (gap > kOwnGap) member->alive_at = listened_at_;
    auto text = peek(store, key::beat(id));
    if (!text) continue;
    auto beat = decode_beat(*text);
    if (!beat || beat->count == member->beat.count) continue;
    member->beat = std::move(*beat);
    member->alive_at = Clock::now();
    if (!member->joined) release_output(*member);
    member->joined = true;
  }
}

void Crew::signal_all(int number) {
  for (auto& [id, member] : members_) member->process.signal(number);
}

void Crew::release_output(CrewMember& member) {
  for (const OutputLine& line : member.held_back)
    if (sink_) sink_(line);
  member.held_back.clear();
}

void Crew::pass_on(CrewMember& member) {
  for (LineReader* reader : {&member.output, &member.errors}) {
    for (std::string& text : reader->read()) {
      if (member.log.is_open()) member.log << text << std::endl;
      OutputLine line{member.id, reader == &member.errors, std::move(text)};
      if (!member.joined && member.held_back.size() < kMostHeldBack)
        member.held_back.push_back(std::move(line));
      else if (sink_)
        sink_(line);
    }
  }
}

}  // namespace tessera::resilience
