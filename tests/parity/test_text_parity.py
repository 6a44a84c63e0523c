"""Token ids, decoded text and rendered chats against transformers, Parquet
rows against pyarrow. Needs the program probe_text of the C++ test build."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("PENNYWEIGHT_SHARED", ROOT.parent / "shared"))
sys.path.insert(0, str(ROOT / "tests/support"))
from walks import built_program  # noqa: E402

TEXTS = {
    "plain": "Hello  world\n\n 12345 it's\tIT'S  done.\r\n \n  ",
    "empty": "",
    "space": " ",
    "unicode": "naïve café — 東京都 Привет 👩‍👩‍👧 e\u0301 \u00a0\u3000x ½²³ ſ K",
    "code": "def f(x):\n    return x**2  # über\n\n\n\tif 0x1F_ff: pass\n",
    "special": " <s>a</s> b<|end_story|> x<|im_start|>user\nhi<|im_end|>",
    "controls": "a\x00b\x07\x7f\u200b\ufeff\ufffd",
    "long": "abcdefgh" * 3000,
    "spaces": "a" + " " * 999 + "b\n" * 300,
}

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n'"
    " + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA3 = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = '' %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' + system_message }}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>' }}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
QWEN = """{%- if tools %}
    {{- 'tools' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is
        string and not message.content.startswith('<tool>') %}
        {%- set ns.multi_step = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n')
                .split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or reasoning) %}
            {{- message.role + '<think>\\n' + reasoning.strip('\\n') }}
        {%- endif %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""
MISTRAL = """{{ bos_token }}{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate!') }}
{% endif %}
{% if message['role'] == 'user' %}
{{ '[INST] ' + message['content'] + ' [/INST]' }}
{% else %}
{{ message['content'] + eos_token }}{% endif %}{% endfor %}"""
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{% set role = 'model' %}{% else %}{% set role = message['role'] %}"
    "{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content']"
    " | trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{'<start_of_turn>model\\n'}}{% endif %}"
)
TEMPLATES = {
    "chatml": CHATML,
    "llama3": LLAMA3,
    "qwen": QWEN,
    "mistral": MISTRAL,
    "gemma": GEMMA,
    "blocks": "  {% for m in messages %}\n    {# note #}\n  {{ m.role }}:\n"
    "\t{% if loop.first %}  \nfirst\n  {%- elif loop.last -%}  last  \n"
    "  {% else +%}\nmid\n{% endif %}\n{% endfor %}\n\n",
    "json": "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}"
    "{{ {'b': 1.5, 'a': [true, none, '<\\'&>é\\n']} | tojson }}"
    "{{ {'b': [], 'a': {}} | tojson(sort_keys=true, indent=4) }}"
    "{{ messages[0].content | tojson(ensure_ascii=true) }}"
    "{{ [1, 2] | tojson(separators=(',', ':')) }}",
    "controls": "{% for m in messages %}{% if m.role == 'system' %}"
    "{% continue %}{% endif %}{% if loop.index > 3 %}{% break %}{% endif %}"
    "{{ loop.index }}{{ m.content }}{% endfor %}",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}\n"
    "  {% generation %}\n  {{ m.content }}\n  {%- endgeneration -%}  \n"
    "{% endif %}{% endfor %}",
    "python": "{% macro show(m, sep='|') %}{{ m.role.upper() }}{{ sep }}"
    "{{ m.get('name', 'none') }}{% endmacro %}{% for m in messages %}"
    "{{ show(m) }}{% for k, v in m.items() %}{{ k }}={{ v|string|length if v is string else v }};"
    "{% endfor %}{{ m.content.replace('a', 'A').strip().split(' ')|join(',')"
    " }}{{ m.content.title() }}{% endfor %}{{ undefined_thing }}"
    "{{ true }}{{ none }}{{ 1.0 }}{{ [1, 'a', none, true] }}{{ {'k': 'v'} }}"
    "{{ messages|map(attribute='role')|list|unique|list|length }}"
    "{{ messages|selectattr('role', 'equalto', 'user')|list|length }}"
    "{{ 7 // 2 }}{{ 7 % 3 }}{{ 2 ** 5 }}{{ 'x' * 3 }}{{ 'a' ~ 1 ~ true }}"
    "{{ messages[-1].role }}{{ 'user' in messages[1].role }}"
    "{{ messages is iterable }}{{ 'a' is iterable }}{{ {} is mapping }}"
    "{{ 'it\\'s' }}{{ ['a'] + ['b'] }}{{ range(3)|list }}"
    "{{ dict(a=1).a }}{{ 'abc'[::-1] }}{{ '%s-%d' | format('a', 3) }}"
    "{{ none is none }}{{ x is defined }}{{ x|default('d') }}",
}
CHATS = {
    "short": [
        {"role": "user", "content": "Hi there, what's up?"},
        {"role": "assistant", "content": " All good. "},
    ],
    "long": [
        {"role": "system", "content": "  Be <b>kind</b> & 'brief'.\n"},
        {"role": "user", "content": "naïve 東京 \"x\"\n"},
        {
            "role": "assistant",
            "content": "<think>\nhm\n</think>\n\nAn answer.",
            "name": "bot",
        },
        {"role": "user", "content": "banana"},
        {"role": "assistant", "content": "last", "extra": {"a": [1, 2.5]}},
    ],
}


@pytest.fixture(scope="session")
def probe():
    program = built_program("probe_text")

    def run(*args):
        done = subprocess.run(
            [program, *map(str, args)], capture_output=True, timeout=120
        )
        if done.returncode:
            raise RuntimeError(done.stderr.decode())
        return done.stdout.decode()

    return run


def build_bpe(folder, kind, **config):
    """A small BPE tokenizer trained here, saved as a model folder."""
    models, pre = tokenizers.models, tokenizers.pre_tokenizers
    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    if kind == "metaspace":
        bpe = tokenizers.Tokenizer(
            models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True)
        )
        normalizers = tokenizers.normalizers
        bpe.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        special += [f"<0x{byte:02X}>" for byte in range(256)]
        alphabet = []
    else:
        bpe = tokenizers.Tokenizer(models.BPE())
        bytes_only = pre.ByteLevel(add_prefix_space=False, use_regex=False)
        pattern = (
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
        split = pre.Split(tokenizers.Regex(pattern), "isolated")
        bpe.pre_tokenizer = pre.Sequence([split, bytes_only])
        bpe.decoder = tokenizers.decoders.ByteLevel()
        alphabet = pre.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    bpe.train_from_iterator(list(TEXTS.values())[:5] * 3, trainer)
    bpe.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    bpe.enable_truncation(7)
    folder.mkdir(parents=True, exist_ok=True)
    bpe.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "model_max_length": 1 << 20,
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings | config)
    )
    (folder / "config.json").write_text(
        json.dumps({"model_type": config.get("family", "llama")})
    )


CASES = {
    "byte-level": ("byte", {}),
    "byte-level-llama-class": ("byte", {"tokenizer_class": "LlamaTokenizer"}),
    "metaspace": ("metaspace", {}),
    "llama": ("metaspace", {"tokenizer_class": "LlamaTokenizer"}),
    "llama-legacy": (
        "metaspace",
        {"tokenizer_class": "LlamaTokenizerFast", "legacy": True},
    ),
    "llama-no-prefix": (
        "metaspace",
        {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False},
    ),
    "mistral": (
        "metaspace",
        {"tokenizer_class": "LlamaTokenizer", "family": "mistral"},
    ),
    "gpt2": ("byte", {"tokenizer_class": "GPT2TokenizerFast"}),
    "gpt2-prefix": (
        "byte",
        {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True},
    ),
    "qwen2": ("byte", {"tokenizer_class": "Qwen2Tokenizer"}),
    "qwen2-wrong-class": (
        "byte",
        {"tokenizer_class": "LlamaTokenizerFast", "family": "qwen2"},
    ),
    "qwen3": (
        "byte",
        {"tokenizer_class": "Qwen2TokenizerFast", "family": "qwen3"},
    ),
    "no-bos": ("byte", {"add_bos_token": False}),
    "added": (
        "byte",
        {
            "pad_token": "<pad>",
            "extra_special_tokens": ["it's"],
        },
    ),
}


def folders():
    found = [pytest.param(name, id=name) for name in CASES]
    for name in ["stories260k", "tinystories-656k"]:
        found.append(pytest.param(SHARED / "models" / name, id=name))
    smol = os.environ.get("PENNYWEIGHT_SMOLLM2")
    found.append(pytest.param(Path(smol or "none"), id="smollm2"))
    return found


@pytest.fixture
def folder(request, tmp_path):
    if isinstance(request.param, str):
        kind, config = CASES[request.param]
        build_bpe(tmp_path / "model", kind, **config)
        return tmp_path / "model"
    if not (request.param / "tokenizer.json").exists():
        pytest.skip(f"{request.param} has no tokenizer.json here")
    return request.param


@pytest.mark.parametrize("folder", folders(), indirect=True)
def test_ids(probe, tmp_path, folder):
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for name, text in TEXTS.items():
        file = tmp_path / "text"
        file.write_bytes(text.encode())
        for special in (True, False):
            args = [] if special else ["plain"]
            ids = [int(x) for x in probe("ids", folder, file, *args).split()]
            expected = theirs.encode(text, add_special_tokens=special)
            assert ids == expected, (name, special)
        ids_file = tmp_path / "ids"
        ids_file.write_text("\n".join(map(str, expected)))
        for skip in (True, False):
            args = ["skip"] if skip else []
            decoded = probe("decode", folder, ids_file, *args)
            assert decoded == theirs.decode(
                expected,
                skip_special_tokens=skip,
                clean_up_tokenization_spaces=False,
            ), (name, skip)


@pytest.mark.parametrize("name", ["tinystories", "code", "multilingual"])
@pytest.mark.parametrize("folder", folders()[-3:], indirect=True)
def test_ids_of_real_text(probe, folder, name):
    file = SHARED / "text" / f"{name}.utf8"
    if not file.exists():
        pytest.skip(f"{file} is not here")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ids = [int(x) for x in probe("ids", folder, file).split()]
    assert ids == theirs.encode(file.read_bytes().decode())


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("prompt", [False, True])
def test_chat(probe, tmp_path, template, chat, prompt):
    folder = tmp_path / "model"
    build_bpe(folder, "byte", chat_template=TEMPLATES[template])
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    file = tmp_path / "chat.json"
    file.write_text(json.dumps(CHATS[chat]))

    def ours():
        return probe("chat", folder, file, *(["prompt"] if prompt else []))

    try:
        expected = theirs.apply_chat_template(
            CHATS[chat], tokenize=False, add_generation_prompt=prompt
        )
    except Exception as error:  # what the template itself raises
        with pytest.raises(RuntimeError, match=str(error).split("!")[0]):
            ours()
        return
    assert ours() == expected


def test_template_places(probe, tmp_path):
    """The same choice among the places where a template may stand."""
    folder = tmp_path / "model"
    chat = tmp_path / "chat.json"
    chat.write_text(json.dumps(CHATS["short"]))
    named = [
        {"name": "tool_use", "template": "tools"},
        {"name": "default", "template": "from the list"},
    ]
    build_bpe(folder, "byte", chat_template=named)

    def check():
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        expected = theirs.apply_chat_template(CHATS["short"], tokenize=False)
        assert probe("chat", folder, chat) == expected

    check()
    (folder / "chat_template.jinja").write_text("from a file\n{{ bos_token }}")
    check()


@pytest.mark.parametrize("codec", ["snappy", "zstd", "gzip", "lz4", "none"])
def test_parquet(probe, tmp_path, codec):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    count = 3000
    texts = [f"row {i} " + "é\n" * (i % 7) for i in range(count)]
    path = tmp_path / "text.parquet"
    table = pa.table({"id": list(range(count)), "text": texts})
    pq.write_table(table, path, compression=codec, row_group_size=700)
    rows = [json.loads(line) for line in probe("rows", path).splitlines()]
    assert rows == pq.read_table(path)["text"].to_pylist()

    chats = [CHATS["short"], CHATS["long"][:4]] * 20
    plain = [
        [{k: m[k] for k in ("role", "content")} for m in chat]
        for chat in chats
    ]
    path = tmp_path / "chat.parquet"
    pq.write_table(pa.table({"messages": plain}), path, compression=codec)
    rows = [json.loads(line) for line in probe("rows", path).splitlines()]
    assert rows == pq.read_table(path)["messages"].to_pylist()


def test_load_data_cuts_as_mlx_lm(probe, tmp_path):
    """The set of sequences is mlx-lm's; the order is our own generator's."""
    folder = tmp_path / "model"
    build_bpe(folder, "byte")
    text = "\n".join(TEXTS[name] for name in ("plain", "unicode", "code")) * 40
    text = text.replace("\r\n", "\n")
    file = tmp_path / "data.txt"
    file.write_bytes(text.encode())
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ids = theirs.encode(text)
    length = 64
    expected = [
        ids[i : i + length] for i in range(0, len(ids) - length + 1, length)
    ]
    data = json.loads(probe("load", folder, file, length, -1))
    assert sorted(data["sequences"]) == sorted(expected)
    assert data["sequences"] != expected
    assert data["tokens"] == length * len(expected)
    few = json.loads(probe("load", folder, file, length, 3))
    assert few["sequences"] == data["sequences"][:3]


def test_chat_rows_of_real_data(probe, tmp_path):
    for name in ["v1_sft_demo.jsonl", "alpaca_en_demo.json"]:
        file = SHARED / "text" / name
        if not file.exists():
            pytest.skip(f"{file} is not here")
        folder = tmp_path / "model"
        build_bpe(folder, "byte", chat_template=CHATML)
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        rows = [json.loads(row) for row in probe("rows", file).splitlines()]
        expected = [
            theirs.apply_chat_template(row, return_dict=False)[:128]
            for row in rows
        ]
        data = json.loads(probe("load", folder, file, 128, -1))
        assert sorted(data["sequences"]) == sorted(expected)
        assert data["sources"] == len(rows)
