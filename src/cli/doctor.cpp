// tessera doctor: what this machine offers, what would get in the way, and what to do about it.
#include <fmt/ranges.h>
#include <link.h>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "core/file.h"
#include "core/machine.h"
#include "core/progress.h"

namespace tessera::cli {
namespace {

// good: nothing to do. note: works, but could be better. problem: something will fail.
enum class Verdict { good, note, problem };
const char* to_string(Verdict verdict) {
  return verdict == Verdict::good ? "good" : verdict == Verdict::note ? "note" : "problem";
}

struct Finding {
  std::string name, value;
  Verdict verdict = Verdict::good;
  std::string advice;
};
Finding good(std::string name, std::string value) {
  return {std::move(name), std::move(value)};
}

bool has(const Machine& machine, std::string_view feature) {
  return std::find(machine.features.begin(), machine.features.end(), feature) != machine.features.end();
}

Finding check_processor(const Machine& machine) {
  Finding finding = good("processor", fmt::format("{}, {} cores: {}", machine.processor, machine.cores,
                                                  fmt::join(machine.features, " ")));
  if (!has(machine, "avx2") || !has(machine, "fma")) {
    finding.verdict = Verdict::note;
    finding.advice = "without AVX2 and FMA the plain kernels run, many times slower";
  } else if (!has(machine, "avx512bf16") && !has(machine, "amx-bf16")) {
    finding.verdict = Verdict::note;
    finding.advice = "bf16 is slower than float32 on this processor: leave precision = \"auto\"";
  }
  return finding;
}

Finding check_memory(const Machine& machine) {
  Finding finding = good("memory", fmt::format("{} of {} available",
                                               human_count(static_cast<double>(machine.available_bytes), "B"),
                                               human_count(static_cast<double>(machine.memory_bytes), "B")));
  if (machine.available_bytes > int64_t{3} << 30) return finding;
  finding.verdict = Verdict::note;
  finding.advice = "the quickstart's four processes want about 3 GB; a release build 2 GB per job";
  return finding;
}

Finding check_disk() {
  int64_t bytes = free_disk_bytes(".");
  Finding finding = good("disk here", human_count(static_cast<double>(bytes), "B") + " free");
  if (bytes > int64_t{4} << 30) return finding;
  finding.verdict = Verdict::note;
  finding.advice = "torch and the build take about 3 GB; a run needs 16 bytes per parameter and checkpoint";
  return finding;
}

// Path of the libtorch that this process was started with; "" without one.
std::string loaded_torch() {
  std::string path;
  auto look = [](dl_phdr_info* info, size_t, void* result) {
    std::string_view name = info->dlpi_name ? info->dlpi_name : "";
    if (name.find("libtorch_cpu") == std::string_view::npos) return 0;
    *static_cast<std::string*>(result) = name;
    return 1;
  };
  dl_iterate_phdr(look, &path);
  return path;
}

// From version.py of the wheel, which lies beside lib/.
std::string torch_version(const std::filesystem::path& library) {
  std::ifstream file(library.parent_path().parent_path() / "version.py");
  for (std::string line; std::getline(file, line);) {
    size_t open = line.find('\''), close = line.rfind('\'');
    if (line.rfind("__version__", 0) == 0 && open < close) return line.substr(open + 1, close - open - 1);
  }
  return "of unknown version";
}

Finding check_torch() {
  std::string library = loaded_torch();
  if (!library.empty()) return good("libtorch", fmt::format("{} ({})", torch_version(library), library));
  return {"libtorch", "none: this is the planner alone", Verdict::note,
          "build preset release to train and serve; ./quickstart does"};
}

Finding check_open_files() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  Finding finding = good("open files", fmt::format("{} (may be raised to {})", limit.rlim_cur, limit.rlim_max));
  if (limit.rlim_cur >= 1024) return finding;
  finding.verdict = Verdict::problem;
  finding.advice = "a job of n ranks holds about 4n files per process: ulimit -n 4096";
  return finding;
}

// Shared memory between ranks of a host is a sealed memfd passed over a Unix socket.
Finding check_shared_memory() {
  int memory = memfd_create("tessera-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  bool works = memory >= 0 && ftruncate(memory, 4096) == 0;
  int error = errno;
  if (memory >= 0) close(memory);
  if (works) return good("shared memory (memfd)", "works");
  return {"shared memory (memfd)", errno_text(error), Verdict::problem,
          "ranks of one host need memfd_create: allow it in the container's seccomp profile"};
}

Finding check_unix_sockets() {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0) {
    close(pair[0]);
    close(pair[1]);
    return good("unix sockets", "work");
  }
  return {"unix sockets", errno_text(errno), Verdict::problem,
          "ranks of one host meet over Unix sockets: allow them in the container's profile"};
}

Finding check_pidfd() {
  auto file = static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0));
  if (file >= 0) {
    close(file);
    return good("process supervision (pidfd)", "works");
  }
  return {"process supervision (pidfd)", errno_text(errno), Verdict::note,
          "a worker's end is then noticed by polling; Linux 5.3 or newer has pidfd_open"};
}

Finding check_io_uring() {
  io_uring_params parameters{};
  auto ring = static_cast<int>(syscall(SYS_io_uring_setup, 1, &parameters));
  if (ring < 0) return good("io_uring", fmt::format("not available ({}); not needed", errno_text(errno)));
  close(ring);
  return good("io_uring", "works");
}

Finding check_huge_pages() {
  std::string modes;
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  std::getline(file, modes);
  if (modes.empty()) return good("huge pages", "not known");
  size_t open = modes.find('['), close = modes.find(']');
  std::string mode = open < close ? modes.substr(open + 1, close - open - 1) : modes;
  if (mode != "never") return good("huge pages", mode);
  return {"huge pages", mode, Verdict::note,
          "big tensors gain some per cent from: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"};
}

std::vector<Finding> examine() {
  Machine machine = this_machine();
  return {good("tessera", fmt::format("{}, compiled by GCC {}", TESSERA_VERSION, __VERSION__)),
          good("system", fmt::format("{} on {}", machine.system, machine.host)),
          check_processor(machine),
          check_memory(machine),
          check_disk(),
          check_torch(),
          check_open_files(),
          check_shared_memory(),
          check_unix_sockets(),
          check_pidfd(),
          check_io_uring(),
          check_huge_pages()};
}

void print(std::FILE* out, const std::vector<Finding>& findings) {
  for (const Finding& finding : findings) {
    fmt::print(out, "{:<8} {:<28} {}\n", finding.verdict == Verdict::good ? "" : to_string(finding.verdict),
               finding.name, finding.value);
    if (!finding.advice.empty()) fmt::print(out, "{:<38}{}\n", "", finding.advice);
  }
}

Status write_json(const std::string& path, const std::vector<Finding>& findings) {
  nlohmann::json rows = nlohmann::json::array();
  for (const Finding& finding : findings)
    rows.push_back({{"name", finding.name},
                    {"value", finding.value},
                    {"verdict", to_string(finding.verdict)},
                    {"advice", finding.advice}});
  std::string text = nlohmann::json{{"findings", rows}}.dump(2) + "\n";
  if (path != "-") return write_file_atomically(path, text);
  std::fputs(text.c_str(), stdout);
  return {};
}

Status run_doctor(const std::string& json) {
  std::vector<Finding> findings = examine();
  print(json == "-" ? stderr : stdout, findings);
  for (const Finding& finding : findings)
    if (finding.verdict == Verdict::problem) exit_status = 1;
  return json.empty() ? Status() : write_json(json, findings);
}

}  // namespace

void add_doctor(CLI::App& app) {
  auto json = std::make_shared<std::string>();
  CLI::App* command =
      app.add_subcommand("doctor", "Look at this machine: what is there, what would get in the way");
  command->add_option("--json", *json, "Write the findings as JSON; - for standard output");
  command->footer("Exit status 1 when something will fail.\n\nExample:\n  tessera doctor");
  command->callback([json] {
    if (Status status = run_doctor(*json); !status) report_error(status.error());
  });
}

}  // namespace tessera::cli
