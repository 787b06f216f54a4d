"""Several processes read the weights of one file, or none of them goes on."""

import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from avit_jax import config as configs
from tests import compiling
from tests.checkpoints.weights_of_runs import THEIRS, tiny

ROOT = Path(__file__).parents[2]
# Two processes, each with a path of its own: what process 1 cannot read, nobody uses.
PROGRAM = """
import sys
import jax, numpy as np
from avit_jax import config as configs
from avit_jax.errors import UserError
from avit_jax.main import initialise_processes
from avit_jax.checkpoints.weights import initial_weights
from avit_jax.runtime.device_mesh import make_mesh
initialise_processes()
config = configs.from_json(open(sys.argv[1]).read())
model, mesh = configs.make_model(config), make_mesh(1, 2)
for path in sys.argv[2:]:
    config.init.weights = path.format(jax.process_index())
    try:
        params = initial_weights(configs.Settings.of(config).init, model, mesh).params
        whole = jax.jit(lambda x: x, out_shardings=jax.NamedSharding(mesh, jax.P()))(params)
        split = sum(not leaf.is_fully_replicated for leaf in jax.tree.leaves(params))
        print(split, *[np.asarray(leaf).sum(dtype=float) for leaf in jax.tree.leaves(whole)])
    except UserError as error:
        print(error)
"""


def test_several_processes_read_the_file_or_none_goes_on(file, tmp_path):
    (tmp_path / "config.json").write_text(configs.to_json(tiny()))
    missing = f"{tmp_path}/{{}}.pth"
    Path(missing.format(0)).write_bytes(Path(file).read_bytes())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "config.json"), missing, file]
    common = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2"}
    common |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "XLA_FLAGS": compiling.flags_for(1)}
    processes = [
        subprocess.Popen(
            command,
            env=common | {"JAX_PROCESS_ID": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    lines = [out.splitlines()[-2:] for out, _ in outputs]  # behind what the transport says
    assert lines[0][0] == "process 1 could not begin: read its message."
    assert lines[1][0].endswith("1.pth does not exist: give the path of a weight file.")
    sums = [leaf.sum(dtype=float) for leaf in jax.tree.leaves(THEIRS)]
    for _, line in lines:
        split, *found = map(float, line.split())
        assert split > 0
        assert found == pytest.approx(sums, abs=1e-9)
