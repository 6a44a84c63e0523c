#!/usr/bin/env python3
"""Trains the small Llama that comes with the project (assets/demo) on text.

Needs torch (2.4 or later), tokenizers, safetensors and numpy; a CPU is enough.

    python tools/train_demo_model.py --out MODEL_DIR TEXT_OR_FOLDER...

Every given file (and every .txt, .utf8 and .md file of a given folder, by
name) is read as UTF-8 and cut into documents at `<|endoftext|>`, at `</doc>`
(WikiExtractor) and at `===== END =====`. A byte-level BPE is learnt from them,
then a decoder with grouped-query attention is trained on the packed stream by
AdamW: linear warm-up, then cosine down to 2 % of the peak rate. Every 64th
stretch of 2,048 tokens is held out.

MODEL_DIR gets what Hugging Face's transformers and mlx-lm load: a bf16
model.safetensors, config.json, generation_config.json and the tokenizer's
files, and besides these training.json with the settings and the losses. It is
written again every --save-every steps, so a run may be stopped early. Another
run may go on from its weights (--start-from) with the same text.

With the same text, settings, seed, thread count and library versions the same
weights come out.
"""

import argparse
import json
import math
import re
import time
from pathlib import Path

import numpy as np
import torch
from demo_llama import CrossEntropy, Llama
from safetensors.torch import load_file
from safetensors.torch import save as safetensors_bytes
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from tokenizers import trainers
from torch import nn

END_OF_TEXT = "<|endoftext|>"
DOCUMENT_END = re.compile(
    r"<\|endoftext\|>|</doc>|^.*===== END =====.*$", re.MULTILINE
)
DOCUMENT_BEGIN = re.compile(
    r"^\s*(<doc [^>]*>|.*===== BEGIN .*=====)\s*\n", re.MULTILINE
)
# Words with the space before them, single digits, runs of marks, white space.
SPLIT = (
    r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
TEXT_SUFFIXES = (".txt", ".utf8", ".md")
HOLD_OUT_EVERY = 64
HOLD_OUT_TOKENS = 2048
# Paths, and what does not change the result.
NOT_RECORDED = ("text", "out", "exclude", "start_from", "threads", "save_every")
# Plain words instead of marker tokens, which this text could not have trained.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'] | capitalize }}: {{ message['content'] | trim }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{{ '\\n\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("text", nargs="+", type=Path, help="text files or folders of them")
    add("--out", type=Path, required=True, help="folder for the model")
    add("--exclude", nargs="*", default=[], help="file names to leave out")
    add("--start-from", type=Path, help="MODEL_DIR whose weights to go on from")
    add("--steps", type=int, default=5000)
    add("--stop-after", type=int, help="end before the rate has come down")
    add("--batch", type=int, default=8, help="sequences a step")
    add("--context", type=int, default=512, help="tokens a sequence")
    add("--rate", type=float, default=2.5e-3, help="peak learning rate")
    add("--warmup", type=int, default=200, help="steps of warm-up")
    add("--weight-decay", type=float, default=0.1)
    add("--seed", type=int, default=7)
    add("--threads", type=int, default=0, help="0: torch's own choice")
    add("--save-every", type=int, default=500)
    add("--vocabulary", type=int, default=3072)
    add("--hidden", type=int, default=256)
    add("--mlp", type=int, default=384)
    add("--layers", type=int, default=4)
    add("--heads", type=int, default=4)
    add("--kv-heads", type=int, default=2)
    add("--head-dim", type=int, default=64)
    return parser.parse_args()


# --- text -------------------------------------------------------------------


def read_documents(paths, exclude):
    """The documents of all files, in a fixed order."""
    files = []
    for path in paths:
        if path.is_dir():
            found = [p for p in path.iterdir() if p.suffix in TEXT_SUFFIXES]
            files += sorted(found)
        else:
            files.append(path)
    documents = []
    for path in files:
        if path.name in exclude:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        parts = DOCUMENT_END.split(text.replace("\r\n", "\n"))
        parts = [DOCUMENT_BEGIN.sub("", part).strip() for part in parts]
        parts = [part for part in parts if part]
        print(f"{path.name}: {len(text)} characters, {len(parts)} documents")
        documents += parts
    if not documents:
        raise SystemExit("no text was found in the given paths")
    return documents


def train_tokenizer(documents, size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    if tokenizer.get_vocab_size() != size:
        raise SystemExit(
            f"the text gives {tokenizer.get_vocab_size()} tokens, not {size}; "
            "give more text or a smaller --vocabulary"
        )
    return tokenizer


def token_stream(documents, tokenizer):
    """All documents one after the other, in front of each an end of text."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    ids = []
    for encoding in tokenizer.encode_batch(documents):
        ids.append(end)
        ids.extend(encoding.ids)
    return np.array(ids, dtype=np.int32)


def split_stream(stream):
    """(training tokens, held-out tokens), cut in stretches of a fixed size."""
    count = len(stream) // HOLD_OUT_TOKENS
    if count < HOLD_OUT_EVERY:
        need = HOLD_OUT_EVERY * HOLD_OUT_TOKENS
        raise SystemExit(
            f"the text has {len(stream)} tokens; give at least {need}"
        )
    stretches = np.split(stream, np.arange(1, count + 1) * HOLD_OUT_TOKENS)
    held_out = stretches[HOLD_OUT_EVERY // 2 :: HOLD_OUT_EVERY]
    train = [
        part
        for i, part in enumerate(stretches)
        if i % HOLD_OUT_EVERY != HOLD_OUT_EVERY // 2
    ]
    return np.concatenate(train), np.concatenate(held_out)


def batches(stream, batch, context, rng):
    """Endless (inputs, targets) of [batch, context]; a new cut each epoch."""
    while True:
        start = int(rng.integers(context))
        count = (len(stream) - start - 1) // context
        if count < batch:
            raise SystemExit("too little text for one batch")
        order = rng.permutation(count)
        for i in range(0, count - batch + 1, batch):
            at = start + context * order[i : i + batch, None]
            window = stream[at + np.arange(context + 1)].astype(np.int64)
            window = torch.from_numpy(window)
            yield window[:, :-1], window[:, 1:]


# --- training ---------------------------------------------------------------


def loss_of(model, tokens, targets):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h = model(tokens)
    h = h.flatten(0, 1).to(torch.bfloat16)
    return CrossEntropy.apply(h, model.embed_tokens.weight, targets)


@torch.no_grad()
def held_out_loss(model, stream, args):
    count = (len(stream) - 1) // args.context
    total = 0.0
    for i in range(0, count, args.batch):
        rows = np.arange(i, min(i + args.batch, count))[:, None]
        at = rows * args.context + np.arange(args.context + 1)
        window = torch.from_numpy(stream[at].astype(np.int64))
        loss = loss_of(model, window[:, :-1], window[:, 1:])
        total += loss.item() * len(rows)
    return total / count


def rate_at(step, args):
    if step < args.warmup:
        return args.rate * (step + 1) / args.warmup
    done = (step - args.warmup) / max(1, args.steps - args.warmup)
    return args.rate * (0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2)


def make_optimizer(model, args):
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": args.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=args.rate, betas=(0.9, 0.95), fused=True
    )


def train(model, stream, held_out, args, save):
    optimizer = make_optimizer(model, args)
    rng = np.random.default_rng(args.seed)
    source = batches(stream, args.batch, args.context, rng)
    begin, recent = time.time(), []
    last = min(args.steps, args.stop_after or args.steps)
    for step in range(last):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, args)
        loss = loss_of(model, *next(source))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent = (recent + [loss.item()])[-100:]
        done = step + 1
        if done % 50 == 0 or done == last:
            rate = done * args.batch * args.context / (time.time() - begin)
            print(
                f"step {done}/{args.steps}  loss {np.mean(recent[-50:]):.4f}  "
                f"{rate:.0f} tokens/s",
                flush=True,
            )
        if done % args.save_every == 0 or done == last:
            figures = {
                "step": done,
                "tokens_seen": done * args.batch * args.context,
                "train_loss": round(float(np.mean(recent)), 4),
                "held_out_loss": round(held_out_loss(model, held_out, args), 4),
            }
            print(json.dumps(figures), flush=True)
            save(figures)


# --- output -----------------------------------------------------------------


def write_json(path, value):
    text = json.dumps(value, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_tokenizer(tokenizer, args):
    tokenizer.save(str(args.out / "tokenizer.json"))
    special = {f"{role}_token": END_OF_TEXT for role in ("bos", "eos", "pad")}
    write_json(args.out / "special_tokens_map.json", special)
    write_json(
        args.out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": args.context,
            "clean_up_tokenization_spaces": False,
            **special,
            "chat_template": CHAT_TEMPLATE,
        },
    )


def write_config(args, end):
    ids = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    write_json(
        args.out / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": args.vocabulary,
            "hidden_size": args.hidden,
            "intermediate_size": args.mlp,
            "num_hidden_layers": args.layers,
            "num_attention_heads": args.heads,
            "num_key_value_heads": args.kv_heads,
            "head_dim": args.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": args.context,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "rope_scaling": None,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "initializer_range": 0.02,
            "use_cache": True,
            "torch_dtype": "bfloat16",
            **ids,
        },
    )
    write_json(
        args.out / "generation_config.json",
        {**ids, "do_sample": True, "temperature": 0.8, "top_p": 0.95},
    )


def main():
    args = parse_arguments()
    torch.manual_seed(args.seed)
    torch.use_deterministic_algorithms(True)
    if args.threads:
        torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)

    documents = read_documents(args.text, args.exclude)
    tokenizer = train_tokenizer(documents, args.vocabulary)
    train_tokens, held_out = split_stream(token_stream(documents, tokenizer))
    model = Llama(args)
    if args.start_from:
        model.load(load_file(args.start_from / "model.safetensors"))
    settings = {
        name: value
        for name, value in vars(args).items()
        if name not in NOT_RECORDED
    }
    settings["parameters"] = sum(p.numel() for p in model.parameters())
    settings["train_tokens"] = len(train_tokens)
    settings["held_out_tokens"] = len(held_out)
    print(json.dumps(settings), flush=True)

    write_tokenizer(tokenizer, args)
    write_config(args, tokenizer.token_to_id(END_OF_TEXT))

    def save(figures):
        path = args.out / "model.safetensors"
        part = path.with_suffix(".part")
        data = safetensors_bytes(model.tensors(), metadata={"format": "pt"})
        part.write_bytes(data)
        part.rename(path)
        write_json(args.out / "training.json", {**settings, **figures})

    train(model, train_tokens, held_out, args, save)


if __name__ == "__main__":
    main()
