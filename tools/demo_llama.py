"""The Llama that train_demo_model.py trains, in plain torch."""

import math
import re

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.heads, self.kv_heads = args.heads, args.kv_heads
        self.head_dim = args.head_dim
        hidden, width = args.hidden, args.head_dim
        linear = lambda rows, cols: nn.Linear(cols, rows, bias=False)
        self.input_layernorm = nn.Parameter(torch.ones(hidden))
        self.post_attention_layernorm = nn.Parameter(torch.ones(hidden))
        self.q_proj = linear(args.heads * width, hidden)
        self.k_proj = linear(args.kv_heads * width, hidden)
        self.v_proj = linear(args.kv_heads * width, hidden)
        self.o_proj = linear(hidden, args.heads * width)
        self.gate_proj = linear(args.mlp, hidden)
        self.up_proj = linear(args.mlp, hidden)
        self.down_proj = linear(hidden, args.mlp)

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape
        shape = (batch, length, -1, self.head_dim)
        split = lambda y: y.view(shape).transpose(1, 2)
        h = norm(x, self.input_layernorm)
        q = rotate(split(self.q_proj(h)), cos, sin)
        k = rotate(split(self.k_proj(h)), cos, sin)
        v = split(self.v_proj(h))
        repeat = self.heads // self.kv_heads
        k = k.repeat_interleave(repeat, dim=1)
        v = v.repeat_interleave(repeat, dim=1)
        h = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o_proj(h.transpose(1, 2).reshape(batch, length, -1))
        h = norm(x, self.post_attention_layernorm)
        return x + self.down_proj(F.silu(self.gate_proj(h)) * self.up_proj(h))


class Llama(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.embed_tokens = nn.Embedding(args.vocabulary, args.hidden)
        self.layers = nn.ModuleList(Block(args) for _ in range(args.layers))
        self.norm = nn.Parameter(torch.ones(args.hidden))
        half = torch.arange(0, args.head_dim, 2) / args.head_dim
        angle = torch.arange(args.context)[:, None] * 10000.0 ** -half
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        for name, value in self.named_parameters():
            if value.dim() == 2:
                last = name.endswith(("o_proj.weight", "down_proj.weight"))
                scale = 1 / math.sqrt(2 * args.layers) if last else 1.0
                nn.init.normal_(value, std=0.02 * scale)

    def forward(self, tokens):
        x = self.embed_tokens(tokens).to(torch.bfloat16)
        cos, sin = self.cos.to(x.dtype), self.sin.to(x.dtype)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return norm(x, self.norm)

    def named_for_export(self):
        """(Hugging Face's name, parameter) of each parameter."""
        for name, value in self.named_parameters():
            if name.endswith("_proj.weight"):
                i, linear = re.match(r"layers\.(\d+)\.(\w+)", name).groups()
                part = "self_attn" if linear[0] in "qkvo" else "mlp"
                name = f"layers.{i}.{part}.{linear}.weight"
            elif name.endswith("norm"):
                name += ".weight"
            yield "model." + name, value

    def tensors(self):
        return {
            name: value.detach().to(torch.bfloat16).contiguous()
            for name, value in self.named_for_export()
        }

    @torch.no_grad()
    def load(self, tensors):
        for name, value in self.named_for_export():
            value.copy_(tensors[name])


def norm(x, weight):
    return F.rms_norm(x, weight.shape, weight.to(x.dtype), 1e-5)


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class CrossEntropy(torch.autograd.Function):
    """Mean cross entropy of softmax(h Wᵀ), a few rows at a time: all logits at
    once would cost more in memory traffic than the whole decoder."""

    ROWS = 1024

    @staticmethod
    def forward(ctx, h, weight, targets):
        w, targets = weight.to(torch.bfloat16), targets.flatten()
        grad_h = torch.empty_like(h)
        grad_w = torch.zeros_like(weight)
        total = 0.0
        for i in range(0, len(h), CrossEntropy.ROWS):
            rows = slice(i, i + CrossEntropy.ROWS)
            p = F.linear(h[rows], w).float()
            p -= p.amax(dim=1, keepdim=True)
            index = targets[rows, None]
            picked = p.gather(1, index)
            total_exp = p.exp_().sum(dim=1, keepdim=True)
            total += (total_exp.log() - picked).sum().item()
            p /= total_exp
            p.scatter_add_(1, index, torch.full_like(picked, -1.0))
            p = p.to(torch.bfloat16)
            grad_h[rows] = p @ w
            grad_w += p.T @ h[rows]
        ctx.save_for_backward(grad_h, grad_w)
        ctx.count = len(h)
        return torch.tensor(total / len(h))

    @staticmethod
    def backward(ctx, grad):
        grad_h, grad_w = ctx.saved_tensors
        scale = grad / ctx.count
        return (grad_h * scale).to(grad_h.dtype), grad_w * scale, None
