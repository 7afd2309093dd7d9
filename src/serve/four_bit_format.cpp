#include "serve/four_bit_format.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "core/file.h"
#include "kernels/threads.h"
#include "spec/config_fields.h"

namespace tessera::serve {

using at::Tensor;
using nlohmann::json;

namespace {

constexpr int64_t kWord = 8;  // numbers of 4 bits in an int32

Result<std::optional<json>> quantisation_of(const std::filesystem::path& directory) {
  TESSERA_ASSIGN_OR_RETURN(std::string text, read_file(directory / "config.json"));
  json config = json::parse(text, nullptr, false);
  if (config.is_object() && config.contains("quantization_config") && !config["quantization_config"].is_null())
    return std::optional(config["quantization_config"]);
  const auto own = directory / "quantize_config.json";
  if (!std::filesystem::exists(own)) return std::optional<json>();
  TESSERA_ASSIGN_OR_RETURN(std::string older, read_file(own));
  config = json::parse(older, nullptr, false);
  if (!config.is_object()) return invalid("{}: not a JSON object", own.string());
  if (!config.contains("quant_method")) config["quant_method"] = config.contains("zero_point") ? "awq" : "gptq";
  return std::optional(config);
}

FourBitFormat read_format(ConfigFields& fields) {
  const std::string method = fields.text_or("quant_method", "");
  FourBitFormat format;
  if (method != "gptq" && method != "awq") {
    fields.fail("quant_method",
                fmt::format("'{}' is not served with this architecture; known: gptq, awq", method));
    return format;
  }
  format.method = method == "awq" ? FourBitFormat::Method::awq : FourBitFormat::Method::gptq;
  const int64_t bits = fields.positive({"bits", "w_bit"});
  if (bits != 4) fields.fail("bits", fmt::format("{} bits are not served, only 4", bits));
  const json& groups = fields.present("group_size") ? fields["group_size"] : json(128);
  const json& size = fields.present("q_group_size") ? fields["q_group_size"] : groups;
  format.group_size = size.is_number_integer() ? size.get<int64_t>() : 0;
  if (format.group_size != -1 && (format.group_size <= 0 || format.group_size % kernels::kQuantGroup != 0))
    fields.fail("group_size", fmt::format("{} is not served; a multiple of 32, or -1", size.dump()));
  format.by_activation = fields.flag_or({"desc_act"}, false);
  const std::string packing = fields.text_or("checkpoint_format", "gptq");
  if (packing != "gptq" && packing != "gptq_v2")
    fields.fail("checkpoint_format", fmt::format("'{}' is not served; known: gptq, gptq_v2", packing));
  format.zeros_less_one = packing == "gptq" && method == "gptq";
  const std::string version = fields.text_or("version", "gemm");
  if (method == "awq" && version != "gemm" && version != "GEMM")
    fields.fail("version", fmt::format("'{}' is not served; known: gemm", version));
  return format;
}

// A tensor whose shape and type are what the format says.
Result<Tensor> read_exactly(const checkpoint::WeightReader& reader, const std::string& name,
                            const std::vector<int64_t>& shape, at::ScalarType type) {
  TESSERA_ASSIGN_OR_RETURN(std::vector<int64_t> stored, reader.shape(name));
  TESSERA_ASSIGN_OR_RETURN(at::ScalarType stored_type, reader.dtype(name));
  if (stored != shape)
    return invalid("tensor {} is [{}], but its format asks for [{}]", name, fmt::join(stored, ", "),
                   fmt::join(shape, ", "));
  if (stored_type != type)
    return invalid("tensor {} is stored as {}, but its format asks for {}", name, c10::toString(stored_type),
                   c10::toString(type));
  return reader.read(name, type);
}

// int32 words to uint8 numbers: one more dimension of 8 at the end, from the lowest bits on.
Tensor numbers_of(const Tensor& words) {
  std::vector<Tensor> parts;
  for (int64_t i = 0; i < kWord; ++i)
    parts.push_back(words.bitwise_right_shift(4 * i).bitwise_and(15).to(at::kByte));
  return at::stack(parts, -1);
}

// [rows, n / 8] words to [rows, n], as the method orders the numbers of a word.
Tensor along_n(const Tensor& words, FourBitFormat::Method method) {
  Tensor numbers = numbers_of(words);
  if (method == FourBitFormat::Method::awq) {
    // Number i of eight lies at place i / 2 when it is even, and behind those when it is odd.
    const Tensor place = at::tensor({0, 4, 1, 5, 2, 6, 3, 7}, at::kLong);
    numbers = numbers.index_select(-1, place);
  }
  return numbers.flatten(1);
}

// Which input stands in which column when groups are runs; undefined when they are already.
Result<Tensor> order_of(const checkpoint::WeightReader& reader, const FourBitFormat& format,
                        const std::string& name, int64_t k, int64_t group) {
  if (!reader.has(name + ".g_idx")) {
    if (format.by_activation) return invalid("tensor {}.g_idx is missing, but desc_act is true", name);
    return Tensor();
  }
  TESSERA_ASSIGN_OR_RETURN(Tensor groups, read_exactly(reader, name + ".g_idx", {k}, at::kInt));
  const Tensor runs = at::arange(k, at::kLong).div(group, "floor").to(at::kInt);
  if (groups.equal(runs)) return Tensor();
  const Tensor order = at::argsort(groups, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  if (!groups.index_select(0, order).equal(runs))
    return invalid("tensor {}.g_idx does not give {} inputs to each of {} groups", name, group, k / group);
  return order;
}

Status check_bias(const checkpoint::WeightReader& reader, const std::string& name) {
  if (!reader.has(name + ".bias")) return {};
  TESSERA_ASSIGN_OR_RETURN(Tensor bias, reader.read(name + ".bias", at::kFloat));
  if (bias.count_nonzero().item<int64_t>() == 0) return {};
  return invalid("tensor {}.bias is not zero; biases are not served with this architecture", name);
}

}  // namespace

Result<std::optional<FourBitFormat>> four_bit_format_of(const std::filesystem::path& directory) {
  TESSERA_ASSIGN_OR_RETURN(auto config, quantisation_of(directory));
  if (!config) return std::optional<FourBitFormat>();
  if (!config->is_object()) return invalid("{}: quantization_config is no object", directory.string());
  ConfigFields fields(*config);
  const FourBitFormat format = read_format(fields);
  if (fields.error()) return fields.error()->within(directory.string() + ": quantization_config");
  return std::optional(format);
}

bool is_four_bit(const checkpoint::WeightReader& reader, const std::string& name) {
  return reader.has(name + ".qweight");
}

Result<FourBitWeight> read_four_bit(const checkpoint::WeightReader& reader, const FourBitFormat& format,
                                    const std::string& name, int64_t n, int64_t k) {
  const int64_t group = format.group_size == -1 ? k : format.group_size, groups = k / group;
  if (k % group != 0 || group % kernels::kQuantGroup != 0 || n % kWord != 0)
    return invalid("tensor {}.qweight: [{}, {}] in groups of {} is not served", name, n, k, group);
  const bool awq = format.method == FourBitFormat::Method::awq;
  const std::vector<int64_t> packed = awq ? std::vector{k, n / kWord} : std::vector{k / kWord, n};
  TESSERA_ASSIGN_OR_RETURN(Tensor words, read_exactly(reader, name + ".qweight", packed, at::kInt));
  TESSERA_ASSIGN_OR_RETURN(Tensor zeros, read_exactly(reader, name + ".qzeros", {groups, n / kWord}, at::kInt));
  TESSERA_ASSIGN_OR_RETURN(Tensor scales, read_exactly(reader, name + ".scales", {groups, n}, at::kHalf));
  TESSERA_RETURN_IF_ERROR(check_bias(reader, name));
  FourBitWeight weight;
  TESSERA_ASSIGN_OR_RETURN(weight.order, order_of(reader, format, name, k, group));
  // [k / 8, n, 8] to [n, k], or [k, n] to [n, k]
  weight.q = awq ? along_n(words, format.method).t() : numbers_of(words).permute({1, 0, 2}).reshape({n, k});
  if (weight.order.defined()) weight.q = weight.q.index_select(1, weight.order);
  weight.q = weight.q.contiguous();
  Tensor zero = along_n(zeros, format.method);
  if (format.zeros_less_one) zero = zero.add(1);
  weight.zero = zero.t().contiguous();
  weight.scale = scales.t().contiguous();
  return weight;
}

Tensor FourBitWeight::dequantised() const {
  const int64_t groups = zero.size(1);
  const Tensor values = q.view({n(), groups, -1}).to(at::kFloat).sub(zero.to(at::kFloat).unsqueeze(-1));
  const Tensor ordered = values.mul(scale.to(at::kFloat).unsqueeze(-1)).view({n(), k()});
  return order.defined() ? ordered.index_select(1, at::argsort(order)) : ordered;
}

FourBitWeight FourBitWeight::with_rows(const Tensor& rows) const {
  return {q.index_select(0, rows), zero.index_select(0, rows), scale.index_select(0, rows), order};
}

kernels::QuantWeight FourBitWeight::packed(int64_t row, int64_t rows, int64_t first, int64_t count,
                                           int64_t blocks) const {
  const bool even = zero.eq(8).all().item<bool>();
  const kernels::QuantShape shape{.kind = even ? kernels::QuantKind::int4 : kernels::QuantKind::int4_zero,
                                  .n = rows,
                                  .k = count,
                                  .blocks = blocks};
  Tensor bytes = at::zeros({shape.bytes()}, at::kByte);
  std::span<uint8_t> to(bytes.data_ptr<uint8_t>(), static_cast<size_t>(bytes.numel()));
  const auto* numbers = q.const_data_ptr<uint8_t>();
  const auto* zeros = zero.const_data_ptr<uint8_t>();
  const auto* scales = scale.const_data_ptr<c10::Half>();
  const int64_t groups = zero.size(1), group = k() / groups, per_block = shape.block_groups();
  kernels::parallel_ranges(shape.panels(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * kernels::kQuantPanel; i < std::min(end * kernels::kQuantPanel, rows); ++i)
      for (int64_t g = 0; g < blocks * per_block; ++g) {
        const int64_t at = first + g * kernels::kQuantGroup, n = row + i;
        kernels::QuantGroup value;
        std::copy_n(numbers + n * k() + at, kernels::kQuantGroup, value.q);
        value.scale = scales[n * groups + at / group].x;
        value.offset = c10::Half(-static_cast<float>(zeros[n * groups + at / group])).x;
        kernels::set_group(shape, to, i, g / per_block, g % per_block, value);
      }
  });
  return {shape, bytes};
}

}  // namespace tessera::serve
