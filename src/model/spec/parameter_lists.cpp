// Lists the norms of a model, and its other tensors that are no matrices.

#include "model/names/names_spec.h"
#include "model/spec/decoder_spec.h"

namespace pennyweight {

std::vector<NormSpec> list_norms(const BlockSpec& block) {
  std::vector<NormSpec> norms;
  const auto add = [&](const std::optional<NormSpec>& norm) {
    if (norm && !norm->bare) {
      norms.push_back(*norm);
    }
  };
  add(block.attention_norm);
  if (block.attention.latent) {
    add(block.attention.latent->q_norm);
    add(block.attention.latent->kv_norm);
    if (const auto& indexer = block.attention.latent->indexer) {
      norms.push_back(indexer->k_norm);
    }
  }
  if (block.attention.delta) {
    add(block.attention.delta->norm);
  }
  if (block.attention.scan) {
    add(block.attention.scan->norm);
  }
  if (block.side_scan) {
    add(block.side_scan->scan.norm);
  }
  add(block.attention.q_norm);
  add(block.attention.k_norm);
  add(block.attention_post);
  add(block.mlp_norm);
  if (block.moe) {
    add(block.moe->mlp_post);
    add(block.moe->norm);
    add(block.moe->post);
  }
  add(block.mlp_post);
  if (block.token_gate) {
    norms.push_back(block.token_gate->post);
  }
  return norms;
}

std::vector<NormSpec> list_outer_norms(const DecoderSpec& spec) {
  if (spec.names) {
    return {};
  }
  std::vector<NormSpec> norms;
  if (spec.token_inputs) {
    norms.push_back(spec.token_inputs->norm);
  }
  norms.push_back(spec.final_norm);
  return norms;
}

std::vector<ParameterSpec> list_parameters(const BlockSpec& block) {
  std::vector<ParameterSpec> parameters;
  if (block.attention.sinks) {
    parameters.push_back(*block.attention.sinks);
  }
  if (const auto& delta = block.attention.delta) {
    parameters.insert(
        parameters.end(), {delta->conv, delta->a_log, delta->dt_bias});
  }
  if (const auto& conv = block.attention.short_conv) {
    parameters.push_back(conv->conv);
    if (conv->conv_bias) {
      parameters.push_back(*conv->conv_bias);
    }
  }
  const auto add_scan = [&](const ScanSpec& scan) {
    parameters.insert(
        parameters.end(), {scan.conv, scan.a_log, scan.dt_bias, scan.skip});
    if (scan.conv_bias) {
      parameters.push_back(*scan.conv_bias);
    }
  };
  if (block.attention.scan) {
    add_scan(*block.attention.scan);
  }
  if (block.side_scan) {
    add_scan(block.side_scan->scan);
  }
  if (block.mlp && block.mlp->xielu) {
    const auto& xielu = *block.mlp->xielu;
    parameters.insert(
        parameters.end(),
        {xielu.alpha_p, xielu.alpha_n, xielu.beta, xielu.eps});
  }
  const auto add = [&](const std::optional<ParameterSpec>& parameter) {
    if (parameter) {
      parameters.push_back(*parameter);
    }
  };
  if (block.moe) {
    add(block.moe->correction);
    add(block.moe->router_scale);
    add(block.moe->expert_scale);
  }
  add(block.scalar);
  return parameters;
}

std::vector<ParameterSpec> list_parameters(const DecoderSpec& spec) {
  if (spec.names) {
    return spec.names->parameters;
  }
  std::vector<ParameterSpec> parameters;
  for (const BlockSpec& block : spec.blocks) {
    const auto own = list_parameters(block);
    parameters.insert(parameters.end(), own.begin(), own.end());
  }
  return parameters;
}

}  // namespace pennyweight
