#include "serve/lora.h"

#include <ATen/ops/empty.h>
#include <fmt/ranges.h>

#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "checkpoint/safetensors.h"
#include "core/file.h"
#include "spec/config_fields.h"

namespace tessera::serve {

using at::Tensor;
using nlohmann::json;

namespace {

constexpr const char* kConfigFile = "adapter_config.json";
constexpr const char* kWeightsFile = "adapter_model.safetensors";

// A product that adapters may have: its name in a block, its place and its shape.
struct LoraTarget {
  const char* name;
  LowRank LoraLayer::*part;
  int64_t n, k;
};

std::vector<LoraTarget> targets_of(const ServedSpec& spec) {
  const int64_t q = spec.heads * spec.head_dim, kv = spec.kv_heads * spec.head_dim, d = spec.hidden;
  return {{"self_attn.q_proj", &LoraLayer::q, q, d},        {"self_attn.k_proj", &LoraLayer::k, kv, d},
          {"self_attn.v_proj", &LoraLayer::v, kv, d},       {"self_attn.o_proj", &LoraLayer::o, d, q},
          {"mlp.gate_proj", &LoraLayer::gate, spec.ffn, d}, {"mlp.up_proj", &LoraLayer::up, spec.ffn, d},
          {"mlp.down_proj", &LoraLayer::down, d, spec.ffn}};
}

struct LoraConfig {
  int64_t rank = 0;
  double scale = 1;
};

Result<LoraConfig> read_lora_config(const std::filesystem::path& file) {
  TESSERA_ASSIGN_OR_RETURN(std::string text, read_file(file));
  const json object = json::parse(text, nullptr, false);
  if (!object.is_object()) return invalid("not a JSON object");
  ConfigFields fields(object);
  LoraConfig config{.rank = fields.positive({"r"})};
  const double alpha = fields.number_or("lora_alpha", static_cast<double>(config.rank));
  const bool by_root = fields.flag_or({"use_rslora"}, false);
  config.scale =
      alpha / (by_root ? std::sqrt(static_cast<double>(config.rank)) : static_cast<double>(config.rank));
  fields.refuse("peft_type", fields.text_or("peft_type", "LORA") != "LORA", "only LORA is served");
  fields.refuse("use_dora", fields.flag_or({"use_dora"}, false), "only false is served");
  fields.refuse("fan_in_fan_out", fields.flag_or({"fan_in_fan_out"}, false), "only false is served");
  fields.refuse("bias", fields.text_or("bias", "none") != "none", "only \"none\" is served");
  for (const char* name : {"modules_to_save", "rank_pattern", "alpha_pattern", "layer_replication"})
    fields.refuse(name, fields.present(name) && !object[name].empty(), "it is not served");
  if (fields.error()) return invalid("{}", fields.error()->message.substr(std::string("config.json: ").size()));
  return config;
}

class LoraReader {
 public:
  LoraReader(checkpoint::SafetensorsFile file, const LoraConfig& config, const ServedSpec& spec,
             at::ScalarType dtype)
      : file_(std::move(file)), config_(config), spec_(spec), dtype_(dtype) {
    for (const auto& [name, stored] : file_.header().tensors) left_.emplace(name, &stored);
  }

  Result<LoraAdapter> read(const std::string& name) {
    LoraAdapter adapter{.name = name, .layers = {}};
    for (int64_t l = 0; l < spec_.layers; ++l) {
      LoraLayer& layer = adapter.layers.emplace_back();
      for (const LoraTarget& target : targets_of(spec_)) {
        if (spec_.is_moe(l) && std::string_view(target.name).starts_with("mlp.")) continue;
        const std::string product = fmt::format("model.layers.{}.{}", l, target.name);
        TESSERA_RETURN_IF_ERROR(read_part(product, target, layer.*target.part));
      }
    }
    if (left_.empty()) return adapter;
    return invalid(
        "tensor {} is of a product that takes no adapter here; served are q, k, v and o_proj and, in "
        "dense layers, gate, up and down_proj",
        left_.begin()->first);
  }

 private:
  // What PEFT puts in front of the model's own names.
  static std::string name_of(const std::string& product, const char* which) {
    return fmt::format("base_model.model.{}.lora_{}.weight", product, which);
  }

  Status read_part(const std::string& product, const LoraTarget& target, LowRank& part) {
    const std::string a_name = name_of(product, "A"), b_name = name_of(product, "B");
    if (!left_.contains(a_name) && !left_.contains(b_name)) return {};
    TESSERA_ASSIGN_OR_RETURN(Tensor a, take(a_name, {config_.rank, target.k}));
    TESSERA_ASSIGN_OR_RETURN(Tensor b, take(b_name, {target.n, config_.rank}));
    part.a = kernels::PackedWeight(a.to(dtype_));
    part.b = kernels::PackedWeight(b.mul(config_.scale).to(dtype_));
    return {};
  }

  // Float32.
  Result<Tensor> take(const std::string& name, const std::vector<int64_t>& shape) {
    const auto found = left_.find(name);
    if (found == left_.end()) return invalid("tensor {} is missing", name);
    const checkpoint::StoredTensor& stored = *found->second;
    if (stored.shape != shape)
      return invalid("tensor {} is [{}], but the model and r = {} ask for [{}]", name,
                     fmt::join(stored.shape, ", "), config_.rank, fmt::join(shape, ", "));
    if (!c10::isFloatingType(stored.dtype)) return invalid("tensor {} is not of floats", name);
    Tensor out = at::empty(shape, at::TensorOptions().dtype(stored.dtype));
    const auto bytes = file_.bytes(stored);
    std::memcpy(out.mutable_data_ptr(), bytes.data(), bytes.size());
    left_.erase(found);
    return out.to(at::kFloat);
  }

  checkpoint::SafetensorsFile file_;
  LoraConfig config_;
  const ServedSpec& spec_;
  at::ScalarType dtype_;
  std::map<std::string, const checkpoint::StoredTensor*> left_;
};

}  // namespace

Result<LoraAdapter> load_lora(const std::string& name, const std::filesystem::path& directory,
                              const ServedSpec& spec, at::ScalarType dtype) {
  if (spec.family != Family::trained)
    return invalid("{}: adapters are served with llama, qwen3, mixtral and qwen3_moe", directory.string());
  auto config = read_lora_config(directory / kConfigFile);
  if (!config) return config.error().within((directory / kConfigFile).string());
  TESSERA_ASSIGN_OR_RETURN(auto file, checkpoint::SafetensorsFile::open(directory / kWeightsFile));
  auto adapter = LoraReader(std::move(file), *config, spec, dtype).read(name);
  if (!adapter) return adapter.error().within((directory / kWeightsFile).string());
  return adapter;
}

void add_low_rank(const LowRank& part, const Tensor& x, const Tensor& rows, Tensor out) {
  if (part.empty()) return;
  const auto own = [&](int64_t width, at::ScalarType dtype) {
    return at::empty({rows.numel(), width}, at::TensorOptions().dtype(dtype));
  };
  Tensor low = own(part.a.n(), x.scalar_type()), added = own(part.b.n(), at::kFloat);
  kernels::gemm_packed(x.index_select(0, rows), part.a, low);
  kernels::gemm_packed(low, part.b, added);
  Tensor sum = out.index_select(0, rows);
  kernels::add_rounded(sum, added, sum);
  out.index_copy_(0, rows, sum);
}

}  // namespace tessera::serve
