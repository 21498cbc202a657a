"""
Policies: which there are, what one demands, and who compared it with the text.
"""

from datetime import datetime
from pathlib import Path

import click

from corpus_guard.cli.frame import DAY, Verbs, by_option, day_of, json_option, show


@click.group(cls=Verbs)
def policy() -> None:
    """Look at policies; confirm one against the text."""


@policy.command("list")
@json_option
def policy_list(as_json: bool) -> None:
    """
    The shipped policies.

    \b
    corpus-guard policy list
    """
    from corpus_guard.policy import load_policy
    from corpus_guard.shipped import names

    titles = {name: load_policy(name).title for name in names("policies")}
    show({"policies": titles}, as_json, [f"{name:24} {title}" for name, title in titles.items()])


@policy.command("show")
@click.argument("policy")
@json_option
def policy_show(policy: str, as_json: bool) -> None:
    """
    Every rule of a policy, with clause and level.

    After everything it extends is resolved.

    \b
    corpus-guard policy show tc260-003
    corpus-guard policy show configs/house.yaml --json
    """
    from corpus_guard.policy import load_policy

    loaded = load_policy(policy)
    lines = [loaded.title, f"digest {loaded.digest}", *loaded.notices]
    wide = max(len(rule.id) for rule in loaded.rules)
    clauses = max(len(loaded.clause(rule)) for rule in loaded.rules)
    for rule in loaded.rules:
        confirmed = loaded.confirmed.get(rule.id)
        seen = f"  confirmed by {confirmed.by} on {confirmed.on}" if confirmed else ""
        lines.append(f"  {rule.id:{wide}}  {loaded.clause(rule):{clauses}}  {rule.level:9}  {rule.check}{seen}")
    show(loaded.resolved, as_json, lines)


@policy.command("verify")
@click.argument("policy")
@click.argument("rule")
@by_option
@click.option("--on", type=DAY, default=None, metavar="DAY", help="The day it was compared (today).")
@click.option("--clause", required=True, help="The clause as the text has it.")
@click.option(
    "--record",
    type=click.Path(path_type=Path),
    default=None,
    help="The file confirmations are kept in (<policy>-confirmed.yaml).",
)
@json_option
def policy_verify(
    policy: str, rule: str, by: str, on: datetime | None, clause: str, record: Path | None, as_json: bool
) -> None:
    """
    Record who compared a rule with the text.

    A named person compared RULE of POLICY with the text of the standard.

    The record is a policy file of its own that extends POLICY; name it in the config instead of POLICY.

    \b
    corpus-guard policy verify gbt-45654-2025 src.post --by 'Li Na' --clause '5.1 a) 2)'
    corpus-guard run configs/site.yaml --set policy=gbt-45654-2025-confirmed.yaml
    """
    from corpus_guard.policy import confirm, load_policy

    loaded = load_policy(policy)
    path = record or Path(f"{loaded.id}-confirmed.yaml")
    confirmed = confirm(path, loaded, rule, by=by, on=day_of(on), clause=clause)
    counts = {"confirmed": len(confirmed.confirmed), "rules": len(confirmed.rules)}
    told = f"{path}: {counts['confirmed']:,} of {counts['rules']:,} rules confirmed"
    show({"record": str(path), "policy": confirmed.id, **counts}, as_json, [told])
