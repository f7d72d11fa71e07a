"""The batch scripts of the how-to do what it says, under programs that set what SLURM sets."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Ended

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/cluster.md"
MEDTOOL = """#!{python}
import json, os, sys
from medtool.train.launch import meeting_variables, place_of
place = place_of(os.environ)
where = None if place is None else [place.rank, place.size, place.local_rank, place.local_size]
meeting = {{}} if place is None else meeting_variables(place, os.environ)
print(json.dumps({{"arguments": sys.argv[1:], "place": where, "first": meeting.get("MASTER_ADDR")}}), flush=True)
"""
SRUN = """#!{python}
import os, subprocess, sys
options = [each for each in sys.argv[1:] if each.startswith("--") and sys.argv.index(each) < sys.argv.index("medtool")]
assert options == ["--cpus-per-task=8", "--kill-on-bad-exit=1"], options
for rank in range(8):
    step = {{"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank % 4)}}
    step |= {{"SLURM_NODEID": str(rank // 4), "SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_STEP_ID": "0"}}
    step |= {{"SLURM_STEP_NODELIST": "gpu[07-08]"}}
    subprocess.run(sys.argv[1 + len(options):], env={{**os.environ, **step}}, check=True)
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="batch scripts are of bash")


def script(name: str) -> str:
    """Return a script of the page."""
    text = PAGE.read_text(encoding="utf-8")
    (found,) = re.findall(rf"`{name}`.*?```bash\n(.*?)```", text, re.DOTALL)
    return str(found)


@pytest.fixture
def batch(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a batch job, in which srun and medtool are our own."""
    for name, text in (("medtool", MEDTOOL), ("srun", SRUN)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.format(python=sys.executable))
        path.chmod(0o755)
    own = {"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "8", "SLURM_CPUS_PER_TASK": "8", "SLURM_ARRAY_TASK_ID": "3"}
    return {**os.environ, **own, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def submitted(text: str, environment: dict[str, str], *arguments: str) -> list[dict[str, object]]:
    done = subprocess.run(
        ["bash", "-eu", "-c", text, "script", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, Ended(done.returncode, done.stdout, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_script_for_one_network_starts_a_process_a_gpu_that_knows_its_place(batch: dict[str, str]) -> None:
    text = script("train.sbatch")
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", text, re.MULTILINE))
    assert asked["ntasks-per-node"] == asked["gpus-per-node"]
    found = submitted(text, batch, "data/my split.csv", "--model", "convnext-tiny")
    assert [each["place"] for each in found] == [[rank, 8, rank % 4, 4] for rank in range(8)]
    assert {str(each["first"]) for each in found} == {"gpu07"}
    assert all(each["arguments"] == ["train", "data/my split.csv", "--model", "convnext-tiny"] for each in found)


def test_the_script_for_folds_trains_one_of_them_alone_where_the_command_for_all_looks(batch: dict[str, str]) -> None:
    (found,) = submitted(script("folds.sbatch"), batch, "data/folds.csv")
    assert found["place"] is None
    assert found["arguments"] == [
        *("train", "data/folds.csv", "--folds", "3", "--seed", "905", "--out", "runs/cv/fold3_seed905")
    ]
