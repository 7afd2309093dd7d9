#include "kserve/backend.h"

#include <algorithm>

#include "core/nearest.h"

namespace tessera::kserve {

namespace {

std::vector<std::string> names_of(const std::vector<TensorMetadata>& tensors) {
  std::vector<std::string> out;
  for (const TensorMetadata& tensor : tensors) out.push_back(tensor.name);
  return out;
}

Status check_input(const Tensor& tensor, const ModelMetadata& model) {
  auto known = std::ranges::find(model.inputs, tensor.name, &TensorMetadata::name);
  if (known == model.inputs.end()) {
    auto names = names_of(model.inputs);
    return invalid("the model '{}' has no input '{}'{}; it takes {}", model.name, tensor.name,
                   did_you_mean(tensor.name, names), fmt::join(names, ", "));
  }
  if (tensor.datatype != known->datatype)
    return invalid("input '{}': datatype {}, expected {}", tensor.name, tensor.datatype, known->datatype);
  bool any = std::ranges::count(known->shape, -1) > 0;
  int64_t elements = Tensor{.shape = known->shape}.num_elements();
  if (any || tensor.num_elements() == elements) return {};
  return invalid("input '{}': shape [{}], expected [{}]", tensor.name, fmt::join(tensor.shape, ", "),
                 fmt::join(known->shape, ", "));
}

}  // namespace

Status check_tensors(const InferRequest& request, const ModelMetadata& model) {
  for (const Tensor& tensor : request.inputs) {
    TESSERA_RETURN_IF_ERROR(check_input(tensor, model));
    if (std::ranges::count(request.inputs, tensor.name, &Tensor::name) > 1)
      return invalid("input '{}' stands twice in the request", tensor.name);
  }
  for (const TensorMetadata& wanted : model.inputs)
    if (!wanted.optional && !request.input(wanted.name))
      return invalid("input '{}' is missing: {} of shape [{}]", wanted.name, wanted.datatype,
                     fmt::join(wanted.shape, ", "));
  for (const RequestedOutput& asked : request.outputs) {
    auto names = names_of(model.outputs);
    if (asked.name.empty() || std::ranges::find(names, asked.name) != names.end()) continue;
    return invalid("the model '{}' has no output '{}'; it gives {}", model.name, asked.name,
                   fmt::join(names, ", "));
  }
  return {};
}

const Tensor* InferRequest::input(std::string_view name) const {
  for (const Tensor& tensor : inputs)
    if (tensor.name == name) return &tensor;
  return nullptr;
}

const std::vector<std::string>& extensions() {
  static const std::vector<std::string> kServed = {"binary_tensor_data", "generate",   "model_configuration",
                                                   "model_repository",   "parameters", "statistics"};
  return kServed;
}

}  // namespace tessera::kserve
