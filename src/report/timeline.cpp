// The run against the clock, with its failures; and the ranks within a step.
#include <algorithm>
#include <map>

#include "report/gantt.h"
#include "report/html.h"
#include "report/measured.h"
#include "report/sections.h"

namespace tessera::report {
namespace {

enum RunKind : size_t { kStep, kRedone, kRecovery };

void add_step(Gantt& gantt, const Json& line, RunKind kind) {
  auto end = number_at(line, "time_s"), seconds = number_at(line, "seconds"), step = number_at(line, "step");
  if (!end || !seconds || !step) return;
  std::string note =
      fmt::format("step {}{}: {}", *step, kind == kRedone ? ", lost" : "", seconds_text(*seconds));
  gantt.bars.push_back({static_cast<size_t>(kind), *end - *seconds, *end, static_cast<size_t>(kind), note});
}

void add_events(Gantt& gantt, const std::vector<Json>& events) {
  for (const Json& event : events) {
    auto time = number_at(event, "time_s");
    std::string name = text_at(event, "event");
    if (!time) continue;
    if (name == "lost") {
      double lost = *time - number_at(event, "detect_s").value_or(0);
      gantt.marks.push_back({lost, "rank " + text_at(event, "rank") + " lost"});
      gantt.bars.push_back({kRecovery, lost, *time, kRecovery, "detection: " + seconds_text(*time - lost)});
    }
    if (name == "resumed") {
      double resume = number_at(event, "resume_s").value_or(0);
      gantt.bars.push_back(
          {kRecovery, *time - resume, *time, kRecovery,
           fmt::format("resumed from {} in {}", text_at(event, "source"), seconds_text(resume))});
    }
  }
}

std::string run_timeline(const RunFiles& files) {
  Gantt gantt{.rows = {"steps", "lost steps", "recovery"},
              .kinds = {"step", "step lost", "detection and recovery"}};
  Steps steps = sort_steps(files.metrics);
  for (const Json* line : steps.kept) add_step(gantt, *line, kStep);
  for (const Json* line : steps.redone) add_step(gantt, *line, kRedone);
  add_events(gantt, files.events);
  if (gantt.bars.empty()) return missing_html("neither metrics.jsonl nor events.jsonl has times");
  return "<h3>The run</h3>\n" + gantt_html(gantt);
}

std::pair<int64_t, int64_t> row_of(const Json& event) {
  auto whole = [&](const char* key) { return static_cast<int64_t>(number_at(event, key).value_or(0)); };
  return {whole("pid"), whole("tid")};
}

// Rows in order of rank and thread, named by the trace's own metadata.
struct Rows {
  std::map<std::pair<int64_t, int64_t>, std::string> names;
  std::map<int64_t, std::string> processes;

  void read(const Json& event) {
    auto [process, thread] = row_of(event);
    if (text_at(event, "ph") == "X") names.emplace(std::pair(process, thread), "");
    if (text_at(event, "name") == "process_name") processes[process] = text_at(event, "args.name");
    if (text_at(event, "name") == "thread_name") threads[{process, thread}] = text_at(event, "args.name");
  }
  std::string name(std::pair<int64_t, int64_t> row) const {
    auto process = processes.find(row.first);
    std::string text = process == processes.end() ? fmt::format("rank {}", row.first) : process->second;
    auto thread = threads.find(row);
    if (row.second != 0) text = thread == threads.end() ? fmt::format("thread {}", row.second) : thread->second;
    return text;
  }
  std::map<std::pair<int64_t, int64_t>, std::string> threads;
};

std::string rank_timeline(const RunFiles& files) {
  const Json& trace = files.timeline;
  const Json& events = list_at(trace, trace.is_array() ? "" : "traceEvents");
  if (events.empty())
    return missing_html(files.problem("timeline.json").empty() ? "timeline.json has no events"
                                                               : files.problem("timeline.json"));
  Rows rows;
  for (const Json& event : events) rows.read(event);
  Gantt gantt;
  std::map<std::pair<int64_t, int64_t>, size_t> places;
  for (const auto& [row, unused] : rows.names) {
    places[row] = gantt.rows.size();
    gantt.rows.push_back(rows.name(row));
  }
  std::map<std::string, size_t> kinds;
  for (const Json& event : events) {
    auto begin = number_at(event, "ts"), length = number_at(event, "dur");
    if (text_at(event, "ph") != "X" || !begin || !length) continue;
    std::string name = text_at(event, "name");
    if (kinds.emplace(name, kinds.size()).second) gantt.kinds.push_back(name);
    auto row = row_of(event);
    std::string args = text_at(event, "args");
    gantt.bars.push_back({places[row], *begin / 1e6, (*begin + *length) / 1e6, kinds[name],
                          fmt::format("{} {} {}", name, seconds_text(*length / 1e6), args)});
  }
  if (gantt.bars.empty()) return missing_html("timeline.json has no complete events");
  return "<h3>The ranks within a step</h3>\n" + gantt_html(gantt);
}

}  // namespace

std::string timeline_section(const RunFiles& files) {
  return run_timeline(files) + rank_timeline(files);
}

std::string failures_section(const RunFiles& files) {
  if (files.events.empty())
    return missing_html(files.problem("events.jsonl").empty() ? "events.jsonl is empty"
                                                              : files.problem("events.jsonl"));
  Table table;
  table.head = {"event",       "what",       "time",       "generation",  "rank",
                "detected in", "state from", "resumed in", "steps redone"};
  table.text_columns = 2;
  auto seconds = [](const Json& event, const char* key) {
    auto value = number_at(event, key);
    return value ? seconds_text(*value) : "";
  };
  for (const Json& event : files.events)
    table.rows.push_back({text_at(event, "event"), text_at(event, "detail"), seconds(event, "time_s"),
                          text_at(event, "generation"), text_at(event, "rank"), seconds(event, "detect_s"),
                          text_at(event, "source"), seconds(event, "resume_s"),
                          text_at(event, "steps_redone")});
  return table_html(table);
}

}  // namespace tessera::report
