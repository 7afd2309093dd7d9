#include "resilience/protocol.h"

#include <ctime>
#include <nlohmann/json.hpp>

namespace tessera::resilience {
namespace {

using nlohmann::json;

// Operation names may carry bytes that are not UTF-8; a beat must never fail for that.
std::string dump(const json& object) {
  return object.dump(-1, ' ', false, json::error_handler_t::replace);
}

template <class T, class Read>
Result<T> decode(const std::string& text, const char* what, Read read) {
  try {
    return read(json::parse(text));
  } catch (const std::exception& failure) {
    return invalid("malformed {} in the store: {}", what, failure.what());
  }
}

}  // namespace

std::string encode(const Order& order) {
  switch (order.kind) {
    case Order::call:
      return dump({{"call", order.generation}, {"reason", order.text}});
    case Order::plan:
      return dump({{"plan", json::parse(encode(order.formed))}});
    case Order::stop:
      return dump({{"stop", true}});
    case Order::end:
      break;
  }
  return dump({{"end", order.text}});
}

Result<Order> decode_order(const std::string& text) {
  return decode<Order>(text, "order", [](const json& object) -> Result<Order> {
    Order order;
    if (object.contains("call")) {
      order = {Order::call, object["call"], object.at("reason"), {}};
    } else if (object.contains("plan")) {
      TESSERA_ASSIGN_OR_RETURN(order.formed, decode_plan(object["plan"].dump()));
      order.kind = Order::plan;
      order.generation = order.formed.generation;
    } else if (object.contains("stop")) {
      order.kind = Order::stop;
    } else {
      order.text = object.at("end");
    }
    return order;
  });
}

std::string encode(const Beat& beat) {
  return dump({{"n", beat.count}, {"step", beat.step}, {"operation", beat.operation}});
}

Result<Beat> decode_beat(const std::string& text) {
  return decode<Beat>(text, "sign of life", [](const json& object) -> Result<Beat> {
    return Beat{object.at("n"), object.at("step"), object.at("operation")};
  });
}

std::string encode(const Running& running) {
  return dump({{"first_step", running.first_step}, {"source", running.source}});
}

Result<Running> decode_running(const std::string& text) {
  return decode<Running>(text, "start of a generation", [](const json& object) -> Result<Running> {
    return Running{object.at("first_step"), object.at("source")};
  });
}

namespace key {
std::string order(int64_t number) {
  return fmt::format("order/{}", number);
}
std::string report(int64_t generation, int64_t worker) {
  return fmt::format("report/{}/{}", generation, worker);
}
std::string beat(int64_t worker) {
  return fmt::format("beat/{}", worker);
}
std::string running(int64_t generation) {
  return fmt::format("running/{}", generation);
}
std::string done(int64_t generation, int64_t worker) {
  return fmt::format("done/{}/{}", generation, worker);
}
std::string fatal(int64_t worker) {
  return fmt::format("fatal/{}", worker);
}
std::string fault(int64_t worker) {
  return fmt::format("fault/{}", worker);
}
}  // namespace key

std::optional<std::string> peek(Store& store, const std::string& key) {
  auto value = store.try_get(key);
  return value ? std::move(*value) : std::nullopt;
}

double monotonic_seconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace tessera::resilience
