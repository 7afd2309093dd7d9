#include "recsys_roles/remote_loader.h"

#include <nlohmann/json.hpp>

namespace tessera::recsys_roles {
namespace {

using recsys_data::Batch;
using recsys_train::BatchKey;
using recsys_train::DataFacts;

constexpr const char* kFacts = "recsys-facts";

class RemoteLoader : public recsys_train::BatchLoader {
 public:
  RemoteLoader(const Meeting& meeting, const std::string& role) : caller_(meeting, role) {}

  Status load(const BatchKey& key, Batch& out) override {
    TESSERA_ASSIGN_OR_RETURN(Message bytes, caller_.call(MessageWriter().value(key).take()));
    MessageReader reader(bytes);
    out.rows = reader.value<int64_t>();
    out.number = reader.value<int64_t>();
    reader.array(out.labels);
    reader.array(out.numeric);
    out.slots.resize(std::min<uint64_t>(reader.value<uint64_t>(), bytes.size()));
    for (recsys_data::SlotIds& slot : out.slots) {
      reader.array(slot.ids);
      reader.array(slot.offsets);
    }
    return reader.end();
  }

 private:
  Caller caller_;
};

nlohmann::json to_json(const recsys_data::FeatureEncodings& encodings) {
  auto numbers = nlohmann::json::array(), ids = nlohmann::json::array();
  for (const auto& number : encodings.numbers)
    numbers.push_back({recsys_data::to_string(number.kind), number.mean, number.scale});
  for (const auto& id : encodings.ids)
    ids.push_back({recsys_data::to_string(id.kind), id.cardinality, id.several});
  return {{"numbers", numbers}, {"ids", ids}};
}

Result<recsys_data::FeatureEncodings> encodings_in(const nlohmann::json& object) {
  recsys_data::FeatureEncodings encodings;
  for (const auto& from : object.at("numbers")) {
    recsys_data::NumberEncoding number{.mean = from.at(1), .scale = from.at(2)};
    TESSERA_ASSIGN_OR_RETURN(number.kind, recsys_data::parse_number_encoding(from.at(0).get<std::string>()));
    encodings.numbers.push_back(number);
  }
  for (const auto& from : object.at("ids")) {
    recsys_data::IdEncoding id{.cardinality = from.at(1), .several = from.at(2)};
    TESSERA_ASSIGN_OR_RETURN(id.kind, recsys_data::parse_id_encoding(from.at(0).get<std::string>()));
    encodings.ids.push_back(id);
  }
  return encodings;
}

}  // namespace

Status publish_facts(Store& store, const DataFacts& facts) {
  nlohmann::json object = {{"numeric", facts.features.numeric},
                           {"slots", facts.features.slots},
                           {"train_rows", facts.train_rows},
                           {"has_test", facts.has_test},
                           {"best_auc", facts.best_auc}};
  if (facts.encodings) object["encodings"] = to_json(*facts.encodings);
  return store.set(kFacts, object.dump());
}

Result<DataFacts> await_facts(Store& store, Deadline deadline) {
  auto text = store.get(kFacts, deadline);
  if (!text) return text.error().within("the loader has not opened the data");
  auto object = nlohmann::json::parse(*text, nullptr, false);
  if (!object.is_object()) return make_error(ErrorCode::data_loss, "the loader's facts are no JSON object");
  try {
    DataFacts facts;
    object.at("numeric").get_to(facts.features.numeric);
    object.at("slots").get_to(facts.features.slots);
    object.at("train_rows").get_to(facts.train_rows);
    object.at("has_test").get_to(facts.has_test);
    object.at("best_auc").get_to(facts.best_auc);
    if (object.contains("encodings")) {
      TESSERA_ASSIGN_OR_RETURN(facts.encodings, encodings_in(object["encodings"]));
    }
    return facts;
  } catch (const nlohmann::json::exception& exception) {
    return make_error(ErrorCode::data_loss, "the loader's facts: {}", exception.what());
  }
}

Door::Handler serve_loader(recsys_train::BatchLoader& loader) {
  return [&loader](MessageReader& request) -> Result<Message> {
    auto key = request.value<BatchKey>();
    TESSERA_RETURN_IF_ERROR(request.end());
    Batch batch;
    TESSERA_RETURN_IF_ERROR(loader.load(key, batch));
    MessageWriter answer;
    answer.value(batch.rows).value(batch.number).array(batch.labels).array(batch.numeric);
    answer.value(static_cast<uint64_t>(batch.rows > 0 ? batch.slots.size() : 0));
    if (batch.rows > 0)
      for (const recsys_data::SlotIds& slot : batch.slots) answer.array(slot.ids).array(slot.offsets);
    return answer.take();
  };
}

std::unique_ptr<recsys_train::BatchLoader> make_remote_loader(const Meeting& meeting, const std::string& role) {
  return std::make_unique<RemoteLoader>(meeting, role);
}

}  // namespace tessera::recsys_roles
