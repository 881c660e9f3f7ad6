from __future__ import annotations

from benchmarks.measuring import Comparison, alternate, table


def test_sides_take_turns_in_going_first():
    calls = []

    def side(name, values):
        def measure():
            calls.append(name)
            return next(values)

        return measure

    ours, peer = side("ours", iter([0.0, 6.0, 8.0])), side("peer", iter([0.0, 2.0, 4.0]))
    found = alternate("speed", "1/s", ours, peer, repeats=2)
    assert calls == ["ours", "peer", "ours", "peer", "peer", "ours"]
    assert (found.ours, found.peer) == ((6.0, 8.0), (2.0, 4.0))
    assert found.ratios == [3.0, 2.0]


def test_table_shows_medians_and_the_spread_of_the_ratios():
    comparison = Comparison("speed", "1/s", ours=(10.0, 30.0, 20.0), peer=(5.0, 6.0, 4.0))
    assert table([comparison], "here", "there").splitlines()[-1] == (
        "| speed | 20 1/s | 5 1/s | **5.00** | 2.00 to 5.00 |"
    )
