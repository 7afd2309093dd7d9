#include "cli/plan_gpu.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/plan_commands.h"
#include "core/file.h"
#include "plan/catalogue.h"
#include "plan/emit/emit.h"
#include "plan/training/gpu_report.h"
#include "plan/training/page.h"

namespace tessera::cli {
namespace {

Result<plan::TrainingPrecision> precision_of(const GpuTrainOptions& options) {
  if (options.precision == "auto") return plan::TrainingPrecision::bf16;
  return plan::parse_training_precision(options.precision);
}

// What NVIDIA's current recipes do: flash attention, gradients added in 16 bits, collectives beside
// computation.
plan::TrainingOptions current_options(const plan::SoftwareGeneration& software, const plan::Device& device) {
  plan::TrainingOptions options;
  options.software = software.name;
  options.release_year = software.year;
  options.gradient_bytes = software.year > 2024 ? 2 : 4;
  options.fused_loss = software.year > 2024;
  options.overlap_ep = software.year > 2026.4 && device.generation.starts_with("blackwell");
  return options;
}

// Degrees that the user left out are filled with data parallelism.
Result<plan::TrainingLayout> layout_of(const GpuTrainOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(plan::TrainingLayout layout, plan::parse_training_layout(options.layout));
  bool given = options.layout.find("dp=") != std::string::npos;
  int64_t inner = layout.tp * layout.pp * layout.cp * layout.fsdp;
  if (!given && options.gpus % inner == 0) layout.dp = options.gpus / inner;
  if (layout.fsdp > 1 && options.layout.find("sharding=") == std::string::npos)
    layout.sharding = plan::Sharding::parameters;
  if (layout.tp > 1 && options.layout.find("sp=") == std::string::npos) layout.sequence_parallel = true;
  if (layout.ep > 1 && options.layout.find("etp=") == std::string::npos) layout.etp = 1;
  if (options.micro_batch > 0) layout.micro_batch = options.micro_batch;
  return layout;
}

Result<plan::GpuPlanRequest> make_request(const GpuTrainOptions& options) {
  plan::GpuPlanRequest request;
  TESSERA_ASSIGN_OR_RETURN(request.model, plan::find_model(options.model));
  TESSERA_ASSIGN_OR_RETURN(request.cluster, plan::load_gpu_cluster(options.cluster));
  request.cluster = plan::for_training(std::move(request.cluster));
  TESSERA_ASSIGN_OR_RETURN(request.cluster, plan::at_site(std::move(request.cluster), options.site));
  TESSERA_ASSIGN_OR_RETURN(request.failures, plan::parse_failure_policy(options.failures));
  request.software = plan::newest_software();
  if (!options.software.empty()) {
    TESSERA_ASSIGN_OR_RETURN(request.software, plan::software_by_name(options.software));
  }
  if (!options.schedules.empty()) {
    TESSERA_ASSIGN_OR_RETURN(request.schedules, plan::parse_pipeline_kinds(options.schedules));
  }
  TESSERA_ASSIGN_OR_RETURN(request.work.precision, precision_of(options));
  request.work.seq = options.seq, request.work.global_batch = options.batch;
  request.options = current_options(request.software, request.cluster.device);
  request.gpus = options.gpus, request.tokens = options.tokens;
  request.micro_batch = options.micro_batch, request.top = options.top;
  request.min_gpus = options.min_gpus, request.max_days = options.max_days;
  if (options.space != "default" && options.space != "calculon")
    return invalid("space '{}': expected default or calculon", options.space);
  if (options.space == "calculon" && !(options.emit.empty() && options.html.empty()))
    return invalid("emit and html describe layouts of the default space: leave out --space calculon");
  if (options.space == "calculon") request.space = plan::SearchSpace::calculon;
  TESSERA_ASSIGN_OR_RETURN(request.objective, plan::parse_objective(options.objective));
  if (options.layout.empty()) return request;
  TESSERA_ASSIGN_OR_RETURN(request.layout, layout_of(options));
  return request;
}

void print(const plan::GpuPlanRequest& request, const plan::GpuPlan& plan, FILE* out) {
  if (!plan.ranked.empty()) {
    fmt::print(out, "{}{}", plan::gpu_table(request, plan), plan::gpu_details(request, plan.ranked.front()));
    return;
  }
  for (const auto& reason : plan.infeasible)
    fmt::print(out, "nothing fits {} x {}: {} needs {:.4g} {}, {:.4g} are there\n", request.gpus,
               request.cluster.name, reason.constraint, reason.needed, reason.unit, reason.available);
}

}  // namespace

Status plan_gpu_training(const GpuTrainOptions& options) {
  TESSERA_RETURN_IF_ERROR(check_emit(options.emit, options.json));
  TESSERA_ASSIGN_OR_RETURN(plan::GpuPlanRequest request, make_request(options));
  TESSERA_ASSIGN_OR_RETURN(plan::GpuPlan plan, plan::plan_training(request));
  print(request, plan, options.json == "-" || !options.emit.empty() ? stderr : stdout);
  if (plan.ranked.empty()) exit_status = 1;
  if (!options.emit.empty() && !plan.ranked.empty()) {
    TESSERA_ASSIGN_OR_RETURN(std::string text, plan::emit_training(options.emit, request, plan.ranked.front()));
    print_emitted(text);
  }
  if (!options.html.empty())
    TESSERA_RETURN_IF_ERROR(write_file_atomically(options.html, plan::training_page(request, plan)));
  if (options.json.empty()) return {};
  std::string text = plan::gpu_json(request, plan).dump(2) + "\n";
  if (options.json != "-") return write_file_atomically(options.json, text);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return {};
}

}  // namespace tessera::cli
