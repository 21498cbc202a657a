"""
Filter a corpus on a Ray cluster: plan, scan, judge, assess, apply, draw, check, report.

    ray job submit --working-dir . -- python pipelines/filter_corpus.py configs/filter-ray.yaml

The same config resumes a run that was cut off. Exit codes are those of ``corpus-guard run``.
"""

import argparse
import os
import sys

from corpus_guard.config import load_config
from corpus_guard.progress import teller
from corpus_guard.steps import filter_corpus
from corpus_guard.steps.setup import Setup, open_run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument(
        "--gate", action="store_true", help="exit 3 if a provision does not conform, 4 if evidence is missing"
    )
    parser.add_argument("--log-json", action="store_true", help="progress as JSON lines")
    args = parser.parse_args()

    setup = Setup.of(load_config(args.config, env=os.environ))
    with open_run(setup, tell=teller(as_json=args.log_json)) as run:
        result = filter_corpus(run)
    print("\n".join(result.lines))
    return result.exit_code(args.gate)


if __name__ == "__main__":
    sys.exit(main())
