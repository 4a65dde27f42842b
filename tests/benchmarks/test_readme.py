from benchmarks.harness import Row, result
from benchmarks.readme import _loader


def test_streamed_and_cached_rates_are_tables_of_their_own() -> None:
    streamed = [Row(name="ours", rates=(3000.0,)), Row(name="theirs", rates=(), failure="gone")]
    cached = [Row(name="cached, host", rates=(1_400_000.0,))]
    tables = {"224 px": streamed, "64 px": streamed, "64 px, cached": cached,
              "64 px, GPU": cached}  # fmt: skip
    found = result("loader", {"count": 5, "turns": 3}, tables, "samples/s")
    lines = _loader(found)
    assert lines[2:] == [
        "| | 224 px | 64 px |",
        "|---|---|---|",
        "| ours | 3,000 | 3,000 |",
        "| theirs | did not run | did not run |",
        "",
        "Later epochs, gathered from the cache of decoded samples:",
        "",
        "| | 64 px |",
        "|---|---|",
        "| cached, host | 1,400,000 |",
    ]
