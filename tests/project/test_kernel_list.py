"""A kernel is named in few places.

src/kernels/kernel_list.def names each kernel once, and declarations, tables and
forwarders are made from it. So what has a kernel's name in it is the list and
the files that implement the kernel: one of reference/, one of simd/ and, where
the list says so, one of blas/ and one of onednn/ (four files at most), or a
single one for what is implemented once for all choices.

A place is a file of src/kernels in which the name stands as an identifier of its
own. A call of another file's kernel says whose it is (simd::matmul(...),
kernels::softmax(...), active().rope(...)) and is not counted: a kernel may be a
part of any number of larger ones. Ops, which stand above, call kernels::NAME.
"""

import re
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"
KERNELS = SOURCE / "kernels"
LIST = KERNELS / "kernel_list.def"

IMPLEMENTATIONS = {
    "KERNEL": ["reference", "simd"],
    "KERNEL_OF_PRODUCTS": ["blas", "onednn", "reference", "simd"],
    "KERNEL_FOR_ALL": ["one for all"],
}


def code_of(text):
    """Without comments and strings, which may say anything."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.S)
    return re.sub(r'"(?:\\.|[^"\\\n])*"', '""', text)


def listed():
    found = re.findall(r"^(KERNEL\w*)\((\w+), \w+\)$",
                       code_of(LIST.read_text()), re.M)
    return {name: kind for kind, name in found}


def own_identifiers(code):
    """Identifiers that no `::`, `.` or `->` stands before."""
    return set(re.findall(r"(?<![\w:.])(?<!->)[A-Za-z_]\w*", code))


def places(folder):
    """file -> the identifiers of its own, for all sources but the list."""
    return {
        path.relative_to(folder): own_identifiers(code_of(path.read_text()))
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".h", ".cpp")
    }


def breaches(kernels, files):
    for name, kind in kernels.items():
        found = [file for file, names in files.items() if name in names]
        rooms = sorted(
            file.parts[0] if file.parts[0] in ("blas", "onednn", "reference", "simd")
            else "one for all" for file in found)
        if rooms != IMPLEMENTATIONS[kind]:
            yield f"{name}: {', '.join(map(str, found)) or 'nowhere'}"


def test_a_kernel_stands_in_the_list_and_where_it_is_implemented():
    kernels = listed()
    assert len(kernels) > 30
    assert list(breaches(kernels, places(KERNELS))) == []


def test_a_name_that_stands_elsewhere_is_found(tmp_path):
    (tmp_path / "simd").mkdir()
    (tmp_path / "reference").mkdir()
    own = "namespace simd { void twist(const TwistArgs& args) {} }\n"
    (tmp_path / "simd/twist.cpp").write_text(own)
    (tmp_path / "reference/twist.cpp").write_text(own)
    caller = "// twist\nvoid other() { simd::twist({}); active().twist({}); }\n"
    (tmp_path / "larger.cpp").write_text(caller)
    kernels = {"twist": "KERNEL"}
    assert list(breaches(kernels, places(tmp_path))) == []
    (tmp_path / "table.h").write_text("void twist(const TwistArgs&);\n")
    assert len(list(breaches(kernels, places(tmp_path)))) == 1


def test_no_folder_holds_more_than_twenty_units():
    # A unit is a header with its source; what is generated from data is none.
    for room in ("kernels", "ops"):
        for folder in [SOURCE / room, *(SOURCE / room).rglob("*/")]:
            units = {path.stem for path in folder.iterdir()
                     if path.suffix in (".h", ".cpp", ".def")}
            assert len(units) <= 20, (folder, len(units))
