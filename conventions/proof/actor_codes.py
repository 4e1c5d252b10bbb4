"""A code stands for an actor in what the chain covers, so that nobody can find out by trying whose row it was, once the name is erased.

The code is HMAC-SHA256 (RFC 2104) of the name under a random salt of this actor. Erasing deletes the salt. Without it the code of a row says nothing of
the name, also to who has the key of the audit.
"""

import hmac
import re
from collections.abc import Iterable, Sequence
from secrets import token_hex

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from conventions.core.chunking import batched
from conventions.core.errors import ConfigurationError
from conventions.proof.unreadable_rows import is_unreadable
from conventions.storage.database import insert_into
from conventions.storage.tables import ActorSaltRow

SALT = 16  # bytes
SALT_FORM = re.compile(f"[0-9a-f]{{{2 * SALT}}}")
AT_ONCE = 500
ERASED = "erased-"


def new_pseudonym() -> str:
    """What stands in rows in place of an actor who is erased. It says nothing of the name."""
    return f"{ERASED}{token_hex(8)}"


def codes_of(session: Session, actors: Iterable[str], *, create: bool = True) -> dict[str, str]:
    """The code of each actor. One without a salt gets it; without `create` it has no code here."""
    found: dict[str, str] = {}
    for some in batched(sorted(set(actors)), AT_ONCE):
        salts = _salts(session, some)
        if create and (missing := [actor for actor in some if actor not in salts]):
            insert = insert_into(session, ActorSaltRow).on_conflict_do_nothing(index_elements=["actor"])
            session.execute(insert, [{"actor": actor, "salt": token_hex(SALT)} for actor in missing])
            salts |= _salts(session, missing)  # another process may have been first
        found |= {actor: _code(actor, salt) for actor, salt in salts.items()}
    return found


def forget(session: Session, actor: str) -> None:
    """Delete the salt of an actor."""
    session.execute(delete(ActorSaltRow).where(ActorSaltRow.actor == actor))


def _salts(session: Session, actors: Sequence[str]) -> dict[str, str]:
    row = ActorSaltRow
    query = select(row.actor, row.salt).where(row.actor.in_(actors))
    try:
        return {actor: salt for actor, salt in session.execute(query)}  # noqa: C416  # typed
    except Exception as error:
        if not is_unreadable(error):
            raise
        raise _damaged() from error


def _code(actor: str, salt: str) -> str:
    if not isinstance(salt, str) or not SALT_FORM.fullmatch(salt):  # SQLite takes any type
        raise _damaged()
    return hmac.new(bytes.fromhex(salt), actor.encode(), "sha256").hexdigest()


def _damaged() -> ConfigurationError:
    return ConfigurationError(
        [f"the salt of an actor is damaged: somebody has changed the table {ActorSaltRow.__tablename__}"]
    )
