#include <mlx/ops.h>

#include "ops/cpu_path.h"
#include "ops/head_side.h"

namespace pennyweight::ops::cpu_path {

namespace {

using Arrays = std::vector<mx::array>;

class ScoreUpdate : public CpuPrimitive {
 public:
  ScoreUpdate(mx::Stream stream, int first)
      : CpuPrimitive(stream), first_(first) {}

  const char* name() const override {
    return "pennyweight::ScoreUpdate";
  }

 protected:
  // Inputs are state, targets, logits and perhaps reference.
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto targets = without_gaps(inputs[1]);
    const auto logits = with_even_rows(inputs[2]);
    const auto place = go_on(inputs[0], out);
    kernels::ScoreArgs args{
        .rows = logits.shape(0),
        .columns = logits.shape(1),
        .first = first_,
        .logits = matrix_of(logits),
        .targets = targets.data<int32_t>(),
        .state = out.data<float>(),
        .state_stride = kScoreState};
    if (inputs.size() > 3) {
      args.reference = matrix_of(with_even_rows(inputs[3]));
    }
    return [args, place] {
      place.copy();
      kernels::score_update(args);
    };
  }

 private:
  int first_;
};

class ScoreLinear : public HeadPrimitive {
 public:
  ScoreLinear(
      mx::Stream stream,
      SideParts head,
      SideParts reference,
      int first,
      float scale)
      : HeadPrimitive(stream),
        parts_{head, reference},
        first_(first),
        scale_(scale) {}

  const char* name() const override {
    return "pennyweight::ScoreLinear";
  }

 protected:
  // Inputs are state, targets, then x, weight and perhaps bias of each side.
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto targets = without_gaps(inputs[1]);
    const auto place = go_on(inputs[0], out);
    kernels::ScoreMatmulArgs args{
        .rows = inputs[0].shape(0),
        .columns = inputs[3].shape(0),
        .first = first_,
        .scale = scale_,
        .targets = targets.data<int32_t>(),
        .state = out.data<float>(),
        .state_stride = kScoreState};
    size_t next = 2;
    args.logits = side_of(parts_[0], inputs, next);
    args.reference = side_of(parts_[1], inputs, next);
    return [args, place] {
      place.copy();
      kernels::score_matmul(args);
    };
  }

 private:
  SideParts parts_[2];
  int first_;
  float scale_;
};

class ScoreFinish : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

  const char* name() const override {
    return "pennyweight::ScoreFinish";
  }

 protected:
  Task plan(const Arrays& inputs, mx::array& out) override {
    const auto state = without_gaps(inputs[0]);
    allocate(out);
    const kernels::ScoreFinishArgs args{
        state.shape(0), state.data<float>(), kScoreState, out.data<float>()};
    return [args] { kernels::score_finish(args); };
  }
};

}  // namespace

mx::array score_update(
    const mx::array& state,
    const mx::array& logits,
    const std::optional<mx::array>& reference,
    const mx::array& targets,
    int first,
    mx::Stream stream) {
  Arrays inputs{state, targets, logits};
  if (reference) {
    inputs.push_back(*reference);
  }
  return mx::array(
      state.shape(),
      mx::float32,
      std::make_shared<ScoreUpdate>(stream, first),
      std::move(inputs));
}

mx::array score_linear(
    const mx::array& state,
    const HeadRows& head,
    const std::optional<HeadRows>& reference,
    const mx::array& targets,
    int first,
    float scale,
    mx::Stream stream) {
  Arrays inputs{state, targets};
  const auto parts = append_side(inputs, head);
  const auto reference_parts = append_side(inputs, reference);
  return mx::array(
      state.shape(),
      mx::float32,
      std::make_shared<ScoreLinear>(
          stream, parts, reference_parts, first, scale),
      std::move(inputs));
}

Scores score_finish(const mx::array& state, mx::Stream stream) {
  const int rows = state.shape(0);
  const auto all = mx::array(
      {4, rows}, mx::float32, std::make_shared<ScoreFinish>(stream), {state});
  const auto part = [&](int index) {
    return mx::squeeze(mx::slice(all, {index, 0}, {index + 1, rows}), 0);
  };
  return {part(0), part(1), part(2), mx::astype(part(3), mx::bool_)};
}

}  // namespace pennyweight::ops::cpu_path
