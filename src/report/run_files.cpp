#include "report/run_files.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/file.h"
#include "core/toml.h"

namespace tessera::report {
namespace {

class Reader {
 public:
  Reader(std::filesystem::path folder, RunFiles& files) : folder_(std::move(folder)), files_(files) {}
  int found() const { return found_; }

  std::optional<std::string> text(const std::string& name) {
    auto content = read_file(folder_ / name);
    if (!content.ok()) {
      bool absent = content.error().code == ErrorCode::not_found;
      files_.problems[name] = absent ? "the run left no " + name : content.error().message;
      return std::nullopt;
    }
    ++found_;
    return *std::move(content);
  }

  Json json(const std::string& name) {
    auto content = text(name);
    if (!content) return nullptr;
    Json value = Json::parse(*content, nullptr, false);
    if (!value.is_discarded()) return value;
    files_.problems[name] = name + " is not JSON; was it cut off?";
    return nullptr;
  }

  // A run that died may leave half a line at the end: it is dropped. A broken line elsewhere is reported.
  std::vector<Json> json_lines(const std::string& name) {
    std::vector<Json> lines;
    auto content = text(name);
    if (!content) return lines;
    size_t begin = 0, number = 1;
    for (size_t end; (end = content->find('\n', begin)) != std::string::npos; begin = end + 1, ++number) {
      Json line = Json::parse(content->substr(begin, end - begin), nullptr, false);
      if (line.is_object())
        lines.push_back(std::move(line));
      else if (end > begin)
        files_.problems[name] = fmt::format("{}:{} is not a JSON object; the line is left out", name, number);
    }
    return lines;
  }

  Json toml(const std::string& name) {
    auto content = text(name);
    if (!content) return nullptr;
    auto document = parse_toml(*content, name);
    if (document.ok()) return document->root;
    files_.problems[name] = document.error().message;
    return nullptr;
  }

 private:
  std::filesystem::path folder_;
  RunFiles& files_;
  int found_ = 0;
};

const Json kNull, kEmptyList = Json::array();

Error no_run(const std::filesystem::path& run_dir) {
  return make_error(ErrorCode::not_found,
                    "run directory {}: found none of the files of a run (run.json, metrics.jsonl, ...); "
                    "give the folder that train.run_dir named",
                    run_dir.string());
}

// Times are of the wall clock in the files and count from the start of the run on the page.
void shift_times(std::vector<Json>& lines, double start) {
  for (Json& line : lines)
    if (auto time = number_at(line, "time")) line["time_s"] = *time - start;
}

void set_clock(RunFiles& files) {
  double start = std::numeric_limits<double>::infinity();
  for (const auto* lines : {&files.metrics, &files.events})
    for (const Json& line : *lines)
      if (auto time = number_at(line, "time"))
        start = std::min(start, *time - number_at(line, "seconds").value_or(0));
  shift_times(files.metrics, start);
  shift_times(files.events, start);
}

}  // namespace

const Json& json_at(const Json& object, std::string_view path) {
  const Json* value = &object;
  while (!path.empty()) {
    size_t dot = std::min(path.find('.'), path.size());
    if (!value->is_object()) return kNull;
    auto member = value->find(std::string(path.substr(0, dot)));
    if (member == value->end()) return kNull;
    value = &*member;
    path.remove_prefix(std::min(dot + 1, path.size()));
  }
  return *value;
}

const Json& list_at(const Json& object, std::string_view path) {
  const Json& value = json_at(object, path);
  return value.is_array() ? value : kEmptyList;
}

std::string RunFiles::problem(const std::string& file) const {
  auto found = problems.find(file);
  return found == problems.end() ? "" : found->second;
}

Result<RunFiles> read_run_files(const std::filesystem::path& run_dir) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(run_dir, ignored))
    return make_error(ErrorCode::not_found, "run directory {}: no such folder", run_dir.string());
  RunFiles files;
  Reader reader(run_dir, files);
  files.run = reader.json("run.json");
  if (files.is_recommender()) {
    files.recommender = reader.json("recsys.json");
    files.metrics = reader.json_lines("metrics.jsonl");
    files.events = reader.json_lines("events.jsonl");
    files.problems.erase("events.jsonl");  // of roles in processes
    set_clock(files);
    return files;
  }
  files.plan = reader.json("plan.json");
  files.memory = reader.json("memory.json");
  files.timeline = reader.json("timeline.json");
  files.samples = reader.json("samples.json");
  files.calibration = reader.toml("calibration.toml");
  files.metrics = reader.json_lines("metrics.jsonl");
  files.events = reader.json_lines("events.jsonl");
  files.data = reader.json("data.json");
  files.problems.erase("data.json");  // only runs on text of one's own have it
  if (reader.found() == 0) return no_run(run_dir);
  set_clock(files);
  return files;
}

bool RunFiles::is_recommender() const {
  return text_at(run, "kind") == "recommender";
}

std::optional<double> number_at(const Json& object, std::string_view path) {
  const Json& value = json_at(object, path);
  if (!value.is_number() || !std::isfinite(value.get<double>())) return std::nullopt;
  return value.get<double>();
}

std::string text_at(const Json& object, std::string_view path) {
  const Json& value = json_at(object, path);
  if (value.is_null()) return "";
  if (value.is_string()) return value.get<std::string>();
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace tessera::report
