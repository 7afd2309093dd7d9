// What GGUF's metadata say of a model, written as the config.json that the same model has at Hugging Face.
#include "serve/gguf_model.h"

namespace tessera::serve {
namespace {

using checkpoint::GgufFile;
using nlohmann::json;

// Metadata of the architecture: "llama.block_count".
class Fields {
 public:
  Fields(const GgufFile& file, std::string architecture)
      : metadata_(file.metadata()), prefix_(std::move(architecture) + ".") {}
  bool has(const std::string& key) const { return metadata_.contains(prefix_ + key); }
  void copy(const std::string& key, const char* name, json& config) const {
    if (has(key)) config[name] = metadata_.at(prefix_ + key);
  }
  std::string text(const std::string& key) const {
    const json value = metadata_.value(prefix_ + key, json());
    return value.is_string() ? value.get<std::string>() : "";
  }

 private:
  const json& metadata_;
  std::string prefix_;
};

// Hugging Face's model_type; empty: unknown.
std::string model_type_of(const std::string& architecture, bool experts) {
  if (architecture == "llama") return experts ? "mixtral" : "llama";
  if (architecture == "qwen3") return "qwen3";
  if (architecture == "qwen3moe") return "qwen3_moe";
  return "";
}

constexpr std::pair<const char*, const char*> kFields[] = {
    {"block_count", "num_hidden_layers"},
    {"embedding_length", "hidden_size"},
    {"feed_forward_length", "intermediate_size"},
    {"attention.head_count", "num_attention_heads"},
    {"attention.head_count_kv", "num_key_value_heads"},
    {"attention.key_length", "head_dim"},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps"},
    {"rope.freq_base", "rope_theta"},
    {"context_length", "max_position_embeddings"},
    {"vocab_size", "vocab_size"},
    {"expert_count", "num_experts"},
    {"expert_used_count", "num_experts_per_tok"},
    {"expert_feed_forward_length", "moe_intermediate_size"}};

Status refuse_what_would_be_ignored(const GgufFile& file, const Fields& fields) {
  const std::string scaling = fields.text("rope.scaling.type");
  if (!scaling.empty() && scaling != "none")
    return invalid("rope.scaling.type '{}' is not supported, only none", scaling);
  for (const auto& [name, tensor] : file.tensors())
    if (name.ends_with(".bias")) return invalid("tensor {}: biases are not supported", name);
  return {};
}

json config_of(const GgufFile& file, const Fields& fields, const std::string& model_type) {
  json config = {{"model_type", model_type}};
  for (auto [key, name] : kFields) fields.copy(key, name, config);
  if (model_type == "mixtral") config["num_local_experts"] = config["num_experts"];
  if (model_type == "qwen3_moe") config["norm_topk_prob"] = true;
  config["tie_word_embeddings"] = file.find("output.weight") == nullptr;
  if (const auto* embedding = file.find("token_embd.weight"))
    config["vocab_size"] = embedding->elements() / embedding->width();
  const json& metadata = file.metadata();
  for (const char* name : {"bos_token_id", "eos_token_id"})
    if (auto found = metadata.find(std::string("tokenizer.ggml.") + name); found != metadata.end())
      config[name] = *found;
  return config;
}

}  // namespace

Result<ModelSpec> spec_of_gguf(const GgufFile& file) {
  const json named = file.metadata().value("general.architecture", json());
  if (!named.is_string()) return invalid("{}: general.architecture is missing", file.path().string());
  const std::string architecture = named.get<std::string>();
  const Fields fields(file, architecture);
  const std::string model_type = model_type_of(architecture, fields.has("expert_count"));
  if (model_type.empty())
    return invalid("{}: architecture '{}' is not supported; known: llama, qwen3, qwen3moe",
                   file.path().string(), architecture);
  if (Status status = refuse_what_would_be_ignored(file, fields); !status.ok())
    return status.error().within(file.path().string());
  auto spec = parse_model_spec(config_of(file, fields, model_type));
  if (!spec) return spec.error().within(fmt::format("{}: metadata as", file.path().string()));
  return spec;
}

}  // namespace tessera::serve
