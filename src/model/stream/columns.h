#pragma once

#include <optional>

#include "model/decoder.h"

/// What goes from block to block: x [batch, length, columns], float32, of which
/// the first are the residual stream. Behind it stand, where blocks share keys
/// and values, those that blocks to come read (BlockSpec::reads, gives), and in
/// what a block with a token gate reads, last, the token's input. So all that
/// stores, sends or differentiates x does the same with them.
namespace pennyweight {

/// Fills reads and gives of blocks whose attention has keys_of.
void link_shared_keys(DecoderSpec& spec);

/// Columns of what the block reads, without the token's input, and gives.
int read_columns(const BlockSpec& spec);
int given_columns(const BlockSpec& spec);

/// The residual stream alone; x itself where nothing is beside it.
mx::array residual_of(const BlockSpec& spec, const mx::array& x);

/// The keys and values that the block's queries read from beside x, in
/// `dtype`; absent where the block has its own.
std::optional<KeysAndValues>
shared_keys(const BlockSpec& spec, const mx::array& x, mx::Dtype dtype);

/// Whether blocks behind this read its keys and values.
bool shares_keys(const BlockSpec& spec);

/// y, the residual stream, and beside it what the block gives: of x, which it
/// has read, and its own keys and values where it shares them.
mx::array with_given(
    const BlockSpec& spec,
    const mx::array& y,
    const mx::array& x,
    const std::optional<KeysAndValues>& own);

/// y, the residual stream, and beside it all that stood beside it in x.
mx::array
with_columns(const BlockSpec& spec, const mx::array& y, const mx::array& x);

/// x [..., 0 .. count - 1].
mx::array first_columns(const mx::array& x, int count);

/// The token's input, [batch, length, size], from the end of x.
mx::array token_input_of(const BlockSpec& spec, const mx::array& x);
/// x and the token's input behind it.
mx::array with_token_input(const mx::array& x, const mx::array& input);

/// x made up to so many columns, where no walk has come by what stands beside
/// the residual stream: to measure times with.
mx::array padded_input(const mx::array& x, int columns);
/// Columns of what run_block() reads, the token's input among them.
int input_columns(const BlockSpec& spec);

}  // namespace pennyweight
