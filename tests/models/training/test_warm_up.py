"""Compiling before the first step: told apart, and without a trace in the learner."""

from functools import partial

import pytest
import torch

from models.checkpoint import read_checkpoint
from models.training.precision import Precision, PrecisionConfig
from models.training.warm_up import compile_for, compiled_first

CPU = torch.device("cpu")
ON = PrecisionConfig(dtype="fp32", compile="on")

# importing the compiler defines a class by torch's own deprecated decorator
pytestmark = pytest.mark.filterwarnings("ignore:`isinstance:DeprecationWarning", "ignore:.*jit.*")


@pytest.fixture(autouse=True)
def quick_compiler(monkeypatch):
    """Traced as ever, but run as it is: the code generator needs seconds for each network."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    yield
    torch.compiler.reset()


def first_batch(trainer):
    with trainer.loader.train(size=8, batch_size=4, start=0, num_steps=1) as batches:
        return next(batches)


def test_compiling_leaves_the_learner_as_it_was(make_trainer):
    """Running statistics, gradients, dropout's generator."""
    learner = make_trainer(precision=ON).learner
    learner.begin_stage(1)
    batch = first_batch(make_trainer("other"))
    before = {name: value.clone() for name, value in learner.network.state_dict().items()}
    rng = torch.get_rng_state()
    compile_for(learner, batch)
    assert all(torch.equal(v, before[name]) for name, v in learner.network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(parameter.grad is None for parameter in learner.network.parameters())


def test_no_batch_is_lost_and_the_time_is_told_once(make_trainer):
    learner = make_trainer(precision=ON).learner
    learner.begin_stage(1)
    told = []
    loader = make_trainer("other").loader
    with loader.train(size=8, batch_size=4, start=0, num_steps=3) as batches:
        found = list(compiled_first(batches, learner, told.append))
    assert [n for batch in found for n in batch.number.tolist()] == loader.numbers_seen
    assert len(found) == 3
    assert len(told) == 1
    assert told[0] > 0


def test_without_compilation_nothing_is_told(make_trainer):
    learner = make_trainer().learner
    told = []
    assert list(compiled_first(iter(()), learner, told.append)) == []
    with make_trainer("other").loader.train(size=8, batch_size=4, start=0, num_steps=2) as batches:
        assert len(list(compiled_first(batches, learner, told.append))) == 2
    assert told == []


def test_a_compiled_run_ends_with_the_weights_of_one_that_is_not(make_trainer, capsys):
    compiled = make_trainer("compiled", precision=ON)
    plain = make_trainer("plain", precision=PrecisionConfig(dtype="fp32"))
    compiled.run()
    said = capsys.readouterr().err
    assert "stage 1: compiled for 8 px in" in said
    assert "stage 2: compiled for 12 px in" in said
    plain.run()
    weights = (read_checkpoint(run.run_dir / "last.pt")["model"] for run in (compiled, plain))
    found, expected = weights
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


@pytest.mark.parametrize(
    ("word", "device", "allow_graphs", "mode"),
    [
        ("on", "cpu", True, None),
        ("max", "cpu", True, "max-autotune-no-cudagraphs"),
        ("max", "cuda", True, "max-autotune"),
        ("max", "cuda", False, "max-autotune-no-cudagraphs"),
        ("auto", "cuda", True, None),
    ],
)
def test_each_word_has_its_mode(word, device, allow_graphs, mode, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda network, **options: asked.append(options))
    config = PrecisionConfig(dtype="fp32", compile=word)
    Precision(config, torch.device(device), allow_graphs=allow_graphs).compiled(torch.nn.ReLU())
    assert asked == [{"dynamic": False, "mode": mode}]


@pytest.mark.parametrize(("word", "device"), [("off", "cuda"), ("auto", "cpu"), ("off", "cpu")])
def test_where_nothing_compiles_the_network_stays_itself(word, device):
    network = torch.nn.ReLU()
    precision = Precision(PrecisionConfig(dtype="fp32", compile=word), torch.device(device))
    assert precision.compiled(network) is network


@pytest.mark.parametrize("dtype", ["fp32", "tf32", "bf16"])
def test_fp32_is_not_rounded_on_a_gpu_unless_asked_to(dtype):
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        Precision(PrecisionConfig(dtype=dtype, compile="off"), torch.device("cuda"))
        assert torch.backends.cudnn.allow_tf32 == (dtype == "tf32")
        assert torch.backends.cuda.matmul.allow_tf32 == (dtype == "tf32")
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
        torch.backends.cudnn.benchmark = False
