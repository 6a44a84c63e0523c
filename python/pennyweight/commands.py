"""The commands as functions. Written by tools/python_api.py from the program's
options; change those, or that script."""

from typing import Literal

from pennyweight.call import run
from pennyweight.data import Data, StrPath
from pennyweight.progress import Progress
from pennyweight.results import (
    ConvertReport,
    DwqReport,
    DynamicQuantReport,
    EvaluateReport,
    InspectReport,
    MethodReport,
    PlanReport,
    QuantizeReport,
    SweepReport,
)

__all__ = [
    "awq",
    "convert",
    "dwq",
    "dynamic_quant",
    "evaluate",
    "gptq",
    "inspect",
    "plan",
    "quantize",
    "sweep",
]


def quantize(
    model: StrPath,
    output: StrPath = "mlx_model",
    *,
    data: Data | None = None,
    mix: str = "",
    sequence_length: int = 512,
    pin: list[str] | None = None,
    effort: Literal["fast", "balanced", "best"] = "balanced",
    memory_limit: str | None = None,
    target_bpw: float | None = None,
    target_size: str | None = None,
    bits: int | None = None,
    force: bool = False,
    recipe: StrPath | None = None,
    time_limit: str | None = None,
    assume_family: str = "",
    seed: int = 123,
    at_least: list[str] | None = None,
    keep: list[str] | None = None,
    prefer_active: float | None = None,
    candidates: str = (
        "2:128,2:64,2:32,3:128,3:64,3:32,4:128,4:64,4:32,5:64,5:32,"
        "6:64,8:64,bf16"),
    gptq_samples: int | None = None,
    learn_steps: int | None = None,
    dwq_samples: int | None = None,
    drop_mtp: bool = False,
    resume: bool = False,
    stages: str | None = None,
    progress: Progress = None,
) -> QuantizeReport:
    """Make the best model of a given size: widths and methods chosen for you.

    Args:
        model: Model folder, or a hub id such as org/name[@revision].
        output: Folder to write; must not exist unless `force`.
        data: Text: a file or folder of text, .json, .jsonl or .parquet rows, a hub data
            set org/name, or self (sampled from the model). Each file of a folder is a
            domain. Without it: mlx-lm's calibration text, else self. In memory: a list
            of texts, of chats (each a list of messages with "role" and "content"), or
            of rows as a .jsonl file has them.
        mix: Weights of a folder's files by their names without ending, such as
            web=3,code=2,chat=0; others weigh 1.
        sequence_length: Tokens a sequence.
        pin: PATTERN=BITS[:GROUP[:MODE]]: this width, to the letter, such as
            'self_attn.*=6' or lm_head=8:32; may be given again. A pattern is attention,
            experts, shared_expert, mlp, router, embedding or head, or a glob (* stands
            for dots, too) that matches a module's path or its end behind a dot;
            'language_model.' in either counts for nothing. `at_least` and `keep`
            (`help_all`) take the same patterns.
        effort: How much time to take: fast rounds by GPTQ, balanced and best learn more
            on more text.
        memory_limit: Most memory to use, such as 4GB; activations past it go to a
            scratch file (default: half of the machine's).
        target_bpw: Bits a weight, scales included, that are not passed; each module's
            width is chosen.
        target_size: Instead: bytes of all tensors, such as 4.2GB.
        bits: Instead: this width in groups of 64 throughout (default 4).
        force: Replace an output folder and files that exist; start afresh rather than
            go on with an unfinished run, unless with `resume`.
        recipe: Do again what this recipe.json says: widths, stages, text.
        time_limit: Such as 30m or 2h: stages are cut to what fits, by the machine's
            speed.
        assume_family: Read a model of an unknown model_type as this family's.
        seed: Seed of the choice.
        at_least: PATTERN=BITS: no fewer bits than these, such as 'model.layers.0.*=5';
            may be given again.
        keep: PATTERN: leave these modules unquantized; may be given again.
        prefer_active: Choose widths for speed, too: one percent fewer bytes read a
            token may cost STRENGTH percent more estimated loss. A token reads all of a
            module, and of experts those that are chosen for it (the flag by itself: 1;
            0: not at all).
        candidates: Widths to choose from, bits:group_size or bf16 (as it is).
        gptq_samples: Sequences that rounding is fitted to (default: by `effort`).
        learn_steps: Steps a block of learned rounding, where it has modules of 3 bits
            and fewer; 0: none (default: by `effort`).
        dwq_samples: Sequences that scales and biases are distilled on; 0: none
            (default: by `effort`).
        drop_mtp: Leave out the heads that predict further tokens, which are otherwise
            carried in mtp.safetensors.
        resume: Insist on going on with an unfinished run (one with the same settings is
            gone on with anyway).
        stages: Stages to try, in this order, such as nearest,gptq,dwq: those of
            `effort`, or any method by its name.
        progress: True shows a bar, in a notebook a notebook's; a function is called
            with each pennyweight.Event, and stops the run by returning False; None is
            silent.

    Raises:
        pennyweight.Error: or one of its subclasses, by the kind of error;
            KeyboardInterrupt after Ctrl-C, with what was finished kept for the next run
            of the same settings.
    """
    return QuantizeReport.of(run("quantize", {
        "model": model,
        "mlx-path": output,
        "data-path": data,
        "mix": mix,
        "sequence-length": sequence_length,
        "pin": pin,
        "effort": effort,
        "memory-limit": memory_limit,
        "target-bpw": target_bpw,
        "target-size": target_size,
        "bits": bits,
        "force": force,
        "recipe": recipe,
        "time-limit": time_limit,
        "assume-family": assume_family,
        "seed": seed,
        "at-least": at_least,
        "keep": keep,
        "prefer-active": prefer_active,
        "candidates": candidates,
        "gptq-samples": gptq_samples,
        "learn-steps": learn_steps,
        "dwq-samples": dwq_samples,
        "drop-mtp": drop_mtp,
        "resume": resume,
        "stages": stages,
    }, progress))


def plan(
    model: StrPath,
    *,
    data: Data | None = None,
    mix: str = "",
    sequence_length: int = 512,
    pin: list[str] | None = None,
    effort: Literal["fast", "balanced", "best"] = "balanced",
    memory_limit: str | None = None,
    target_bpw: float | None = None,
    target_size: str | None = None,
    bits: int | None = None,
    assume_family: str = "",
    seed: int = 123,
    at_least: list[str] | None = None,
    keep: list[str] | None = None,
    prefer_active: float | None = None,
    candidates: str = (
        "2:128,2:64,2:32,3:128,3:64,3:32,4:128,4:64,4:32,5:64,5:32,"
        "6:64,8:64,bf16"),
    gptq_samples: int | None = None,
    learn_steps: int | None = None,
    dwq_samples: int | None = None,
    progress: Progress = None,
) -> PlanReport:
    """Say what quantize will make and take, without running it.

    Args:
        model: Model folder, or a hub id such as org/name[@revision].
        data: Text: a file or folder of text, .json, .jsonl or .parquet rows, a hub data
            set org/name, or self (sampled from the model). Each file of a folder is a
            domain. Without it: mlx-lm's calibration text, else self. In memory: a list
            of texts, of chats (each a list of messages with "role" and "content"), or
            of rows as a .jsonl file has them.
        mix: Weights of a folder's files by their names without ending, such as
            web=3,code=2,chat=0; others weigh 1.
        sequence_length: Tokens a sequence.
        pin: PATTERN=BITS[:GROUP[:MODE]]: this width, to the letter, such as
            'self_attn.*=6' or lm_head=8:32; may be given again. A pattern is attention,
            experts, shared_expert, mlp, router, embedding or head, or a glob (* stands
            for dots, too) that matches a module's path or its end behind a dot;
            'language_model.' in either counts for nothing. `at_least` and `keep`
            (`help_all`) take the same patterns.
        effort: How much time to take: fast rounds by GPTQ, balanced and best learn more
            on more text.
        memory_limit: Most memory to use, such as 4GB; activations past it go to a
            scratch file (default: half of the machine's).
        target_bpw: Bits a weight, scales included, that are not passed; each module's
            width is chosen.
        target_size: Instead: bytes of all tensors, such as 4.2GB.
        bits: Instead: this width in groups of 64 throughout (default 4).
        assume_family: Read a model of an unknown model_type as this family's.
        seed: Seed of the choice.
        at_least: PATTERN=BITS: no fewer bits than these, such as 'model.layers.0.*=5';
            may be given again.
        keep: PATTERN: leave these modules unquantized; may be given again.
        prefer_active: Choose widths for speed, too: one percent fewer bytes read a
            token may cost STRENGTH percent more estimated loss. A token reads all of a
            module, and of experts those that are chosen for it (the flag by itself: 1;
            0: not at all).
        candidates: Widths to choose from, bits:group_size or bf16 (as it is).
        gptq_samples: Sequences that rounding is fitted to (default: by `effort`).
        learn_steps: Steps a block of learned rounding, where it has modules of 3 bits
            and fewer; 0: none (default: by `effort`).
        dwq_samples: Sequences that scales and biases are distilled on; 0: none
            (default: by `effort`).
        progress: True shows a bar, in a notebook a notebook's; a function is called
            with each pennyweight.Event, and stops the run by returning False; None is
            silent.

    Raises:
        pennyweight.Error: or one of its subclasses, by the kind of error;
            KeyboardInterrupt after Ctrl-C, with what was finished kept for the next run
            of the same settings.
    """
    return PlanReport.of(run("plan", {
        "model": model,
        "data-path": data,
        "mix": mix,
        "sequence-length": sequence_length,
        "pin": pin,
        "effort": effort,
        "memory-limit": memory_limit,
        "target-bpw": target_bpw,
        "target-size": target_size,
        "bits": bits,
        "assume-family": assume_family,
        "seed": seed,
        "at-least": at_least,
        "keep": keep,
        "prefer-active": prefer_active,
        "candidates": candidates,
        "gptq-samples": gptq_samples,
        "learn-steps": learn_steps,
        "dwq-samples": dwq_samples,
    }, progress))


def sweep(
    model: StrPath,
    output: StrPath = "sweep",
    *,
    data: Data | None = None,
    mix: str = "",
    sequence_length: int = 512,
    pin: list[str] | None = None,
    effort: Literal["fast", "balanced", "best"] = "fast",
    memory_limit: str | None = None,
    force: bool = False,
    bpw: str = "2.5:6:0.5",
    estimate: bool = False,
    keep_models: bool = False,
    assume_family: str = "",
    seed: int = 123,
    at_least: list[str] | None = None,
    keep: list[str] | None = None,
    prefer_active: float | None = None,
    candidates: str = (
        "2:128,2:64,2:32,3:128,3:64,3:32,4:128,4:64,4:32,5:64,5:32,"
        "6:64,8:64,bf16"),
    gptq_samples: int | None = None,
    learn_steps: int | None = None,
    dwq_samples: int | None = None,
    drop_mtp: bool = False,
    resume: bool = False,
    progress: Progress = None,
) -> SweepReport:
    """Measure the frontier of size against KL, widths chosen for each size.

    Args:
        model: Model folder, or a hub id such as org/name[@revision].
        output: Folder to write; must not exist unless `force`.
        data: Text: a file or folder of text, .json, .jsonl or .parquet rows, a hub data
            set org/name, or self (sampled from the model). Each file of a folder is a
            domain. Without it: mlx-lm's calibration text, else self. In memory: a list
            of texts, of chats (each a list of messages with "role" and "content"), or
            of rows as a .jsonl file has them.
        mix: Weights of a folder's files by their names without ending, such as
            web=3,code=2,chat=0; others weigh 1.
        sequence_length: Tokens a sequence.
        pin: PATTERN=BITS[:GROUP[:MODE]]: this width, to the letter, such as
            'self_attn.*=6' or lm_head=8:32; may be given again. A pattern is attention,
            experts, shared_expert, mlp, router, embedding or head, or a glob (* stands
            for dots, too) that matches a module's path or its end behind a dot;
            'language_model.' in either counts for nothing. `at_least` and `keep`
            (`help_all`) take the same patterns.
        effort: How much time to take: fast rounds by GPTQ, balanced and best learn more
            on more text.
        memory_limit: Most memory to use, such as 4GB; activations past it go to a
            scratch file (default: half of the machine's).
        force: Replace an output folder and files that exist; start afresh rather than
            go on with an unfinished run, unless with `resume`.
        bpw: Bits a weight: first:last:step, or a list such as 3,4,4.5.
        estimate: Only estimate each KL; models are not made.
        keep_models: Keep the model of each size in the output folder.
        assume_family: Read a model of an unknown model_type as this family's.
        seed: Seed of the choice.
        at_least: PATTERN=BITS: no fewer bits than these, such as 'model.layers.0.*=5';
            may be given again.
        keep: PATTERN: leave these modules unquantized; may be given again.
        prefer_active: Choose widths for speed, too: one percent fewer bytes read a
            token may cost STRENGTH percent more estimated loss. A token reads all of a
            module, and of experts those that are chosen for it (the flag by itself: 1;
            0: not at all).
        candidates: Widths to choose from, bits:group_size or bf16 (as it is).
        gptq_samples: Sequences that rounding is fitted to (default: by `effort`).
        learn_steps: Steps a block of learned rounding, where it has modules of 3 bits
            and fewer; 0: none (default: by `effort`).
        dwq_samples: Sequences that scales and biases are distilled on; 0: none
            (default: by `effort`).
        drop_mtp: Leave out the heads that predict further tokens, which are otherwise
            carried in mtp.safetensors.
        resume: Insist on going on with an unfinished run (one with the same settings is
            gone on with anyway).
        progress: True shows a bar, in a notebook a notebook's; a function is called
            with each pennyweight.Event, and stops the run by returning False; None is
            silent.

    Raises:
        pennyweight.Error: or one of its subclasses, by the kind of error;
            KeyboardInterrupt after Ctrl-C, with what was finished kept for the next run
            of the same settings.
    """
    return SweepReport.of(run("sweep", {
        "model": model,
        "mlx-path": output,
        "data-path": data,
        "mix": mix,
        "sequence-length": sequence_length,
        "pin": pin,
        "effort": effort,
        "memory-limit": memory_limit,
        "force": force,
        "bpw": bpw,
        "estimate": estimate,
        "keep-models": keep_models,
        "assume-family": assume_family,
        "seed": seed,
        "at-least": at_least,
        "keep": keep,
        "prefer-active": prefer_active,
        "candidates": candidates,
        "gptq-samples": gptq_samples,
        "learn-steps": learn_steps,
        "dwq-samples": dwq_samples,
        "drop-mtp": drop_mtp,
        "resume": resume,
    }, progress))


def convert(
    model: StrPath,
    output: StrPath = "mlx_model",
    *,
    force: bool = False,
    quantize: bool = False,
    q_bits: int | None = None,
    q_group_size: int | None = None,
    q_mode: Literal["affine", "mxfp4", "mxfp8", "nvfp4"] = "affine",
    quant_predicate: Literal["mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6"] | None = None,
    dtype: Literal["float16", "bfloat16", "float32"] | None = None,
    dequantize: bool = False,
    pin: list[str] | None = None,
    assume_family: str = "",
    drop_mtp: bool = False,
    at_least: list[str] | None = None,
    keep: list[str] | None = None,
    progress: Progress = None,
) -> ConvertReport:
    """Quantize by rounding to nearest, as mlx_lm.convert does.

    Args:
        model: Model folder, or a hub id such as org/name[@revision].
        output: Folder to write; must not exist unless `force`.
        force: Replace an output folder and files that exist; start afresh rather than
            go on with an unfinished run, unless with `resume`.
        quantize: Quantize the weights, rounding to nearest.
        q_bits: Bits a weight: 2, 3, 4, 5, 6 or 8 (default 4; mxfp8: 8).
        q_group_size: Weights a group: 32, 64 or 128 (default 64; mxfp4 and mxfp8: 32,
            nvfp4: 16).
        q_mode: Quantization mode.
        quant_predicate: Mixed widths: more bits for what matters more.
        dtype: Type of what is not quantized, and of scales (default: the one that
            config.json names, else the weights' own).
        dequantize: Turn a quantized model back into a plain one.
        pin: PATTERN=BITS[:GROUP[:MODE]]: this width, to the letter, such as
            'self_attn.*=6' or lm_head=8:32; may be given again. A pattern is attention,
            experts, shared_expert, mlp, router, embedding or head, or a glob (* stands
            for dots, too) that matches a module's path or its end behind a dot;
            'language_model.' in either counts for nothing. `at_least` and `keep`
            (`help_all`) take the same patterns.
        assume_family: Read a model of an unknown model_type as this family's.
        drop_mtp: Leave out the heads that predict further tokens, which are otherwise
            carried in mtp.safetensors.
        at_least: PATTERN=BITS: no fewer bits than these, such as 'model.layers.0.*=5';
            may be given again.
        keep: PATTERN: leave these modules unquantized; may be given again.
        progress: True shows a bar, in a notebook a notebook's; a function is called
            with each pennyweight.Event, and stops the run by returning False; None is
            silent.

    Raises:
        pennyweight.Error: or one of its subclasses, by the kind of error;
            KeyboardInterrupt after Ctrl-C, with what was finished kept for the next run
            of the same settings.
    """
    return ConvertReport.of(run("convert", {
        "model": model,
        "mlx-path": output,
        "force": force,
        "quantize": quantize,
        "q-bits": q_bits,
        "q-group-size": q_group_size,
        "q-mode": q_mode,
        "quant-predicate": quant_predicate,
        "dtype": dtype,
        "dequantize": dequantize,
        "pin": pin,
        "assume-family": assume_family,
        "drop-mtp": drop_mtp,
        "at-least": at_least,
        "keep": keep,
    }, progress))


def gptq(
    model: StrPath,
    output: StrPath = "mlx_model",
    *,
    force: bool = False,
    data: Data | None = None,
    num_samples: int = -1,
    sequence_length: int = 512,
    fit_embed: bool = True,
    memory_limit: str | None = None,
    pin: list[str] | None = None,
    bits: int | None = None,
    group_size: int | None = None,
    fallback_bits: int = 6,
    embed_bits: int | None = None,
    mode: Literal["affine", "mxfp4", "mxfp8", "nvfp4"] = "affine",
    plain: bool = False,
    learn_steps: int = 0,
    assume_family: str = "",
    drop_mtp: bool = False,
    seed: int = 123,
    batch_size: int = 0,
    resume: bool = False,
    at_least: list[str] | None = None,
    keep: list[str] | None = None,
    fallback_group_size: int = 64,
    damp: float = 0.01,
    act_order: bool = True,
    grid_search: bool = True,
    shift: float = 0.5,
    rounds: int = 1,
    refit: bool = True,
    descend: bool = True,
    gate_every: int = 8,
    expert_hessians: bool = True,
    learn_tokens: int = 4096,
    learn_rate: float = 0.01,
    learn_grid_rate: float = 0.005,
    learn_max_bits: int = 3,
    learn_seed: int = 7,
    progress: Progress = None,
) -> MethodReport:
    """Quantize by GPTQ: codes, scales and biases fitted to calibration text.

    Args:
        model: Model folder, or a hub id such as org/name[@revision].
        output: Folder to write; must not exist unless `force`.
        force: Replace an output folder and files that exist; start afresh rather than
            go on with an unfinished run, unless with `resume`.
        data: Text: a file or folder of text, .json, .jsonl or .parquet rows, a hub data
            set org/name, or self (sampled from the model). Without it: mlx-lm's
            calibration text, else self. In memory: a list of texts, of chats (each a
            list of messages with "role" and "content"), or of rows as a .jsonl file has
            them.
        num_samples: Sequences to use, chosen by `seed`; -1 for all.
        sequence_length: Tokens a sequence.
        fit_embed: Fit embedding and head to the text too, rather than round them to
            nearest.
        memory_limit: Most memory to use, such as 4GB; activations past it go to a
            scratch file (default: half of the machine's).
        pin: PATTERN=BITS[:GROUP[:MODE]]: this width, to the letter, such as
            'self_attn.*=6' or lm_head=8:32; may be given again. A pattern is attention,
            experts, shared_expert, mlp, router, embedding or head, or a glob (* stands
            for dots, too) that matches a module's path or its end behind a dot;
            'language_model.' in either counts for nothing. `at_least` and `keep`
            (`help_all`) take the same patterns.
        bits: Bits a weight of the blocks' linears: 2, 3, 4, 5, 6 or 8 (default 4;
            mxfp8: 8).
        group_size: Weights a group: 32, 64 or 128 (default 64; mxfp4 and mxfp8: 32,
            nvfp4: 16).
        fallback_bits: Bits of what GPTQ is not done for: embedding and head.
        embed_bits: Bits of the embedding (default: `fallback_bits`).
        mode: Quantization mode of the blocks' linears.
        plain: GPTQ as in the paper, without any of the improvements; embedding and head
            rounded to nearest.
        learn_steps: Steps of training each block's codes, scales and biases together on
            its output; 0: none.
        assume_family: Read a model of an unknown model_type as this family's.
        drop_mtp: Leave out the heads that predict further tokens, which are otherwise
            carried in mtp.safetensors.
        seed: Seed of the choice.
        batch_size: Sequences that go through a block together; 0: as fits the caches.
        resume: Insist on going on with an unfinished run (one with the same settings is
            gone on with anyway).
        at_least: PATTERN=BITS: no fewer bits than these, such as 'model.layers.0.*=5';
            may be given again.
        keep: PATTERN: leave these modules unquantized; may be given again.
        fallback_group_size: And their group size.
        damp: Added to the Hessian's diagonal, as a share of its mean.
        act_order: Round the columns with the largest activations first.
        grid_search: Search scales and biases under the Hessian's weight.
        shift: Share of the correction for inputs that earlier blocks have changed.
        rounds: Rounds of refitting scales and descending over codes.
        refit: Refit scales and biases to the codes by least squares.
        descend: Coordinate descent over the codes after rounding.
        gate_every: Try every n-th block without each part as well, and keep what is
            best on held-out text; 1: every block.
        expert_hessians: Round each expert for the tokens that choose it, not for all
            experts' tokens.
        learn_tokens: Tokens of one such step.
        learn_rate: Learning rate of codes, in codes.
        learn_grid_rate: Learning rate of scales and biases, in parts of a code.
        learn_max_bits: Leave blocks alone whose linears all have more bits.
        learn_seed: Seed of the order in which batches are drawn.
        progress: True shows a bar, in a notebook a notebook's; a function is called
            with each pennyweight.Event, and stops the run by returning False; None is
            silent.

    Raises:
        pennyweight.Error: or one of its subclasses, by the kind of error;
            KeyboardInterrupt after Ctrl-C, with what was finished kept for the next run
            of the same settings.
    """
    return MethodReport.of(run("gptq", {
        "model": model,
        "mlx-path": output,
        "force": force,
        "data-path": data,
        "num-samples": num_samples,
        "sequence-length": sequence_length,
        "fit-embed": fit_embed,
        "memory-limit": memory_limit,
        "pin": pin,
        "bits": bits,
        "group-size": group_size,
        "fallback-bits": fallback_bits,
        "embed-bits": embed_bits,
        "mode": mode,
        "plain": plain,
        "learn-steps": learn_steps,
        "assume-family": assume_family,
        "drop-mtp": drop_mtp,
        "seed": seed,
        "batch-size": batch_size,
        "resume": resume,
        "at-least": at_least,
        "keep": keep,
        "fallback-group-size": fallback_group_size,
        "damp": damp,
        "act-order": act_order,
        "grid-search": grid_search,
        "shift": shift,
        "rounds": rounds,
        "refit": refit,
        "descend": descend,
        "gate-every": gate_every,
        "expert-hessians": expert_hessians,
        "learn-tokens": learn_tokens,
        "learn-rate": learn_rate,
        "learn-grid-rate": learn_grid_rate,
        "learn-max-bits": learn_max_bits,
        "learn-seed": learn_seed,
    }, progress))


def awq(
    model: StrPath,
    output: StrPath = "mlx_model",
    *,
    force: bool = False,
    data: Data | None = None,
    num_samples: int = 128,
    sequence_length: int = 512,
    fit_embed: bool = True,
    memory_limit: str | None = None,
    pin: list[str] | None = None,
    bits: int = 4,
    group_size: int = 64,
    embed_bits: int = 4,
    embed_group_size: int = 32,
    n_grid: int = 20,
    then: Literal["", "gptq"] = "",
    assume_family: str = "",
    drop_mtp: bool = False,
    seed: int = 123,
    batch_size: int = 0,
    resume: bool = False,
    at_least: list[str] | None = None,
    keep: list[str] | None = None,
    scale: bool = True,
    clip: bool = True,
    asymmetric: bool = True,
    confirm: int = 3,
    full_inputs: bool = False,
    progress: Progress = None,
) -> MethodReport:
    """Quantize by AWQ: inputs scaled and ranges cut so that rounding hurts least.

    Args:
        model: Model folder, or a hub id such as org/name[@revision].
        output: Folder to write; must not exist unless `force`.
        force: Replace an output folder and files that exist; start afresh rather than
            go on with an unfinished run, unless with `resume`.
        data: Text: a file or folder of text, .json, .jsonl or .parquet rows, a hub data
            set org/name, or self (sampled from the model). Without it: mlx-lm's
            calibration text, else self. In memory: a list of texts, of chats (each a
            list of messages with "role" and "content"), or of rows as a .jsonl file has
            them.
        num_samples: Sequences to use, chosen by `seed`; -1 for all.
        sequence_length: Tokens a sequence.
        fit_embed: Fit embedding and head to the text too, rather than round them to
            nearest.
        memory_limit: Most memory to use, such as 4GB; activations past it go to a
            scratch file (default: half of the machine's).
        pin: PATTERN=BITS[:GROUP[:MODE]]: this width, to the letter, such as
            'self_attn.*=6' or lm_head=8:32; may be given again. A pattern is attention,
            experts, shared_expert, mlp, router, embedding or head, or a glob (* stands
            for dots, too) that matches a module's path or its end behind a dot;
            'language_model.' in either counts for nothing. `at_least` and `keep`
            (`help_all`) take the same patterns.
        bits: Bits a weight of the blocks' linears: 2, 3, 4, 5, 6 or 8.
        group_size: Weights a group: 32, 64 or 128.
        embed_bits: Bits of embedding and head.
        embed_group_size: And their group size.
        n_grid: Scales tried for each group of linears, and twice the ranges tried for
            each group of weights.
        then: Round the scaled model by this method, with its defaults, rather than to
            nearest.
        assume_family: Read a model of an unknown model_type as this family's.
        drop_mtp: Leave out the heads that predict further tokens, which are otherwise
            carried in mtp.safetensors.
        seed: Seed of the choice.
        batch_size: Sequences that go through a block together; 0: as fits the caches.
        resume: Insist on going on with an unfinished run (one with the same settings is
            gone on with anyway).
        at_least: PATTERN=BITS: no fewer bits than these, such as 'model.layers.0.*=5';
            may be given again.
        keep: PATTERN: leave these modules unquantized; may be given again.
        scale: Scale inputs, and what makes them inversely.
        clip: Search the range of each group of weights.
        asymmetric: Shrink the ends of a range apart, not only alike.
        confirm: Scales, best by the inputs' Gram matrix, that are tried on the block's
            output; 1: none is.
        full_inputs: Feed blocks the full-precision model's activations, as mlx-lm does,
            not the quantized model's.
        progress: True shows a bar, in a notebook a notebook's; a function is called
            with each pennyweight.Event, and stops the run by returning False; None is
            silent.

    Raises:
        pennyweight.Error: or one of its subclasses, by the kind of error;
            KeyboardInterrupt after Ctrl-C, with what was finished kept for the next run
            of the same settings.
    """
    return MethodReport.of(run("awq", {
        "model": model,
        "mlx-path": output,
        "force": force,
        "data-path": data,
        "num-samples": num_samples,
        "sequence-length": sequence_length,
        "fit-embed": fit_embed,
        "memory-limit": memory_limit,
        "pin": pin,
        "bits": bits,
        "group-size": group_size,
        "embed-bits": embed_bits,
        "embed-group-size": embed_group_size,
        "n-grid": n_grid,
        "then": then,
        "assume-family": assume_family,
        "drop-mtp": drop_mtp,
        "seed": seed,
        "batch-size": batch_size,
        "resume": resume,
        "at-least": at_least,
        "keep": keep,
        "scale": scale,
        "clip": clip,
        "asymmetric": asymmetric,
        "confirm": confirm,
        "full-inputs": full_inputs,
    }, progress))


def dynamic_quant(
    model: StrPath,
    output: StrPath = "mlx_model",
    *,
    force: bool = False,
    data: Data | None = None,
    num_samples: int = -1,
    sequence_length: int = 512,
    pin: list[str] | None = None,
    target_bpw: float = 5.0,
    target_size: str | None = None,
    low_bits: int = 4,
    low_group_size: int = 64,
    high_bits: int = 5,
    high_group_size: int = 64,
    candidates: str | None = None,
    sensitivities: str | None = None,
    sensitivities_out: str | None = None,
    then: Literal["", "gptq", "awq"] = "",
    report_ppl: bool = False,
    assume_family: str = "",
    drop_mtp: bool = False,
    seed: int = 123,
    at_least: list[str] | None = None,
    keep: list[str] | None = None,
    prefer_active: float | None = None,
    grad_checkpoint: bool = False,
    accumulation_dtype: Literal["float32", "bfloat16"] = "float32",
    batch_size: int = 0,
    progress: Progress = None,
) -> DynamicQuantReport:
    """Quantize to a size by widths chosen from each module's sensitivity.

    Args:
        model: Model folder, or a hub id such as org/name[@revision].
        output: Folder to write; must not exist unless `force`.
        force: Replace an output folder and files that exist; start afresh rather than
            go on with an unfinished run, unless with `resume`.
        data: Text: a file or folder of text, .json, .jsonl or .parquet rows, a hub data
            set org/name, or self (sampled from the model). Without it: mlx-lm's
            calibration text, else self. In memory: a list of texts, of chats (each a
            list of messages with "role" and "content"), or of rows as a .jsonl file has
            them.
        num_samples: Sequences to use, chosen by `seed`; -1 for all.
        sequence_length: Tokens a sequence.
        pin: PATTERN=BITS[:GROUP[:MODE]]: this width, to the letter, such as
            'self_attn.*=6' or lm_head=8:32; may be given again. A pattern is attention,
            experts, shared_expert, mlp, router, embedding or head, or a glob (* stands
            for dots, too) that matches a module's path or its end behind a dot;
            'language_model.' in either counts for nothing. `at_least` and `keep`
            (`help_all`) take the same patterns.
        target_bpw: Bits a weight, scales included, that are not passed.
        target_size: Instead: bytes of all tensors, such as 4.2GB.
        low_bits: Bits at which sensitivities are measured, and the fewest without
            `candidates`.
        low_group_size: And their group size.
        high_bits: Bits of what is most sensitive, without `candidates`.
        high_group_size: And their group size.
        candidates: Choose among these instead of low and high, bits:group_size or bf16
            (as it is): 3:64,4:64,4:32,6:64,8:64,bf16.
        sensitivities: Read sensitivities from this JSON file, mlx-lm's or ours, instead
            of measuring them.
        sensitivities_out: Write what was measured to this JSON file, as soon as it is
            (default: sensitivities.json in the output folder).
        then: Round by this method, on the same text, rather than to nearest.
        report_ppl: Report the perplexity of the model before and after.
        assume_family: Read a model of an unknown model_type as this family's.
        drop_mtp: Leave out the heads that predict further tokens, which are otherwise
            carried in mtp.safetensors.
        seed: Seed of the choice.
        at_least: PATTERN=BITS: no fewer bits than these, such as 'model.layers.0.*=5';
            may be given again.
        keep: PATTERN: leave these modules unquantized; may be given again.
        prefer_active: Choose widths for speed, too: one percent fewer bytes read a
            token may cost STRENGTH percent more estimated loss. A token reads all of a
            module, and of experts those that are chosen for it (the flag by itself: 1;
            0: not at all).
        grad_checkpoint: Taken for mlx-lm's sake: blocks are always run again on the way
            back.
        accumulation_dtype: Taken for mlx-lm's sake: gradients are always summed in
            float32.
        batch_size: Sequences that go through a block together; 0: as fits the caches.
        progress: True shows a bar, in a notebook a notebook's; a function is called
            with each pennyweight.Event, and stops the run by returning False; None is
            silent.

    Raises:
        pennyweight.Error: or one of its subclasses, by the kind of error;
            KeyboardInterrupt after Ctrl-C, with what was finished kept for the next run
            of the same settings.
    """
    return DynamicQuantReport.of(run("dynamic-quant", {
        "model": model,
        "mlx-path": output,
        "force": force,
        "data-path": data,
        "num-samples": num_samples,
        "sequence-length": sequence_length,
        "pin": pin,
        "target-bpw": target_bpw,
        "target-size": target_size,
        "low-bits": low_bits,
        "low-group-size": low_group_size,
        "high-bits": high_bits,
        "high-group-size": high_group_size,
        "candidates": candidates,
        "sensitivities": sensitivities,
        "sensitivities-out": sensitivities_out,
        "then": then,
        "report-ppl": report_ppl,
        "assume-family": assume_family,
        "drop-mtp": drop_mtp,
        "seed": seed,
        "at-least": at_least,
        "keep": keep,
        "prefer-active": prefer_active,
        "grad-checkpoint": grad_checkpoint,
        "accumulation-dtype": accumulation_dtype,
        "batch-size": batch_size,
    }, progress))


def dwq(
    model: StrPath,
    output: StrPath = "mlx_model",
    *,
    force: bool = False,
    quantized_model: StrPath | None = None,
    bits: int = 4,
    group_size: int = 64,
    num_samples: int = 2048,
    max_seq_length: int = 1025,
    seed: int = 123,
    learning_rate: float | None = None,
    batch_size: int = 4,
    data: Data | None = None,
    target_dir: str | None = None,
    targets_only: bool = False,
    pipeline: bool = False,
    pin: list[str] | None = None,
    assume_family: str = "",
    drop_mtp: bool = False,
    grad_checkpoint: bool = False,
    at_least: list[str] | None = None,
    keep: list[str] | None = None,
    resume: bool = False,
    progress: Progress = None,
) -> DwqReport:
    """Improve a quantized model by distillation: its scales and biases are trained
    towards the full model.

    Args:
        model: Model folder, or a hub id such as org/name[@revision].
        output: Folder to write; must not exist unless `force`.
        force: Replace an output folder and files that exist; start afresh rather than
            go on with an unfinished run, unless with `resume`.
        quantized_model: The quantized model to improve, of any method (default: the
            full one rounded to `bits`).
        bits: Bits a weight, without `quantized_model`.
        group_size: Weights a group, without `quantized_model`.
        num_samples: Sequences to train on, each once; 32 more are held out.
        max_seq_length: Tokens a sequence at most.
        seed: Seed of the choice and order of sequences.
        learning_rate: Adam's, at its highest (default: chosen by a short trial).
        batch_size: Sequences a step.
        data: Text: a file or folder of text, .json, .jsonl or .parquet rows, a hub data
            set org/name, or self (sampled from the model). Without it: mlx-lm's
            calibration text, else self. In memory: a list of texts, of chats (each a
            list of messages with "role" and "content"), or of rows as a .jsonl file has
            them.
        target_dir: Folder of the full model's 1,024 largest logits for each batch,
            mlx-lm's or ours: read where it has some, else written first. Without it the
            full model runs beside.
        targets_only: Write `target_dir` and stop.
        pipeline: Of several processes give each a part of the blocks, rather than a
            part of each batch.
        pin: PATTERN=BITS[:GROUP[:MODE]]: this width, to the letter, such as
            'self_attn.*=6' or lm_head=8:32; may be given again. A pattern is attention,
            experts, shared_expert, mlp, router, embedding or head, or a glob (* stands
            for dots, too) that matches a module's path or its end behind a dot;
            'language_model.' in either counts for nothing. `at_least` and `keep`
            (`help_all`) take the same patterns.
        assume_family: Read a model of an unknown model_type as this family's.
        drop_mtp: Leave out the heads that predict further tokens, which are otherwise
            carried in mtp.safetensors.
        grad_checkpoint: Taken for mlx-lm's sake: blocks are always run again on the way
            back.
        at_least: PATTERN=BITS: no fewer bits than these, such as 'model.layers.0.*=5';
            may be given again.
        keep: PATTERN: leave these modules unquantized; may be given again.
        resume: Insist on going on with an unfinished run (one with the same settings is
            gone on with anyway).
        progress: True shows a bar, in a notebook a notebook's; a function is called
            with each pennyweight.Event, and stops the run by returning False; None is
            silent.

    Raises:
        pennyweight.Error: or one of its subclasses, by the kind of error;
            KeyboardInterrupt after Ctrl-C, with what was finished kept for the next run
            of the same settings.
    """
    return DwqReport.of(run("dwq", {
        "model": model,
        "mlx-path": output,
        "force": force,
        "quantized-model": quantized_model,
        "bits": bits,
        "group-size": group_size,
        "num-samples": num_samples,
        "max-seq-length": max_seq_length,
        "seed": seed,
        "learning-rate": learning_rate,
        "batch-size": batch_size,
        "data-path": data,
        "target-dir": target_dir,
        "targets-only": targets_only,
        "pipeline": pipeline,
        "pin": pin,
        "assume-family": assume_family,
        "drop-mtp": drop_mtp,
        "grad-checkpoint": grad_checkpoint,
        "at-least": at_least,
        "keep": keep,
        "resume": resume,
    }, progress))


def evaluate(
    model: StrPath,
    *,
    reference: StrPath | None = None,
    data: Data | None = None,
    num_samples: int = 256,
    sequence_length: int = 512,
    dtype: Literal["float16", "bfloat16", "float32"] | None = None,
    assume_family: str = "",
    seed: int = 123,
    batch_size: int = 0,
    progress: Progress = None,
) -> EvaluateReport:
    """Perplexity, and KL and top-1 agreement against a reference.

    Args:
        model: Model folder, or a hub id such as org/name[@revision].
        reference: The full-precision model, for KL and top-1 agreement.
        data: Text: a file or folder of text, .json, .jsonl or .parquet rows, a hub data
            set org/name, or self (sampled from the model). Without it: mlx-lm's
            calibration text, else self. In memory: a list of texts, of chats (each a
            list of messages with "role" and "content"), or of rows as a .jsonl file has
            them.
        num_samples: Sequences to use, chosen by `seed`; -1 for all.
        sequence_length: Tokens a sequence.
        dtype: Type that matrices run in (default: the model's own).
        assume_family: Read a model of an unknown model_type as this family's.
        seed: Seed of the choice.
        batch_size: Sequences a batch; 0: as fits the caches.
        progress: True shows a bar, in a notebook a notebook's; a function is called
            with each pennyweight.Event, and stops the run by returning False; None is
            silent.

    Raises:
        pennyweight.Error: or one of its subclasses, by the kind of error;
            KeyboardInterrupt after Ctrl-C, with what was finished kept for the next run
            of the same settings.
    """
    return EvaluateReport.of(run("evaluate", {
        "model": model,
        "reference": reference,
        "data-path": data,
        "num-samples": num_samples,
        "sequence-length": sequence_length,
        "dtype": dtype,
        "assume-family": assume_family,
        "seed": seed,
        "batch-size": batch_size,
    }, progress))


def inspect(
    model: StrPath,
    *,
    kernels: bool = False,
    pin: list[str] | None = None,
    assume_family: str = "",
    at_least: list[str] | None = None,
    keep: list[str] | None = None,
    progress: Progress = None,
) -> InspectReport:
    """Family, parameters, and a table of modules.

    Args:
        model: Model folder, or a hub id such as org/name[@revision].
        kernels: Try what each shape of the model runs on here, and how fast.
        pin: PATTERN=BITS[:GROUP[:MODE]]: this width, to the letter, such as
            'self_attn.*=6' or lm_head=8:32; may be given again. A pattern is attention,
            experts, shared_expert, mlp, router, embedding or head, or a glob (* stands
            for dots, too) that matches a module's path or its end behind a dot;
            'language_model.' in either counts for nothing. `at_least` and `keep`
            (`help_all`) take the same patterns.
        assume_family: Read a model of an unknown model_type as this family's.
        at_least: PATTERN=BITS: no fewer bits than these, such as 'model.layers.0.*=5';
            may be given again.
        keep: PATTERN: leave these modules unquantized; may be given again.
        progress: True shows a bar, in a notebook a notebook's; a function is called
            with each pennyweight.Event, and stops the run by returning False; None is
            silent.

    Raises:
        pennyweight.Error: or one of its subclasses, by the kind of error;
            KeyboardInterrupt after Ctrl-C, with what was finished kept for the next run
            of the same settings.
    """
    return InspectReport.of(run("inspect", {
        "model": model,
        "kernels": kernels,
        "pin": pin,
        "assume-family": assume_family,
        "at-least": at_least,
        "keep": keep,
    }, progress))
