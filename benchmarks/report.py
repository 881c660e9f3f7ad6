"""How long the report of a large study takes, and how much memory: 6 models x 8 seeds x 4 data sets x 75,000 users.

    python -m benchmarks.report [--users 75000] [--seeds 8] [--folder DIR] [--profile]

Writes invented rows (kept in ``--folder`` for the next time), then times ``write_report`` in a process of its own
and reads that process' peak memory. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.synthetic_run import write_run

MODELS = ("fair", "tiger", "sasrec", "gru4rec", "bert4rec", "interleaved")
DATASETS = ("beauty", "sports", "toys", "cds")
LIMITS = {"seconds": 60.0, "gibibytes": 4.0}

_MEASURED = """
import json, resource, sys, time
began = time.perf_counter()
from harness.analysis.report import write_report
imported = time.perf_counter()
files = write_report(sys.argv[1])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"seconds": time.perf_counter() - began, "import_seconds": imported - began,
                  "gibibytes": peak, "files": len(files.paths)}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=75_000)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--folder", type=Path, help="where the run is kept; a temporary folder by default")
    parser.add_argument("--profile", action="store_true", help="print the functions that take longest")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch) / "run"
        if not (folder / "summary.json").exists():
            began = time.perf_counter()
            variants = {name: {"model": name} for name in MODELS}
            write_run(
                folder, variants=variants, datasets=DATASETS, seeds=options.seeds, users=options.users, items=20_000
            )
            print(f"wrote the rows in {time.perf_counter() - began:.0f} s", file=sys.stderr)
        if options.profile:
            return _profile(folder)
        done = subprocess.run(
            [sys.executable, "-c", _MEASURED, str(folder)], check=True, capture_output=True, text=True, env=os.environ
        )
    found = json.loads(done.stdout)
    within = all(found[key] <= limit for key, limit in LIMITS.items())
    print(json.dumps({"users": options.users, "seeds": options.seeds, **found, "limits": LIMITS, "within": within}))
    return 0 if within else 1


def _profile(folder: Path) -> int:
    import cProfile
    import pstats

    from harness.analysis.report import write_report

    profile = cProfile.Profile()
    profile.runcall(write_report, folder)
    pstats.Stats(profile).sort_stats("cumulative").print_stats(45)
    return 0


if __name__ == "__main__":
    sys.exit(main())
