// The sections of the page. Each gives the HTML below its heading, and says what is missing when its file is.
#pragma once

#include <string>

#include "report/run_files.h"

namespace tessera::report {

std::string summary_section(const RunFiles& files);
std::string loss_section(const RunFiles& files);
std::string speed_section(const RunFiles& files);
std::string timeline_section(const RunFiles& files);
std::string prediction_section(const RunFiles& files);
std::string memory_section(const RunFiles& files);
std::string experts_section(const RunFiles& files);
std::string failures_section(const RunFiles& files);
std::string samples_section(const RunFiles& files);
std::string card_section(const RunFiles& files);

// Of a recommender's run.
std::string recommender_summary(const RunFiles& files);
std::string recommender_loss(const RunFiles& files);
std::string recommender_quality(const RunFiles& files);
std::string recommender_speed(const RunFiles& files);
std::string recommender_staleness(const RunFiles& files);
std::string recommender_events(const RunFiles& files);
std::string recommender_traffic(const RunFiles& files);
std::string recommender_rows(const RunFiles& files);

}  // namespace tessera::report
