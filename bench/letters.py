"""`python -m bench.letters --database URL`: how long people wait for answers about many dead letters, and what memory that takes.

The database must be empty of letters: it gets a million, of 40 causes, most of them of few, and keeps them. With
`--keep` those that are there are asked.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import text

from conventions.dead_letters import groups as letter_groups
from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters.filter import Filter
from conventions.storage.database import Database, utc_now

CAUSES = 40
ROUNDS = 5

FILL = """
INSERT INTO conventions_dead_letters (id, task, queue, error, error_message, traceback, fingerprint, attempts, actor,
  state, arguments, headers, message, generation, fence, first_failed_at, last_failed_at)
SELECT 'letter-' || n, 'tasks.Task' || cause % 12, 'queue' || cause % 4, 'Error' || cause % 9,
  'job ' || n || ' failed for cause ' || cause, repeat('File "tasks.py", line ' || cause || chr(10), 30),
  md5('cause' || cause), 1 + n % 5, 'u-' || n % 1000, CASE WHEN n % 50 = 0 THEN 'redriven' ELSE 'dead' END,
  json_build_object('user_id', n, 'day', '2026-11-25'), json_build_object('x_key', md5(CAST(n AS text))),
  '{{"body": "' || repeat('x', 200) || '"}}', 0, n, now() - n * interval '1 second', now() - n * interval '0.3 second'
FROM (SELECT n, CAST(floor({causes} * power((CAST(n AS bigint) * 7919 % 10007) / 10007.0, 2)) AS int) AS cause
      FROM generate_series(1, {letters}) AS n) AS numbered
"""


def questions(database: Database) -> dict[str, Callable[[], Any]]:
    """What people ask, by name."""

    def ask(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        def asked() -> Any:
            with database.session(read_only=True) as session:
                return function(session, *arguments)

        return asked

    group = ask(letter_groups.groups, Filter(), 1)()[0].fingerprint
    after = utc_now() - timedelta(days=1), ""

    def first_page(session: Any) -> None:
        """What the console asks for its first page."""
        dead_letters.count(session, Filter())
        dead_letters.listing(session, Filter(), 50)
        found = letter_groups.groups(session, Filter(), 20)
        letter_groups.sparklines(session, Filter(), [one.fingerprint for one in found], utc_now())

    return {
        "groups, the 20 largest": ask(letter_groups.groups, Filter(), 20),
        "first 50 letters": ask(dead_letters.listing, Filter(), 50),
        "50 letters of a later page": ask(dead_letters.listing, Filter(), 50, after),
        "count": ask(dead_letters.count, Filter()),
        "first page of the console, all of it": ask(first_page),
        "first 50 of a group": ask(dead_letters.listing, Filter(group=group), 50),
        "first 50 of a task": ask(dead_letters.listing, Filter(task="tasks.Task3"), 50),
        "first 50 of a queue": ask(dead_letters.listing, Filter(queue="queue1"), 50),
        "first 50 of an error": ask(dead_letters.listing, Filter(error="Error5"), 50),
        "first 50 with a text in 1 % of them": ask(dead_letters.listing, Filter(text="cause 39"), 50),
        "groups with a text that is nowhere": ask(letter_groups.groups, Filter(text="nowhere"), 20),
        "the one letter with an argument": ask(dead_letters.listing, Filter(arguments=(("user_id", "777777"),)), 50),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill the database, ask, and print a table."""
    parser = argparse.ArgumentParser(prog="bench.letters", description="Ask a database with many dead letters.")
    parser.add_argument("--database", required=True, help="postgresql://…, empty")
    parser.add_argument("--letters", type=int, default=1_000_000, help="how many")
    parser.add_argument("--keep", action="store_true", help="ask the letters that are there")
    options = parser.parse_args(arguments)
    database = Database(options.database)
    if not options.keep:
        database.upgrade()
        with database.engine.begin() as connection:
            connection.execute(text(FILL.format(causes=CAUSES, letters=options.letters)))
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE conventions_dead_letters"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.stdout.write("| question | ms |\n|---|---:|\n")
    for name, ask in questions(database).items():
        times = []
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            ask()
            times.append(time.perf_counter() - begun)
        sys.stdout.write(f"| {name} | {sorted(times)[ROUNDS // 2] * 1000:,.0f} |\n")
        sys.stdout.flush()
    begun = time.perf_counter()
    with database.session(read_only=True) as session:
        exported = sum(1 for _ in dead_letters.every(session, Filter()))
    sys.stdout.write(
        f"| export of all {exported:,}, per 1,000 | {(time.perf_counter() - begun) / exported * 1e6:,.0f} |\n"
    )
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    sys.stdout.write(f"\nMemory of this process grew by {grown:.0f} MiB over all of it.\n")
    database.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main())
