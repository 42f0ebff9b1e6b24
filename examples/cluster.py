"""Train the networks of q2_width.py on a cluster: here a Dask scheduler and two local workers.

On several machines the scheduler and the workers are started there (docs/scaling.md), and
``q2_width.py --executor dask://HOST:PORT`` is all that remains. Flags go on to q2_width.py.
"""

import subprocess
import sys
from pathlib import Path

from minidl.checks import require
from minidl.view.cli import run_main


def main() -> int:
    examples = Path(__file__).parent
    cluster = require("distributed", "cluster").LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    )
    with cluster:
        address = cluster.scheduler_address.removeprefix("tcp://")
        print(f"a scheduler at {address}, {len(cluster.workers)} workers", flush=True)
        script = str(examples / "q2_width.py")
        command = [sys.executable, script, "--executor", f"dask://{address}", *sys.argv[1:]]
        return subprocess.run(command, check=False).returncode  # noqa: S603 - our own script


if __name__ == "__main__":
    run_main(main)
