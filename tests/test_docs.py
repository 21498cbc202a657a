"""
What the documents say, held to the code: columns, verbs, links, configs, policies and the numbers in the README.
"""

import re
import shlex
from pathlib import Path

import click
import pyarrow as pa
import pytest
import yaml
from click.testing import CliRunner

from corpus_guard import policy as policies
from corpus_guard.classifiers.modelfile import load_model
from corpus_guard.cli import app
from corpus_guard.config import Config, load_config
from corpus_guard.findings import BATCH, DOCUMENTS, KEYWORD, classifier_schema
from corpus_guard.keywords.audit import audit
from corpus_guard.keywords.library import COLUMNS, load_library
from corpus_guard.policy import load_policy
from corpus_guard.report import model
from corpus_guard.shards import MANIFEST
from corpus_guard.shipped import names
from corpus_guard.sources.assess import SOURCES
from corpus_guard.sources.tally import TALLY
from corpus_guard.steps.apply import removed_schema
from corpus_guard.steps.draw import SAMPLE
from corpus_guard.steps.review import LABELS
from corpus_guard.taxonomy import CODES
from corpus_guard.verdicts import VERDICTS
from tests.test_doors import ROOMS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ROW_AND_STATE = [BATCH.field("row"), BATCH.field("state")]

SCHEMAS = {
    "Findings of the reading, `documents`": DOCUMENTS,
    "Findings of the keyword stage, `keywords`": pa.schema([*ROW_AND_STATE, *KEYWORD]),
    "Findings of a classifier": pa.schema([*ROW_AND_STATE, *classifier_schema(CODES)]),
    "`manifest.parquet`": MANIFEST,
    "`verdicts/`": VERDICTS,
    "`tallies/`": TALLY,
    "`sources.parquet`": SOURCES,
    "`samples/`": SAMPLE,
    "Added to removed rows": removed_schema(pa.schema([])),
    "`labels.parquet`": LABELS,
}


def section(page: Path, heading: str) -> str:
    """The text below *heading* up to the next one."""
    found = re.split(r"^\s*#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    texts = dict(zip(found[1::2], found[2::2], strict=True))
    assert heading in texts, f"{page.name} has no heading '{heading}'"
    return texts[heading]


def rows(text: str) -> list[list[str]]:
    """Cells of the first table in *text*, without its head."""
    lines = [line.strip() for line in text.splitlines()]
    start = next(i for i, line in enumerate(lines) if line.startswith("|---"))
    table = []
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


def ticked(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def columns(heading: str) -> list[tuple[str, str]]:
    """(column, type) as docs/formats.md has them; ``a … b`` stands for the columns of all 31 risks."""
    found = []
    for cells in rows(section(ROOT / "docs" / "formats.md", heading)):
        named, [kind] = ticked(cells[0]), ticked(cells[1])
        if "…" in cells[0]:
            named = [f"risk_{code.replace('.', '_')}" for code in CODES]
        found += [(name, kind) for name in named]
    return found


def written(schema: pa.Schema) -> list[tuple[str, str]]:
    return [
        (field.name, re.sub(r"\b(item|element): ", "", str(field.type)).replace(f"[{len(CODES)}]", "[labels]"))
        for field in schema
    ]


@pytest.mark.parametrize("heading", SCHEMAS)
def test_every_column_is_documented_and_no_other(heading: str) -> None:
    assert columns(heading) == written(SCHEMAS[heading])


def test_the_columns_of_a_keyword_entry_are_documented() -> None:
    text = section(ROOT / "docs" / "formats.md", "Keyword library")
    table = rows(text[text.index("Columns of an entry") :])

    assert [ticked(cells[0])[0] for cells in table] == list(COLUMNS)


def test_every_key_of_the_report_is_documented() -> None:
    table = rows(section(ROOT / "docs" / "formats.md", "Report"))

    assert sorted(key for cells in table for key in ticked(cells[0])) == model.schema()["required"]


# Links, verbs, configs


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)

    assert broken == []


def anchors(page: Path) -> set[str]:
    """Anchors of headings, made as hosting sites make them."""
    titles = re.findall(r"^\s*#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands() -> list[tuple[str, list[str]]]:
    """Every ``corpus-guard ...`` in code, inline or in a block, with the page it stands on."""
    found = []
    for page in [*PAGES, ROOT / "CHANGELOG.md"]:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"```.*?```", text, flags=re.DOTALL)
        code = [*blocks, *ticked(re.sub(r"```.*?```", "", text, flags=re.DOTALL))]
        for line in "\n".join(code).splitlines():
            for command in re.findall(r"(?:^|\$ |&& |`)\s*corpus-guard ([a-z-].*)", line):
                found.append((page.name, shlex.split(command, comments=True)))
    return found


def test_every_command_in_the_documents_exists() -> None:
    wrong = []
    for page, words in commands():
        verb: click.Command | None = app
        rest = list(words)
        while isinstance(verb, click.Group) and rest and not rest[0].startswith("-"):
            verb = verb.commands.get(rest.pop(0))
        options = [option for one in (verb.params if verb else []) for option in one.opts]
        unknown = [word for word in rest if word.startswith("--") and word not in (*options, "--help", "--version")]
        if verb is None or unknown:
            wrong.append(f"{page}: corpus-guard {' '.join(words)}")

    assert len(commands()) > 10
    assert wrong == []


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_example_configs_load(path: Path) -> None:
    load_config(path)


def test_the_configs_in_the_readme_load() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)

    for block in blocks:
        Config.of(yaml.safe_load(block))

    assert len(blocks) == 3


def test_the_rooms_stand_in_the_order_that_is_held() -> None:
    block = re.search(r"```\n(errors.*?)```", (ROOT / "docs" / "design.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    told = [word for line in block[1].splitlines() for word in re.split(r"\s{3,}", line)[0].split()]

    assert told == ROOMS


# Policies


def test_every_check_and_its_arguments_are_documented() -> None:
    table = rows(section(ROOT / "docs" / "policies.md", "Checks"))
    told = {ticked(cells[0])[0]: (ticked(cells[1]), ticked(cells[2])) for cells in table}
    verbs = {
        verb: (
            [name for name, argument in arguments.items() if argument.required],
            [name for name, argument in arguments.items() if not argument.required],
        )
        for verb, arguments in policies.VERBS.items()
    }

    assert {verb: (sorted(a), sorted(b)) for verb, (a, b) in told.items()} == {
        verb: (sorted(a), sorted(b)) for verb, (a, b) in verbs.items()
    }


def test_the_shipped_policies_are_documented() -> None:
    table = rows(section(ROOT / "docs" / "policies.md", "The six shipped"))

    assert sorted(ticked(cells[0])[0] for cells in table) == names("policies")


def test_the_policies_shown_in_the_documents_load(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)

    for block in blocks:
        path = tmp_path / "shown.yaml"
        path.write_text(block, encoding="utf-8")
        load_policy(path)

    assert len(blocks) == 2


def test_each_rule_stands_beside_its_clauses() -> None:
    editions = [load_policy(name) for name in ("tc260-003", "tc260-draft-2023-10", "gbt-draft-2024-05")]
    table = rows(section(ROOT / "docs" / "clauses.md", "Clause by clause"))
    told = {ticked(cells[0])[0]: cells[1:4] for cells in table}
    rules = {rule.id for edition in editions for rule in edition.rules}

    def cell(edition: policies.Policy, id: str) -> str:
        found = [rule for rule in edition.rules if rule.id == id]
        return f"{found[0].clause}, {found[0].level}" if found else ""

    assert told == {id: [cell(edition, id) for edition in editions] for id in rules}


def test_rules_of_every_shipped_policy_stand_in_the_clauses() -> None:
    text = (ROOT / "docs" / "clauses.md").read_text(encoding="utf-8")
    rules = {rule.id for name in names("policies") for rule in load_policy(name).rules}

    assert sorted(id for id in rules if f"| `{id}` |" not in text) == []


# Numbers


def test_the_readme_shows_what_the_demo_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = re.search(r"\$ corpus-guard demo /tmp/demo\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert shown is not None

    result = CliRunner().invoke(app, ["demo", str(tmp_path / "demo")])

    assert result.exit_code == 0
    assert result.stdout.replace(str(tmp_path), "/tmp") == shown[1]


def test_the_limits_in_the_readme_are_those_of_what_is_shipped() -> None:
    text = section(ROOT / "README.md", "Limits").replace("\n", " ")
    library = load_library("starter")
    facts = audit(library, max(change.date for change in library.changes))
    screen = load_model("ngram-screen")
    decides = sorted(risk for label in screen.labels if label.upper is not None for risk in label.risks)
    usable = [risk for risk, evidence in screen.evaluation.items() if evidence.status == "usable"]
    enough = [risk for risk, count in facts.per_risk.items() if count >= (200 if risk < "A.2" else 100)]

    assert f"{facts.total:,} terms in force" in text
    assert [risk for risk in enough if risk < "A.2"] == ["A.1.h"]
    assert len([risk for risk in enough if "A.2" < risk < "A.3"]) == 6
    assert [risk for risk, count in facts.per_risk.items() if not count] == ["A.5.a", "A.5.b"]
    assert f"decides {len(decides)} of {len(CODES)} risks ({', '.join(decides)})" in text
    assert usable == []
