#include "model/unit.h"

#include "model/failure.h"

namespace tessera::model {
namespace {

constexpr int64_t kAlignment = 16;  // elements; slices start at whole SIMD vectors

UnitTensor local_tensor(const Context& context, const TensorSpec& spec) {
  UnitTensor tensor{spec, tp_extent(spec, context.layout.tp, context.at.tp, context.work.tp_blocks)};
  tensor.elements = tensor.box.elements();
  bool copied_over_tp = spec.split == Split::none && context.at.tp > 0;
  bool copied_over_pp = spec.role == Role::embedding && !context.first_stage();
  tensor.primary = !copied_over_tp && !copied_over_pp;
  return tensor;
}

}  // namespace

Unit::Unit(Context& context, std::string name, std::vector<UnitTensor> tensors, UnitGroups groups)
    : context_(context), name_(std::move(name)), tensors_(std::move(tensors)), groups_(groups) {
  for (UnitTensor& tensor : tensors_) {
    tensor.offset = elements_;
    elements_ += tensor.elements;
  }
  int64_t step = replicas() * kAlignment;
  elements_ = (elements_ + step - 1) / step * step;
  working_ = make_zeros({elements_ / groups_.fsdp->size()}, context.dtype());
  if (!sharded()) full_ = working_;
  master = context.dtype() == at::kFloat ? working_slice() : make_zeros({slice_elements()}, at::kFloat);
  moment1 = make_zeros({slice_elements()}, at::kFloat);
  moment2 = make_zeros({slice_elements()}, at::kFloat);
}

int64_t Unit::slice_of(int64_t replica) const {
  int64_t shards = groups_.fsdp->size();
  return replica % shards * (replicas() / shards) + replica / shards;
}

void Unit::prefetch() {
  if (!sharded() || full_.defined()) return;
  full_ = make({elements_}, context_.dtype());
  gather_ = groups_.fsdp->start_all_gather(bytes(working_), mutable_bytes(full_));
}

void Unit::acquire() {
  prefetch();
  if (gather_) {
    Status status = gather_->wait();
    gather_.reset();
    check(status);
  }
  ++users_;
}

void Unit::release() {
  if (--users_ == 0 && sharded()) full_ = Tensor();
}

const UnitTensor& Unit::find(Role role, int64_t expert) const {
  for (const UnitTensor& tensor : tensors_)
    if (tensor.spec.role == role && tensor.spec.expert == expert) return tensor;
  TESSERA_REQUIRE(false, "unit {} has no tensor of role {} and expert {}", name_, static_cast<int>(role),
                  expert);
}

Tensor Unit::weight(Role role, int64_t expert) const {
  TESSERA_REQUIRE(full_.defined() && users_ > 0, "weights of {} used before acquire()", name_);
  return view(full_, role, expert);
}

Tensor Unit::fused(Role first, Role last, int64_t expert) const {
  TESSERA_REQUIRE(full_.defined() && users_ > 0, "weights of {} used before acquire()", name_);
  return fused_view(full_, first, last, expert);
}

Tensor Unit::view(const Tensor& flat, Role role, int64_t expert) const {
  const UnitTensor& tensor = find(role, expert);
  return flat.narrow(0, tensor.offset, tensor.elements).view(tensor.box.size);
}

Tensor Unit::fused_view(const Tensor& flat, Role first, Role last, int64_t expert) const {
  const UnitTensor& begin = find(first, expert);
  const UnitTensor& end = find(last, expert);
  int64_t width = begin.box.size[1], total = end.offset + end.elements - begin.offset;
  return flat.narrow(0, begin.offset, total).view({total / width, width});
}

Tensor Unit::working_slice() const {
  int64_t within = groups_.replicas->rank() / groups_.fsdp->size();  // place among equal shards
  return working_.narrow(0, within * slice_elements(), slice_elements());
}

void Unit::publish() {
  Tensor slice = working_slice();
  if (context_.dtype() != at::kFloat) kernels::convert(master, slice);
  if (groups_.dp->size() > 1) check(groups_.dp->all_gather(bytes(slice), mutable_bytes(working_)));
}

int64_t Unit::optimizer_bytes() const {
  int64_t copied = context_.dtype() == at::kFloat ? 0 : master.nbytes();
  return moment1.nbytes() + moment2.nbytes() + copied;
}

namespace {

// Collects the tensors of this rank that `wanted` selects.
template <class Predicate>
std::vector<UnitTensor> select(const Context& context, const std::vector<TensorSpec>& tensors,
                               Predicate wanted) {
  std::vector<UnitTensor> chosen;
  for (const TensorSpec& tensor : tensors)
    if (holds(context.spec, tensor, context.layout, context.at) && wanted(tensor))
      chosen.push_back(local_tensor(context, tensor));
  return chosen;
}

}  // namespace

Units make_units(Context& context) {
  auto tensors = inventory(context.spec);
  UnitGroups dense{context.groups.replicas.get(), context.groups.fsdp.get(), context.groups.dp.get()};
  UnitGroups expert{context.groups.expert_replicas.get(), context.groups.expert_fsdp.get(),
                    context.groups.expert_dp.get()};
  Units units;
  auto add = [&](const std::string& name, UnitGroups groups, auto wanted) -> Unit* {
    auto chosen = select(context, tensors, wanted);
    if (chosen.empty()) return nullptr;
    units.all.push_back(std::make_unique<Unit>(context, name, std::move(chosen), groups));
    return units.all.back().get();
  };
  auto by_role = [](Role role) { return [role](const TensorSpec& t) { return t.role == role; }; };
  if (context.first_stage()) units.embedding = add("embedding", dense, by_role(Role::embedding));
  LayerRange range = stage_layers(context.spec, context.layout, context.at.pp);
  for (int64_t layer = range.first; layer < range.last; ++layer) {
    auto in_layer = [layer](bool of_expert) {
      return
          [layer, of_expert](const TensorSpec& t) { return t.layer == layer && (t.expert >= 0) == of_expert; };
    };
    units.dense.push_back(add(fmt::format("layers.{}", layer), dense, in_layer(false)));
    units.experts.push_back(add(fmt::format("layers.{}.experts", layer), expert, in_layer(true)));
  }
  if (!context.last_stage()) return units;
  units.final_norm = add("final_norm", dense, by_role(Role::final_norm));
  if (!context.spec.tied)
    units.head = add("head", dense, by_role(Role::head));
  else if (context.first_stage())
    units.head = units.embedding;
  else
    units.head = add("head", dense, by_role(Role::embedding));
  return units;
}

}  // namespace tessera::model
