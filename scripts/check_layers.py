"""Checks that parts include downwards only.

The order and the dependencies are those of tessera_part() in CMakeLists.txt. A file below src/PART may include
headers of PART and of the parts it depends on, directly or through another; a part without TORCH no header of torch.
No file includes the umbrella headers of torch, which cost 20 s each.

    check_layers.py [ROOT]     exit status 1 and one line per offence
"""
import pathlib
import re
import sys

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
PART = re.compile(r"^\s*tessera_part\(([^)]*)\)", re.MULTILINE)
TORCH_FOLDERS = ("torch/", "ATen/", "c10/", "caffe2/")
TORCH_UMBRELLAS = ("torch/torch.h", "torch/all.h", "torch/extension.h", "ATen/ATen.h", "ATen/Functions.h")
SUFFIXES = (".h", ".cpp", ".cu", ".cuh")


def read_parts(cmake_text):
    """Part -> (its own and all parts below, whether it stands on torch), from the tessera_part() calls."""
    parts = {}
    for arguments in PART.findall(cmake_text):
        words = arguments.split()
        name, section, direct = words[0], None, []
        for word in words[1:]:
            if word in ("TORCH", "DEPENDS", "LINK"):
                section = word
            elif section == "DEPENDS":
                direct.append(word)
        below = {name}
        for part in direct:
            if part not in parts:
                sys.exit(f"CMakeLists.txt: part {name} depends on {part}, which does not stand above it")
            below |= parts[part][0]
        parts[name] = (below, "TORCH" in words)
    return parts


def rules_of(path, parts):
    """The parts that a file may include and whether it may include torch."""
    part = path.parts[0]
    if part == "cli":
        on_torch = len(path.parts) > 2 and path.parts[1] == "torch"
        return {"cli"} | {p for p, (_, torch) in parts.items() if on_torch or not torch}, on_torch
    return parts[part]


def offences_of(path, text, parts):
    allowed, torch_allowed = rules_of(path, parts)
    for match in INCLUDE.finditer(text):
        target = match[2]
        where = f"src/{path}:{text.count(chr(10), 0, match.start(2)) + 1}"
        folder = target.split("/")[0]
        if target in TORCH_UMBRELLAS:
            yield f"{where}: includes {target}; name the narrow headers instead"
        elif target.startswith(TORCH_FOLDERS) and not torch_allowed:
            yield f"{where}: includes {target}, but part {path.parts[0]} is built without torch"
        elif match[1] == '"' and folder in (*parts, "cli") and folder not in allowed:
            yield f"{where}: includes {target}, which part {path.parts[0]} does not depend on"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)
    parts = read_parts((root / "CMakeLists.txt").read_text())
    offences = []
    for file in sorted((root / "src").rglob("*")):
        path = file.relative_to(root / "src")
        if file.suffix not in SUFFIXES:
            continue
        if path.parts[0] not in (*parts, "cli"):
            offences.append(f"src/{path}: no tessera_part({path.parts[0]}) in CMakeLists.txt")
        else:
            offences += offences_of(path, file.read_text(), parts)
    print("\n".join(offences) if offences else f"{len(parts)} parts include downwards only")
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main())
