#include "kserve/rest_codec.h"

#include <algorithm>
#include <charconv>

namespace tessera::kserve {

using nlohmann::json;

namespace {

constexpr const char* kJsonLength = "Inference-Header-Content-Length";
constexpr int kMaxDepth = 64;

Result<json> parse_object(std::string_view text) {
  auto bounded = [](int depth, json::parse_event_t, json&) {
    if (depth > kMaxDepth) throw std::invalid_argument("it is nested too deeply");
    return true;
  };
  try {
    json body = text.empty() ? json::object() : json::parse(text, bounded);
    if (!body.is_object()) return invalid("the body must be a JSON object");
    return body;
  } catch (const std::exception& failure) {
    return invalid("the body is no valid JSON: {}", failure.what());
  }
}

Result<size_t> json_length(const HttpRequest& request) {
  std::string_view text = request.header(kJsonLength);
  if (text.empty()) return request.body.size();
  size_t length = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), length);
  if (error != std::errc() || end != text.data() + text.size() || length > request.body.size())
    return invalid("header {} is '{}', but must be a number of bytes of the body, which has {}", kJsonLength,
                   text.substr(0, 40), request.body.size());
  return length;
}

json parameters_of(const json& object) {
  auto found = object.find("parameters");
  return found != object.end() && found->is_object() ? *found : json::object();
}

// Takes the tensor's bytes from the front of `binary` when it was sent in that form.
Result<Tensor> read_tensor(const json& input, std::string_view& binary) {
  Tensor tensor;
  try {
    tensor = {.name = input.at("name"), .datatype = input.at("datatype"), .shape = input.at("shape")};
  } catch (const json::exception&) {
    return invalid("every one of 'inputs' needs 'name', 'datatype' and 'shape'");
  }
  json size = parameters_of(input).value("binary_data_size", json());
  if (size.is_number_unsigned()) {
    if (size.get<uint64_t>() > binary.size())
      return invalid("tensor '{}' should have {} bytes, but {} are left in the body", tensor.name, size.dump(),
                     binary.size());
    tensor.raw = binary.substr(0, size.get<size_t>());
    binary.remove_prefix(tensor.raw.size());
  } else if (auto data = input.find("data"); data != input.end()) {
    TESSERA_RETURN_IF_ERROR(fill_from_json(*data, tensor));
  } else {
    return invalid("tensor '{}' has neither 'data' nor 'binary_data_size'", tensor.name);
  }
  TESSERA_RETURN_IF_ERROR(check(tensor));
  return tensor;
}

Status read_outputs(const json& body, InferRequest& request) {
  bool all_binary = request.parameters.value("binary_data_output", json()) == json(true);
  auto outputs = body.find("outputs");
  if (outputs == body.end()) {
    if (all_binary) request.outputs = {{.name = "", .binary = true}};
    return {};
  }
  for (const json& output : *outputs) {
    if (!output.is_object() || !output.value("name", json()).is_string())
      return invalid("every one of 'outputs' needs a 'name'");
    json binary = parameters_of(output).value("binary_data", json(all_binary));
    request.outputs.push_back({.name = output.at("name"), .binary = binary == json(true)});
  }
  return {};
}

std::string text_or_empty(const json& object, const char* name) {
  json value = object.value(name, json());
  return value.is_string() ? value.get<std::string>() : "";
}

InferRequest begin_request(const HttpRequest& request, const json& body) {
  return {.id = text_or_empty(body, "id"),
          .parameters = parameters_of(body),
          .caller = request.caller,
          .request_id = request.id};
}

json shape_json(const std::vector<TensorMetadata>& tensors, bool with_optional) {
  json out = json::array();
  for (const TensorMetadata& tensor : tensors) {
    json one = {{"name", tensor.name}, {"datatype", tensor.datatype}, {"shape", tensor.shape}};
    if (with_optional && tensor.optional) one["optional"] = true;
    out.push_back(std::move(one));
  }
  return out;
}

// Triton's configuration has names of its own for types.
json config_tensors(const std::vector<TensorMetadata>& tensors) {
  json out = json::array();
  for (const TensorMetadata& tensor : tensors) {
    std::string type = "TYPE_" + (tensor.datatype == "BYTES" ? "STRING" : tensor.datatype);
    json one = {{"name", tensor.name}, {"data_type", type}, {"dims", tensor.shape}};
    if (tensor.optional) one["optional"] = true;
    out.push_back(std::move(one));
  }
  return out;
}

json duration_json(const Duration& duration) {
  return {{"count", duration.count}, {"ns", duration.ns}};
}

}  // namespace

std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<InferRequest> read_infer(const HttpRequest& request) {
  if (auto encoding = request.header("Content-Encoding"); !encoding.empty() && encoding != "identity")
    return invalid("bodies with Content-Encoding '{}' are not taken; send them as they are", encoding);
  TESSERA_ASSIGN_OR_RETURN(size_t length, json_length(request));
  TESSERA_ASSIGN_OR_RETURN(json body, parse_object(std::string_view(request.body).substr(0, length)));
  std::string_view binary = std::string_view(request.body).substr(length);
  InferRequest out = begin_request(request, body);
  auto inputs = body.find("inputs");
  if (inputs == body.end() || !inputs->is_array()) return invalid("'inputs' is missing: a list of tensors");
  for (const json& input : *inputs) {
    if (!input.is_object()) return invalid("every one of 'inputs' must be an object");
    TESSERA_ASSIGN_OR_RETURN(Tensor tensor, read_tensor(input, binary));
    out.inputs.push_back(std::move(tensor));
  }
  if (!binary.empty()) return invalid("{} bytes behind the last tensor belong to none", binary.size());
  if (body.contains("outputs") && !body["outputs"].is_array()) return invalid("'outputs' must be a list");
  TESSERA_RETURN_IF_ERROR(read_outputs(body, out));
  return out;
}

Result<HttpResponse> write_infer(const InferResponse& response, const InferRequest& request) {
  json body = {{"model_name", response.model}, {"model_version", response.version}, {"outputs", json::array()}};
  if (!response.id.empty()) body["id"] = response.id;
  if (!response.parameters.empty()) body["parameters"] = response.parameters;
  std::string binary;
  auto add = [&](const Tensor& tensor, bool as_bytes) {
    json one = {{"name", tensor.name}, {"datatype", tensor.datatype}, {"shape", tensor.shape}};
    if (as_bytes) {
      one["parameters"] = {{"binary_data_size", tensor.raw.size()}};
      binary += tensor.raw;
    } else {
      one["data"] = to_json_data(tensor);
    }
    body["outputs"].push_back(std::move(one));
  };
  bool all = request.outputs.empty() || request.outputs[0].name.empty();
  if (all)
    for (const Tensor& tensor : response.outputs) add(tensor, !request.outputs.empty());
  for (const RequestedOutput& asked : request.outputs) {
    if (all) break;
    auto found = std::ranges::find(response.outputs, asked.name, &Tensor::name);
    if (found == response.outputs.end())
      return invalid("the model '{}' gives no output '{}' for this request", response.model, asked.name);
    add(*found, asked.binary);
  }
  std::string text = dump(body);
  if (binary.empty()) return HttpResponse{.body = text};
  return HttpResponse{.body = text + binary,
                      .content_type = "application/octet-stream",
                      .headers = {{kJsonLength, fmt::format("{}", text.size())}}};
}

Result<InferRequest> read_generate(const HttpRequest& request, const ModelMetadata& model) {
  TESSERA_ASSIGN_OR_RETURN(json body, parse_object(request.body));
  InferRequest out = begin_request(request, body);
  for (const auto& [key, value] : body.items()) {
    if (key == "parameters" || key == "id") continue;
    auto input = std::ranges::find(model.inputs, key, &TensorMetadata::name);
    if (input == model.inputs.end()) {
      out.parameters[key] = value;
      continue;
    }
    Tensor tensor{
        .name = key, .datatype = input->datatype, .shape = {value.is_array() ? std::ssize(value) : 1}};
    TESSERA_RETURN_IF_ERROR(fill_from_json(value, tensor));
    TESSERA_RETURN_IF_ERROR(check(tensor));
    out.inputs.push_back(std::move(tensor));
  }
  return out;
}

json generate_json(const InferResponse& response) {
  json body = {{"model_name", response.model}, {"model_version", response.version}};
  if (!response.id.empty()) body["id"] = response.id;
  for (const auto& [key, value] : response.parameters.items()) body[key] = value;
  for (const Tensor& tensor : response.outputs) {
    json data = to_json_data(tensor);
    body[tensor.name] = data.size() == 1 ? data[0] : data;
  }
  return body;
}

json metadata_json(const ModelMetadata& model) {
  return {{"name", model.name},
          {"versions", {model.version}},
          {"platform", model.platform},
          {"inputs", shape_json(model.inputs, true)},
          {"outputs", shape_json(model.outputs, false)}};
}

json config_json(const ModelMetadata& model) {
  return {{"name", model.name},
          {"platform", ""},
          {"backend", model.platform},
          {"version_policy", {{"latest", {{"num_versions", 1}}}}},
          {"max_batch_size", 0},
          {"input", config_tensors(model.inputs)},
          {"output", config_tensors(model.outputs)},
          {"model_transaction_policy", {{"decoupled", true}}}};
}

json statistics_json(const std::vector<ModelStatistics>& models) {
  json out = json::array();
  for (const ModelStatistics& model : models)
    out.push_back({{"name", model.name},
                   {"version", model.version},
                   {"last_inference", model.last_inference_ms},
                   {"inference_count", model.inference_count},
                   {"execution_count", model.execution_count},
                   {"inference_stats",
                    {{"success", duration_json(model.success)},
                     {"fail", duration_json(model.fail)},
                     {"queue", duration_json(model.queue)},
                     {"compute_input", duration_json(model.compute_input)},
                     {"compute_infer", duration_json(model.compute_infer)},
                     {"compute_output", duration_json(model.compute_output)},
                     {"cache_hit", duration_json({})},
                     {"cache_miss", duration_json({})}}},
                   {"batch_stats", json::array()}});
  return {{"model_stats", out}};
}

json index_json(const std::vector<ModelState>& models, bool only_ready) {
  json out = json::array();
  for (const ModelState& model : models) {
    if (only_ready && model.state != "READY") continue;
    json one = {{"name", model.name}, {"version", model.version}, {"state", model.state}};
    if (!model.reason.empty()) one["reason"] = model.reason;
    out.push_back(std::move(one));
  }
  return out;
}

}  // namespace tessera::kserve
