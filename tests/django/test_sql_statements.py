"""What a statement does, by its words."""

import pytest
from psycopg import sql

from conventions.django.sql_statements import ending_word, writing_word

pytestmark = pytest.mark.everyday

WRITES = [
    "SELECT '--'; INSERT INTO a",
    'INSERT INTO "a"',
    """/* it's */ INSERT INTO a""",
    "INSERT INTO a VALUES (1)",
    "INSERT\ninto a",
    "\n UPDATE\n a SET b = 1",
    "UPDATE\ta",
    "/* c */ DELETE FROM a",
    "-- c\nINSERT INTO a",
    ";INSERT INTO a",
    "(INSERT INTO a)",
    "WITH x AS (INSERT INTO a RETURNING 1) SELECT 1",
    "EXPLAIN ANALYZE INSERT INTO a",
    "SELECT 1; INSERT INTO a",
    "DO $$ x $$",
    "CALL f()",
    "CREATE TABLE a AS SELECT 1",
    "TRUNCATE a",
    "MERGE INTO a",
    "BEGIN IMMEDIATE",
    b"insert into a",
    sql.SQL("INSERT INTO {}").format(sql.Identifier("a")),
]
READS = [
    'WITH x AS (SELECT "orders"."update" FROM "orders") SELECT 1',
    "SELECT '-- no comment', 1",
    """SELECT "a;INSERT" -- it's a comment""",
    "SELECT * FROM a WHERE b = 'INSERT; UPDATE a'",
    "SELECT * FROM a FOR UPDATE",
    "WITH x AS (SELECT 1 FROM a FOR UPDATE) SELECT 1",
    "  select 1",
    "EXPLAIN SELECT 1",
    "SET LOCAL lock_timeout = '1s'",
    "SAVEPOINT x",
    "ROLLBACK TO SAVEPOINT x",
    "RELEASE SAVEPOINT x",
    "BEGIN",
    "PRAGMA foreign_keys",
    "",
    "-- INSERT",
]


@pytest.mark.parametrize("statement", WRITES, ids=str)
def test_it_writes(statement: object) -> None:
    """Whatever is around its first word."""
    assert writing_word(statement)


@pytest.mark.parametrize("statement", READS)
def test_it_does_not(statement: str) -> None:
    """Words in literals and comments say nothing."""
    assert writing_word(statement) is None


@pytest.mark.parametrize(
    "statement",
    [
        "COMMIT",
        " commit ;",
        "END",
        "ROLLBACK",
        "/* c */ abort",
        "BEGIN",
        "START TRANSACTION",
        "SELECT 1; COMMIT",
        "PREPARE TRANSACTION 'x'",
    ],
)
def test_it_ends_a_transaction(statement: str) -> None:
    """Or begins one."""
    assert ending_word(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "ROLLBACK TO SAVEPOINT x",
        "ROLLBACK TO x",
        "ROLLBACK WORK TO x",
        "SAVEPOINT x",
        "RELEASE x",
        "SELECT 'COMMIT'",
        "PREPARE a AS SELECT 1",
    ],
)
def test_a_savepoint_does_not(statement: str) -> None:
    """Django's inner blocks are those."""
    assert ending_word(statement) is None
