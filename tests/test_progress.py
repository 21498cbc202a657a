"""How long steps tell that they live: lines whatever happens, JSON that parses, nothing that drives a terminal."""

import io
import json
import re
import time

import pytest

from corpus_guard.progress import Bars, Lines, Quiet, plain, teller


def lines_of(stream):
    return stream.getvalue().splitlines()


def test_a_step_speaks_while_no_unit_is_finished():
    stream = io.StringIO()

    with Lines(stream, every=0.05).step("scan", items=10, rows=4_000_000):
        time.sleep(0.4)

    said = lines_of(stream)
    assert len(said) > 2
    assert re.fullmatch(r"scan: 0 of 10 done, 0 documents, \d+ s so far", said[0])


def test_a_step_says_how_much_is_left_and_what_was_there_before():
    stream = io.StringIO()

    with Lines(stream, every=0.2).step("scan", items=1_000, rows=4_000_000, done=2_500) as meter:
        meter.advance(rows=12_345, items=3)
        time.sleep(0.3)

    said = lines_of(stream)
    assert re.fullmatch(
        r"scan: 3 of 1,000 done, 12,345 documents, [\d,]+/s \(2,500 were done before\), about .+ left, 0 s so far",
        said[0],
    )
    assert re.fullmatch(r"scan: 3 of 1,000 done, 12,345 documents, [\d,]+/s \(2,500 were done before\), 0 s", said[-1])


def test_a_quick_step_is_one_line():
    stream = io.StringIO()

    with Lines(stream).step("judge", items=1, rows=5) as meter:
        meter.advance(rows=5)

    assert len(lines_of(stream)) == 1


def test_a_step_that_fails_says_nothing_more_and_stops_talking():
    stream = io.StringIO()

    with pytest.raises(ZeroDivisionError), Lines(stream, every=0.02).step("scan", items=1, rows=1):
        raise ZeroDivisionError
    said = len(lines_of(stream))
    time.sleep(0.1)

    assert len(lines_of(stream)) == said


def test_json_lines_are_json_whatever_the_text_is():
    stream = io.StringIO()
    tell = Lines(stream, every=0.05, as_json=True)

    tell.line('quotes " and \x1b[31m and \u202e and\na break')
    with tell.step("scan\u202e", items=2, rows=10, done=1) as meter:
        meter.advance(rows=10, items=2)
        time.sleep(0.12)

    records = [json.loads(line) for line in lines_of(stream)]
    assert records[0]["message"] == 'quotes " and \x1b[31m and \u202e and\na break'
    assert records[-1].items() >= {"step": "scan\u202e", "items": 2, "of": 2, "rows": 10, "final": True}.items()
    assert all(not record["final"] for record in records[1:-1])
    assert stream.getvalue().replace("\n", "").isprintable()


def test_text_for_people_is_one_printable_line():
    stream = io.StringIO()

    Lines(stream).line("shard \x1b]0;title\x07 \u202eabc\u2066 \x9b31m\nforged: line\r")

    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().rstrip("\n").isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain 文字 é", "plain 文字 é"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\u202e", "\\u202e"),
        ("a\nb\tc", "a\\x0ab\\x09c"),
        ("\U000e0001", "\\U000e0001"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_could_drive_a_terminal_is_spelled_out(text, shown):
    assert plain(text) == shown


def test_bars_are_for_terminals_that_can_show_them(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)

    monkeypatch.setenv("TERM", "xterm-256color")
    assert isinstance(teller(), Bars)
    assert isinstance(teller(as_json=True), Lines)
    assert isinstance(teller(quiet=True), Quiet)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(teller(), Lines)
    terminal.isatty = lambda: False
    monkeypatch.setenv("TERM", "xterm-256color")
    assert isinstance(teller(), Lines)


def test_a_bar_shows_counts_rate_and_time_and_never_a_name_that_drives_the_terminal(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    bars = Bars()

    bars.line("[bold]not markup[/bold] \u202e \x1b[2J")
    with bars.step("scan\x1b[2J", items=10, rows=50_000, done=2) as meter:
        meter.advance(rows=12_345, items=10)

    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert "[bold]not markup[/bold] \\u202e \\x1b[2J" in shown
    assert re.search(r"scan\\x1b\[2J.* 12 of 12 .* 12,345 documents [\d,]+/s", shown)
    assert "\x1b[2J" not in terminal.getvalue()
