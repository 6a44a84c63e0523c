#include "kernels/dispatch.h"

#include <atomic>
#include <cstdlib>
#include <string>

#include "core/error.h"
#include "kernels/onednn/onednn.h"
#include "kernels/reference/reference.h"
#include "kernels/simd/simd.h"

namespace pennyweight::kernels {

namespace {

constexpr Implementation kReference{
    .matmul = reference::matmul,
    .dequantize = reference::dequantize,
    .quantized_matmul = reference::quantized_matmul,
    .rms_norm = reference::rms_norm,
    .rope = reference::rope,
    .attention = reference::attention,
    .gated_delta = reference::gated_delta,
    .causal_conv = reference::causal_conv,
    .swiglu = reference::swiglu,
    .subtract = reference::subtract,
    .add_magnitudes = reference::add_magnitudes,
    .transpose = reference::transpose,
    .softmax = reference::softmax,
    .logsumexp = reference::logsumexp,
    .score_update = reference::score_update,
    .rms_norm_backward = reference::rms_norm_backward,
    .swiglu_backward = reference::swiglu_backward,
    .attention_backward = reference::attention_backward,
    .kl_rows = reference::kl_rows,
    .group_gradient = reference::group_gradient,
    .accumulate = reference::accumulate,
};

constexpr Implementation kSimd{
    .matmul = simd::matmul,
    .dequantize = simd::dequantize,
    .quantized_matmul = simd::quantized_matmul,
    .rms_norm = simd::rms_norm,
    .rope = simd::rope,
    .attention = simd::attention,
    .gated_delta = simd::gated_delta,
    .causal_conv = simd::causal_conv,
    .swiglu = simd::swiglu,
    .subtract = simd::subtract,
    .add_magnitudes = simd::add_magnitudes,
    .transpose = simd::transpose,
    .softmax = simd::softmax,
    .logsumexp = simd::logsumexp,
    .score_update = simd::score_update,
    .rms_norm_backward = simd::rms_norm_backward,
    .swiglu_backward = simd::swiglu_backward,
    .attention_backward = simd::attention_backward,
    .kl_rows = simd::kl_rows,
    .group_gradient = simd::group_gradient,
    .accumulate = simd::accumulate,
};

#ifdef PENNYWEIGHT_HAVE_ONEDNN
constexpr Implementation kOneDnn{
    .matmul = onednn::matmul,
    .dequantize = simd::dequantize,
    .quantized_matmul = onednn::quantized_matmul,
    .rms_norm = simd::rms_norm,
    .rope = simd::rope,
    .attention = onednn::attention,
    .gated_delta = simd::gated_delta,
    .causal_conv = simd::causal_conv,
    .swiglu = simd::swiglu,
    .subtract = simd::subtract,
    .add_magnitudes = simd::add_magnitudes,
    .transpose = simd::transpose,
    .softmax = simd::softmax,
    .logsumexp = simd::logsumexp,
    .score_update = simd::score_update,
    .rms_norm_backward = simd::rms_norm_backward,
    .swiglu_backward = simd::swiglu_backward,
    .attention_backward = onednn::attention_backward,
    .kl_rows = simd::kl_rows,
    .group_gradient = simd::group_gradient,
    .accumulate = simd::accumulate,
};
#endif

Choice best_choice() {
  if (!simd::available()) {
    return Choice::reference;
  }
#ifdef PENNYWEIGHT_HAVE_ONEDNN
  return Choice::onednn;
#else
  return Choice::simd;
#endif
}

Choice requested_choice() {
  const char* text = std::getenv("PENNYWEIGHT_KERNEL");
  if (text == nullptr || *text == '\0') {
    return best_choice();
  }
  const std::string name = text;
  for (Choice choice : {Choice::reference, Choice::simd, Choice::onednn}) {
    if (name == choice_name(choice)) {
      implementation(choice);
      return choice;
    }
  }
  throw Error(
      ErrorCode::invalid_argument,
      "kernels",
      "PENNYWEIGHT_KERNEL is '" + one_line(name, 40) +
          "'; set it to reference, simd or onednn, or unset it");
}

constexpr int kNotOverridden = -1;
std::atomic<int> overridden{kNotOverridden};

const Implementation& active() {
  return implementation(active_choice());
}

}  // namespace

std::string_view choice_name(Choice choice) {
  switch (choice) {
    case Choice::reference:
      return "reference";
    case Choice::simd:
      return "simd";
    default:
      return "onednn";
  }
}

std::vector<Choice> available_choices() {
  std::vector<Choice> choices{Choice::reference};
  if (simd::available()) {
    choices.push_back(Choice::simd);
  }
  if (best_choice() == Choice::onednn) {
    choices.push_back(Choice::onednn);
  }
  return choices;
}

Choice active_choice() {
  const int choice = overridden.load(std::memory_order_relaxed);
  if (choice != kNotOverridden) {
    return static_cast<Choice>(choice);
  }
  static const Choice requested = requested_choice();
  return requested;
}

void override_choice(std::optional<Choice> choice) {
  if (choice) {
    implementation(*choice);
  }
  overridden = choice ? static_cast<int>(*choice) : kNotOverridden;
}

const Implementation& implementation(Choice choice) {
  if (choice != Choice::reference && !simd::available()) {
    throw Error(
        ErrorCode::not_supported,
        "kernels",
        "this processor lacks AVX2; set PENNYWEIGHT_KERNEL to reference");
  }
  switch (choice) {
    case Choice::reference:
      return kReference;
    case Choice::simd:
      return kSimd;
    default:
#ifdef PENNYWEIGHT_HAVE_ONEDNN
      return kOneDnn;
#else
      throw Error(
          ErrorCode::not_supported,
          "kernels",
          "this build has no oneDNN; set PENNYWEIGHT_KERNEL to simd");
#endif
  }
}

std::string_view target_name(Choice choice) {
  switch (choice) {
    case Choice::reference:
      return "scalar";
    case Choice::simd:
      return simd::target_name();
    default:
#ifdef PENNYWEIGHT_HAVE_ONEDNN
      return onednn::target_name();
#else
      return "none";
#endif
  }
}

void matmul(const MatmulArgs& args) {
  active().matmul(args);
}

void dequantize(const DequantizeArgs& args) {
  active().dequantize(args);
}

void quantized_matmul(const QuantizedMatmulArgs& args) {
  active().quantized_matmul(args);
}

void rms_norm(const RmsNormArgs& args) {
  active().rms_norm(args);
}

void rope(const RopeArgs& args) {
  active().rope(args);
}

void attention(const AttentionArgs& args) {
  active().attention(args);
}

void gated_delta(const GatedDeltaArgs& args) {
  active().gated_delta(args);
}

void causal_conv(const CausalConvArgs& args) {
  active().causal_conv(args);
}

void swiglu(const SwigluArgs& args) {
  active().swiglu(args);
}

void subtract(const SubtractArgs& args) {
  active().subtract(args);
}

void add_magnitudes(const AddMagnitudesArgs& args) {
  active().add_magnitudes(args);
}

void transpose(const TransposeArgs& args) {
  active().transpose(args);
}

void softmax(const SoftmaxArgs& args) {
  active().softmax(args);
}

void logsumexp(const LogSumExpArgs& args) {
  active().logsumexp(args);
}

void score_update(const ScoreArgs& args) {
  active().score_update(args);
}

void rms_norm_backward(const RmsNormBackwardArgs& args) {
  active().rms_norm_backward(args);
}

void swiglu_backward(const SwigluBackwardArgs& args) {
  active().swiglu_backward(args);
}

void attention_backward(const AttentionBackwardArgs& args) {
  active().attention_backward(args);
}

void kl_rows(const KlRowsArgs& args) {
  active().kl_rows(args);
}

void group_gradient(const GroupGradientArgs& args) {
  active().group_gradient(args);
}

void accumulate(const AccumulateArgs& args) {
  active().accumulate(args);
}

}  // namespace pennyweight::kernels
