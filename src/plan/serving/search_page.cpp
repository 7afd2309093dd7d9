#include "plan/serving/search_page.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "plan/serving/search_report.h"

namespace tessera::plan {
std::string_view resource(std::string_view name);
}

namespace tessera::plan::serving {
namespace {

std::string escape(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == '<')
      out += "&lt;";
    else if (c == '&')
      out += "&amp;";
    else
      out += c;
  }
  return out;
}

// JSON inside a script element: "</" would end it.
std::string script_json(const nlohmann::json& json) {
  std::string text = json.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace), out;
  for (char c : text) out += c == '<' ? "\\u003c" : std::string(1, c);
  return out;
}

double rounded(double value) {
  return std::stod(fmt::format("{:.5g}", value));
}

nlohmann::json point_json(const Candidate& c) {
  return {{"user", rounded(c.estimate.tokens_per_s_user)},
          {"gpu", rounded(c.estimate.tokens_per_s_gpu)},
          {"running", rounded(c.estimate.running)},
          {"disaggregated", c.disaggregated},
          {"name", describe(c)}};
}

nlohmann::json ranked_json(const Candidate& c) {
  nlohmann::json out = point_json(c);
  out["memory"] = {{"weights", c.memory.weights / 1e9},
                   {"workspace", c.memory.workspace / 1e9},
                   {"cache", c.memory.cache / 1e9}};
  out["time"] = breakdown_ms(c.estimate.decode_step);
  out["usd"] = rounded(c.usd_per_million_tokens);
  out["joules"] = rounded(c.joules_per_token);
  return out;
}

nlohmann::json plan_json(const SearchOutcome& outcome, size_t top) {
  nlohmann::json points = nlohmann::json::array(), front = nlohmann::json::array(),
                 ranked = nlohmann::json::array();
  // A browser draws some thousands of points at once; beyond that every n-th is shown.
  size_t stride = outcome.evaluated.size() / 4000 + 1;
  for (size_t i = 0; i < outcome.evaluated.size(); i += stride)
    points.push_back(point_json(outcome.evaluated[i]));
  for (const Candidate& c : outcome.front) front.push_back(point_json(c));
  for (size_t i = 0; i < std::min(top, outcome.ranked.size()); ++i)
    ranked.push_back(ranked_json(outcome.ranked[i]));
  return {{"points", points}, {"front", front}, {"ranked", ranked}};
}

std::string table(const SearchOutcome& outcome, size_t top) {
  std::string text =
      "<div class=\"scroll\"><table><tr><th></th><th>workers</th><th>requests</th><th>tokens/s per "
      "accelerator</th><th>TTFT ms</th>"
      "<th>TPOT ms</th><th>tokens/s per user</th><th>USD per M tokens</th><th>J per token</th><th>longest "
      "part</th></tr>";
  for (size_t i = 0; i < std::min(top, outcome.ranked.size()); ++i) {
    const Candidate& c = outcome.ranked[i];
    const Estimate& e = c.estimate;
    text += fmt::format(
        "<tr><td>{}</td><td>{}{}</td><td>{:.0f}</td><td>{:.1f}</td><td>{:.0f}</td><td>{:.2f}</td><td>{:.1f}</"
        "td><td>{:.3g}</td>"
        "<td>{:.3g}</td><td>{}</td></tr>",
        i + 1, escape(describe(c)), e.saturated ? " (near full load)" : "", e.running, e.tokens_per_s_gpu,
        1000 * e.ttft_s, 1000 * e.tpot_s, e.tokens_per_s_user, c.usd_per_million_tokens, c.joules_per_token,
        bound_of(e.decode_step));
  }
  return text + "</table></div>";
}

std::string section(const char* title, const char* note, const std::string& body) {
  return fmt::format("<section><h2>{}</h2><p>{}</p>{}</section>\n", title, note, body);
}

std::string chart(const char* id) {
  return fmt::format("<div class=\"chart\" id=\"{}\"></div>", id);
}

}  // namespace

std::string search_page(const SearchRequest& request, const SearchOutcome& outcome, int64_t top) {
  auto rows = static_cast<size_t>(std::max<int64_t>(0, top));
  std::string title = fmt::format("{} on {} x {}", request.model.name, request.gpus, request.device.name);
  std::string page = fmt::format(
      "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\"><title>{}</title><style>{}</style></head><body>\n",
      escape(title), resource("serving.css"));
  page += fmt::format(
      "<h1>{}</h1><p>{} {}; {:.0f} tokens in, {:.0f} out; {} deployments, {} points evaluated in {:.2f} s. "
      "Means of a closed "
      "form; typical errors stand in docs/accuracy_serving.md.</p>\n",
      escape(title), escape(request.engine.name), escape(request.engine.version), request.traffic.input_tokens,
      request.traffic.output_tokens, outcome.space, outcome.points, outcome.seconds);
  page += section("Throughput against speed for a user", "Every deployment at every load, and the front.",
                  chart("pareto"));
  page += section("The best that meet the objectives", "Workers that do both phases, or prefill -&gt; decode.",
                  table(outcome, rows));
  page +=
      section("Memory of one accelerator",
              "By the numbers of the table; of the workers for prompts where they are apart.", chart("memory"));
  page += section("Time of a decode step", "At the load of the table.", chart("time"));
  page += section("Cost and energy", "Rented price and utility power of all accelerators.", chart("money"));
  page += fmt::format(
      "<script>{}</script>\n<script>const plan = {};</script>\n<script>{}</script></body></html>\n",
      resource("echarts.common.min.js"), script_json(plan_json(outcome, rows)), resource("serving.js"));
  return page;
}

}  // namespace tessera::plan::serving
