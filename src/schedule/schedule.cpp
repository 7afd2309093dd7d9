#include "schedule/schedule.h"

#include <algorithm>
#include <array>

#include "schedule/recurrence.h"
#include "schedule/tables.h"

namespace tessera {
namespace {

tables::Row row_of(PipelineKind kind, int64_t stage, int64_t stages, int64_t chunks, int64_t slots) {
  switch (kind) {
    case PipelineKind::gpipe:
      return tables::gpipe(slots);
    case PipelineKind::zb_h1:
      return tables::zero_bubble(stage, stages, slots, 1);
    case PipelineKind::zb_h2:
      return tables::zero_bubble(stage, stages, slots, 2);
    case PipelineKind::zb_v:
      return tables::zero_bubble_v(stage, stages, slots);
    case PipelineKind::dualpipe:
      return tables::dualpipe(stage, stages, slots);
    default:
      return tables::one_f_one_b(stage, stages, chunks, slots);
  }
}

// How often a stage has run each kind of action on one chunk and slot.
using Counts = std::array<int, 4>;

bool is_apart(const Counts& counts) {
  return counts[Action::backward_input] > 0 || counts[Action::backward_weight] > 0;
}

Status check_order(const Action& action, const Counts& before, int64_t last_backward) {
  bool backward = action.kind == Action::backward || action.kind == Action::backward_input;
  if (backward && before[Action::forward] == 0)
    return invalid("schedule: stage {} runs the backward of slot {} before its forward", action.stage,
                   action.slot);
  if (action.kind == Action::backward_weight && before[Action::backward_input] == 0)
    return invalid("schedule: stage {} runs the weights of slot {} before its inputs", action.stage,
                   action.slot);
  if (backward && action.slot < last_backward)
    return invalid("schedule: stage {} runs backwards out of order", action.stage);
  return {};
}

Status check_once(const Schedule& schedule, int64_t stage, int64_t chunk, int64_t slot, const Counts& counts) {
  int expected = schedule.runs(chunk, slot) ? 1 : 0;
  int inputs = counts[Action::backward] + counts[Action::backward_input];
  bool weights = !is_apart(counts) || counts[Action::backward_weight] == expected;
  if (counts[Action::forward] == expected && inputs == expected && weights) return {};
  return invalid("schedule: stage {} does not run each of {} slots once: slot {}, chunk {}", stage,
                 schedule.slots, slot, chunk);
}

Status check_pairs(const std::vector<Action>& row) {
  for (size_t i = 0; i < row.size(); ++i) {
    if (!row[i].paired) continue;
    bool pair = i + 1 < row.size() && row[i].kind == Action::forward && row[i + 1].kind == Action::backward &&
                row[i + 1].paired;
    if (!pair)
      return invalid("schedule: stage {}: action {} is paired with nothing that runs beside it", row[i].stage,
                     i);
    ++i;
  }
  return {};
}

Status check_row(const Schedule& schedule, int64_t stage) {
  const auto& row = schedule.table[static_cast<size_t>(stage)];
  std::vector<Counts> counts(static_cast<size_t>(schedule.chunks * schedule.slots), Counts{});
  std::vector<int64_t> last_backward(static_cast<size_t>(schedule.chunks), -1);
  for (const Action& action : row) {
    if (action.stage != stage)
      return invalid("schedule: row {} holds an action of stage {}", stage, action.stage);
    if (action.slot < 0 || action.slot >= schedule.slots)
      return invalid("schedule: stage {} runs slot {} of {}", stage, action.slot, schedule.slots);
    if (action.chunk < 0 || action.chunk >= schedule.chunks)
      return invalid("schedule: stage {} runs chunk {} of {}", stage, action.chunk, schedule.chunks);
    auto chunk = static_cast<size_t>(action.chunk);
    Counts& of_slot = counts[chunk * static_cast<size_t>(schedule.slots) + static_cast<size_t>(action.slot)];
    TESSERA_RETURN_IF_ERROR(check_order(action, of_slot, last_backward[chunk]));
    ++of_slot[action.kind];
    if (action.kind == Action::backward || action.kind == Action::backward_input)
      last_backward[chunk] = action.slot;
  }
  for (int64_t chunk = 0; chunk < schedule.chunks; ++chunk)
    for (int64_t slot = 0; slot < schedule.slots; ++slot)
      TESSERA_RETURN_IF_ERROR(
          check_once(schedule, stage, chunk, slot, counts[static_cast<size_t>(chunk * schedule.slots + slot)]));
  return check_pairs(row);
}

bool holds_no_more(const HeldSlots& a, const HeldSlots& b) {
  for (size_t chunk = 0; chunk < a.kept.size(); ++chunk)
    if (a.kept[chunk] > b.kept[chunk] || a.deferred[chunk] > b.deferred[chunk]) return false;
  return true;
}

void add_peak(std::vector<HeldSlots>& peaks, const HeldSlots& now) {
  for (const HeldSlots& peak : peaks)
    if (holds_no_more(now, peak)) return;
  std::erase_if(peaks, [&](const HeldSlots& peak) { return holds_no_more(peak, now); });
  peaks.push_back(now);
}

}  // namespace

bool Schedule::runs(int64_t chunk, int64_t slot) const {
  return kind != PipelineKind::dualpipe || (slot < slots / 2) == (chunk == 0);
}

bool has_table(PipelineKind kind) {
  return kind != PipelineKind::v_half && kind != PipelineKind::v_min;
}

Status check_table(PipelineKind kind, int64_t stages, int64_t chunks, int64_t slots) {
  if (kind == PipelineKind::one_f_one_b && chunks > 1 && slots % stages != 0)
    return invalid("layout: pp={} does not divide micro-batches of a replica = {}", stages, slots);
  if (kind != PipelineKind::dualpipe) return {};
  if (stages % 2 != 0) return invalid("layout: dualpipe needs an even number of stages; pp={}", stages);
  if (slots % 2 != 0 || slots < 2 * stages)
    return invalid(
        "layout: dualpipe on pp={} needs an even number of at least {} micro-batches of a replica, "
        "got {}",
        stages, 2 * stages, slots);
  return {};
}

Schedule make_schedule(PipelineKind kind, int64_t stages, int64_t chunks, int64_t slots) {
  Schedule schedule{.stages = stages, .slots = slots, .table = {}, .kind = kind, .chunks = chunks};
  for (int64_t stage = 0; stage < stages; ++stage) {
    schedule.table.push_back(row_of(kind, stage, stages, chunks, slots));
    for (Action& action : schedule.table.back()) action.stage = stage;
  }
  return schedule;
}

Schedule make_schedule(PipelineSchedule kind, int64_t stages, int64_t slots) {
  bool gpipe = kind == PipelineSchedule::gpipe;
  return make_schedule(gpipe ? PipelineKind::gpipe : PipelineKind::one_f_one_b, stages, 1, slots);
}

Status validate(const Schedule& schedule) {
  if (schedule.table.size() != static_cast<size_t>(schedule.stages))
    return invalid("schedule: {} rows for {} stages", schedule.table.size(), schedule.stages);
  for (int64_t stage = 0; stage < schedule.stages; ++stage) TESSERA_RETURN_IF_ERROR(check_row(schedule, stage));
  auto pieces = static_cast<size_t>(pieces_of(schedule.kind, schedule.stages, schedule.chunks));
  if (schedule.slots > 0 && spans(schedule, std::vector<PieceTime>(pieces, {1, 1, 1}), 0).empty())
    return invalid("schedule: stages wait for each other in a circle");
  return {};
}

int64_t peak_slots_in_flight(const Schedule& schedule, int64_t stage) {
  int64_t now = 0, peak = 0;
  for (const Action& action : schedule.table[static_cast<size_t>(stage)]) {
    if (action.kind == Action::forward) ++now;
    if (action.kind == Action::backward || action.kind == Action::backward_weight) --now;
    peak = std::max(peak, now);
  }
  return peak;
}

std::vector<HeldSlots> peaks_in_flight(const Schedule& schedule, int64_t stage) {
  std::vector<HeldSlots> peaks;
  std::vector<int64_t> none(static_cast<size_t>(schedule.chunks), 0);
  HeldSlots now{.kept = none, .deferred = none};
  for (const Action& action : schedule.table[static_cast<size_t>(stage)]) {
    auto chunk = static_cast<size_t>(action.chunk);
    if (action.kind == Action::forward) ++now.kept[chunk];
    if (action.kind == Action::backward || action.kind == Action::backward_input) --now.kept[chunk];
    if (action.kind == Action::backward_input) ++now.deferred[chunk];
    if (action.kind == Action::backward_weight) --now.deferred[chunk];
    if (action.kind == Action::forward || action.kind == Action::backward_input) add_peak(peaks, now);
  }
  return peaks;
}

std::string draw(const Schedule& schedule) {
  std::string text;
  for (const auto& row : schedule.table) {
    for (const Action& action : row) {
      text += fmt::format("{}{}", "FBIW"[action.kind], action.slot);
      if (action.chunk > 0) text += fmt::format(".{}", action.chunk);
      text += action.paired && action.kind == Action::forward ? '+' : ' ';
    }
    text.back() = '\n';
  }
  return text;
}

}  // namespace tessera
