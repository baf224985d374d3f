"""Two processes under torchrun do what one does."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from contracts.finished import assert_same, memory, rows, weights

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
WORDS = "train digits-regmix --train-examples 90 --validation 50 --epochs 3 --batch-size 19 --pad 1 --flip --seed 3"
SMALL = "--model.width 4"
EXACT = "--precision 64 --sync-batchnorm"
PGK = "--method fgsm_pgk --averaging gated_ema"

# What a training in two processes must repeat to rounding; those with "nan" lose a step.
SAME = {
    "regmix": f"--method regmix {SMALL}",
    "awp": f"--method regmix --awp 0.01 --averaging ema {SMALL}",
    "trades": f"--method trades {SMALL}",
    "fgsm_pgk": f"{PGK} {SMALL}",
    "atas": f"--method atas {SMALL}",
    "accumulated": "--method fgsm_at --train-examples 91 --accumulate 10 --model function "
    "--model.source transformer:make",
    "free_at": f"--method free_at {SMALL}",
    "fgsm_mep": f"--method fgsm_mep {SMALL}",
    "sharded": f"--method regmix --shard-weights --awp 0.01 --clip-norm 0.5 --model resnet {SMALL}",
    "sharded-fgsm_pgk": f"{PGK} --shard-weights --model resnet {SMALL}",
    "nan": f"--method regmix {SMALL}",
    "nan-sharded": f"--method regmix --shard-weights --model resnet {SMALL}",
    "unused": "--method regmix --averaging ema --model function --model.source unused:make",
    "sharded-unused": "--method regmix --shard-weights --model function --model.source unused:make",
    "sharded-transformer": "--method trades --shard-weights --model function --model.source transformer:make",
}


def launch(processes: int, *commands: str) -> tuple[list[int], str]:
    """Runs the commands one after another in as many processes; returns their exit codes, and what they told."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    # One thread each, which is what torchrun gives them, so that sums are added in the same order.
    done = subprocess.run(
        [*start, str(HERE / "train.py"), *" + ".join(commands).split()],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=HERE, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    codes = [int(line.removeprefix("code ")) for line in done.stdout.splitlines() if line.startswith("code ")]
    return codes, done.stderr


def launch_well(processes: int, *commands: str) -> None:
    codes, told = launch(processes, *commands)
    assert codes == [0] * len(commands), told


def tensors(run: Path) -> dict[str, torch.Tensor]:
    found = {f"{name}/{key}": value for name, state in weights(run).items() for key, value in state.items()}
    return found | {f"memory/{key}": value for key, value in memory(run).items()}


def assert_close(one: Path, other: Path) -> None:
    """The same but for the order in which sums are added."""
    left, right = tensors(one), tensors(other)
    assert left.keys() == right.keys()
    for name, value in left.items():
        where = f"{one.name}: {name}"
        if value.dtype == torch.int8:  # a step's rounding may fall to either side
            assert ((value.int() - right[name].int()).abs() > 1).float().mean() < 1e-3, where
        elif value.dtype.itemsize > 2:
            torch.testing.assert_close(value, right[name], rtol=1e-6, atol=1e-8, msg=where)
    for ours, theirs in zip(rows(one), rows(other), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
        assert ours["validation"] == pytest.approx(theirs["validation"], rel=1e-6)
        assert ours["train_robust"] == pytest.approx(theirs["train_robust"], abs=1e-6)


def test_two_processes_with_the_same_batches_do_what_one_does(tmp_path: Path) -> None:
    for processes in (1, 2):
        commands = [
            f"SAME=yes UNIT=1000 {'NAN=1' if 'nan' in name else ''} {WORDS} {EXACT} {words} "
            f"--out {tmp_path}/{processes}/{name}"
            for name, words in SAME.items()
        ]
        launch_well(processes, *commands)
    for name in SAME:
        assert_close(tmp_path / "1" / name, tmp_path / "2" / name)
        lost = [row["lost_steps"] for row in rows(tmp_path / "2" / name)]
        assert lost == ([[], [1], []] if "nan" in name else [[], [], []])


def test_a_run_moves_between_one_process_and_two(tmp_path: Path) -> None:
    kinds = {"copies": "", "sharded": "--shard-weights"}
    words = f"{WORDS} {EXACT} {PGK} {SMALL}"

    def stop(processes: int) -> list[str]:
        return [f"STOP=1 SAME=yes {words} {more} --out {tmp_path}/{processes}-{kind}" for kind, more in kinds.items()]

    def go_on(before: int) -> list[str]:
        return [f"SAME=yes train --resume {tmp_path}/{before}-{kind} --trust-code" for kind in kinds]

    codes, told = launch(1, *stop(1), f"SAME=yes {words} --out {tmp_path}/whole")
    assert codes == [130, 130, 0], told
    codes, told = launch(2, *stop(2), *go_on(1))
    assert codes == [130, 130, 0, 0], told
    assert all(len(rows(tmp_path / f"2-{kind}")) == 1 for kind in kinds)
    launch_well(1, *go_on(2))
    for kind in kinds:
        assert_close(tmp_path / "whole", tmp_path / f"1-{kind}")
        assert_close(tmp_path / "whole", tmp_path / f"2-{kind}")


def test_the_processes_draw_different_numbers_and_batchnorm_is_their_own(tmp_path: Path) -> None:
    for processes in (1, 2):
        launch_well(
            processes, f"{WORDS} --precision 64 --method fgsm_rs {SMALL} --epochs 1 --out {tmp_path}/{processes}"
        )
    one, two = (rows(tmp_path / str(processes))[-1] for processes in (1, 2))
    assert one["loss"] != pytest.approx(two["loss"], rel=1e-6)


def test_sigterm_to_one_process_saves_the_work_of_both(tmp_path: Path) -> None:
    kinds = {"copies": "", "sharded": "--shard-weights"}
    words = f"{WORDS} {PGK} {SMALL}"
    whole = [f"{words} {more} --out {tmp_path}/whole-{kind}" for kind, more in kinds.items()]
    broken = [f"TERM=1 {words} {more} --out {tmp_path}/broken-{kind}" for kind, more in kinds.items()]
    codes, told = launch(2, *whole, *broken)
    assert codes == [0, 0, 143, 143], told
    for kind in kinds:
        path = tmp_path / f"broken-{kind}"
        assert f"saved in epoch 2 after 2 of 5 steps; continue with: regmix train --resume {path}" in told
    launch_well(2, *(f"train --resume {tmp_path}/broken-{kind}" for kind in kinds))
    for kind in kinds:
        assert_same(tmp_path / f"whole-{kind}", tmp_path / f"broken-{kind}")


def test_a_dead_process_ends_the_job_with_a_line_and_the_run_goes_on(tmp_path: Path) -> None:
    words = f"{WORDS} {PGK} {SMALL}"
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    codes, told = launch(2, f"{words} --out {whole}", f"DIE=1 {words} --out {broken}")
    assert time.time() - (broken / "config.json").stat().st_mtime < 60
    assert codes[0] == 0
    assert "another process of this job has ended; continue a training whose directory is there with" in told
    launch_well(2, f"train --resume {broken}")
    assert_same(whole, broken)
