#include "resilience/fault.h"

#include <signal.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <map>
#include <thread>

#include "resilience/protocol.h"

namespace tessera::resilience {
namespace {

constexpr double kLeastDelay = 0.001;  // seconds into a step
constexpr double kWaitForOthers = 5;   // seconds
constexpr double kWaitForSave = 5;     // seconds until the writer has begun its folder

void sleep_for(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

void strike(Store& store, int64_t worker, int signal) {
  (void)store.set(key::fault(worker), fmt::format("{:.6f}", monotonic_seconds()));
  ::kill(::getpid(), signal);
}

// A worker that dies alone interrupts the others before they come to their own fault.
void wait_for_all(Store& store, int64_t step) {
  const char* size = std::getenv("WORLD_SIZE");
  std::string place = fmt::format("fault-at/{}", step);
  auto here = store.add(place, 1);
  Deadline deadline = Deadline::after(kWaitForOthers);
  while (size && here && *here < std::atoll(size) && !deadline.passed()) {
    sleep_for(0.001);
    here = store.add(place, 0);
  }
}

// Whether a save has begun its folder and not published it yet.
bool save_under_way(const std::filesystem::path& directory, int64_t step) {
  std::error_code failure;
  std::string begin = fmt::format(".tmp-step-{}-", step);
  for (const auto& entry : std::filesystem::directory_iterator(directory, failure))
    if (entry.path().filename().string().starts_with(begin)) return true;
  return false;
}

}  // namespace

Result<Fault> parse_fault(const std::string& text) {
  static const std::map<std::string, Fault::Moment> kMoments = {
      {"begin", Fault::begin}, {"middle", Fault::middle}, {"save", Fault::save}, {"together", Fault::together}};
  Error malformed =
      invalid("a fault is kill@STEP:begin, :middle, :save or :together, or stop@STEP:..., got '{}'", text);
  size_t at = text.find('@'), colon = text.find(':');
  if (at == std::string::npos || colon == std::string::npos || colon < at) return malformed;
  std::string what = text.substr(0, at), moment = text.substr(colon + 1);
  Fault fault;
  if (what != "kill" && what != "stop") return malformed;
  fault.signal = what == "kill" ? SIGKILL : SIGSTOP;
  if (!kMoments.count(moment)) return malformed;
  fault.moment = kMoments.at(moment);
  const char *first = text.data() + at + 1, *last = text.data() + colon;
  auto [end, failure] = std::from_chars(first, last, fault.step);
  if (failure != std::errc() || end != last || fault.step < 0) return malformed;
  return fault;
}

Result<std::optional<Fault>> fault_of(const Environment& environment) {
  auto text = environment("TESSERA_FAULT");
  if (!text || text->empty()) return std::optional<Fault>();
  TESSERA_ASSIGN_OR_RETURN(Fault fault, parse_fault(*text));
  return std::optional<Fault>(fault);
}

void FaultInjector::step_begins(int64_t step, double usual_seconds) {
  if (!fault_ || fault_->step != step || fault_->moment == Fault::save || !store_) return;
  Fault fault = *fault_;
  fault_.reset();
  if (fault.moment == Fault::together) wait_for_all(*store_, step);
  if (fault.moment != Fault::middle) return strike(*store_, worker_, fault.signal);
  std::thread([store = store_, worker = worker_, fault, usual_seconds] {
    sleep_for(std::max(kLeastDelay, usual_seconds / 2));
    strike(*store, worker, fault.signal);
  }).detach();
}

void FaultInjector::save_started(int64_t step, const std::filesystem::path& directory) {
  if (!fault_ || fault_->step != step || fault_->moment != Fault::save || !store_) return;
  Deadline deadline = Deadline::after(kWaitForSave);
  while (!save_under_way(directory, step) && !deadline.passed()) sleep_for(0.0002);
  strike(*store_, worker_, fault_->signal);
}

}  // namespace tessera::resilience
