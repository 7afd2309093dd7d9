// Tensors of KServe's protocol as bytes: little-endian numbers in a row; of type BYTES each element as its
// length in four bytes and then itself. Threads: any.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace tessera::kserve {

struct Tensor {
  std::string name, datatype;  // "BYTES", "BOOL", "INT32", "UINT32", "INT64", "FP32", "FP64", ...
  std::vector<int64_t> shape;
  std::string raw;

  int64_t num_elements() const;
};

// Bytes of one element; 0 for BYTES, nullopt for a type that does not exist.
std::optional<int64_t> element_bytes(std::string_view datatype);
// Errors: a shape with a negative or too large dimension; more or fewer bytes than shape and type say.
Status check(const Tensor& tensor);

Tensor text_tensor(std::string name, const std::vector<std::string>& texts);
// REQUIRES: check() passed. Errors: another type than BYTES.
Result<std::vector<std::string>> texts_of(const Tensor& tensor);
// The one element of the tensor. Errors: another number of elements, or a type that is none of these.
Result<std::string> text_of(const Tensor& tensor);
Result<bool> bool_of(const Tensor& tensor);
Result<int64_t> integer_of(const Tensor& tensor);
Result<double> number_of(const Tensor& tensor);

// "data" of a tensor in JSON: a list, flat or nested as its shape. BYTES are texts.
Status fill_from_json(const nlohmann::json& data, Tensor& tensor);
nlohmann::json to_json_data(const Tensor& tensor);

}  // namespace tessera::kserve
