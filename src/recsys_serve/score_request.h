// The body of POST /v1/score as a batch:
//
//   {"dense": {"age": [39, 50]}, "sparse": {"workclass": ["Private", null], "tags": [["a", "b"], []]}}
//
// Every feature of the model stands there by name, with one value for each row: a number, or an id as the logs
// have it (text or whole number); null where it is not known; a list of ids where a row has several.
// Errors name the feature and the row. Threads: any.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "http/error_body.h"
#include "recsys_data/encoding.h"

namespace tessera::recsys_serve {

// A JSON object that is not nested deeply.
std::variant<std::shared_ptr<const nlohmann::json>, HttpError> parse_body(std::string_view body);

std::variant<recsys_data::Batch, HttpError> parse_score_request(std::string_view body,
                                                                const recsys_data::EncodedFeatures& features,
                                                                int64_t max_rows);

// Columns of a batch, one after the other, whatever protocol they came by. `several`: one list for each row.
class BatchBuilder {
 public:
  // `features` must outlive it.
  explicit BatchBuilder(const recsys_data::EncodedFeatures& features);
  // The first column decides how many rows there are. Errors: another number of rows; a value that is none.
  Status add_number(size_t feature, std::span<const recsys_data::RawValue> values);
  Status add_ids(size_t slot, std::span<const recsys_data::RawValue> values);
  Status add_several(size_t slot, std::span<const std::vector<recsys_data::RawValue>> values);
  // A feature that has no column yet: "dense.NAME" or "sparse.NAME".
  std::optional<std::string> missing() const;
  recsys_data::Batch take() { return std::move(batch_); }  // REQUIRES: none is missing

 private:
  Status check_rows(const std::string& name, size_t rows);

  const recsys_data::EncodedFeatures& features_;
  recsys_data::Batch batch_;
  std::vector<bool> has_number_, has_slot_;
  bool has_rows_ = false;
};

}  // namespace tessera::recsys_serve
