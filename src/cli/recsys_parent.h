// `tessera recsys`, under which several files add their commands, with and without torch.
#pragma once

namespace CLI {
class App;
}

namespace tessera::cli {

// Adds `recsys` at the first call, finds it at later ones.
CLI::App& recsys_parent(CLI::App& app);

// `recsys serve` and `recsys reshard`; built on torch.
void add_recsys_serve(CLI::App& app);
void add_recsys_reshard(CLI::App& app);

}  // namespace tessera::cli
