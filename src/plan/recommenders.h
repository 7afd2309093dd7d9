// Recommenders that have a name, from data/recommenders.toml, or a TOML file of the same form:
//
//   [NAME]
//   source = "..."
//   rows = [..]           ids of each table       dim = 128
//   pooling = [..]        ids per sample of each table (one number: of all)
//   dense_features = 13   bottom = [..]           top = [.., 1]
//   interaction = "dot" | "cross" | "concat"      cross_layers, cross_rank
//
// Errors name the table and key, or the nearest known name.
#pragma once

#include <string>
#include <vector>

#include "core/result.h"
#include "spec/recommender.h"

namespace tessera::plan {

std::vector<std::string> recommender_names();
Result<Recommender> find_recommender(const std::string& name_or_path);

}  // namespace tessera::plan
