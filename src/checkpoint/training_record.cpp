#include "checkpoint/training_record.h"

#include <array>
#include <nlohmann/json.hpp>

#include "checkpoint/guard.h"

namespace tessera::checkpoint {
namespace {

// The value whose name is `text`.
template <class Value, size_t count>
Result<Value> parse_name(const std::string& text, const std::array<Value, count>& values) {
  for (Value value : values)
    if (text == to_string(value)) return value;
  return make_error(ErrorCode::data_loss, "unknown word '{}'", text);
}

nlohmann::json work_json(const Work& work) {
  return {{"seq", work.seq},
          {"micro_batch", work.micro_batch},
          {"global_batch", work.global_batch},
          {"precision", to_string(work.precision)},
          {"numerics", to_string(work.numerics)},
          {"tp_blocks", work.tp_blocks},
          {"seq_chunks", work.seq_chunks}};
}

Result<Work> parse_work(const nlohmann::json& object) {
  Work work{.seq = object.at("seq").get<int64_t>(),
            .micro_batch = object.at("micro_batch").get<int64_t>(),
            .global_batch = object.at("global_batch").get<int64_t>(),
            .tp_blocks = object.at("tp_blocks").get<int64_t>(),
            .seq_chunks = object.at("seq_chunks").get<int64_t>()};
  TESSERA_ASSIGN_OR_RETURN(work.precision, parse_name(object.at("precision").get<std::string>(),
                                                      std::array{Precision::float32, Precision::bf16}));
  TESSERA_ASSIGN_OR_RETURN(work.numerics, parse_name(object.at("numerics").get<std::string>(),
                                                     std::array{Numerics::exact, Numerics::fast}));
  return work;
}

Result<TrainingRecord> parse_record(const nlohmann::json& object) {
  TrainingRecord record{.step = object.at("step").get<int64_t>(), .seed = object.at("seed").get<uint64_t>()};
  TESSERA_ASSIGN_OR_RETURN(record.work, parse_work(object.at("work")));
  TESSERA_ASSIGN_OR_RETURN(record.layout, parse_layout(object.at("layout").get<std::string>()));
  record.optimizer = object.at("optimizer").get<std::string>();
  if (object.contains("extra")) record.extra = object.at("extra").dump();
  return record;
}

}  // namespace

Result<std::string> to_text(const TrainingRecord& record) {
  return guarded(kTrainingFile, [&]() -> Result<std::string> {
    nlohmann::json object = {{"step", record.step},
                             {"seed", record.seed},
                             {"work", work_json(record.work)},
                             {"layout", to_string(record.layout)},
                             {"optimizer", record.optimizer}};
    if (!record.extra.empty()) object["extra"] = nlohmann::json::parse(record.extra);
    return object.dump(2) + "\n";
  });
}

Result<TrainingRecord> parse_training_record(std::string_view text) {
  auto parsed = guarded(kTrainingFile, [&] { return parse_record(nlohmann::json::parse(text)); });
  if (parsed || parsed.error().code != ErrorCode::internal) return parsed;
  return Error{ErrorCode::data_loss, parsed.error().message};
}

}  // namespace tessera::checkpoint
