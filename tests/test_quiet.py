"""The line that shows the seconds of an import."""

import io
import time

from deel_dualview.quiet import seconds_shown


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_text_and_the_time_are_shown_before_the_block_runs():
    stream = Terminal()
    with seconds_shown("Loading", stream):
        assert "Loading: 00:00" in stream.getvalue()


def test_the_line_is_written_again_while_the_block_runs():
    stream = Terminal()
    with seconds_shown("Loading", stream):
        while stream.getvalue().count("Loading") < 3:
            time.sleep(0.05)


def test_the_line_is_taken_away_in_the_end():
    stream = Terminal()
    with seconds_shown("Loading", stream):
        pass
    assert stream.getvalue().endswith("\r") and not stream.getvalue().split("\r")[-2].strip()


def test_nothing_is_shown_where_the_stream_is_no_terminal():
    stream = io.StringIO()
    with seconds_shown("Loading", stream):
        pass
    assert not stream.getvalue()
