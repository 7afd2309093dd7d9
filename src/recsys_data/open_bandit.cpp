#include <map>

#include "recsys_data/csv.h"
#include "recsys_data/public_sets.h"
#include "recsys_data/text_input.h"

namespace tessera::recsys_data {
namespace {

constexpr std::string_view kAffinity = "user-item_affinity_";
constexpr int64_t kMostItems = 1 << 20;

int64_t count_affinities(std::string_view header) {
  int64_t count = 0;
  for (size_t at = header.find(kAffinity); at != std::string_view::npos; at = header.find(kAffinity, at + 1))
    ++count;
  return count;
}

Result<int64_t> num_affinities(const std::filesystem::path& path) {
  TESSERA_ASSIGN_OR_RETURN(auto input, TextInput::open(path));
  TESSERA_ASSIGN_OR_RETURN(std::string_view piece, input->next());
  return count_affinities(piece.substr(0, piece.find('\n')));
}

Result<std::filesystem::path> items_beside(const std::filesystem::path& file) {
  auto named = file.parent_path() / (file.stem().string() + "_items.csv");
  if (std::filesystem::exists(named)) return named;
  auto original = file.parent_path() / "item_context.csv";
  if (std::filesystem::exists(original)) return original;
  return make_error(ErrorCode::not_found, "{}: the table of its items is missing; expected {} or {}",
                    file.string(), named.string(), original.string());
}

struct Items {
  Table table;
  std::map<uint64_t, size_t> row_of;  // by the id of the item
};

Result<Items> read_items(const std::filesystem::path& path) {
  Schema schema;
  schema.numeric = {"item_feature_0"};
  schema.categorical = {{"item_id", kMostItems}, {"item_feature_1"}, {"item_feature_2"}, {"item_feature_3"}};
  TESSERA_ASSIGN_OR_RETURN(Table table, read_csv(path, schema));
  Items items{std::move(table), {}};
  const auto& ids = items.table.all.slots[0].ids;
  for (size_t i = 0; i < ids.size(); ++i) items.row_of[ids[i]] = i;
  return items;
}

// Affinities are counts for each item; most are 0. They become the set of items with one.
SlotIds items_with_affinity(const Batch& rows, size_t columns) {
  SlotIds slot;
  slot.offsets.push_back(0);
  for (size_t row = 0; row < static_cast<size_t>(rows.rows); ++row) {
    for (size_t c = 0; c < columns; ++c)
      if (rows.numeric[row * columns + c] > 0) slot.ids.push_back(c + 1);
    slot.offsets.push_back(static_cast<int64_t>(slot.ids.size()));
  }
  return slot;
}

Status join(Table& table, const Items& items, const std::filesystem::path& file) {
  const auto& shown = table.all.slots[0].ids;
  table.features.numeric = {"item_feature_0"};
  table.encodings.numbers = {{}};
  table.all.numeric.clear();
  std::vector<SlotIds> added(3);
  for (size_t row = 0; row < shown.size(); ++row) {
    auto found = items.row_of.find(shown[row]);
    if (found == items.row_of.end())
      return invalid("{}: row {} shows item {}, which the table of items does not have", file.string(), row + 1,
                     shown[row] - 1);
    table.all.numeric.push_back(items.table.all.numeric[found->second]);
    for (size_t f = 0; f < 3; ++f) added[f].ids.push_back(items.table.all.slots[f + 1].ids[found->second]);
  }
  for (size_t f = 0; f < 3; ++f) {
    table.features.slots.push_back(items.table.features.slots[f + 1]);
    table.encodings.ids.push_back(items.table.encodings.ids[f + 1]);
    table.all.slots.push_back(std::move(added[f]));
  }
  return {};
}

}  // namespace

Result<Table> read_open_bandit(const std::filesystem::path& file) {
  TESSERA_ASSIGN_OR_RETURN(int64_t columns, num_affinities(file));
  TESSERA_ASSIGN_OR_RETURN(auto items_file, items_beside(file));
  Schema schema{.label = {"click"}, .time = "timestamp"};
  schema.categorical = {{"item_id", kMostItems}, {"position"},       {"user_feature_0"},
                        {"user_feature_1"},      {"user_feature_2"}, {"user_feature_3"}};
  for (int64_t i = 0; i < columns; ++i) schema.numeric.push_back(fmt::format("{}{}", kAffinity, i));
  TESSERA_ASSIGN_OR_RETURN(Table table, read_csv(file, schema));
  TESSERA_ASSIGN_OR_RETURN(Items items, read_items(items_file));
  SlotIds affinity = items_with_affinity(table.all, static_cast<size_t>(columns));
  TESSERA_RETURN_IF_ERROR(join(table, items, file));
  table.features.slots.push_back("user-item_affinity");
  table.encodings.ids.push_back({.kind = IdEncoding::Kind::below, .cardinality = columns, .several = true});
  table.all.slots.push_back(std::move(affinity));

  Table ordered{.features = table.features, .encodings = table.encodings};
  auto order = order_by_time(table);
  gather_rows(table.all, order, table.features.numeric.size(), ordered.all);
  for (int64_t row : order) ordered.time.push_back(table.time[static_cast<size_t>(row)]);
  return ordered;
}

}  // namespace tessera::recsys_data
