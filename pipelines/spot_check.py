"""
Spot-check a finished corpus: draw, scan only what was drawn, report.

    ray job submit --working-dir . -- python pipelines/spot_check.py configs/spot-check.yaml

The same config resumes a run that was cut off. Exit codes are those of ``corpus-guard spot-check``.
"""

import argparse
import os
import sys

from corpus_guard.config import load_config
from corpus_guard.progress import teller
from corpus_guard.steps import spot_check
from corpus_guard.steps.setup import Setup, open_run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument(
        "--gate", action="store_true", help="exit 3 if a provision does not conform, 4 if evidence is missing"
    )
    parser.add_argument("--log-json", action="store_true", help="progress as JSON lines")
    args = parser.parse_args()

    setup = Setup.of(load_config(args.config, env=os.environ), job="spot-check")
    with open_run(setup, tell=teller(as_json=args.log_json)) as run:
        result = spot_check(run)
    print("\n".join(result.lines))
    return result.exit_code(args.gate)


if __name__ == "__main__":
    sys.exit(main())
