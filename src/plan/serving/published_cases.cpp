// One row per published operating point (data/published/serving_cases.csv): the kind of the metric says what
// the load was and which figures can be compared.
#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>

#include "core/text.h"
#include "plan/serving/cases.h"

namespace tessera::plan::serving {
namespace {

// The first number behind `word` in a text, as in "QPS 16; 500 requests".
std::optional<double> number_after(const std::string& text, const std::string& word) {
  size_t at = text.find(word);
  if (at == std::string::npos) return std::nullopt;
  at += word.size();
  while (at < text.size() && text[at] == ' ') ++at;
  double value = 0;
  auto [end, error] = std::from_chars(text.data() + at, text.data() + text.size(), value);
  if (error != std::errc() || end == text.data() + at) return std::nullopt;
  return value;
}

// The number before a word, as in "MTP3" or "500 requests".
std::optional<double> number_before(const std::string& text, const std::string& word) {
  size_t end = text.find(word);
  if (end == std::string::npos || end == 0) return std::nullopt;
  size_t begin = end;
  while (begin > 0 && (std::isdigit(static_cast<unsigned char>(text[begin - 1])) || text[begin - 1] == '.'))
    --begin;
  double value = 0;
  auto [stop, error] = std::from_chars(text.data() + begin, text.data() + end, value);
  if (error != std::errc()) return std::nullopt;
  return value;
}

// The first weight format named in a precision such as "NVFP4 experts, BF16 attention" or "fp8".
std::string format_named(const std::string& text) {
  static const std::vector<std::string> known = {"nvfp4", "mxfp4", "fp4",  "fp8",
                                                 "int8",  "int4",  "bf16", "fp16"};
  std::string words = lower_ascii(text);
  size_t first = std::string::npos;
  std::string found;
  for (const auto& name : known) {
    size_t at = words.find(name);
    if (at < first) first = at, found = name;
  }
  return found == "fp4" ? "nvfp4" : found;
}

class PublishedRow {
 public:
  PublishedRow(const CsvTable& table, const CsvRow& row) : table_(table), row_(row) {}
  std::string text(const std::string& column) const { return table_.cell(row_, column); }
  double number(const std::string& column, double fallback = 0) const {
    return table_.number(row_, column).value_or(fallback);
  }
  // Of a pair "4/32" (prefill/decode) the first or second; of a single value that value; 0: none.
  int64_t degree(const std::string& column, bool second) const {
    std::string cell = text(column);
    size_t slash = cell.find('/');
    if (slash != std::string::npos) cell = second ? cell.substr(slash + 1) : cell.substr(0, slash);
    int64_t value = 0;
    std::from_chars(cell.data(), cell.data() + cell.size(), value);
    return value;
  }

 private:
  const CsvTable& table_;
  const CsvRow& row_;
};

WorkerLayout worker_layout(const PublishedRow& row, bool second, ServingCase& c) {
  WorkerLayout layout{.tp = std::max<int64_t>(1, row.degree("tp", second)),
                      .pp = std::max<int64_t>(1, row.degree("pp", second)),
                      .dp = std::max<int64_t>(1, row.degree("dp", second)),
                      .moe_tp = 1,
                      .moe_ep = std::max<int64_t>(1, row.degree("ep", second))};
  std::string notes = row.text("notes");
  if (notes.find("attention-DP enabled") != std::string::npos && layout.dp == 1) {
    layout.dp = layout.tp;
    layout.tp = 1;
    layout.moe_ep = layout.dp;
    c.assumed["dp"] = c.assumed["ep"] = std::to_string(layout.dp);
  }
  // Published both as tp 8, dp 8, ep 8 (of the same eight ranks) and as tp 1.
  double gpus = row.number("n_gpus");
  if (layout.dp > 1 && layout.tp > 1 && static_cast<double>(layout.tp * layout.dp) > gpus && gpus > 0 &&
      row.text("tp").find('/') == std::string::npos)
    layout.tp = 1;
  if (layout.moe_ep > layout.tp * layout.dp && layout.dp == 1) layout.moe_ep = layout.tp;
  if (layout.tp * layout.dp % layout.moe_ep == 0) layout.moe_tp = layout.tp * layout.dp / layout.moe_ep;
  return layout;
}

void read_pair(const PublishedRow& row, ServingCase& c) {
  std::string notes = row.text("notes");
  auto prefill = number_after(notes, "prefill workers"), decode = number_after(notes, "decode workers");
  c.disaggregated = true;
  c.layout = worker_layout(row, false, c);
  c.decode_layout = worker_layout(row, true, c);
  if (!prefill || !decode) {
    c.refused = "the numbers of prefill and decode workers are not stated";
    return;
  }
  c.workers = *prefill;
  c.decode_workers = *decode;
}

void read_speculation(const PublishedRow& row, ServingCase& c) {
  std::string text = row.text("notes") + " " + row.text("precision");
  if (text.find("MTP") == std::string::npos) return;
  auto depth = number_after(text, "MTP");
  if (!depth) depth = number_after(text, "MTP depth");
  if (!depth || *depth < 1 || *depth > 8) {
    c.refused = "multi-token prediction without its depth";
    return;
  }
  c.speculation = {.depth = static_cast<int64_t>(*depth), .acceptance = 0.75};
  c.assumed["acceptance"] = "0.75 per draft token";
}

void closed_loop(const PublishedRow& row, ServingCase& c) {
  auto users = number_after(row.text("load"), "concurrency");
  if (!users) {
    c.refused = "the load names no concurrency";
    return;
  }
  c.traffic.concurrency = *users;
  bool inferencex = row.text("source").find("silicon_sample") != std::string::npos;
  auto nominal = [](double length) { return length == 1024 || length == 8192; };
  bool drawn = inferencex && nominal(c.traffic.input_tokens) && nominal(c.traffic.output_tokens);
  c.inferencex = drawn && c.model != "qwen3-32b";
  c.nominal_input_tokens = c.traffic.input_tokens, c.nominal_output_tokens = c.traffic.output_tokens;
  double lengths = drawn && c.model != "qwen3-32b" ? 0.9 : 1;
  c.traffic.input_tokens = std::round(c.traffic.input_tokens * lengths);
  c.traffic.output_tokens = std::round(c.traffic.output_tokens * lengths);
  bool once = inferencex && c.model == "qwen3-32b" && c.engine == "sglang";
  c.traffic.requests_per_user = once ? 1 : 10;
  c.traffic.equal_lengths = lengths == 1;
  c.published = {
      .ttft_ms = row.number("ttft_ms"), .tpot_ms = row.number("tpot_ms"), .tok_s_gpu = row.number("tok_s_gpu")};
}

void open_loop(const PublishedRow& row, ServingCase& c) {
  std::string load = row.text("load");
  auto rate = number_after(load, "QPS");
  auto requests = number_before(load, " requests");
  c.published = {
      .ttft_ms = row.number("ttft_ms"), .tpot_ms = row.number("tpot_ms"), .tok_s_gpu = row.number("tok_s_gpu")};
  if (rate) {
    c.traffic.arrival = Arrival::open;
    c.traffic.rate = *rate;
  } else if (load.find("QPS inf") != std::string::npos && requests) {
    c.traffic.concurrency = *requests;  // all at once, none after
    c.traffic.requests_per_user = 1;
    c.all_at_once = true;
  } else {
    c.refused = "the load names no rate of requests";
  }
}

void fixed_batch(const PublishedRow& row, ServingCase& c) {
  auto batch = number_after(row.text("load"), "static batch");
  if (!batch) batch = number_after(row.text("load"), "batch");
  if (!batch) {
    c.refused = "the load names no batch";
    return;
  }
  c.traffic.arrival = Arrival::batch;
  c.traffic.concurrency = *batch;
  c.published = {.ttft_ms = row.number("ttft_ms"), .tok_s_gpu = row.number("tok_s_gpu")};
}

void read_load(const PublishedRow& row, ServingCase& c) {
  std::string kind = row.text("metric_kind");
  if (kind.find("max load") != std::string::npos) {
    c.traffic.arrival = Arrival::flood;
    c.published.tok_s_gpu = row.number("tok_s_gpu");
  } else if (kind.starts_with("closed-loop")) {
    closed_loop(row, c);
  } else if (kind.find("open-loop") != std::string::npos) {
    open_loop(row, c);
  } else if (kind.find("fixed batch") != std::string::npos || kind == "prefill latency") {
    fixed_batch(row, c);
  } else if (kind.starts_with("single-user")) {
    c.traffic.concurrency = 1;
    c.published = {.tpot_ms = row.number("tpot_ms")};
  } else {
    c.refused = fmt::format("a figure of the kind '{}' has no load that can be simulated", kind);
  }
}

const char* unsupported_hardware(const std::string& gpu) {
  for (const char* word :
       {"Xeon", "i5", "NUC", "Apple", "RTX 4090", "RTX 5090", "TPU", "volunteer", "DGX Spark"})
    if (gpu.find(word) != std::string::npos) return word;
  return nullptr;
}

void read_engine(const PublishedRow& row, ServingCase& c) {
  std::string text = row.text("engine_version");
  size_t space = text.find(' ');
  c.engine = text.substr(0, space);
  c.version = space == std::string::npos ? "" : text.substr(space + 1);
  if (c.engine.starts_with("TensorRT")) c.version = c.version.substr(0, c.version.find(' '));
  if (c.version.empty()) c.version = "unknown";
  if (row.text("mode").starts_with("disagg")) c.version = "disaggregated " + c.version;
}

ServingCase read_published_row(const CsvTable& table, const CsvRow& cells) {
  PublishedRow row(table, cells);
  ServingCase c;
  c.id = row.text("id");
  c.source = row.text("engine_version");
  c.label = row.text("model");
  c.model = catalogue_model(c.label);
  c.device = row.text("gpu");
  read_engine(row, c);
  c.products = c.experts = format_named(row.text("precision"));
  c.traffic.input_tokens = row.number("isl");
  c.traffic.output_tokens = row.number("osl");
  read_load(row, c);
  if (c.refused.empty()) read_speculation(row, c);
  if (row.text("mode").starts_with("disagg") && c.refused.empty())
    read_pair(row, c);
  else
    c.layout = worker_layout(row, false, c);
  if (const char* word = unsupported_hardware(c.device); word && c.refused.empty())
    c.refused = fmt::format("no constants for hardware such as '{}'", c.device);
  if (c.refused.empty() && (c.traffic.input_tokens < 1 || c.traffic.output_tokens < 1))
    c.refused = "the lengths of prompts and answers are not stated";
  if (c.refused.empty() && c.products.empty())
    c.refused = fmt::format("precision '{}' is not understood", row.text("precision"));
  std::string device = lower_ascii(c.device.substr(0, c.device.find_first_of("-_ ")));
  c.setup = fmt::format("{}|{}|{}|{}|{}|{:.0f}x{:.0f}", c.engine, c.model, device, c.products,
                        c.disaggregated ? "disaggregated" : to_string(c.layout), row.number("isl"),
                        row.number("osl"));
  return c;
}

}  // namespace

std::vector<ServingCase> read_published_cases(const CsvTable& table) {
  std::vector<ServingCase> cases;
  for (const CsvRow& row : table.rows) {
    cases.push_back(read_published_row(table, row));
    cases.back().calibration = in_calibration_part(cases.back().setup);
  }
  return cases;
}

}  // namespace tessera::plan::serving
