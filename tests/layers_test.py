"""The check of layers finds what it is there to find."""
import subprocess
import sys

import pytest

CMAKE = """
tessera_part(core)
tessera_part(layout DEPENDS core)
tessera_part(plan DEPENDS layout)
tessera_part(model TORCH DEPENDS layout)
"""


def check(root, tmp_path, path, text):
    (tmp_path / "CMakeLists.txt").write_text(CMAKE)
    file = tmp_path / "src" / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return subprocess.run([sys.executable, root / "scripts/check_layers.py", tmp_path], capture_output=True, text=True)


@pytest.mark.parametrize("path, text", [
    ("layout/a.cpp", '#include "core/file.h"\n#include "layout/a.h"\n#include <vector>\n'),
    ("plan/a.cpp", '#include "core/file.h"\n'),  # through layout
    ("model/a.cpp", "#include <ATen/core/Tensor.h>\n"),
    ("cli/plan.cpp", '#include "plan/search.h"\n'),
    ("cli/torch/train.cpp", '#include "model/model.h"\n#include <ATen/core/Tensor.h>\n'),
])
def test_downward_include_passes(root, tmp_path, path, text):
    result = check(root, tmp_path, path, text)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("path, text, says", [
    ("core/a.cpp", '\n#include "layout/a.h"\n', "src/core/a.cpp:2: includes layout/a.h"),
    ("model/a.cpp", '#include "plan/search.h"\n', "part model does not depend on"),  # a sideways one
    ("plan/a.h", "#include <c10/core/ScalarType.h>\n", "built without torch"),
    ("model/a.cpp", "#include <torch/torch.h>\n", "narrow headers"),
    ("cli/plan.cpp", '#include "model/model.h"\n', "includes model/model.h"),
    ("extra/a.cpp", "", "no tessera_part(extra)"),
])
def test_other_include_is_an_offence(root, tmp_path, path, text, says):
    result = check(root, tmp_path, path, text)
    assert result.returncode == 1
    assert says in result.stdout
