"""What befalls runs: each ends as promised, in one line, and nothing that was saved is lost."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from models import checkpoint
from models.checkpoint import checkpoints_of, encode, read_checkpoint, write_atomically
from models.error import CheckpointError, DamagedError, Interrupted, TrainingError
from models.training import memory
from models.training.resume import DAMAGED

NUM_STEPS = 8
CLOCKED = ("elapsed_s", "step_s")


def records(trainer, *kinds):
    """Records without what a clock decides."""
    found = map(json.loads, (trainer.run_dir / "metrics.jsonl").read_text().splitlines())
    return [
        {
            key: value
            for key, value in record.items()
            if not key.endswith(("_s", "_share")) and "memory" not in key and "mfu" not in key
        }
        for record in found
        if not kinds or record["kind"] in kinds
    ]


def leaves(value, where=""):
    """Everything in a checkpoint by its place, but clocks and configuration."""
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {where: value.tolist() if isinstance(value, torch.Tensor) else value}
    return {
        place: leaf
        for key, part in value.items()
        if key not in (*CLOCKED, "config")
        for place, leaf in leaves(part, f"{where}.{key}").items()
    }


def assert_same_run(one, other):
    for name in ("last.pt", "best.pt"):
        there, here = (leaves(read_checkpoint(run.run_dir / name)) for run in (one, other))
        assert there == here
    assert records(one) == records(other)


def assert_saved_is_whole(run_dir):
    """Every checkpoint under a final name can be read, and nothing is left half."""
    for path in checkpoints_of(run_dir):
        assert all(torch.isfinite(value).all() for value in read_checkpoint(path)["model"].values())
    assert not [*run_dir.glob("*.tmp")]


def assert_one_line(error):
    assert len(str(error.value).splitlines()) == 1
    assert ";" in str(error.value), "no next action"


def poison(loader, *places, value=float("nan")):
    """Spoil the batches that begin with these samples of the stream, and those alone."""
    clean = loader.composite.clone()

    def on_train(begin):
        loader.composite = clean * value if begin in places else clean

    loader.on_train = on_train


@pytest.fixture
def undisturbed(make_trainer):
    trainer = make_trainer("undisturbed", checkpoint_every=2)
    trainer.run()
    return trainer


@pytest.fixture
def begun(make_trainer, loader):
    """A run that was stopped after step 6 of 8: last.pt is of step 6, previous.pt of step 4."""
    trainer = make_trainer(loader=loader, checkpoint_every=2)

    def stop(begin):
        if begin == 19:
            os.kill(os.getpid(), signal.SIGTERM)

    loader.on_train = stop
    with pytest.raises(Interrupted):
        trainer.run()
    # as a crash leaves it: the save at the signal took the place of step 6's own
    loader.on_train = lambda _: None
    steps = [read_checkpoint(path)["progress"]["step"] for path in checkpoints_of(trainer.run_dir)]
    assert steps[0] == 6
    return trainer


# ---- steps that are not finite -----------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bad_batch_is_skipped_recorded_and_survived(make_trainer, loader, capfd, value):
    """Its samples are in the next record, and no weight ever saw it."""
    poison(loader, 8, value=value)
    trainer = make_trainer(loader=loader)
    trainer.run()
    (told,) = records(trainer, "skipped")
    assert (told["step"], told["samples"], told["stage"]) == (3, 12, 1)
    assert told["numbers"] == loader.numbers_seen[8:12]
    assert [row["bad_steps"] for row in records(trainer, "train")] == [1, 1, 1, 1]
    assert all(row["loss"] < 10 for row in records(trainer, "train"))
    assert "skipped step 3: loss or gradient was not a finite number" in capfd.readouterr().err
    assert read_checkpoint(trainer.run_dir / "last.pt")["progress"]["bad_steps"] == 1
    assert_saved_is_whole(trainer.run_dir)


def test_a_bad_gradient_of_one_weight_is_skipped(make_trainer):
    trainer = make_trainer()
    calls = []

    def spoil(gradient):
        calls.append(1)
        return gradient / 0 if len(calls) == 5 else gradient

    trainer.learner.network.head.bias.register_hook(spoil)
    trainer.run()
    assert [row["step"] for row in records(trainer, "skipped")] == [5]
    assert_saved_is_whole(trainer.run_dir)


@pytest.mark.parametrize("stop_at", [12, 16, 19, 22])
def test_a_run_with_skipped_steps_resumes_bit_for_bit(make_trainer, loader, stop_at):
    """Also where a skipped step was in the checkpoint, and in no record yet."""
    settings = {"log_every": 100, "checkpoint_every": 1, "ema_decay": 0.9}
    poison(loader, 4, 19)
    whole = make_trainer("whole", loader=loader, **settings)
    whole.run()
    assert [row["step"] for row in records(whole, "skipped")] == [2, 6]
    one, two = type(loader)(), type(loader)()
    poison(one, 4, 19)
    poison(two, 4, 19)
    spoil = one.on_train

    def crash(begin):
        if begin == stop_at:
            raise EOFError
        spoil(begin)

    one.on_train = crash
    with pytest.raises(EOFError):
        make_trainer(loader=one, **settings).run()
    resumed = make_trainer(loader=two, **settings)
    resumed.run(resume=True)
    assert_same_run(whole, resumed)


@pytest.mark.parametrize(("limit", "ends"), [(0, True), (1, True), (2, False)])
def test_too_many_bad_steps_end_the_run(make_trainer, loader, limit, ends):
    poison(loader, 8, 12)
    trainer = make_trainer(loader=loader, max_bad_steps=limit, log_every=1, checkpoint_every=1)
    if not ends:
        trainer.run()
        return
    with pytest.raises(TrainingError, match=rf"--max-bad-steps {limit}; .*--resume") as error:
        trainer.run()
    assert_one_line(error)
    assert_saved_is_whole(trainer.run_dir)
    assert len(records(trainer, "skipped")) == limit + 1
    resumed = make_trainer(loader=loader, max_bad_steps=2, log_every=1)
    resumed.run(resume=True)
    assert [row["step"] for row in records(resumed, "skipped")] == [3, 4]
    assert [row["step"] for row in records(resumed, "train")] == [*range(1, NUM_STEPS + 1)]


def test_weights_that_are_not_finite_are_never_saved(make_trainer, loader):
    """Should all guards fail: a step that spoils a weight although loss and gradient are finite."""
    trainer = make_trainer(loader=loader, checkpoint_every=2)

    def spoil(begin):
        if begin == 12:
            trainer.learner.network.head.weight.data[0] = torch.inf

    loader.on_train = spoil
    with pytest.raises(TrainingError, match="no finite numbers any more after step 4") as error:
        trainer.run()
    assert_one_line(error)
    assert read_checkpoint(trainer.run_dir / "last.pt")["progress"]["step"] == 3
    assert_saved_is_whole(trainer.run_dir)


# ---- checkpoints damaged at rest ---------------------------------------------------------------


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    content = bytearray(path.read_bytes())
    content[random.Random(0).randrange(len(content))] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def zeros(path):
    path.write_bytes(bytes(path.stat().st_size))


def foreign(path):
    torch.save({"model": {}}, path)


def missing(path):
    path.unlink()


@pytest.mark.parametrize("harm", [truncate, flip, empty, zeros, foreign, missing])
def test_a_damaged_last_checkpoint_is_named_and_the_one_before_used(
    make_trainer, begun, undisturbed, capfd, harm
):
    """The run ends with the bits it would have; the damaged file is never taken for a whole one."""
    harm(begun.run_dir / "last.pt")
    before = read_checkpoint(begun.run_dir / "previous.pt")["progress"]["step"]
    capfd.readouterr()
    resumed = make_trainer(checkpoint_every=2)
    resumed.run(resume=True)
    said = [line for line in capfd.readouterr().err.splitlines() if "last.pt" in line]
    if harm is missing:
        assert said == []
    else:
        assert len(said) == 1
        assert f"going on from {begun.run_dir / 'previous.pt'} instead, at step {before}" in said[0]
        assert (begun.run_dir / DAMAGED).exists()
    assert_same_run(undisturbed, resumed)
    assert_saved_is_whole(resumed.run_dir)


def test_last_and_best_damaged_the_one_before_is_used(make_trainer, begun, undisturbed):
    flip(begun.run_dir / "last.pt")
    truncate(begun.run_dir / "best.pt")
    resumed = make_trainer(checkpoint_every=2)
    resumed.run(resume=True)
    assert_same_run(undisturbed, resumed)
    assert_saved_is_whole(resumed.run_dir)


def test_last_and_the_one_before_damaged_best_is_used(make_trainer, begun, undisturbed):
    flip(begun.run_dir / "last.pt")
    flip(begun.run_dir / "previous.pt")
    resumed = make_trainer(checkpoint_every=2)
    resumed.run(resume=True)
    assert_same_run(undisturbed, resumed)
    assert_saved_is_whole(resumed.run_dir)


def test_all_damaged_is_one_line_and_leaves_them_alone(make_trainer, begun):
    for path in checkpoints_of(begun.run_dir):
        truncate(path)
    before = {path: path.read_bytes() for path in sorted(begun.run_dir.glob("*.*"))}
    with pytest.raises(DamagedError, match=r"no checkpoint in .*run is whole") as error:
        make_trainer().run(resume=True)
    assert_one_line(error)
    assert {path: path.read_bytes() for path in sorted(begun.run_dir.glob("*.*"))} == before


def test_a_checkpoint_of_a_newer_version_is_refused_and_none_before_it_used(
    make_trainer, begun, monkeypatch
):
    """Else an old program would take a run back that a new one brought further."""
    path = begun.run_dir / "last.pt"
    state = read_checkpoint(path)
    write_atomically(path, encode({**state, "version": checkpoint.VERSION + 1}))
    with pytest.raises(CheckpointError, match="of version 2, this program reads 1") as error:
        make_trainer().run(resume=True)
    assert_one_line(error)
    assert path.exists()


def test_kept_checkpoints_stay(make_trainer, undisturbed):
    trainer = make_trainer(keep_every=3)
    trainer.run()
    names = sorted(path.name for path in trainer.run_dir.glob("step-*.pt"))
    assert names == ["step-00000003.pt", "step-00000006.pt"]
    found = [read_checkpoint(trainer.run_dir / name)["progress"]["step"] for name in names]
    assert found == [3, 6]
    for name in ("last.pt", "previous.pt", "best.pt"):
        truncate(trainer.run_dir / name)
    resumed = make_trainer(checkpoint_every=2)
    resumed.run(resume=True)
    assert_same_run(undisturbed, resumed)


# ---- saving ------------------------------------------------------------------------------------


class FullDisk:
    """Lets so many bytes through, then there is no room."""

    def __init__(self, monkeypatch, room):
        self.room = room
        self.is_full = False
        opened = Path.open
        monkeypatch.setattr(
            Path, "open", lambda *args, **options: self.limit(opened, args, options)
        )

    def limit(self, opened, args, options):
        """Open a file, scarce if it is the checkpoint's."""
        file = opened(*args, **options)
        if args[0].name == "last.pt.tmp" and self.room is not None:
            write = file.write

            def scarce(content):
                write(content[: self.room])
                self.is_full = True
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            return Scarce(file, scarce)
        return file


class Scarce:
    """A file whose `write` is another one."""

    def __init__(self, file, write):
        self._file, self.write = file, write

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_disk_full_while_saving_keeps_the_last_good_checkpoint(
    make_trainer, begun, undisturbed, monkeypatch, share
):
    before = {path: path.read_bytes() for path in checkpoints_of(begun.run_dir)}
    room = int(share * len(before[begun.run_dir / "last.pt"]))
    with monkeypatch.context() as patch:
        disk = FullDisk(patch, room)
        with pytest.raises(CheckpointError, match=r"No space left.*--resume") as error:
            make_trainer(checkpoint_every=1).run(resume=True)
    assert disk.is_full
    assert_one_line(error)
    assert {path: path.read_bytes() for path in checkpoints_of(begun.run_dir)} == before
    assert_saved_is_whole(begun.run_dir)
    resumed = make_trainer(checkpoint_every=2)
    resumed.run(resume=True)
    assert_same_run(undisturbed, resumed)


# TensorBoard's own thread may be the one that finds the disk full
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_small_disk_ends_in_one_line_and_the_run_goes_on_when_there_is_room(
    make_trainer, tmp_path, undisturbed
):
    """A real file system, also for records, panels and TensorBoard; each time a bit larger."""
    disk = tmp_path / "run"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk takes the right to mount one")
    try:
        for room in (60, 80, 100, 130, 4000):
            with pytest.raises(CheckpointError, match="No space left on device") as error:
                make_trainer(checkpoint_every=2).run(resume=True)
            assert_one_line(error)
            assert_saved_is_whole(disk)
            subprocess.run(["mount", "-o", f"remount,size={room}k", str(disk)], check=True)
        resumed = make_trainer(checkpoint_every=2)
        resumed.run(resume=True)
        assert_same_run(undisturbed, resumed)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_without_links_the_one_before_is_kept_all_the_same(make_trainer, undisturbed, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    trainer = make_trainer(checkpoint_every=2)
    trainer.run()
    assert_same_run(undisturbed, trainer)
    assert_saved_is_whole(trainer.run_dir)
    assert (trainer.run_dir / "previous.pt").exists()


@pytest.mark.parametrize("place", ["fsync", "replace"])
def test_a_whole_checkpoint_is_there_at_every_moment_of_a_save(
    make_trainer, begun, monkeypatch, place
):
    """Looked at just before each call that changes what a reader would meet."""
    seen = []

    def watched(call):
        def watching(*args):
            newest = [begun.run_dir / name for name in ("last.pt", "previous.pt")]
            assert newest[0].exists()
            whole = [read_checkpoint(path) for path in newest if path.exists()]
            seen.append(max(state["progress"]["step"] for state in whole))
            return call(*args)

        return watching

    if place == "fsync":
        monkeypatch.setattr(checkpoint.os, "fsync", watched(os.fsync))
    else:
        monkeypatch.setattr(Path, "replace", watched(Path.replace))
    make_trainer(checkpoint_every=1).run(resume=True)
    assert seen == sorted(seen)
    assert seen[0] == 6
    assert seen[-1] >= 7


def test_a_run_folder_that_cannot_be_written_is_one_line(make_trainer, monkeypatch, begun):
    """As root every folder can; so what the system would say is said here."""

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    for called, run in (("open", "new"), ("mkdir", "newer"), ("open", "run")):
        with monkeypatch.context() as patch:
            if run != "run":
                patch.setattr(Path, called, refuse)
            else:
                patch.setattr(checkpoint.os, "fsync", refuse)
            with pytest.raises(
                (CheckpointError, TrainingError), match="Permission denied"
            ) as error:
                make_trainer(run).run(resume=run == "run")
            assert_one_line(error)
    assert_saved_is_whole(begun.run_dir)


# ---- signals -----------------------------------------------------------------------------------


def on_save(monkeypatch, number, act):
    """Do something within the `number`-th fsync of a checkpoint."""
    sync, calls = os.fsync, []

    def syncing(descriptor):
        sync(descriptor)
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "last.pt.tmp":
            calls.append(1)
            if len(calls) == number:
                act()

    monkeypatch.setattr(checkpoint.os, "fsync", syncing)


@pytest.mark.parametrize("save", [1, 2, 3])
def test_sigterm_during_a_save_finishes_it_and_stops(make_trainer, undisturbed, monkeypatch, save):
    with monkeypatch.context() as patch:
        on_save(patch, save, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted, match=r"SIGTERM.*--resume"):
            make_trainer(checkpoint_every=2).run()
    resumed = make_trainer(checkpoint_every=2)
    assert_saved_is_whole(resumed.run_dir)
    resumed.run(resume=True)
    assert_same_run(undisturbed, resumed)


@pytest.mark.parametrize("save", [1, 2, 3])
def test_ctrl_c_twice_during_a_save_ends_at_once_and_tears_nothing(
    make_trainer, undisturbed, monkeypatch, save
):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        on_save(patch, save, twice)
        with pytest.raises(KeyboardInterrupt):
            make_trainer(checkpoint_every=2).run()
    resumed = make_trainer(checkpoint_every=2)
    assert_saved_is_whole(resumed.run_dir)
    resumed.run(resume=True)
    assert_same_run(undisturbed, resumed)


@pytest.mark.parametrize("during", ["step", "validation"])
def test_ctrl_c_twice_ends_at_once(make_trainer, loader, undisturbed, during):
    """Nothing is saved then, and what was saved is whole."""

    def twice(begin):
        if begin == {"step": 12, "validation": 4}[during]:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    if during == "step":
        loader.on_train = twice
    else:
        loader.on_validate = twice
    with pytest.raises(KeyboardInterrupt):
        make_trainer(loader=loader, checkpoint_every=2).run()
    resumed = make_trainer(checkpoint_every=2)
    assert_saved_is_whole(resumed.run_dir)
    resumed.run(resume=True)
    assert_same_run(undisturbed, resumed)


# ---- records -----------------------------------------------------------------------------------


def test_a_torn_last_record_is_written_again(make_trainer, begun, undisturbed):
    with (begun.run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 7, "sam')
    resumed = make_trainer(checkpoint_every=2)
    resumed.run(resume=True)
    assert_same_run(undisturbed, resumed)


# ---- memory ------------------------------------------------------------------------------------


class Hungry(nn.Module):
    """The tiny network, on a machine that has room for so many pixels at a time."""

    def __init__(self, network, room, error, *, training=True):
        super().__init__()
        self.network, self.room, self.error = network, room, error
        self.is_hungry_training = training

    def forward(self, background, composite):
        """The tiny network's, if it fits."""
        is_much = len(composite) * composite.shape[-1] ** 2 > self.room
        if is_much and self.training == self.is_hungry_training:
            raise self.error
        return self.network(background, composite)


CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 274877906944 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    "error", [CPU, torch.OutOfMemoryError("CUDA out of memory. Tried to"), MemoryError()]
)
def test_out_of_memory_says_what_would_fit_and_that_is_true(make_trainer, undisturbed, error):
    """Four samples at 12 px do not fit, and three would, but only halves give the same batch."""
    network = undisturbed.learner.network

    def hungry(**changes):
        room = 2 * 12**2
        return make_trainer(
            stages="8:1.2,12:1", batch_size="4", network=Hungry(network, room, error), **changes
        )

    with pytest.raises(
        TrainingError, match="4 samples at 12 px at a time do not fit; 2 did"
    ) as told:
        hungry().run()
    assert_one_line(told)
    assert "--resume --accumulate 2" in str(told.value)
    resumed = hungry(accumulate=2)
    resumed.run(resume=True)
    steps = [row["step"] for row in records(resumed, "validation")]
    assert steps == sorted(set(steps))
    assert_saved_is_whole(resumed.run_dir)


@pytest.mark.parametrize("error", [CPU, torch.OutOfMemoryError("CUDA out of memory. Tried to")])
def test_out_of_memory_while_validating_says_what_would_fit_and_loses_no_step(
    make_trainer, undisturbed, error
):
    """The steps before it are saved, and the advice is true: the run goes on with it to its end."""

    def hungry(**changes):
        network = Hungry(undisturbed.learner.network, 2 * 12**2, error, training=False)
        return make_trainer(stages="8:1.2,12:1", batch_size="4", network=network, **changes)

    with pytest.raises(
        TrainingError,
        match=r"while validating: 4 samples at 12 px at a time do not fit; 2 did in a trial",
    ) as told:
        hungry().run()
    assert_one_line(told)
    assert "--resume --accumulate 2" in str(told.value)
    resumed = hungry(accumulate=2)
    saved = read_checkpoint(resumed.run_dir / "last.pt")["progress"]
    assert saved["step"] == resumed.plan.num_steps > saved["validated_step"]
    seen = len(resumed.loader.numbers_seen)
    resumed.run(resume=True)
    assert len(resumed.loader.numbers_seen) == seen, "every step was made before"
    rows = [row["step"] for row in records(resumed, "validation")]
    assert rows == sorted(set(rows))
    assert rows[-1] == resumed.plan.num_steps
    assert_saved_is_whole(resumed.run_dir)


def test_out_of_memory_while_validating_whatever_the_batch_is_said(make_trainer, undisturbed):
    network = Hungry(undisturbed.learner.network, 10, CPU, training=False)
    with pytest.raises(TrainingError, match=r"while validating: 4 .* no part of it that was tried"):
        make_trainer(network=network).run()


def test_another_error_while_validating_is_not_taken_for_memory(make_trainer, undisturbed):
    error = RuntimeError("shapes cannot be multiplied")
    network = Hungry(undisturbed.learner.network, 10, error, training=False)
    with pytest.raises(RuntimeError, match="shapes cannot"):
        make_trainer(network=network).run()


def test_out_of_memory_whatever_the_batch_is_said(make_trainer, undisturbed):
    network = Hungry(undisturbed.learner.network, 10, CPU)
    with pytest.raises(
        TrainingError, match="no part of it that was tried fits either; use smaller"
    ):
        make_trainer(network=network).run()


def test_another_error_of_torch_is_not_taken_for_memory(make_trainer, undisturbed):
    network = Hungry(undisturbed.learner.network, 10, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot"):
        make_trainer(network=network).run()


def test_an_allocation_that_no_machine_can_make_is_recognised():
    """What torch really raises here."""
    assert not memory.fits(lambda: torch.empty(2**45))


# ---- beginning with other weights --------------------------------------------------------------


def test_init_from_takes_the_weights_and_nothing_else(make_trainer, undisturbed):
    """Fresh optimiser, schedule and progress; recorded."""
    path = undisturbed.run_dir / "last.pt"
    weights = read_checkpoint(path)["model"]
    trainer = make_trainer(init_from=str(path))
    trainer.display = undisturbed.display
    trainer.begin()
    for name, value in trainer.learner.network.state_dict().items():
        assert torch.equal(value, weights[name])
    assert (trainer.progress.step, len(trainer.learner.optimizer.state)) == (0, 0)
    trainer.run()
    assert read_checkpoint(trainer.run_dir / "last.pt")["config"]["train"]["init_from"] == str(path)
    assert [row["step"] for row in records(trainer, "train")][-1] == NUM_STEPS


def test_init_from_takes_the_average_where_one_was_kept(make_trainer):
    averaged = make_trainer("averaged", ema_decay=0.9)
    averaged.run()
    path = averaged.run_dir / "best.pt"
    trainer = make_trainer(init_from=str(path), ema_decay=0.5)
    trainer.begin()
    average = read_checkpoint(path)["ema"]
    for found in (trainer.learner.network, trainer.learner.ema.network):
        assert all(torch.equal(found.state_dict()[name], average[name]) for name in average)


def test_a_run_that_has_begun_goes_on_from_its_own_checkpoint(make_trainer, begun, undisturbed):
    """Whatever --init-from says now, or no longer says; what the run began with stays recorded."""
    resumed = make_trainer(checkpoint_every=2, init_from=str(undisturbed.run_dir / "last.pt"))
    resumed.run(resume=True)
    assert_same_run(undisturbed, resumed)
    path = resumed.run_dir / "last.pt"
    assert read_checkpoint(path)["config"]["train"]["init_from"] == ""
    assert 'init_from = ""' in (resumed.run_dir / "config.toml").read_text()


def test_what_a_run_began_with_stays_recorded(make_trainer, loader, undisturbed):
    path = str(undisturbed.run_dir / "best.pt")
    whole = make_trainer("whole", init_from=path)
    whole.run()
    loader.on_train = lambda begin: os.kill(os.getpid(), signal.SIGINT) if begin == 12 else None
    with pytest.raises(Interrupted):
        make_trainer(loader=loader, init_from=path).run()
    shutil.move(path, path + ".moved")
    resumed = make_trainer()
    resumed.run(resume=True)
    assert_same_run(whole, resumed)
    assert read_checkpoint(resumed.run_dir / "last.pt")["config"]["train"]["init_from"] == path


def test_init_from_another_network_spells_the_difference(make_trainer, undisturbed):
    sections = {"network": {"name": "tiny", "width": 9}, "loss": undisturbed.sections["loss"]}
    with pytest.raises(CheckpointError, match=r"network\.width: None there, 9 here") as error:
        make_trainer(init_from=str(undisturbed.run_dir / "last.pt"), sections=sections).run()
    assert_one_line(error)


@pytest.mark.parametrize("harm", [truncate, flip, missing])
def test_init_from_a_damaged_file_is_one_line(make_trainer, undisturbed, harm):
    path = undisturbed.run_dir / "best.pt"
    harm(path)
    with pytest.raises(CheckpointError, match=r"best\.pt") as error:
        make_trainer(init_from=str(path)).run()
    assert_one_line(error)
