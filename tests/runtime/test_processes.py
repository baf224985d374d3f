"""How many processes there are, by what torchrun, SLURM and others leave in the environment."""

import os

import pytest

from regmix.runtime import devices, processes
from regmix.types import UserError

MEET = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment without any of these variables, which the test may change."""
    held = {name: value for name, value in os.environ.items() if name not in (*processes.VARIABLES, *MEET)}
    monkeypatch.setattr(os, "environ", held)
    return held


ALONE = [
    {},
    {"WORLD_SIZE": "2"},
    {"WORLD_SIZE": ""},
    {"RANK": "1"},
    {"RANK": "", "WORLD_SIZE": "2"},
    {"RANK": "none"},
    {"LOCAL_RANK": "1"},
    {"LOCAL_RANK": "x", "LOCAL_WORLD_SIZE": ""},
    {"GROUP_RANK": "x", "NODE_RANK": ""},
    {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "job", "SLURM_JOB_ID": "1"},
    {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "job", "SLURM_PROCID": "1", "SLURM_STEP_ID": "0", "SLURM_LOCALID": "1"},
    {"SLURM_NTASKS": "two", "SLURM_PROCID": "", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1"},
    {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "PMI_RANK": "1", "PMI_SIZE": "2"},
    dict.fromkeys(("LSB_JOBID", "LSB_DJOB_RANKFILE", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_SIZE"), "1"),
    {"TORCHELASTIC_RUN_ID": "1"},
    {"KUBERNETES_PORT": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1", "WORLD_SIZE": "2"},
]


@pytest.mark.parametrize("variables", ALONE)
def test_what_a_cluster_sets_for_every_job_does_not_count(
    variables: dict[str, str], environment: dict[str, str]
) -> None:
    environment |= variables
    assert processes.started() == (0, 1)
    assert processes.on_this_machine() == (0, 1)
    fabric = devices.start("cpu", "32", together=True)
    assert (fabric.world_size, fabric.global_rank, fabric.local_rank) == (1, 0, 0)


@pytest.mark.parametrize(
    ("variables", "global_ones", "local_ones"),
    [
        ({"RANK": "0", "WORLD_SIZE": "1"}, (0, 1), (0, 1)),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "7"}, (0, 1), (0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2", **MEET}, (1, 2), (0, 1)),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", **MEET}, (3, 4), (1, 2)),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "", "LOCAL_WORLD_SIZE": "", **MEET}, (1, 2), (0, 1)),
    ],
)
def test_what_torchrun_sets_counts(
    variables: dict[str, str],
    global_ones: tuple[int, int],
    local_ones: tuple[int, int],
    environment: dict[str, str],
) -> None:
    environment |= variables
    processes.forget_others()
    assert processes.started() == global_ones
    assert processes.on_this_machine() == local_ones


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"RANK": "x", "WORLD_SIZE": "2", **MEET}, "RANK=x is not a number; start several"),
        ({"RANK": "-1", "WORLD_SIZE": "2", **MEET}, "RANK=-1 is not a number"),
        ({"RANK": "0", "WORLD_SIZE": "2.0", **MEET}, "WORLD_SIZE=2.0 is not a number"),
        ({"RANK": "2", "WORLD_SIZE": "2", **MEET}, "RANK=2 and WORLD_SIZE=2 contradict"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "RANK=0 and WORLD_SIZE=0 contradict"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "but MASTER_ADDR is not; start several processes with torchrun, or unset"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": ""}, "but MASTER_PORT is not"),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", **MEET}, "LOCAL_RANK=1, LOCAL_WORLD_SIZE=1"),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "x", **MEET}, "LOCAL_RANK=x is not a number"),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "4", **MEET}, "LOCAL_WORLD_SIZE=4 and WORLD_SIZE=2"),
    ],
)
def test_variables_that_contradict_each_other_are_named(
    variables: dict[str, str], complaint: str, environment: dict[str, str]
) -> None:
    environment |= variables
    with pytest.raises(UserError, match=complaint) as refused:
        processes.forget_others()
    assert "\n" not in str(refused.value)
