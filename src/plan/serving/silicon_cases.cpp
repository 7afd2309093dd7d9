// AIConfigurator's silicon form: layouts by column, lengths and concurrency of a closed loop. Traps are those
// listed in data/published/serving_cases.md.
#include <algorithm>
#include <cmath>

#include "plan/serving/cases.h"

namespace tessera::plan::serving {
namespace {

class SiliconRow {
 public:
  SiliconRow(const CsvTable& table, const CsvRow& row) : table_(table), row_(row) {}
  std::string text(const std::string& column) const { return table_.cell(row_, column); }
  double number(const std::string& column, double fallback) const {
    return table_.number(row_, column).value_or(fallback);
  }
  int64_t degree(const std::string& column) const { return static_cast<int64_t>(number(column, 0)); }

 private:
  const CsvTable& table_;
  const CsvRow& row_;
};

bool is_power_of_two(int64_t value) {
  return value > 0 && (value & (value - 1)) == 0;
}

// The labels of a layout follow the engine's habit: a MoE model on four ranks appears as tp 4, as tp 16 with
// moe_tp 4 and ep 4 (a product of two labels), or as tp 4 with attention-DP 4 and ep 16.
WorkerLayout worker_layout(const SiliconRow& row, const std::string& prefix, ServingCase& c) {
  int64_t tp = std::max<int64_t>(1, row.degree(prefix + "tp_size"));
  int64_t pp = std::max<int64_t>(1, row.degree(prefix + "pp_size"));
  int64_t dp = row.degree(prefix + "attention_dp_size");
  int64_t moe_tp = std::max<int64_t>(1, row.degree(prefix + "moe_tp_size"));
  int64_t moe_ep = std::max<int64_t>(1, row.degree(prefix + "moe_ep_size"));
  int64_t side = std::llround(std::sqrt(static_cast<double>(moe_tp * moe_ep)));
  bool square = moe_tp == moe_ep && moe_tp > 2;
  if (square && (tp == side * side || dp == side * side)) {
    c.assumed[prefix + "layout"] = fmt::format("{} ranks: the labels are products of tp and ep", side);
    return {.tp = tp > 1 ? side : 1, .pp = pp, .dp = dp > 1 ? side : 1, .moe_tp = 1, .moe_ep = side};
  }
  // vLLM with --enable-expert-parallel: the same runs stand under tp 4, ep 4 and under this label.
  if (dp > 1 && tp == dp && moe_ep == tp * dp && c.engine == "vllm") {
    c.assumed[prefix + "layout"] = fmt::format("{} ranks of tp and ep: the other labels are products", tp);
    return {.tp = tp, .pp = pp, .dp = 1, .moe_tp = 1, .moe_ep = tp};
  }
  if (dp > 1 && tp == dp && moe_ep == tp * dp) {
    c.assumed[prefix + "layout"] = fmt::format("{} ranks with attention-DP: the ep label is a product", dp);
    return {.tp = 1, .pp = pp, .dp = dp, .moe_tp = 1, .moe_ep = dp};
  }
  if (dp < 1) {
    bool wider = moe_tp * moe_ep > tp && moe_tp * moe_ep % tp == 0;
    dp = wider ? moe_tp * moe_ep / tp : 1;
    if (wider) c.assumed[prefix + "attention_dp_size"] = std::to_string(dp);
  }
  if (moe_tp * moe_ep != tp * dp && tp * dp % moe_ep == 0) moe_tp = tp * dp / moe_ep;
  return {.tp = tp, .pp = pp, .dp = dp, .moe_tp = moe_tp, .moe_ep = moe_ep};
}

std::string layout_complaint(const WorkerLayout& layout, const std::string& device) {
  int64_t ranks = layout.tp * layout.dp;
  bool rack = device.starts_with("gb");
  if (!is_power_of_two(layout.tp) || layout.tp > 16)
    return fmt::format(
        "tp {} on {} looks like the total of a disaggregated deployment: its workers are not named", layout.tp,
        device);
  if (ranks > 72 || (ranks > 16 && !rack))
    return fmt::format("{} ranks of one worker on {} are not plausible", ranks, device);
  return "";
}

void read_layouts(const SiliconRow& row, ServingCase& c) {
  c.disaggregated = row.text("mode") == "disagg";
  if (!c.disaggregated) {
    c.layout = worker_layout(row, "", c);
    c.refused = layout_complaint(c.layout, c.device);
    return;
  }
  c.workers = row.number("prefill_num_workers", 0);
  c.decode_workers = row.number("decode_num_workers", 0);
  c.layout = worker_layout(row, "prefill_", c);
  c.decode_layout = worker_layout(row, "decode_", c);
  if (c.workers < 1 || c.decode_workers < 1)
    c.refused =
        "the numbers of prefill and decode workers are missing: total GPUs and rate matching are unknown";
}

// InferenceX draws lengths from 80 to 100 % of 1024 or 8192 and sends ten requests per user; the others send
// equal lengths. One series starts every user once: its mean TTFT is that of half of the users' prompts.
void read_lengths(const SiliconRow& row, ServingCase& c) {
  double isl = row.number("isl", 0), osl = row.number("osl", 0);
  auto nominal = [](double length) { return length == 1024 || length == 8192; };
  bool drawn = nominal(isl) && nominal(osl) && c.model != "qwen3-32b";
  c.inferencex = drawn;
  c.nominal_input_tokens = isl, c.nominal_output_tokens = osl;
  c.traffic.input_tokens = std::round(isl * (drawn ? 0.9 : 1.0));
  c.traffic.output_tokens = std::round(osl * (drawn ? 0.9 : 1.0));
  c.traffic.equal_lengths = !drawn;
  bool once = c.model == "qwen3-32b" && c.engine == "sglang";
  c.traffic.requests_per_user = once ? 1 : 10;
  if (once) c.assumed["requests_per_user"] = "1";
}

void read_traffic(const SiliconRow& row, ServingCase& c) {
  read_lengths(row, c);
  c.traffic.concurrency = row.number("concurrency", 0);
  if (c.traffic.concurrency >= 1) return;
  double lanes = static_cast<double>(c.disaggregated ? c.decode_layout.dp : c.layout.dp) *
                 (c.disaggregated ? c.decode_workers : 1);
  c.traffic.concurrency = row.number(c.disaggregated ? "decode_batch_size" : "batch_size", 0) * lanes;
  c.assumed["concurrency"] = fmt::format("{:.0f}, from the batch size", c.traffic.concurrency);
}

std::string format_or(const std::string& named, const std::string& precision) {
  if (!named.empty()) return named;
  if (precision == "fp4") return "nvfp4";
  return precision.empty() ? "bf16" : precision;
}

ServingCase read_silicon_row(const CsvTable& table, const CsvRow& cells) {
  SiliconRow row(table, cells);
  ServingCase c;
  c.id = row.text("id");
  c.source = row.text("backend");
  c.label = row.text("model_path");
  c.model = catalogue_model(c.label);
  std::string system = row.text("system");
  c.device = system.substr(0, system.find('_'));
  c.engine = row.text("backend");
  c.version = row.text("backend_version");
  c.products = format_or(row.text("gemm_quant_mode"), row.text("precision"));
  c.experts = format_or(row.text("moe_quant_mode"), row.text("precision"));
  if (row.text("gemm_quant_mode").empty()) c.assumed["gemm_quant_mode"] = c.products;
  if (c.version.empty()) c.assumed["backend_version"] = "unknown";
  read_layouts(row, c);
  read_traffic(row, c);
  if (c.version.empty()) c.version = "unknown";
  if (c.disaggregated) c.version = "disaggregated " + c.version;
  c.published = {.ttft_ms = row.number("silicon_ttft_ms", 0), .tpot_ms = row.number("silicon_tpot_ms", 0)};
  if (c.traffic.input_tokens < 1 || c.traffic.output_tokens < 1) c.refused = "isl or osl is missing";
  if (c.traffic.concurrency < 1 && c.refused.empty()) c.refused = "neither concurrency nor batch size is given";
  c.setup =
      fmt::format("{}|{}|{}|{}|{}|{}x{}", c.engine, c.model, c.device, c.products,
                  c.disaggregated ? "disaggregated" : to_string(c.layout), row.text("isl"), row.text("osl"));
  return c;
}

}  // namespace

std::vector<ServingCase> read_silicon_cases(const CsvTable& table) {
  std::vector<ServingCase> cases;
  for (const CsvRow& row : table.rows) {
    cases.push_back(read_silicon_row(table, row));
    cases.back().calibration = in_calibration_part(cases.back().setup);
  }
  return cases;
}

}  // namespace tessera::plan::serving
