#include "recsys_train/model.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/binary_cross_entropy_with_logits.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/sigmoid.h>

#include <algorithm>

#include "core/nearest.h"
#include "recsys_train/layers.h"

namespace tessera::recsys_train {
namespace {

struct Sizes {
  int64_t numbers, slots, dim;
  int64_t embedded() const { return slots * dim; }
  Tensor vectors(const Tensor& flat) const { return flat.reshape({flat.size(0), slots, dim}); }
};

std::vector<int64_t> with_logit(std::vector<int64_t> sizes) {
  sizes.push_back(1);
  return sizes;
}

// Numbers through their own network, or as they are.
class Bottom {
 public:
  Bottom(Parameters& parameters, const ModelOptions& options, int64_t numbers)
      : outputs_(options.bottom.empty() ? numbers : options.bottom.back()) {
    if (!options.bottom.empty())
      mlp_ = std::make_unique<Mlp>(parameters, "bottom", numbers, options.bottom, true);
  }
  int64_t outputs() const { return outputs_; }
  Tensor forward(const Tensor& numeric) { return mlp_ ? mlp_->forward(numeric) : numeric; }
  void backward(const Tensor& gradient) {
    if (mlp_) mlp_->backward(gradient, false);
  }

 private:
  int64_t outputs_;
  std::unique_ptr<Mlp> mlp_;
};

Tensor flattened(const Tensor& pooled) {
  return pooled.view({pooled.size(0), pooled.size(1) * pooled.size(2)});
}

class Dnn : public DenseModel {
 public:
  Dnn(const ModelOptions& options, Sizes sizes)
      : sizes_(sizes),
        bottom_(parameters_, options, sizes.numbers),
        top_(parameters_, "top", bottom_.outputs() + sizes.embedded(), with_logit(options.top), false) {}

 protected:
  Tensor logits(const Tensor& numeric, const Tensor& pooled, const Tensor&) override {
    return top_.forward(at::cat({bottom_.forward(numeric), flattened(pooled)}, 1));
  }
  void backward_from(const Tensor& gradient, Gradients& out) override {
    Tensor joined = top_.backward(gradient);
    out.pooled = sizes_.vectors(joined.narrow(1, bottom_.outputs(), sizes_.embedded()));
    bottom_.backward(joined.narrow(1, 0, bottom_.outputs()));
  }

 private:
  Sizes sizes_;
  Bottom bottom_;
  Mlp top_;
};

class Dlrm : public DenseModel {
 public:
  Dlrm(const ModelOptions& options, Sizes sizes)
      : sizes_(sizes),
        bottom_(parameters_, options, sizes.numbers),
        dots_(sizes.slots + 1, sizes.dim),
        top_(parameters_, "top", dots_.outputs(), with_logit(options.top), false) {}

 protected:
  Tensor logits(const Tensor& numeric, const Tensor& pooled, const Tensor&) override {
    return top_.forward(dots_.forward(bottom_.forward(numeric), pooled));
  }
  void backward_from(const Tensor& gradient, Gradients& out) override {
    auto to = dots_.backward(top_.backward(gradient));
    out.pooled = to.others;
    bottom_.backward(to.x);
  }

 private:
  Sizes sizes_;
  Bottom bottom_;
  DotInteraction dots_;
  Mlp top_;
};

class Dcn : public DenseModel {
 public:
  Dcn(const ModelOptions& options, Sizes sizes)
      : sizes_(sizes),
        bottom_(parameters_, options, sizes.numbers),
        cross_(parameters_, "cross", bottom_.outputs() + sizes.embedded(), options.cross_layers,
               options.cross_rank),
        top_(parameters_, "top", bottom_.outputs() + sizes.embedded(), with_logit(options.top), false) {}

 protected:
  Tensor logits(const Tensor& numeric, const Tensor& pooled, const Tensor&) override {
    return top_.forward(cross_.forward(at::cat({bottom_.forward(numeric), flattened(pooled)}, 1)));
  }
  void backward_from(const Tensor& gradient, Gradients& out) override {
    Tensor joined = cross_.backward(top_.backward(gradient));
    out.pooled = sizes_.vectors(joined.narrow(1, bottom_.outputs(), sizes_.embedded()));
    bottom_.backward(joined.narrow(1, 0, bottom_.outputs()));
  }

 private:
  Sizes sizes_;
  Bottom bottom_;
  CrossNetwork cross_;
  Mlp top_;
};

// Wide & Deep, and DeepFM when `fm`.
class LinearAndDeep : public DenseModel {
 public:
  LinearAndDeep(const ModelOptions& options, Sizes sizes, bool fm)
      : sizes_(sizes),
        fm_(fm),
        linear_(parameters_, "linear", std::max<int64_t>(1, sizes.numbers), 1, false),
        top_(parameters_, "top", sizes.numbers + sizes.embedded(), with_logit(options.top), false) {}

 protected:
  Tensor logits(const Tensor& numeric, const Tensor& pooled, const Tensor& wide) override {
    Tensor deep = top_.forward(at::cat({numeric, flattened(pooled)}, 1));
    Tensor sum = linear_.forward(numeric) + wide.sum(1, true) + deep;
    return fm_ ? sum + machine_.forward(pooled) : sum;
  }
  void backward_from(const Tensor& gradient, Gradients& out) override {
    linear_.backward(gradient, false);
    out.wide = gradient.expand({gradient.size(0), sizes_.slots});
    out.pooled = sizes_.vectors(top_.backward(gradient).narrow(1, sizes_.numbers, sizes_.embedded()));
    if (fm_) out.pooled = out.pooled + machine_.backward(gradient);
  }

 private:
  Sizes sizes_;
  bool fm_;
  Linear linear_;
  Mlp top_;
  FactorisationMachine machine_;
};

const std::vector<std::string> kKinds = {"dnn", "dlrm", "dcnv2", "deepfm", "wide-deep"};

Status check(const ModelOptions& options, Sizes sizes) {
  if (std::find(kKinds.begin(), kKinds.end(), options.kind) == kKinds.end())
    return invalid("model.kind: got '{}', expected dnn, dlrm, dcnv2, deepfm or wide-deep{}", options.kind,
                   did_you_mean(options.kind, kKinds));
  for (const auto* list : {&options.bottom, &options.top, &options.attention})
    for (int64_t size : *list)
      if (size < 1) return invalid("model: a layer of {} units; expected at least 1", size);
  if (options.kind == "dlrm" && (options.bottom.empty() || options.bottom.back() != sizes.dim))
    return invalid(
        "model.bottom: dlrm needs numbers as one more vector, so the last size must be embedding.dim={}",
        sizes.dim);
  if (sizes.numbers == 0 &&
      (options.kind == "dlrm" || has_linear_part(options.kind) || !options.bottom.empty()))
    return invalid("model.kind={}: the data has no numbers; use dnn or dcnv2 with an empty model.bottom",
                   options.kind);
  if (options.kind == "dcnv2" && (options.cross_layers < 1 || options.cross_rank < 0))
    return invalid("model.cross_layers={} model.cross_rank={}: expected at least 1 and 0", options.cross_layers,
                   options.cross_rank);
  return {};
}

std::unique_ptr<DenseModel> make(const ModelOptions& options, Sizes sizes) {
  if (options.kind == "dnn") return std::make_unique<Dnn>(options, sizes);
  if (options.kind == "dlrm") return std::make_unique<Dlrm>(options, sizes);
  if (options.kind == "dcnv2") return std::make_unique<Dcn>(options, sizes);
  return std::make_unique<LinearAndDeep>(options, sizes, options.kind == "deepfm");
}

}  // namespace

bool has_linear_part(const std::string& kind) {
  return kind == "deepfm" || kind == "wide-deep";
}

Result<std::unique_ptr<DenseModel>> DenseModel::create(const ModelOptions& options, int64_t numbers,
                                                       int64_t slots, int64_t dim, uint64_t seed,
                                                       const std::vector<SequencePlace>& sequences) {
  Sizes sizes{numbers, slots, dim};
  TESSERA_RETURN_IF_ERROR(check(options, sizes));
  auto model = make(options, sizes);
  if (!sequences.empty())
    model->sequences_.emplace(model->parameters_, sequences, slots, dim, options.attention,
                              options.attention_softmax);
  model->parameters_.allocate(seed);
  return model;
}

at::Tensor DenseModel::forward(const Tensor& numeric, const Tensor& pooled, const Tensor& wide,
                               const Tensor& lengths) {
  logits_ = logits(numeric, sequences_ ? sequences_->forward(pooled, lengths) : pooled, wide);
  return logits_.view({logits_.size(0)});
}

DenseModel::Gradients DenseModel::backward(const Tensor& labels) {
  Gradients out;
  Tensor target = labels.view({-1, 1});
  out.loss = at::binary_cross_entropy_with_logits(logits_, target).item<double>();
  Tensor gradient = (at::sigmoid(logits_) - target) / static_cast<double>(logits_.size(0));
  backward_from(gradient, out);
  if (sequences_) out.pooled = sequences_->backward(out.pooled);
  out.pooled = out.pooled.contiguous();
  if (out.wide.defined()) out.wide = out.wide.contiguous();
  return out;
}

}  // namespace tessera::recsys_train
