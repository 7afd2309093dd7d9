"""Optimizers of embedding rows against torch.optim, bit for bit, and against formulas in float64 where torch has none."""
import pathlib
import subprocess

import numpy
import pytest

torch = pytest.importorskip("torch")

ROWS, DIM, STEPS = 7, 37, 20


@pytest.fixture(scope="module")
def probe(tessera):
    path = pathlib.Path(tessera).parent / "embedding_probe"
    assert path.exists(), f"{path} is not built: run ./test"
    return path


@pytest.fixture(scope="module")
def given():
    random = numpy.random.default_rng(5)
    values = random.normal(0, 0.1, (ROWS, DIM)).astype(numpy.float32)
    gradients = random.normal(0, 1, (STEPS, ROWS, DIM)).astype(numpy.float32)
    return values, gradients


def ours(probe, given, folder, isa="", **options):
    values, gradients = given
    (folder / "in").write_bytes(values.tobytes() + gradients.tobytes())
    words = [f"{key}={value}" for key, value in options.items()]
    environment = {"TESSERA_ISA": isa} if isa else None
    subprocess.run([probe, str(ROWS), str(DIM), str(STEPS), folder / "in", folder / "out", *words], check=True,
                   env=environment, timeout=60)
    return numpy.frombuffer((folder / "out").read_bytes(), numpy.float32).reshape(ROWS, DIM)


def torchs(given, optimizer, **options):
    values, gradients = given
    weight = torch.nn.Parameter(torch.from_numpy(values.copy()))
    # torch's square root of a tensor is MKL's, which is one unit off for one value in six; the fused optimizers take
    # the processor's, which is rounded correctly, as ours is.
    fused = optimizer is not torch.optim.SGD
    stepper = optimizer([weight], **(dict(fused=True) if fused else dict(foreach=False)), **options)
    for gradient in gradients:
        weight.grad = torch.from_numpy(gradient.copy())
        stepper.step()
    return weight.detach().numpy()


CASES = {
    "sgd": (torch.optim.SGD, dict(lr=0.03), dict(optimizer="sgd")),
    "sgd-momentum": (torch.optim.SGD, dict(lr=0.03, momentum=0.9), dict(optimizer="sgd", momentum=0.9)),
    "sgd-nesterov": (torch.optim.SGD, dict(lr=0.03, momentum=0.9, nesterov=True, weight_decay=0.01),
                     dict(optimizer="sgd", momentum=0.9, nesterov=1, weight_decay=0.01)),
    "adagrad": (torch.optim.Adagrad, dict(lr=0.05), dict(optimizer="adagrad")),
    "adagrad-start": (torch.optim.Adagrad, dict(lr=0.05, initial_accumulator_value=0.1, eps=1e-6, weight_decay=0.01),
                      dict(optimizer="adagrad", initial_accumulator=0.1, epsilon=1e-6, weight_decay=0.01)),
    "adam": (torch.optim.Adam, dict(lr=0.01, eps=1e-8), dict(optimizer="adam", epsilon=1e-8)),
    "adam-decay": (torch.optim.Adam, dict(lr=0.01, eps=1e-8, betas=(0.8, 0.99), weight_decay=0.02),
                   dict(optimizer="adam", epsilon=1e-8, beta1=0.8, beta2=0.99, weight_decay=0.02)),
    "adamw": (torch.optim.AdamW, dict(lr=0.01, eps=1e-8, weight_decay=0.1),
              dict(optimizer="adamw", epsilon=1e-8, weight_decay=0.1)),
}


@pytest.mark.parametrize("name", CASES)
def test_update_equals_torch_bit_for_bit(probe, given, tmp_path, name):
    optimizer, options, own = CASES[name]
    mine = ours(probe, given, tmp_path, learning_rate=options["lr"], **own)
    theirs = torchs(given, optimizer, **options)
    assert mine.tobytes() == theirs.tobytes(), numpy.abs(mine - theirs).max()


def row_wise_adagrad(w, g, state, lr, eps=1e-10):
    state["sum"] = state.get("sum", 0) + (g * g).mean(1, keepdims=True)
    return w - lr * g / (numpy.sqrt(state["sum"]) + eps)


def persia_adagrad(w, g, state, lr, eps=1e-10):
    before = state.get("sum", numpy.full_like(w, 0.1))
    state["sum"] = before + g * g
    return w - lr * g / (numpy.sqrt(before) + eps)


def ftrl(w, g, state, lr, l1=0.5, l2=0.1, beta=1.0):
    n, z = state.get("n", 0), state.get("z", 0)
    sigma = (numpy.sqrt(n + g * g) - numpy.sqrt(n)) / lr
    state["z"], state["n"] = z + g - sigma * w, n + g * g
    z, n = state["z"], state["n"]
    return numpy.where(abs(z) <= l1, 0, -(z - numpy.sign(z) * l1) / ((beta + numpy.sqrt(n)) / lr + l2))


def lamb(w, g, state, lr, b1=0.9, b2=0.999, eps=1e-6, decay=0.01):
    t = state["t"] = state.get("t", 0) + 1
    state["m"] = b1 * state.get("m", 0) + (1 - b1) * g
    state["v"] = b2 * state.get("v", 0) + (1 - b2) * (g * g).mean(1, keepdims=True)
    direction = state["m"] / (1 - b1**t) / (numpy.sqrt(state["v"] / (1 - b2**t)) + eps) + decay * w
    norm = lambda x: numpy.sqrt((x * x).sum(1, keepdims=True))
    return w - lr * norm(w) / norm(direction) * direction


FORMULAS = {
    "adagrad-row": (row_wise_adagrad, dict(optimizer="adagrad-row")),
    "adagrad-persia": (persia_adagrad, dict(optimizer="adagrad", accumulate_after=1, initial_accumulator=0.1)),
    "ftrl": (ftrl, dict(optimizer="ftrl", l1=0.5, l2=0.1)),
    "lamb-row": (lamb, dict(optimizer="lamb-row", epsilon=1e-6, weight_decay=0.01)),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_update_follows_its_formula(probe, given, tmp_path, name):
    formula, own = FORMULAS[name]
    values, gradients = given
    mine = ours(probe, given, tmp_path, learning_rate=0.02, **own)
    w, state = values.astype(numpy.float64), {}
    for gradient in gradients:
        w = formula(w, gradient.astype(numpy.float64), state, 0.02)
    # A dozen float32 operations per step, each half a unit in the last place of values up to 1.
    assert numpy.abs(mine - w).max() < STEPS * 12 * 2.0**-24
    assert numpy.abs(mine - values).max() > 0.01


@pytest.mark.parametrize("row_type", ["float32", "bf16", "fp16", "int8"])
def test_levels_give_the_same_bits(probe, given, tmp_path, row_type):
    for optimizer in ["sgd", "adagrad", "adagrad-row", "adam", "adamw", "ftrl", "lamb-row"]:
        options = dict(optimizer=optimizer, learning_rate=0.02, epsilon=1e-8, row_type=row_type, stochastic=1)
        plain = ours(probe, given, tmp_path, isa="generic", **options)
        best = ours(probe, given, tmp_path, **options)
        assert plain.tobytes() == best.tobytes(), optimizer


@pytest.mark.parametrize("row_type,dtype", [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_short_rows_round_as_torch_does(probe, tmp_path, row_type, dtype):
    random = numpy.random.default_rng(6)
    scales = 10.0 ** random.uniform(-9, 4, (ROWS, DIM))
    values = (random.normal(0, 1, (ROWS, DIM)) * scales).astype(numpy.float32)
    gradients = numpy.zeros((STEPS, ROWS, DIM), numpy.float32)
    mine = ours(probe, (values, gradients), tmp_path, optimizer="sgd", row_type=row_type)
    theirs = torch.from_numpy(values).to(dtype).to(torch.float32).numpy()
    assert mine.tobytes() == theirs.tobytes()


def test_stochastic_rounding_is_unbiased(probe, tmp_path):
    """Steps a hundredth of bf16's unit: nearest rounding stands still, stochastic rounding walks with the mean."""
    values = numpy.ones((ROWS, DIM), numpy.float32)
    gradients = numpy.full((STEPS, ROWS, DIM), 2.0**-8 / 4, numpy.float32)
    given = values, gradients
    options = dict(optimizer="sgd", learning_rate=1.0, row_type="bf16")
    assert (ours(probe, given, tmp_path, **options) == 1).all()
    walked = 1 - ours(probe, given, tmp_path, stochastic=1, **options).mean()
    expected = STEPS * 2.0**-8 / 4
    # Each step is a coin; the mean of 7 x 37 x 20 of them is within 5 standard deviations.
    assert abs(walked / expected - 1) < 5 * (3 / (ROWS * DIM * STEPS)) ** 0.5
