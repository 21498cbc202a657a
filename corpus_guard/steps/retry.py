"""
``retry``: make ready to try again what failed, and only that.
"""

from corpus_guard.steps.files import read_json
from corpus_guard.steps.plan import plan
from corpus_guard.steps.scan import keys
from corpus_guard.steps.setup import Run


def forget_failures(run: Run) -> int:
    """
    Make ready to try again what failed: records in ``failed/`` go, and findings of units with damaged row groups.

    Shards concerned are judged and written again; all others stay as they are.
    """
    found = plan(run)
    root = run.folder.run / "failed"
    records = [(root / name, read_json(root / name)) for name in root.names(".json")]
    units = {(unit.shard_name, unit.name): unit for unit in found.units}
    wanted = keys(run.setup.recipes, run.setup.reading)
    again: set[str] = set()
    if records:  # without its report a run is not finished: one stopped in the middle of this goes on
        (run.folder.reports / "report.json").delete()
    for place, record in records:
        place.delete()
        unit = units.get((record["shard_name"], record.get("unit", "")))
        if unit is not None:
            again.add(unit.shard_name)
            if "group" in record:  # damaged: its findings say so, and are made again
                for key in wanted.values():
                    run.store.delete(key, unit)
    for shard in again:
        run.folder.tally(shard).delete()
        run.folder.shard_accounting(shard).delete()
    return len(records)
