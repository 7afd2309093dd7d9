#include "recsys_train/wire_servers.h"

#include "recsys_train/forwarding_servers.h"

namespace tessera::recsys_train {
namespace {

class WireServers : public ForwardingServers {
 public:
  WireServers(EmbeddingServers& servers, const WireConfig& config, const std::vector<int64_t>& dims)
      : ForwardingServers(servers), wire_(config, dims), dims_(dims) {}

  Status get(int64_t group, std::span<const uint64_t> ids, std::span<float> rows, const GetOptions& options,
             int64_t* applied) override {
    std::vector<std::byte> request, answer;
    recsys::SortedIds sorted = wire_.ask(ids, request);
    std::span<const std::byte> in = request;
    TESSERA_ASSIGN_OR_RETURN(auto asked, recsys::unpack_ids(in));
    std::vector<float> values(asked.size() * static_cast<size_t>(dims_[static_cast<size_t>(group)]));
    TESSERA_RETURN_IF_ERROR(servers_.get(group, asked, values, options, applied));
    recsys::pack_rows(values, {.type = wire_.row_type()}, answer);
    return wire_.take(group, sorted, answer, rows);
  }

  Status put(int64_t group, std::span<const uint64_t> ids, std::span<const float> gradients,
             const recsys::PutOptions& options) override {
    std::vector<std::byte> request;
    if (!wire_.give(group, ids, gradients, request)) return servers_.put(group, ids, gradients, options);
    std::span<const std::byte> in = request;
    TESSERA_ASSIGN_OR_RETURN(auto keys, recsys::unpack_ids(in));
    TESSERA_ASSIGN_OR_RETURN(auto values, recsys::unpack_rows(in));
    return servers_.put(group, keys, values, options);
  }

  Traffic traffic() const override {
    Traffic all = servers_.traffic();
    all.wire = wire_.count();
    return all;
  }

 private:
  WireEnd wire_;
  std::vector<int64_t> dims_;
};

}  // namespace

std::unique_ptr<EmbeddingServers> make_wire_servers(EmbeddingServers& servers, const WireConfig& config,
                                                    const std::vector<int64_t>& dims) {
  return std::make_unique<WireServers>(servers, config, dims);
}

}  // namespace tessera::recsys_train
