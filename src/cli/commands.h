// The subcommands of `tessera`. Each function adds one CLI11 subcommand to `app`; its callback leaves the exit
// status in `exit_status`. A new command: one file, one line here, one line in main.cpp.
#pragma once

#include "core/result.h"

namespace CLI {
class App;
}

namespace tessera::cli {

// Exit status of the command that ran; 0 only for success.
inline int exit_status = 0;

// Prints "error: ..." on standard error and sets a non-zero exit status.
void report_error(const Error& error);

void add_data(CLI::App& app);
void add_doctor(CLI::App& app);
void add_plan(CLI::App& app);
void add_plan_model(CLI::App& plan_command);  // part of `plan`
void add_recsys_capacity(CLI::App& app);
void add_report(CLI::App& app);
void add_tokenizer(CLI::App& app);

// Built on torch; defined where TESSERA_WITH_TORCH is.
void add_calibrate(CLI::App& app);
void add_checkpoint(CLI::App& app);
void add_drill(CLI::App& app);
void add_embed(CLI::App& app);
void add_eval(CLI::App& app);
void add_generate(CLI::App& app);
void add_launch(CLI::App& app);
void add_recsys_train(CLI::App& app);
void add_serve(CLI::App& app);
void add_train(CLI::App& app);
void add_verify(CLI::App& app);

}  // namespace tessera::cli
