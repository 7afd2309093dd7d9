#include "recsys_roles/reshard.h"

#include <nlohmann/json.hpp>

#include "comm/socket.h"
#include "core/file.h"

namespace tessera::recsys_roles {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

fs::path order_path(const fs::path& run_dir) {
  return run_dir / "reshard-order.json";
}
fs::path status_path(const fs::path& run_dir) {
  return run_dir / "reshard.json";
}

// Null where it is not there, or no object.
json read_object(const fs::path& path) {
  auto text = read_file(path);
  if (!text) return {};
  json object = json::parse(*text, nullptr, false);
  return object.is_object() ? object : json();
}

}  // namespace

bool order_waits(const fs::path& run_dir) {
  std::error_code failure;
  return fs::exists(order_path(run_dir), failure);
}

void withdraw_order(const fs::path& run_dir) {
  std::error_code failure;
  fs::remove(order_path(run_dir), failure);
}

Result<ReshardOrder> leave_order(const fs::path& run_dir, int64_t servers) {
  if (!fs::is_directory(run_dir))
    return make_error(ErrorCode::not_found,
                      "{}: there is no such folder; give the --run-dir of `tessera launch`", run_dir.string());
  if (order_waits(run_dir)) return invalid("{}: another order waits there", order_path(run_dir).string());
  ReshardOrder order{.id = comm::random_name(), .servers = servers};
  json out = {{"id", order.id}, {"servers", servers}};
  TESSERA_RETURN_IF_ERROR(write_file_atomically(order_path(run_dir), out.dump() + "\n"));
  return order;
}

std::optional<ReshardOrder> take_order(const fs::path& run_dir) {
  if (!order_waits(run_dir)) return std::nullopt;
  const json object = read_object(order_path(run_dir));
  withdraw_order(run_dir);
  try {
    return ReshardOrder{.id = object.at("id"), .servers = object.at("servers")};
  } catch (const json::exception&) {
    return std::nullopt;
  }
}

Status write_status(const fs::path& run_dir, const ReshardStatus& status) {
  json out = {{"id", status.id},
              {"state", status.state},
              {"detail", status.detail},
              {"from", status.from},
              {"servers", status.servers},
              {"rows", status.result.rows},
              {"bytes", status.result.bytes},
              {"step", status.result.step},
              {"hand_over_s", status.result.hand_over_s},
              {"total_s", status.result.total_s}};
  return write_file_atomically(status_path(run_dir), out.dump() + "\n");
}

std::optional<ReshardStatus> read_status(const fs::path& run_dir) {
  const json object = read_object(status_path(run_dir));
  try {
    ReshardStatus status{.id = object.at("id"), .state = object.at("state"), .detail = object.at("detail")};
    status.from = object.at("from");
    status.servers = object.at("servers");
    status.result.rows = object.at("rows");
    status.result.bytes = object.at("bytes");
    status.result.step = object.at("step");
    status.result.hand_over_s = object.at("hand_over_s");
    status.result.total_s = object.at("total_s");
    return status;
  } catch (const json::exception&) {
    return std::nullopt;
  }
}

Resharding::Resharding(ReshardOrder order, MoverOptions options, bool waits)
    : order_(std::move(order)), waits_(waits) {
  options.stopped = [this] { return stop_.load(); };
  options.on_progress = [this](MovePhase phase, const std::string& detail) { progress(phase, detail); };
  thread_ = std::thread([this, options = std::move(options)] {
    auto result = move_rows(options);
    std::lock_guard lock(mutex_);
    result_ = std::move(result);
    finished_ = true;
  });
}

Resharding::~Resharding() {
  stop_ = true;
  thread_.join();
}

void Resharding::progress(MovePhase phase, const std::string& detail) {
  {
    std::lock_guard lock(mutex_);
    news_.push_back(detail);
    if (waits_) phase_ = phase;
  }
  while (waits_ && !stop_ && this->phase()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

std::vector<std::string> Resharding::news() {
  std::lock_guard lock(mutex_);
  return std::exchange(news_, {});
}

std::optional<MovePhase> Resharding::phase() const {
  std::lock_guard lock(mutex_);
  return phase_;
}

void Resharding::phase_seen() {
  std::lock_guard lock(mutex_);
  phase_.reset();
}

const std::optional<Result<MoveResult>>& Resharding::finished() {
  static const std::optional<Result<MoveResult>> kNotYet;
  return finished_ ? result_ : kNotYet;
}

}  // namespace tessera::recsys_roles
