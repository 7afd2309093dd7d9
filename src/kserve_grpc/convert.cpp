#include "kserve_grpc/convert.h"

#include <algorithm>

namespace tessera::kserve {

using nlohmann::json;

namespace {

json parameter_value(const inference::InferParameter& parameter) {
  switch (parameter.parameter_choice_case()) {
    case inference::InferParameter::kBoolParam:
      return parameter.bool_param();
    case inference::InferParameter::kInt64Param:
      return parameter.int64_param();
    case inference::InferParameter::kStringParam:
      return parameter.string_param();
    case inference::InferParameter::kDoubleParam:
      return parameter.double_param();
    case inference::InferParameter::kUint64Param:
      return parameter.uint64_param();
    case inference::InferParameter::PARAMETER_CHOICE_NOT_SET:
      break;
  }
  return nullptr;
}

template <class Numbers>
void append(const Numbers& numbers, json& data) {
  for (auto number : numbers) data.push_back(number);
}

// Elements that were sent as fields of their type rather than as bytes.
Status fill_from_contents(const inference::InferTensorContents& contents, Tensor& tensor) {
  json data = json::array();
  append(contents.bool_contents(), data);
  append(contents.int_contents(), data);
  append(contents.int64_contents(), data);
  append(contents.uint_contents(), data);
  append(contents.uint64_contents(), data);
  append(contents.fp32_contents(), data);
  append(contents.fp64_contents(), data);
  append(contents.bytes_contents(), data);
  return fill_from_json(data, tensor);
}

void set(inference::InferParameter& parameter, const json& value) {
  if (value.is_boolean())
    parameter.set_bool_param(value.get<bool>());
  else if (value.is_number_integer())
    parameter.set_int64_param(value.get<int64_t>());
  else if (value.is_number())
    parameter.set_double_param(value.get<double>());
  else
    parameter.set_string_param(value.is_string() ? value.get<std::string>() : value.dump());
}

inference::DataType config_type(const std::string& datatype) {
  inference::DataType type = inference::TYPE_INVALID;
  inference::DataType_Parse("TYPE_" + (datatype == "BYTES" ? "STRING" : datatype), &type);
  return type;
}

void set(inference::StatisticDuration& message, const Duration& duration) {
  message.set_count(duration.count);
  message.set_ns(duration.ns);
}

}  // namespace

grpc::Status to_grpc(const Error& error) {
  auto code = [&] {
    switch (error.code) {
      case ErrorCode::invalid_argument:
        return grpc::StatusCode::INVALID_ARGUMENT;
      case ErrorCode::not_found:
        return grpc::StatusCode::NOT_FOUND;
      case ErrorCode::unavailable:
        return grpc::StatusCode::UNAVAILABLE;
      case ErrorCode::deadline_exceeded:
        return grpc::StatusCode::DEADLINE_EXCEEDED;
      case ErrorCode::aborted:
        return grpc::StatusCode::ABORTED;
      case ErrorCode::resource_exhausted:
        return grpc::StatusCode::RESOURCE_EXHAUSTED;
      default:
        return grpc::StatusCode::INTERNAL;
    }
  }();
  return {code, error.message};
}

Result<InferRequest> from_message(const inference::ModelInferRequest& message) {
  InferRequest request{.model = message.model_name(), .version = message.model_version(), .id = message.id()};
  for (const auto& [name, parameter] : message.parameters())
    request.parameters[name] = parameter_value(parameter);
  for (const auto& output : message.outputs())
    request.outputs.push_back({.name = output.name(), .binary = true});
  bool raw = message.raw_input_contents_size() > 0;
  if (raw && message.raw_input_contents_size() != message.inputs_size())
    return invalid("{} inputs came with {} raw contents; give one for each", message.inputs_size(),
                   message.raw_input_contents_size());
  for (int i = 0; i < message.inputs_size(); ++i) {
    const auto& input = message.inputs(i);
    Tensor tensor{.name = input.name(), .datatype = input.datatype(), .shape = {}, .raw = {}};
    tensor.shape.assign(input.shape().begin(), input.shape().end());
    if (raw)
      tensor.raw = message.raw_input_contents(i);
    else
      TESSERA_RETURN_IF_ERROR(fill_from_contents(input.contents(), tensor));
    TESSERA_RETURN_IF_ERROR(check(tensor));
    request.inputs.push_back(std::move(tensor));
  }
  return request;
}

void to_message(const InferResponse& response, const InferRequest& request,
                inference::ModelInferResponse& message) {
  message.set_model_name(response.model);
  message.set_model_version(response.version);
  message.set_id(response.id);
  for (const auto& [name, value] : response.parameters.items())
    set((*message.mutable_parameters())[name], value);
  for (const Tensor& tensor : response.outputs) {
    bool wanted = request.outputs.empty() || std::ranges::find(request.outputs, tensor.name,
                                                               &RequestedOutput::name) != request.outputs.end();
    if (!wanted) continue;
    auto* output = message.add_outputs();
    output->set_name(tensor.name);
    output->set_datatype(tensor.datatype);
    output->mutable_shape()->Assign(tensor.shape.begin(), tensor.shape.end());
    message.add_raw_output_contents(tensor.raw);
  }
}

void to_message(const ModelMetadata& model, inference::ModelMetadataResponse& message) {
  message.set_name(model.name);
  message.add_versions(model.version);
  message.set_platform(model.platform);
  auto add = [](auto* tensor, const TensorMetadata& from) {
    tensor->set_name(from.name);
    tensor->set_datatype(from.datatype);
    tensor->mutable_shape()->Assign(from.shape.begin(), from.shape.end());
  };
  for (const auto& tensor : model.inputs) add(message.add_inputs(), tensor);
  for (const auto& tensor : model.outputs) add(message.add_outputs(), tensor);
}

void to_message(const ModelMetadata& model, inference::ModelConfig& message) {
  message.set_name(model.name);
  message.set_backend(model.platform);
  message.mutable_model_transaction_policy()->set_decoupled(true);
  auto add = [](auto* tensor, const TensorMetadata& from) {
    tensor->set_name(from.name);
    tensor->set_data_type(config_type(from.datatype));
    tensor->mutable_dims()->Assign(from.shape.begin(), from.shape.end());
  };
  for (const auto& tensor : model.inputs) {
    auto* input = message.add_input();
    add(input, tensor);
    input->set_optional(tensor.optional);
  }
  for (const auto& tensor : model.outputs) add(message.add_output(), tensor);
}

void to_message(const ModelStatistics& model, inference::ModelStatistics& message) {
  message.set_name(model.name);
  message.set_version(model.version);
  message.set_last_inference(model.last_inference_ms);
  message.set_inference_count(model.inference_count);
  message.set_execution_count(model.execution_count);
  auto* all = message.mutable_inference_stats();
  set(*all->mutable_success(), model.success);
  set(*all->mutable_fail(), model.fail);
  set(*all->mutable_queue(), model.queue);
  set(*all->mutable_compute_input(), model.compute_input);
  set(*all->mutable_compute_infer(), model.compute_infer);
  set(*all->mutable_compute_output(), model.compute_output);
}

}  // namespace tessera::kserve
