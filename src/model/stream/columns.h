#pragma once

#include <optional>

#include "model/decoder.h"

/// The array x [batch, length, columns], float32, that goes from block to block
/// has three parts, one behind the other:
/// - the residual stream;
/// - keys and values of earlier blocks that later ones read
///   (BlockSpec::reads, gives), in models that share them;
/// - in what a block with a token gate reads, the token's input.
/// As they are columns of x, all code that stores, sends or differentiates x
/// does the same with all parts.
namespace pennyweight {

/// Fills `reads` and `gives` of all blocks from AttentionSpec::keys_of.
void link_shared_keys(DecoderSpec& spec);

/// How many columns the block reads (the token's input is not counted), and how
/// many it gives.
int read_columns(const BlockSpec& spec);
int given_columns(const BlockSpec& spec);

/// The residual stream in x, which is x itself where it has no other part.
mx::array residual_of(const BlockSpec& spec, const mx::array& x);

/// The keys and values in x that the block's queries read, in `dtype`; absent
/// where the block makes its own.
std::optional<KeysAndValues>
shared_keys(const BlockSpec& spec, const mx::array& x, mx::Dtype dtype);

/// Whether later blocks read this block's keys and values.
bool shares_keys(const BlockSpec& spec);

/// What the block gives: y, its residual stream, and behind that the shared
/// keys and values: those that were in x, which it has read, and `own` ones
/// where it shares them.
mx::array with_given(
    const BlockSpec& spec,
    const mx::array& y,
    const mx::array& x,
    const std::optional<KeysAndValues>& own);

/// x with y in place of its residual stream.
mx::array
with_columns(const BlockSpec& spec, const mx::array& y, const mx::array& x);

/// The first `count` columns of x.
mx::array first_columns(const mx::array& x, int count);

/// The token's input [batch, length, size], which are the last columns of x.
mx::array token_input_of(const BlockSpec& spec, const mx::array& x);
/// x with the token's input as its last columns, as float32.
mx::array with_token_input(const mx::array& x, const mx::array& input);

/// How many columns run_block() reads, the token's input included.
int input_columns(const BlockSpec& spec);
/// x with columns of its own repeated behind it up to `columns`: an input of
/// the right shape for one block, whose times are measured without those before
/// it.
mx::array padded_input(const mx::array& x, int columns);

}  // namespace pennyweight
