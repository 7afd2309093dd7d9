// Pieces of the planner's HTML pages: one file that opens offline, with ECharts (third_party/echarts), the
// style sheet, the figures as JSON and a script inside. Readable on a phone, in print and in the dark.
//
// Text given to these functions is escaped unless a parameter is named `html`. Threads: reentrant.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "plan/infeasible.h"

namespace tessera::plan {

std::string html_escape(std::string_view text);

// A card with a title, one sentence on how to read it, and its content.
std::string page_section(std::string_view title, std::string_view note, const std::string& html);
// The place that a script draws into; `label` is read out where nothing is seen.
std::string page_chart(std::string_view id, std::string_view label);

// The figures that a reader looks for first.
struct PageTile {
  std::string name, value, note;
};
std::string page_tiles(const std::vector<PageTile>& tiles);

// The first `text_columns` columns are aligned left. A wide table scrolls inside its card.
std::string page_table(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& rows,
                       size_t text_columns);

std::string page_infeasible(std::string_view title, std::string_view note, std::span<const Infeasible> reasons);

// `script`: file of src/plan/page that draws `plan`. Bytes of `plan` that are no UTF-8 are replaced.
std::string page_document(std::string_view title, std::string_view intro, const std::string& html,
                          const nlohmann::json& plan, std::string_view script);

// Five significant digits: what a picture can show, in half the bytes.
double page_number(double value);
// 12345678 -> "12,345,678"; 1234.5 -> "1,234"; below 100 three significant digits.
std::string grouped(double value);

}  // namespace tessera::plan
